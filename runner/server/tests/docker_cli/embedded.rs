//! A runner inside another program.

use std::sync::Arc;

use dyad_runner::config::model::RunnerConfig;
use dyad_runner::{Runner, StartError};
use http_body_util::BodyExt as _;
use runner_api::Registry as _;
use runner_api::node::MemoryRegistry;

use super::support::{ECHO, Place, SOON, start_run};

#[tokio::test(flavor = "multi_thread")]
async fn it_announces_itself_serves_drains_and_leaves_nothing() {
    let place = Place::new("", ECHO);
    let config = RunnerConfig::read(&place.path("runner.toml")).unwrap();
    let registry = Arc::new(MemoryRegistry::default());
    let runner = Runner::start(config, registry.clone()).await.unwrap();
    let announced = async |draining: bool| loop {
        let nodes = registry.nodes().await.unwrap().nodes;
        if nodes.first().is_some_and(|node| node.capacity.draining == draining) {
            return nodes;
        }
        tokio::task::yield_now().await;
    };
    let nodes = tokio::time::timeout(SOON, announced(false)).await.unwrap();
    assert_eq!((nodes[0].id.as_str(), nodes[0].url.as_str()), (&*place.node_id, "https://localhost:7443"));
    assert_eq!(nodes[0].clis[0].name, "cli-echo");
    let mut client = place.client(runner.addr()).await;
    let response = start_run(&mut client, "r1", "cli-echo", "Hello").await;
    let body = tokio::time::timeout(SOON, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("finished"), "{body:?}");
    runner.drain();
    tokio::time::timeout(SOON, announced(true)).await.expect("the fleet hears of the drain");
    assert_eq!(start_run(&mut client, "r2", "cli-echo", "Hello").await.status(), 503);
    tokio::time::timeout(SOON, runner.drained()).await.expect("nothing runs");
    runner.shutdown().await.unwrap();
    assert!(registry.nodes().await.unwrap().nodes.is_empty(), "the node is withdrawn");
    assert!(place.containers().is_empty(), "{:?}", place.containers());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_everything_that_is_wrong() {
    let place = Place::new("", ECHO);
    for file in ["node.pem", "ca.pem"] {
        std::fs::remove_file(place.path(file)).unwrap();
    }
    let config = RunnerConfig::read(&place.path("runner.toml")).unwrap();
    let error = Runner::start(config, Arc::new(MemoryRegistry::default())).await.err().unwrap();
    assert!(matches!(error, StartError::Listen(_)), "{error:?}");
    let lines = error.lines();
    assert!(lines.iter().any(|line| line.contains("node.pem")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("ca.pem")), "{lines:?}");
}
