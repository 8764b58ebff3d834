//! A fleet as its operators set it up: `dyad-gateway ca`, `dyad-runner serve` and a gateway that knows it by its
//! configuration, each a process of its own; and openssl as the client that must stay out.

#![expect(clippy::unwrap_used, reason = "all of it is test code, which clippy sees only in test functions")]

mod fleet;
mod spin;
mod worker;

use std::process::Command;

use serde_json::json;
use system_tests::clients::{Client, Clients, Job};

use fleet::Fleet;

#[tokio::test]
async fn a_gateway_reaches_its_node_by_certificates_alone() {
    let fleet = Fleet::start().await;
    let gateway = fleet.gateway("edge").await;
    let clients = Clients::default();
    let body = json!({"model": "cli-echo", "messages": [{"role": "user", "content": "over the wall"}]});
    let job = Job::chat_stream(&gateway, body);
    let answer = clients.run(Client::Python3, &job).await;
    assert_eq!(answer.ok().text, "over the wall");

    // Revoked while both run: the node reads its list again, and ends what is open.
    fleet.ca(&["revoke", "edge"]);
    fleet.logged("revoked").await;
    let refused = clients.run(Client::Python3, &job).await;
    assert_eq!(refused.error().code, "upstream_unavailable", "{refused:?}");

    // A new certificate under the same name, without a restart of anything.
    fleet.issue("edge", &["--client", "--san", "edge.test", "--replace"]);
    fleet
        .eventually("the new certificate is taken into use", || async {
            clients.run(Client::Python3, &job).await.error.is_none()
        })
        .await;
    gateway.stop().await;
    fleet.stop().await;
}

#[tokio::test]
async fn whoever_else_comes_gets_a_failed_handshake_and_a_log_line() {
    let fleet = Fleet::start().await;
    fleet.issue("stranger", &["--client", "--san", "stranger.test"]);
    fleet.issue("node-as-client", &["--server", "--san", "edge.test"]);
    fleet.issue("gone", &["--client", "--san", "edge.test"]);
    fleet.ca(&["revoke", "gone"]);
    fleet.logged("the TLS files have changed").await;
    fleet.other_authority();
    let with = |name: &str| {
        let file = |suffix: &str| fleet.path(&format!("{name}.{suffix}"));
        vec!["-cert".to_owned(), file("pem"), "-key".to_owned(), file("key")]
    };
    let good = with("edge");
    let and =
        |more: &[&str]| good.iter().cloned().chain(more.iter().map(|&m| m.to_owned())).collect::<Vec<_>>();

    let welcome = fleet.openssl(&good);
    assert!(welcome.contains("HTTP/1.1 200"), "the control: {welcome}");

    for (who, arguments) in [
        ("no certificate", vec![]),
        ("a certificate of another authority", with("other/edge")),
        ("a name that is not on the list", with("stranger")),
        ("a server's certificate", with("node-as-client")),
        ("a revoked certificate", with("gone")),
        ("TLS 1.2", and(&["-tls1_2"])),
        ("TLS 1.1", and(&["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"])),
    ] {
        let before = fleet.log().lines().count();
        let heard = fleet.openssl(&arguments);
        assert!(!heard.contains("HTTP/"), "{who} is answered: {heard}");
        fleet
            .eventually(&format!("{who} is logged"), || async {
                fleet.log().lines().skip(before).any(|line| line.contains("a client was not let in"))
            })
            .await;
    }
    // TLS 1.3 has no renegotiation: a client that asks for one is cut off, and the node serves on.
    let heard = fleet.openssl_typing(&good, "R\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!heard.contains("HTTP/1.1 200"), "{heard}");
    assert!(fleet.openssl(&good).contains("HTTP/1.1 200"));
    // And nothing but TLS is spoken.
    let plain = Command::new("curl")
        .args(["--silent", "--max-time", "5"])
        .arg(format!("http://{}/healthz", fleet.address))
        .output()
        .unwrap();
    assert!(!plain.status.success() && plain.stdout.is_empty(), "no plain HTTP: {plain:?}");
    fleet.stop().await;
}
