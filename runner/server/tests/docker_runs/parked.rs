//! Sandboxes that wait, for real.

use std::time::Duration;

use dyad_runner::config::model::Mode;
use runner_api::{FinishReason, RunEvent};
use tokio::time::Instant;

use crate::support::{PATIENCE, TestNode, next, request, rest, submit};

const FINISHED: RunEvent = RunEvent::Finished { reason: FinishReason::Stop };

async fn until_parked(runs: &dyad_runner::run::Runs, wanted: u32) {
    let begun = Instant::now();
    while runs.capacity().parked != wanted {
        assert!(begun.elapsed() < PATIENCE, "{:?}", runs.capacity());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_is_used_once_and_replaced() {
    for mode in [Mode::Parked, Mode::OneShot] {
        let mut node = TestNode::new();
        node.actor().mode = mode;
        node.actor().pool.min = 1;
        node.actor().pool.max = 1;
        let (_engine, runs) = node.start().await;
        for id in ["1", "2", "3"] {
            until_parked(&runs, 1).await;
            let mut stream = submit(&runs, request(id, "actor", &format!("say {id}"))).await;
            let RunEvent::Started { warm, .. } = next(&mut stream).await else { panic!("not started") };
            assert!(warm, "{mode:?}");
            assert_eq!(rest(stream).await, (id.to_owned(), FINISHED));
        }
        assert!(runs.close(PATIENCE).await);
        assert!(node.traces().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_killed_while_it_waited_is_replaced() {
    let mut node = TestNode::new();
    node.actor().mode = Mode::Parked;
    node.actor().pool.min = 1;
    node.actor().pool.max = 1;
    let (_engine, runs) = node.start().await;
    until_parked(&runs, 1).await;
    let traces = node.traces();
    let container = traces.iter().find_map(|trace| trace.strip_prefix("container ")).unwrap();
    let killed = std::process::Command::new("docker").args(["kill", container]).output().unwrap();
    assert!(killed.status.success());
    // Whenever its end is noticed, a request gets one that lives.
    let stream = submit(&runs, request("1", "actor", "say hello")).await;
    assert_eq!(rest(stream).await, ("hello".to_owned(), FINISHED));
    assert!(runs.close(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_through_one_queue() {
    let node = TestNode::new();
    let (engine, runs) = node.start().await;
    let all = (0..24).map(|id| {
        let runs = &runs;
        async move {
            let text = format!("{id} ").repeat(1_000);
            let stream = submit(runs, request(&id.to_string(), "echo", &text)).await;
            assert_eq!(rest(stream).await, (text, FINISHED));
        }
    });
    futures_util::future::join_all(all).await;
    node.until_gone().await;
    assert_eq!(engine.sandboxes(), 0);
    assert_eq!(runs.capacity().running, 0);
}
