//! The Worker: it finds the node in the table, and its binding `RUNNERS` says who it is to nodes.

use std::path::PathBuf;

use serde_json::json;
use system_tests::clients::{Client, Clients, Job};
use system_tests::config::Config;
use system_tests::fixture::standard_config;
use system_tests::table::Table;
use system_tests::worker::{Options, Runners, Worker};

use crate::fleet::Fleet;

const ECHO: &str = r#"
    [[provider]]
    name = "Echo"
    type = "spawn-cli"
    cli = "cli-echo"
    model_parameter = ""
    models = [{ id = "cli-echo" }]
"#;

/// A Worker on the table that knows `authority`, and that nodes are to know by the certificate `identity`.
async fn worker(table: &Table, fleet: &Fleet, authority: &str, identity: &str) -> Worker {
    let path = |name: &str| PathBuf::from(fleet.path(name));
    let runners = Runners {
        address: fleet.address.clone(),
        host: "localhost".to_owned(),
        ca: path(authority),
        certificate: path(&format!("{identity}.pem")),
        key: path(&format!("{identity}.key")),
    };
    let mut options = Options { runners: Some(runners), ..Options::default() };
    options.variables.insert("DYAD_RUNNER_HOSTS", "localhost".to_owned());
    Worker::start(&table.variables(), &table.api_key, &Config::new([]), options).await
}

#[tokio::test]
async fn a_worker_reaches_the_node_that_the_table_has_by_its_certificate_alone() {
    // A provider that is not asked for.
    let table = Table::start(&standard_config("http://127.0.0.1:9/v1")).await;
    let fleet = Fleet::start_in(&table).await;
    let providers = fleet.path("providers.toml");
    std::fs::write(&providers, ECHO).unwrap();
    table.run(&["providers", "apply", &providers]).await;
    let clients = Clients::default();
    let body = json!({"model": "cli-echo", "messages": [{"role": "user", "content": "over the wall"}]});

    let known = worker(&table, &fleet, "ca/ca.pem", "edge").await;
    for job in [Job::chat_stream(&known.gateway, body.clone()), Job::chat(&known.gateway, body.clone())] {
        let answer = clients.run(Client::Python3, &job).await;
        assert_eq!(answer.ok().text, "over the wall");
    }

    fleet.other_authority();
    fleet.issue("stranger", &["--client", "--san", "stranger.test"]);
    for (what, authority, identity) in [
        ("the node's certificate is of another authority", "other/ca.pem", "edge"),
        ("the gateway's certificate is of another authority", "ca/ca.pem", "other/edge"),
        ("the gateway's name is not on the node's list", "ca/ca.pem", "stranger"),
    ] {
        let worker = worker(&table, &fleet, authority, identity).await;
        let refused = clients.run(Client::Python3, &Job::chat(&worker.gateway, body.clone())).await;
        assert_eq!(refused.error().code, "upstream_unavailable", "{what}: {refused:?}");
    }

    // No binding at all.
    let bare = Worker::start(&table.variables(), &table.api_key, &Config::new([]), Options::default()).await;
    let refused = clients.run(Client::Python3, &Job::chat(&bare.gateway, body)).await;
    assert_eq!(refused.error().code, "upstream_unavailable", "{refused:?}");
    let message = refused.error().message.as_deref().unwrap();
    assert!(message.contains("certificate"), "{message}");
    fleet.stop().await;
}
