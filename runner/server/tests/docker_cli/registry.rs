//! A node that announces itself in a table.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::time::Duration;

use runner_api::{NodeRecord, Registry as _};
use store::sdk::{Credentials, SharedCredentialsProvider};
use store::{DynamoStore, Emulator, StoreAccess};
use tokio::net::TcpListener;
use tokio::task::block_in_place;

use super::support::{Place, SLEEPER, SOON};

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];

/// A table, and what stands in `runner.toml` of it.
async fn table() -> (DynamoStore, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(Emulator::in_memory().unwrap().serve(listener, std::future::pending()));
    let access = StoreAccess {
        table: "fleet".to_owned(),
        region: "local".to_owned(),
        endpoint_url: Some(endpoint.clone()),
    };
    let credentials = SharedCredentialsProvider::new(Credentials::from_keys(KEYS[0].1, KEYS[1].1, None));
    let store = DynamoStore::connect_with(&access, credentials);
    store.create_table().await.unwrap();
    let registry =
        format!("registry = {{ table = \"fleet\", region = \"local\", endpoint = \"{endpoint}\" }}");
    (store, registry)
}

fn place(registry: &str) -> Place {
    // Not a container: there is nothing to be run.
    let engine = "engine = { socket = \"no-such.sock\", allow_process = true }";
    Place::new(&format!("{engine}\n{registry}"), SLEEPER)
}

/// Waits until the node's record is as it should be.
async fn until(store: &DynamoStore, what: &str, is_right: impl Fn(&[NodeRecord]) -> bool) {
    let asking = async {
        while !is_right(&store.nodes().await.unwrap().nodes) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, asking).await.is_ok(), "in vain: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_in_the_table_as_long_as_it_runs() {
    let (store, registry) = table().await;
    let mut place = place(&registry);
    for (variable, value) in KEYS {
        place.set(variable, value);
    }
    let runner = block_in_place(|| place.serve());
    let id = place.node_id.clone();
    until(&store, "the node is announced", |nodes| {
        nodes.iter().any(|node| node.id == id && node.url == "https://localhost:7443" && node.clis.len() == 1)
    })
    .await;
    block_in_place(|| runner.stop());
    assert!(store.nodes().await.unwrap().nodes.is_empty(), "it has withdrawn");

    // One that is killed withdraws nothing, and its record ends by itself.
    let runner = block_in_place(|| place.serve());
    until(&store, "the node is announced again", |nodes| nodes.len() == 1).await;
    block_in_place(|| drop(runner));
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    until(&store, "the record ends", |nodes| {
        nodes.iter().all(|node| u128::from(node.expires_unix_ms) < now())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_away_keeps_no_node_from_serving() {
    let mut place =
        place("registry = { table = \"fleet\", region = \"local\", endpoint = \"http://127.0.0.1:1\" }");
    for (variable, value) in KEYS {
        place.set(variable, value);
    }
    block_in_place(|| {
        let mut runner = place.serve();
        runner.logged("this node could not be announced");
        assert!(!runner.stop().contains("hunter2"));
    });
}

#[test]
fn what_is_wrong_is_said_before_the_node_starts() {
    let wrong = "registry = { table = \"x\", region = \"\", endpoint = \"127.0.0.1\", colour = 1 }";
    let ran = place(wrong).run(&["serve"]).expect(2);
    for words in ["registry.region", "registry.colour"] {
        assert!(ran.stderr.contains(words), "{words}: {ran:#?}");
    }
    let ran = place("registry = { table = \"x\", region = \"local\" }").run(&["serve"]).expect(2);
    assert!(ran.stderr.contains("registry.table: must be a table's name"), "{ran:#?}");
    let mut place = place("registry = { table = \"fleet\", region = \"local\" }");
    place.set("AWS_EC2_METADATA_DISABLED", "true");
    place.set("HOME", "/no/such");
    let ran = place.run(&["serve"]).expect(1);
    assert!(ran.stderr.contains("there are no AWS credentials for the table fleet"), "{ran:#?}");
}
