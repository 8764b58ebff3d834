//! The CLI that is always there, and what is left behind of any.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use system_tests::clients::{Client, Clients, Job};
use system_tests::gateway::Gateway;
use system_tests::vendor::UNICODE;
use system_tests::{ABORT_BOUND, SOON, within};

/// The label by which the gateway's own runner knows its containers.
pub(crate) fn containers(gateway: &Gateway) -> String {
    let id = std::fs::read_to_string(gateway.data_dir().join("node-id"));
    format!("label=dyad.node={}", id.expect("the runner has an id").trim())
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("docker is installed");
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The ids of the containers that `filter` finds.
pub(crate) fn running(filter: &str) -> HashSet<String> {
    docker(&["ps", "--quiet", "--filter", filter]).lines().map(str::to_owned).collect()
}

/// Waits until one of them has ended; panics after the contract's bound.
pub(crate) async fn one_gone(filter: &str, before: &HashSet<String>) {
    within(ABORT_BOUND, "the run's container is gone", async {
        while before.is_subset(&running(filter)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Kills all of them, as a crash would end them.
pub(crate) fn kill_all(filter: &str) {
    for id in running(filter) {
        // One may have ended by itself.
        let _ = Command::new("docker").args(["kill", &id]).output();
    }
}

/// Waits until no container is left that `filter` finds.
pub(crate) async fn gone(filter: &str) {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let left = docker(&["ps", "--all", "--quiet", "--filter", filter]);
        if left.is_empty() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "containers are left: {left}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_is_said_comes_back() {
    let gateway = Gateway::start_with_clis(&[], "").await;
    let filter = containers(&gateway);
    let clients = Clients::default();
    let body = |text: &str| json!({"model": "cli-echo", "messages": [{"role": "user", "content": text}]});
    let answer = clients.run(Client::Python3, &Job::chat_stream(&gateway, body(UNICODE))).await;
    assert_eq!(answer.ok().text, UNICODE);
    assert_eq!(answer.finish_reason.as_deref(), Some("stop"));
    assert!(answer.usage.is_some_and(|usage| usage.prompt_tokens > 0));

    for (client, answer) in clients.all(&Job::chat_stream(&gateway, body("hello"))).await {
        assert_eq!(answer.ok().text, "hello", "{client:?}");
    }
    let megabyte = "0123456789abcdef".repeat(1 << 16);
    let answer = clients.run(Client::Python3, &Job::chat_stream(&gateway, body(&megabyte))).await;
    assert!(answer.ok().text == megabyte, "a megabyte comes back whole");

    gateway.stop().await;
    gone(&filter).await;
}
