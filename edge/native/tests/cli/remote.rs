//! Commands that ask a gateway at a URL, with an administrator's token, instead of working on a store.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};

use serde_json::json;

use super::support::{Place, SOON, eventually};

#[test]
fn a_gateway_is_governed_from_elsewhere() {
    let place = Place::new();
    let gateway = place.up(&[]);
    let far = place.administrator_of(&gateway, "admin");
    let json = |arguments: &[&str]| far.run(&[arguments, &["--json"]].concat()).expect(0).json();

    let made = &json(&["keys", "create", "--label", "from afar", "--owner", "me", "--models", "a"])[0];
    let (id, key) = (made["id"].as_str().unwrap(), made["api_key"].as_str().unwrap());
    assert_eq!(gateway.get("/v1/models", key), 200);
    assert_eq!(json(&["keys", "show", id])[0]["models"], json!(["a"]));
    let changed = &json(&["keys", "update", id, "--all-models", "--tokens-per-day", "5"])[0];
    assert_eq!((&changed["models"], &changed["tokens_per_day"]), (&json!(null), &json!(5)));
    assert_eq!(json(&["keys", "list", "--owner", "me"]).len(), 1);
    assert!(json(&["keys", "list", "--state", "revoked"]).is_empty());

    let add = ["providers", "add", "--name", "One", "--type", "local", "--base-url", "http://127.0.0.1:9/v1"];
    assert_eq!(json(&[&add[..], &["--model", "m"]].concat())[0]["slug"], "one");
    assert_eq!(json(&["providers", "list"])[0]["models"], json!(["m"]));
    let file = far.write("a.toml", &super::support::provider("one", "http://127.0.0.1:8/v1", ""));
    assert_eq!(json(&["providers", "apply", &file])[0]["action"], "changed");
    assert_eq!(json(&["providers", "remove", "one"])[0]["action"], "removed");

    json(&["keys", "revoke", id]);
    eventually("the key is refused", || (gateway.get("/v1/models", key) == 401).then_some(()));
    assert!(!far.data_dir().exists(), "nothing is made where only a URL is meant");
}

#[test]
fn what_is_wrong_with_url_or_token_is_said() {
    let place = Place::new();
    let gateway = place.up(&[]);
    let mut far = place.administrator_of(&gateway, "admin");
    let viewer = place.administrator_of(&gateway, "viewer");
    viewer.run(&["keys", "list"]).expect(0);
    let refused = viewer.run(&["keys", "create"]).expect(1);
    assert!(refused.stderr.contains("admin"), "{refused:#?}");

    for (arguments, code, words) in [
        (&["--url", "http://127.0.0.1:1"][..], 1, "http://127.0.0.1:1 cannot be reached"),
        (&["--url", "http://gateway.example.com"], 2, "--url: must use https"),
        (&["--url", "gateway.example.com"], 2, "--url: "),
        (&["--url", "http://127.0.0.1:1", "--table", "t"], 2, "--url and --table name two places"),
        (&["--ca", "/no/such/file"], 2, "/no/such/file"),
    ] {
        let ran = far.run(&[&["keys", "list"], arguments].concat()).expect(code);
        assert!(ran.stderr.contains(words), "{arguments:?}: {ran:#?}");
    }
    far.set("DYAD_ADMIN_TOKEN", "hunter2.hunter2.hunter2");
    let refused = far.run(&["keys", "list"]).expect(1);
    assert!(
        refused.stderr.contains("DYAD_ADMIN_TOKEN") && !refused.stderr.contains("hunter2"),
        "{refused:#?}"
    );
    far.set("DYAD_ADMIN_TOKEN", "hunter2\u{7}");
    let refused = far.run(&["keys", "list"]).expect(2);
    assert!(
        refused.stderr.contains("DYAD_ADMIN_TOKEN") && !refused.stderr.contains("hunter2"),
        "{refused:#?}"
    );
    far.unset("DYAD_ADMIN_TOKEN");
    let refused = far.run(&["keys", "list"]).expect(2);
    assert!(refused.stderr.contains("DYAD_ADMIN_TOKEN is not set"), "{refused:#?}");
    far.unset("DYAD_ADMIN_URL");
    let refused = far.run(&["keys", "list", "--ca", "/no/such/file"]).expect(2);
    assert!(refused.stderr.contains("--url"), "{refused:#?}");
}

#[test]
fn a_store_that_is_named_counts_before_the_url_of_the_environment() {
    let mut place = Place::new();
    place.set("DYAD_ADMIN_URL", "http://127.0.0.1:1");
    place.run(&["keys", "create"]).expect(2);
    let elsewhere = place.path("elsewhere").to_str().unwrap().to_owned();
    place.run(&["keys", "create", "--data-dir", &elsewhere]).expect(0);
    assert!(!place.data_dir().exists());

    let mut table = Place::on_table();
    table.set("DYAD_ADMIN_URL", "http://127.0.0.1:1");
    table.run(&["keys", "create", "--table", super::support::TABLE]).expect(0);
}

#[test]
fn a_token_goes_over_tls_to_whom_the_authority_vouches_for() {
    let place = Place::new();
    place.run(&["ca", "init"]).expect(0);
    let issued =
        place.run(&["ca", "issue", "gateway", "--server", "--san", "127.0.0.1", "--json"]).expect(0).json();
    let path = |name: &str| issued[0][name].as_str().unwrap().to_owned();
    let gateway = place.up(&["--tls-cert", &path("certificate"), "--tls-key", &path("key")]);
    let mut far = place.administrator_of(&gateway, "admin");
    far.run(&["keys", "list", "--ca", &path("authority")]).expect(0);
    let stranger = far.run(&["keys", "list"]).expect(1);
    assert!(stranger.stderr.contains("certificate"), "{stranger:#?}");
    far.set("SSL_CERT_FILE", &path("authority"));
    far.run(&["keys", "list"]).expect(0);
}

/// A server that gives this answer to whoever asks.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // The thread ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.set_read_timeout(Some(SOON));
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn what_is_no_administration_api_is_told_from_one() {
    let mut place = Place::new();
    place.set("DYAD_ADMIN_TOKEN", "a.b.c");
    for (answer, words) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno", "check the URL"),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "302",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno", "something else than JSON"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}", "something else than a list"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]", "something else than a list"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{}", "breaks off"),
        ("SSH-2.0-server\r\n", "cannot be reached"),
    ] {
        let ran = place.run(&["keys", "list", "--url", &answering(answer)]).expect(1);
        assert!(ran.stderr.contains(words) && ran.stderr.lines().count() == 1, "{answer}: {ran:#?}");
    }
}
