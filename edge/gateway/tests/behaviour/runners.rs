//! The runners' nodes, as administrators see and drain them.

use gateway::CallError;
use serde_json::json;

use crate::support::{Gate, Reply, Task, TestGateway, node, ready, secs, setup};

fn two() -> TestGateway {
    let test = setup().cli("claude", &json!({})).build();
    test.announce(&node("one", |_| ()));
    test.announce(&node("two", |node| node.capacity.draining = true));
    test
}

fn states(test: &TestGateway) -> Vec<(String, bool)> {
    let nodes = ready(test.gateway.runners()).unwrap();
    nodes.into_iter().map(|node| (node.record.id, node.is_up)).collect()
}

/// What comes of draining the first.
fn drain(reply: Reply) -> Result<(), String> {
    let test = two();
    test.host.reply("one", reply);
    ready(test.gateway.drain_runner("one"))
}

#[test]
fn all_nodes_are_told_with_whether_they_get_runs() {
    let test = two();
    let (one, two) = ("one".to_owned(), "two".to_owned());
    assert_eq!(states(&test), [(one.clone(), true), (two.clone(), false)]);
    // One that is not heard of any more is told as long as the registry has it.
    test.announce(&node("one", |node| node.expires_unix_ms = 1));
    assert_eq!(states(&test), [(one.clone(), false), (two.clone(), false)]);

    test.runners.is_down(true);
    assert_eq!(states(&test), [(one, false), (two, false)], "what was known last");
    assert!(ready(test.another(1, 0, None).gateway.runners()).unwrap_err().contains("it is down"));
}

#[test]
fn a_node_is_asked_to_drain() {
    let test = two();
    test.host.reply("one", Reply::json(202, &json!({})).with_header("dyad-runner-version", "1.7"));
    assert_eq!(ready(test.gateway.drain_runner("one")), Ok(()));
    let call = test.host.last_call();
    assert_eq!((call.url.as_str(), call.by_runner), ("https://one.example:4200/v1/drain", true));
    assert_eq!(call.headers["dyad-runner-version"], runner_api::VERSION);
    let unknown = ready(test.gateway.drain_runner("three")).unwrap_err();
    assert!(unknown.contains("three"), "{unknown}");
    assert_eq!(test.host.calls().len(), 1);
}

#[test]
fn a_node_that_does_not_drain_says_why() {
    let gate = Gate::default();
    let test = two();
    test.host.reply("one", Reply::Later(gate));
    let gateway = test.gateway.clone();
    let mut draining = Task::new(async move { gateway.drain_runner("one").await });
    draining.must_wait();
    test.advance(secs(10));
    assert_eq!(draining.finish().unwrap_err(), "it did not answer in time");

    let version =
        |status, version| Reply::json(status, &json!({})).with_header("dyad-runner-version", version);
    for (reply, says) in [
        (Reply::Fail(CallError::Tls), "TLS"),
        (Reply::json(202, &json!({})), "no runner"),
        (version(202, "2.0"), "another version"),
        (version(403, "1.0"), "status 403"),
    ] {
        let refused = drain(reply).unwrap_err();
        assert!(refused.contains(says), "{refused}");
    }
}
