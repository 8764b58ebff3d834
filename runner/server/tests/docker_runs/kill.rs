//! However a run ends, soon after there is no container, no process and no socket of it.

use std::time::Duration;

use runner_api::{ErrorClass, FinishReason, RunEvent};
use tokio::time::Instant;

use crate::support::{GONE_WITHIN, PATIENCE, TestNode, request, rest, submit, until_said};

/// Two of the three kinds of traces need a run that goes on to be seen: a test that finds nothing proves something.
fn assert_alive(node: &TestNode) {
    let traces = node.traces();
    for kind in ["container ", "process ", "socket "] {
        assert!(traces.iter().any(|trace| trace.starts_with(kind)), "no {kind}in {traces:?}");
    }
}

async fn assert_gone_soon(node: &TestNode) {
    let took = node.until_gone().await;
    assert!(took <= GONE_WITHIN, "{took:?}");
}

fn class(event: &RunEvent) -> Option<ErrorClass> {
    match event {
        RunEvent::Error { class, .. } => Some(*class),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_answer() {
    let node = TestNode::new();
    let (_engine, runs) = node.start().await;
    let (said, last) = rest(submit(&runs, request("1", "actor", "say hello")).await).await;
    assert_eq!((said.as_str(), last), ("hello", RunEvent::Finished { reason: FinishReason::Stop }));
    assert_gone_soon(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_cli_fails() {
    let node = TestNode::new();
    let (_engine, runs) = node.start().await;
    let (_, last) = rest(submit(&runs, request("1", "actor", "exit 3")).await).await;
    assert_eq!(class(&last), Some(ErrorClass::Internal), "{last:?}");
    assert_gone_soon(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_client_goes_though_the_cli_ignores_signals_and_has_daemons() {
    let node = TestNode::new();
    let (_engine, runs) = node.start().await;
    for (id, order) in [("1", "hang"), ("2", "stubborn")] {
        let mut stream = submit(&runs, request(id, "actor", order)).await;
        until_said(&mut stream, &order[..4]).await;
        assert_alive(&node);
        drop(stream);
        assert_gone_soon(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_client_goes_while_its_sandbox_is_being_made() {
    let node = TestNode::new();
    let (engine, runs) = node.start().await;
    for (at, ms) in [0, 20, 60, 120, 180, 240, 300].into_iter().enumerate() {
        let submitted = runs.submit(request(&at.to_string(), "actor", "hang"), Instant::now());
        // Cancelled at different moments of the start, some of them after it.
        let _ = tokio::time::timeout(Duration::from_millis(ms), submitted).await;
        let begun = Instant::now();
        node.until_gone().await;
        // A start that is under way is finished first.
        assert!(begun.elapsed() <= 4 * GONE_WITHIN, "{:?}", begun.elapsed());
    }
    assert_eq!(engine.sandboxes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_run_is_cancelled() {
    let node = TestNode::new();
    let (_engine, runs) = node.start().await;
    let mut stream = submit(&runs, request("1", "actor", "stubborn")).await;
    until_said(&mut stream, "stubborn").await;
    assert!(runs.cancel("1"));
    assert_eq!(class(&rest(stream).await.1), Some(ErrorClass::Cancelled));
    assert_gone_soon(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_cli_hangs() {
    let mut node = TestNode::new();
    node.actor().limits.idle_time = Duration::from_secs(1);
    let (_engine, runs) = node.start().await;
    let mut stream = submit(&runs, request("1", "actor", "stubborn")).await;
    until_said(&mut stream, "stubborn").await;
    assert_alive(&node);
    let (_, last) = rest(stream).await;
    assert_eq!(class(&last), Some(ErrorClass::Timeout), "{last:?}");
    assert_gone_soon(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_deadline_passes() {
    let node = TestNode::new();
    let (_engine, runs) = node.start().await;
    let request = runner_api::RunRequest { timeout_ms: Some(3_000), ..request("1", "actor", "hang") };
    let begun = Instant::now();
    let (_, last) = rest(submit(&runs, request).await).await;
    assert_eq!(class(&last), Some(ErrorClass::Timeout), "{last:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_gone_soon(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_cli_floods_and_whether_or_not_anybody_reads() {
    let node = TestNode::new();
    let (_engine, runs) = node.start().await;
    let (said, last) = rest(submit(&runs, request("1", "actor", "flood")).await).await;
    assert_eq!(class(&last), Some(ErrorClass::Internal), "{last:?}");
    assert!(said.len() <= 4 << 20, "{}", said.len());
    assert_gone_soon(&node).await;
    // Its output stands in every pipe between the CLI and the client.
    let mut unread = submit(&runs, request("2", "actor", "flood")).await;
    until_said(&mut unread, "y").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_alive(&node);
    drop(unread);
    assert_gone_soon(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_node_shuts_down() {
    let mut node = TestNode::new();
    node.actor().pool.min = 2;
    node.actor().pool.max = 2;
    let (engine, runs) = node.start().await;
    let mut stream = submit(&runs, request("1", "actor", "stubborn")).await;
    until_said(&mut stream, "stubborn").await;
    assert!(runs.close(Duration::ZERO).await);
    assert_eq!(class(&rest(stream).await.1), Some(ErrorClass::Cancelled));
    engine.close(PATIENCE).await.expect("all removed");
    assert!(node.traces().is_empty(), "{:?}", node.traces());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_runs_are_dropped_with_all_that_they_have() {
    let mut node = TestNode::new();
    node.actor().pool.min = 1;
    node.actor().pool.max = 1;
    let (_engine, runs) = node.start().await;
    let mut stream = submit(&runs, request("1", "actor", "hang")).await;
    until_said(&mut stream, "hang").await;
    drop((stream, runs));
    // A refill may just have begun.
    let took = node.until_gone().await;
    assert!(took <= 4 * GONE_WITHIN, "{took:?}");
}

/// The node's binary, killed in the middle of a run: the next start removes what it left.
#[tokio::test(flavor = "multi_thread")]
async fn at_the_next_start_when_the_runner_was_killed() {
    let mut node = TestNode::new();
    let config = binary_config(&node);
    // As `dyad-runner run` calls itself, so that it is no runner that serves.
    node.config.node.id.push_str(".run");
    let run = |order: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dyad-runner"));
        command.args(["run", "actor", "--config"]).arg(&config);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), order.as_bytes()).unwrap();
        child
    };
    let mut killed = run("stubborn");
    let begun = Instant::now();
    while crate::support::processes(&node.config.node.id).len() < 4 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", node.traces());
        assert_eq!(killed.try_wait().unwrap(), None);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_alive(&node);

    let output = run("say hello").wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello");
    assert!(node.traces().is_empty(), "{:?}", node.traces());
}

/// The same node as a file.
fn binary_config(node: &TestNode) -> std::path::PathBuf {
    let dyad_runner::config::model::Image::Build { tag, .. } = crate::support::actor_image() else {
        unreachable!("it is built")
    };
    let text = format!(
        r#"
listen = "127.0.0.1:0"
state_dir = "state"
[node]
id = "{id}"
url = "https://localhost:1"
[tls]
certificate = "node.pem"
key = "node.key"
client_ca = "ca.pem"
allowed_clients = ["edge"]
[[cli]]
name = "actor"
dialect = "text"
image = {{ local = "{tag}" }}
argv = ["/actor", "{id}.run"]
[cli.limits]
memory = "64MiB"
pids = 32
[cli.egress]
port = 8080
connect = ["localhost:1"]
"#,
        id = node.config.node.id,
    );
    let path = node.path("runner.toml");
    std::fs::write(&path, text).expect("a file of the test");
    path
}
