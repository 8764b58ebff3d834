//! The ends of runners.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use runner_api::{ErrorClass, FinishReason, RunEvent};
use rustix::process::Signal;

use super::support::{AT_ONCE, Node, UNRULY, Unruly, refuses};

const DRAINING: &str = "draining: no new runs; those under way may finish";

/// One whose pool has two, and one that starts for its runs.
const CLIS: [Unruly; 2] = [Unruly { name: "parked", parked: 2, ..UNRULY }, UNRULY];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_runner_had_is_removed_by_the_next_before_it_serves() {
    let node = Node::new("", &CLIS);
    let runner = node.place.serve();
    let edge = node.edge(&runner).await;
    let mut one_shot = edge.run("a", "unruly", "do:deaf").await;
    one_shot.begun().await;
    let mut parked = edge.run("b", "parked", "do:hang").await;
    parked.begun().await;
    edge.has_parked(2).await;
    let left = node.has_containers(4);
    runner.signal(Signal::KILL);
    let (status, _) = runner.ended();
    assert!(!status.success());
    assert!(
        one_shot.last().await.is_none() && parked.last().await.is_none(),
        "no client takes it for an end"
    );
    let traces = node.scene.look(&left);
    assert_eq!(traces.containers, left, "nobody is there to remove them");
    assert_eq!(traces.files.len(), 8, "four sockets in directories of their own: {traces:#?}");

    let next = node.place.serve();
    let now = node.scene.look(&left);
    assert!(now.containers.is_disjoint(&left), "{now:#?}");
    assert!(now.files.is_disjoint(&traces.files), "{now:#?}");
    assert!(now.processes.is_disjoint(&traces.processes), "{now:#?}");
    let edge = node.edge(&next).await;
    let mut answer = edge.run("c", "unruly", "do:answer").await;
    assert_eq!(answer.last().await, Some(RunEvent::Finished { reason: FinishReason::Stop }));
    edge.has_parked(2).await;
    let containers = node.containers();
    next.stop();
    node.scene.is_clear(&containers, AT_ONCE, "the runner's end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_runs_end_and_leaves_nothing() {
    let node = Node::new("drain_grace = \"10m\"", &CLIS);
    let mut runner = node.place.serve();
    let edge = node.edge(&runner).await;
    edge.has_parked(2).await;
    let mut answer = edge.run_within("a", "unruly", "do:chatter", Some(3000)).await;
    answer.begun().await;
    let containers = node.containers();
    let addr = runner.addr();
    runner.signal(Signal::TERM);
    runner.logged(DRAINING);
    let said = answer.text.len();
    let last = answer.last().await;
    assert!(
        matches!(last, Some(RunEvent::Error { class: ErrorClass::Timeout, .. })),
        "its own end: {last:?}"
    );
    assert!(answer.text.len() > said, "it went on");
    let (status, log) = runner.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(refuses(addr));
    node.scene.is_clear(&containers, Duration::ZERO, "the runner's end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_everything_at_once() {
    let node = Node::new("drain_grace = \"10m\"", &CLIS);
    let mut runner = node.place.serve();
    let edge = node.edge(&runner).await;
    edge.has_parked(2).await;
    let mut deaf = edge.run("a", "unruly", "do:deaf").await;
    deaf.begun().await;
    let containers = node.containers();
    runner.signal(Signal::TERM);
    runner.logged(DRAINING);
    let again = Instant::now();
    runner.signal(Signal::TERM);
    let last = deaf.last().await;
    assert!(matches!(last, Some(RunEvent::Error { class: ErrorClass::Cancelled, .. })), "{last:?}");
    let (status, log) = runner.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(again.elapsed() < 3 * AT_ONCE, "{:?}: {log}", again.elapsed());
    node.scene.is_clear(&containers, Duration::ZERO, "the runner's end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_stopped_while_it_makes_sandboxes_leaves_nothing() {
    let node = Node::new("", &[Unruly { parked: 4, ..UNRULY }]);
    // The pool begins to fill when it begins to serve.
    let runner = node.place.serve();
    runner.stop();
    node.scene.is_clear(&BTreeSet::new(), Duration::ZERO, "the runner's end");
}
