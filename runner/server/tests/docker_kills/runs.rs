//! The ends of runs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use runner_api::{ErrorClass, FinishReason, RunEvent};

use super::support::{AT_ONCE, Node, UNRULY, Unruly, eventually, open_files};
use super::traces::Traces;

const FINISHED: RunEvent = RunEvent::Finished { reason: FinishReason::Stop };

fn class(event: Option<&RunEvent>) -> Option<ErrorClass> {
    if let Some(RunEvent::Error { class, .. }) = event { Some(*class) } else { None }
}

/// Everything of the one run that goes on. There must be something of each kind: what is looked for can be found.
fn traces_of_one(node: &Node) -> BTreeSet<String> {
    let traces = node.scene.look(&BTreeSet::new());
    let Traces { containers, processes, files } = &traces;
    assert_eq!(containers.len(), 1, "{traces:#?}");
    // The CLI, the engine's init and its shim; a socket and its directory.
    assert!(processes.len() >= 3 && files.len() == 2, "{traces:#?}");
    containers.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_ends_a_run_leaves_nothing() {
    let node = Node::new("", &[UNRULY]);
    let runner = node.place.serve();
    let edge = node.edge(&runner).await;
    // A CLI that says nothing, one that goes on speaking, one that hears no signal and has a child.
    for (number, word) in ["hang", "chatter", "deaf"].into_iter().enumerate() {
        let id = format!("closed-{number}");
        let mut answer = edge.run(&id, "unruly", &format!("do:{word}")).await;
        answer.begun().await;
        let containers = traces_of_one(&node);
        drop(answer);
        node.scene.is_clear(&containers, AT_ONCE, &format!("the stream was closed, {word}"));
        assert_eq!(edge.cancel(&id).await, 404, "{word}: it is no more");

        let id = format!("deleted-{number}");
        let mut answer = edge.run(&id, "unruly", &format!("do:{word}")).await;
        answer.begun().await;
        let containers = traces_of_one(&node);
        assert_eq!(edge.cancel(&id).await, 204, "{word}");
        node.scene.is_clear(&containers, AT_ONCE, &format!("DELETE, {word}"));
        assert_eq!(class(answer.last().await.as_ref()), Some(ErrorClass::Cancelled), "{word}");
    }
    assert_eq!(edge.capacity().await.running, 0);
    runner.stop();
}

#[test]
fn an_edge_that_is_gone_without_a_word_leaves_nothing() {
    let node = Node::new("", &[UNRULY]);
    let runner = node.place.serve();
    let edge_process = tokio::runtime::Runtime::new().unwrap();
    let answers = edge_process.block_on(async {
        let edge = node.edge(&runner).await;
        let mut answers = Vec::new();
        for (id, word) in [("a", "hang"), ("b", "chatter"), ("c", "deaf")] {
            let mut answer = edge.run(id, "unruly", &format!("do:{word}")).await;
            answer.begun().await;
            answers.push(answer);
        }
        answers
    });
    let containers = node.has_containers(answers.len());
    // As when a process is killed: its sockets close, and nobody says good-bye in TLS or HTTP/2.
    edge_process.shutdown_background();
    node.scene.is_clear(&containers, AT_ONCE, "the edge was gone");
    drop(answers);
    runner.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_while_its_sandbox_is_made_leaves_nothing() {
    let node = Node::new("", &[UNRULY]);
    let runner = node.place.serve();
    let edge = node.edge(&runner).await;
    for round in 0..6_u64 {
        let id = format!("early-{round}");
        let run = edge.run(&id, "unruly", "do:hang");
        // From before the container exists to about when its CLI starts.
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(60 * round), run).await {
            drop(answer);
        }
    }
    // One that is being made is made to its end first.
    node.scene.is_clear(&BTreeSet::new(), 3 * AT_ONCE, "all clients had gone");
    runner.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cli_that_ends_badly_leaves_nothing() {
    let node = Node::new("", &[UNRULY]);
    let runner = node.place.serve();
    let edge = node.edge(&runner).await;
    for (word, expected) in [
        ("answer", None),
        ("fail", Some(ErrorClass::Internal)),
        ("crash", Some(ErrorClass::Internal)),
        // Its child holds the output open: the run is over with the container, whose init the CLI is a child of.
        ("daemon", None),
    ] {
        let mut answer = edge.run(word, "unruly", &format!("do:{word}")).await;
        let last = answer.last().await.expect("a run that has begun has a last event");
        node.scene.is_clear(&BTreeSet::new(), AT_ONCE, word);
        assert!(answer.text.starts_with("begun\n"), "{word}: {}", answer.text);
        match expected {
            None => assert_eq!(last, FINISHED, "{word}"),
            expected => assert_eq!(class(Some(&last)), expected, "{word}: {last:?}"),
        }
    }
    runner.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_ends_a_run_and_leaves_nothing() {
    let limited = |name, limits| Unruly { name, limits, ..UNRULY };
    let node = Node::new(
        "",
        &[
            limited("idle", "idle_time = \"1s\""),
            limited("wall", "wall_time = \"3s\""),
            limited("output", "output = \"1MiB\""),
            UNRULY,
        ],
    );
    let runner = node.place.serve();
    let edge = node.edge(&runner).await;
    for (cli, word, timeout_ms, expected, seconds) in [
        ("idle", "hang", None, ErrorClass::Timeout, 1..3),
        ("idle", "deaf", None, ErrorClass::Timeout, 1..3),
        ("wall", "chatter", None, ErrorClass::Timeout, 3..5),
        // The deadline of the request; it holds while output waits for its reader, too.
        ("unruly", "chatter", Some(2500), ErrorClass::Timeout, 2..4),
        ("unruly", "deaf", Some(2500), ErrorClass::Timeout, 2..4),
        ("output", "flood", None, ErrorClass::Internal, 0..3),
    ] {
        let case = format!("{cli}, {word}, {timeout_ms:?}");
        let begun = Instant::now();
        let id = case.replace(|char: char| !char.is_ascii_alphanumeric(), "-");
        let mut answer = edge.run_within(&id, cli, &format!("do:{word}"), timeout_ms).await;
        let last = answer.last().await;
        let took = begun.elapsed();
        node.scene.is_clear(&BTreeSet::new(), AT_ONCE, &case);
        assert_eq!(class(last.as_ref()), Some(expected), "{case}: {last:?}");
        assert!(answer.text.starts_with("begun"), "{case}");
        assert!(seconds.contains(&took.as_secs()), "{case}: {took:?}");
        assert!(answer.text.len() <= 2 << 20, "{case}");
    }
    runner.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_cli_serves_one_run_and_is_replaced() {
    let node = Node::new("", &[Unruly { parked: 1, ..UNRULY }]);
    let runner = node.place.serve();
    let edge = node.edge(&runner).await;
    for (id, word) in [("a", "answer"), ("b", "deaf"), ("c", "crash")] {
        edge.has_parked(1).await;
        let parked = node.has_containers(1);
        let mut answer = edge.run(id, "unruly", &format!("do:{word}")).await;
        if word == "deaf" {
            answer.begun().await;
            drop(answer);
        } else {
            assert!(answer.last().await.is_some(), "{word}");
        }
        eventually("its sandbox is gone, and another is there", || {
            let traces = node.scene.look(&parked);
            let is_left = |id: &String| traces.processes.iter().any(|process| process.contains(id));
            let is_gone = traces.containers.is_disjoint(&parked) && !parked.iter().any(is_left);
            (is_gone && traces.containers.len() == 1).then_some(())
        });
    }
    let parked = node.containers();
    runner.stop();
    node.scene.is_clear(&parked, AT_ONCE, "the runner's end");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_runs_all_answer_and_nothing_grows() {
    let node = Node::new("runs = 24, queue_per_caller = 24", &[UNRULY]);
    let runner = node.place.serve();
    let edge = node.edge(&runner).await;
    let run = async |id: String| {
        let mut answer = edge.run(&id, "unruly", &format!("do:answer {id}")).await;
        (answer.last().await, answer.text)
    };
    let right = (Some(FINISHED), "begun\ndone\n".to_owned());
    assert_eq!(run("first".to_owned()).await, right);
    node.scene.is_clear(&BTreeSet::new(), AT_ONCE, "the first run");
    let open_before = open_files();
    for number in 0..50 {
        assert_eq!(run(format!("row-{number}")).await, right, "{number}");
    }
    node.scene.is_clear(&BTreeSet::new(), AT_ONCE, "fifty runs in a row");
    let at_once = (0..24).map(|number| run(format!("crowd-{number}")));
    for (number, answer) in futures_util::future::join_all(at_once).await.into_iter().enumerate() {
        assert_eq!(answer, right, "{number}");
    }
    node.scene.is_clear(&BTreeSet::new(), AT_ONCE, "twenty-four runs at once");
    let open_after = open_files();
    assert!(open_after <= open_before, "{open_before} files were open, and now {open_after}");
    assert_eq!(edge.capacity().await.running, 0);
    runner.stop();
}
