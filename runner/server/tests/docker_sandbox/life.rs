//! From the start of a sandbox to its end, however that comes.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use cli_dialect::WorkspaceFile;
use dyad_runner::sandbox::{EgressSocket, Engine, Output, PROGRAM, Sandbox, files_header};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::flaky::FlakyEngine;
use crate::support::{PATIENCE, TestNode, attacker, docker, echo, prepare, run, spec};

#[tokio::test]
async fn a_cli_reads_and_prints_and_leaves_nothing() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = prepare(&engine, &echo()).await;
    let finished = run(&engine, spec(&prepared, &[PROGRAM, "echo"]), b"h\xc3\xa9llo\n\0").await;
    assert_eq!(finished.stdout, b"h\xc3\xa9llo\n\0");
    assert_eq!((finished.exit.code, finished.exit.limit), (Some(0), None));
    assert_eq!(finished.stderr, "");
    assert!(node.containers().is_empty());
    assert_eq!(engine.sandboxes(), 0);
}

#[tokio::test]
async fn what_is_written_comes_back_before_the_end() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = prepare(&engine, &echo()).await;
    let mut sandbox = engine.start(spec(&prepared, &[PROGRAM, "echo"])).await.unwrap();
    for text in ["one", "two"] {
        sandbox.stdin.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(sandbox.output.recv().await, Some(Output::Stdout(text.into())));
    }
    assert!(!sandbox.lifeline.has_ended());
    sandbox.stdin.shutdown().await.unwrap();
    assert_eq!(sandbox.output.recv().await, None);
    assert_eq!(sandbox.lifeline.exit().await.code, Some(0));
    assert!(sandbox.lifeline.has_ended());
    assert!(sandbox.stdin.write_all(b"more").await.is_err());
}

/// The CLI has to wait for its reader, and is not the worse for it.
#[tokio::test]
async fn more_than_all_buffers_hold_arrives_whole() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    let mut spec = spec(&prepared, &["/attacker", "output-bomb", "16", "lines"]);
    spec.limits.output_bytes = 16 << 20;
    let finished = run(&engine, spec, b"").await;
    assert_eq!((finished.exit.code, finished.stdout.len()), (Some(0), 16 << 20));
}

#[tokio::test]
async fn exit_codes_are_the_clis_own() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    let cases: [(&[&str], i32); 6] = [
        (&["/attacker", "exit", "3"], 3),
        (&["/attacker", "exit", "255"], 255),
        (&["/attacker", "signal", "9"], 137),
        (&["/attacker", "signal", "15"], 143),
        (&["/absent"], 127),
        (&["/etc/hosts"], 126),
    ];
    for (argv, code) in cases {
        let finished = run(&engine, spec(&prepared, argv), b"").await;
        assert_eq!((finished.exit.code, finished.exit.limit), (Some(code), None), "{argv:?} {finished:?}");
    }
}

#[tokio::test]
async fn the_environment_is_the_specs_and_home() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    let mut spec = spec(&prepared, &["/attacker", "environment"]);
    spec.environment = vec![("TOKEN".to_owned(), "se cret=1".to_owned())];
    assert!(!format!("{spec:?}").contains("secret"), "{spec:?}");
    let text = run(&engine, spec, b"").await.text();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["HOME=/home/cli", "HOSTNAME=sandbox", path, "TOKEN=se cret=1"]);
}

#[tokio::test]
async fn files_come_before_the_input() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    let file = |name: &str, bytes: &[u8]| WorkspaceFile { name: name.to_owned(), bytes: bytes.to_owned() };
    let mut input = files_header(&[file("system.md", b"be\nnice"), file("image-0.png", b"\x89PNG")]).unwrap();
    input.extend_from_slice(b"prompt");
    let mut spec = spec(&prepared, &["/attacker", "files"]);
    spec.waits_for_files = true;
    let finished = run(&engine, spec, &input).await;
    let shown = String::from_utf8_lossy(&finished.stdout);
    assert_eq!(shown, "./image-0.png 600 \u{fffd}PNG\n./system.md 600 be\nnice\nprompt");
}

#[tokio::test]
async fn without_its_files_a_cli_does_not_start() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    for input in ["", "dyad-files 1\n../up 1\nx", "prompt\n"] {
        let mut spec = spec(&prepared, &["/attacker", "files"]);
        spec.waits_for_files = true;
        let finished = run(&engine, spec, input.as_bytes()).await;
        assert_eq!((finished.exit.code, finished.stdout.len()), (Some(125), 0), "{finished:?}");
        assert!(finished.stderr.starts_with("dyad-sandbox-init: reading files: "), "{finished:?}");
    }
}

#[tokio::test]
async fn the_egress_socket_is_a_port_inside() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    let path = node.config.state_dir.join("egress.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let mut spec = spec(&prepared, &["/attacker", "request", "8080"]);
    spec.egress = Some(EgressSocket { path, port: 8080 });
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        stream.read_to_string(&mut request).await.unwrap();
        stream.write_all(format!("answer to {request}").as_bytes()).await.unwrap();
    };
    let (finished, ()) = tokio::join!(run(&engine, spec, b"question"), serve);
    assert_eq!(finished.text(), "answer to question", "{finished:?}");
    assert_eq!(finished.exit.code, Some(0));
}

/// How long until Docker knows no container of the node.
fn time_until_gone(node: &TestNode) -> Duration {
    let start = Instant::now();
    while !node.containers().is_empty() {
        assert!(start.elapsed() < PATIENCE, "{:?}", node.containers());
    }
    start.elapsed()
}

/// A CLI that is deaf to every signal it can be deaf to.
async fn deaf(engine: &Engine) -> Sandbox {
    let prepared = attacker(engine).await;
    let mut sandbox = engine.start(spec(&prepared, &["/attacker", "hang"])).await.unwrap();
    assert_eq!(sandbox.output.recv().await, Some(Output::Stdout("hanging\n".into())));
    sandbox
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_sandbox_is_gone_within_a_second() {
    let node = TestNode::new();
    let engine = node.engine().await;
    drop(deaf(&engine).await);
    let time = time_until_gone(&node);
    assert!(time < Duration::from_secs(1), "{time:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_goes_with_the_task_that_panics() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let sandbox = deaf(&engine).await;
    let outcome = tokio::spawn(async move {
        let _sandbox = sandbox;
        panic!("on purpose");
    });
    assert!(outcome.await.unwrap_err().is_panic());
    let time = time_until_gone(&node);
    assert!(time < Duration::from_secs(1), "{time:?}");
}

/// Output that waits for a reader, which never comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_goes_while_it_prints() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    let mut spec = spec(&prepared, &["/attacker", "output-bomb", "2048", "lines"]);
    spec.limits.output_bytes = u64::MAX;
    let sandbox = engine.start(spec).await.unwrap();
    let Sandbox { stdin: _stdin, output: _output, lifeline, .. } = sandbox;
    let start = Instant::now();
    lifeline.cut().await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(node.containers().is_empty());
}

/// Wherever the start is when its caller loses interest.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_start_leaves_nothing() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let prepared = attacker(&engine).await;
    for milliseconds in [0, 1, 5, 20, 50, 100, 200] {
        let start = engine.start(spec(&prepared, &["/attacker", "hang"]));
        let _ = tokio::time::timeout(Duration::from_millis(milliseconds), start).await;
    }
    engine.close(PATIENCE).await.unwrap();
    assert!(node.containers().is_empty());
}

#[tokio::test]
async fn a_closed_engine_has_nothing_and_starts_nothing() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let mut sandbox = deaf(&engine).await;
    engine.close(PATIENCE).await.unwrap();
    assert!(node.containers().is_empty());
    assert_eq!(engine.sandboxes(), 0);
    assert_eq!(sandbox.output.recv().await, None);
    let prepared = attacker(&engine).await;
    let error = engine.start(spec(&prepared, &["/attacker", "hang"])).await.unwrap_err();
    assert_eq!(error.to_string(), "the engine is being closed");
}

/// Two roles in one: the process that is killed runs this test, too.
#[tokio::test]
async fn what_a_killed_process_left_is_swept_up() {
    const NODE: &str = "DYAD_TEST_NODE";
    const TEST: &str = "life::what_a_killed_process_left_is_swept_up";
    let mut node = TestNode::new();
    if let Ok(id) = std::env::var(NODE) {
        node.config.node.id = id;
        let engine = node.engine().await;
        let _sandboxes = [deaf(&engine).await, deaf(&engine).await];
        println!("\nready");
        std::future::pending::<()>().await;
    }
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture"])
        .env(NODE, &node.config.node.id)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "ready"));
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert_eq!(node.containers().len(), 2);

    let engine = node.engine().await;
    // What is this process's own stays.
    let own = deaf(&engine).await;
    assert_eq!(engine.sweep().await.unwrap(), 2);
    assert_eq!(node.containers(), [own.id.as_str()]);
    // And what is another node's.
    let other = TestNode::new();
    assert_eq!(other.engine().await.sweep().await.unwrap(), 0);
    own.remove().await;
}

#[tokio::test]
async fn starts_at_the_same_time_are_bounded() {
    let node = TestNode::new();
    let (flaky, config) = FlakyEngine::before(&node);
    let engine = Engine::connect(&config).await.unwrap();
    let prepared = attacker(&engine).await;
    flaky.stall();
    let starts = join_all((0..24).map(|_| engine.start(spec(&prepared, &["/attacker", "ready"]))));
    let watch = async {
        flaky.wait_for_creations(4).await;
        // Whoever were to come next would come now: the tests' runtime has one thread.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(flaky.creations(), 4);
        flaky.recover();
    };
    let (sandboxes, ()) = tokio::join!(starts, watch);
    let sandboxes: Vec<_> = sandboxes.into_iter().map(Result::unwrap).collect();
    assert_eq!((sandboxes.len(), engine.sandboxes()), (24, 24));
    drop(sandboxes);
    engine.close(PATIENCE).await.unwrap();
    assert!(node.containers().is_empty());
}

/// The engine is gone when the sandbox is to be removed, and comes back.
#[tokio::test]
async fn removal_survives_an_engine_that_is_away() {
    let node = TestNode::new();
    let (flaky, config) = FlakyEngine::before(&node);
    let engine = Engine::connect(&config).await.unwrap();
    let mut sandbox = deaf(&engine).await;
    flaky.break_down();
    // Its end is not known, and it is said to be over.
    assert_eq!(sandbox.output.recv().await, None);
    assert_eq!(sandbox.lifeline.exit().await.code, None);
    let removal = sandbox.remove();
    let mut removal = std::pin::pin!(removal);
    flaky.wait_for_refusals(3, &mut removal).await;
    assert_eq!(node.containers().len(), 1);
    flaky.recover();
    tokio::time::timeout(PATIENCE, removal).await.unwrap();
    assert!(node.containers().is_empty());
}

/// Somebody else's stuck container is no reason not to start.
#[tokio::test]
async fn an_engine_that_does_not_tell_its_abilities_is_used() {
    let node = TestNode::new();
    let (flaky, config) = FlakyEngine::before(&node);
    flaky.get_stuck();
    let engine = Engine::connect(&config).await.unwrap();
    let prepared = prepare(&engine, &echo()).await;
    assert_eq!(run(&engine, spec(&prepared, &[PROGRAM, "echo"]), b"hello").await.text(), "hello");
}

#[tokio::test]
async fn without_an_engine_there_is_an_error() {
    let mut node = TestNode::new();
    node.config.engine.socket = node.config.state_dir.join("absent.sock");
    let error = Engine::connect(&node.config).await.err().unwrap();
    assert!(error.to_string().starts_with("Docker does not answer at "), "{error}");
}

#[tokio::test]
async fn an_image_with_volumes_is_refused() {
    use dyad_runner::config::model::{Image, Isolated};
    let node = TestNode::new();
    let engine = node.engine().await;
    let tag = format!("dyad-test-volumes:{}", node.config.node.id);
    let context = tempfile::TempDir::new().unwrap();
    std::fs::write(context.path().join("Dockerfile"), "FROM scratch\nVOLUME /data\nCMD [\"x\"]\n").unwrap();
    let image = Image::Build { context: context.path().to_owned(), tag: tag.clone() };
    let isolated = Isolated::Container { image, runtime: None };
    let error = engine.prepare(&isolated, &mut |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("declares volumes"), "{error}");
    docker(&["rmi", &tag]);
}

#[tokio::test]
async fn a_runtime_that_the_engine_does_not_know_is_told_with_those_it_knows() {
    use dyad_runner::config::model::{Image, Isolated};
    let node = TestNode::new();
    let engine = node.engine().await;
    let entry = |runtime: &str| Isolated::Container { image: Image::Echo, runtime: Some(runtime.to_owned()) };
    let error = engine.prepare(&entry("dyad-test-absent"), &mut |_| ()).await.unwrap_err().to_string();
    assert!(error.contains("no runtime \"dyad-test-absent\"") && error.contains("runc"), "{error}");
    engine.prepare(&entry("runc"), &mut |_| ()).await.unwrap();
}

#[tokio::test]
async fn images_that_are_not_there_are_told() {
    use dyad_runner::config::model::{Image, Isolated};
    let node = TestNode::new();
    let engine = node.engine().await;
    let absent = format!("sha256:{}", "0".repeat(64));
    for image in [Image::Digest(absent.clone()), Image::Local("dyad-test-absent:1".to_owned())] {
        let isolated = Isolated::Container { image, runtime: None };
        let error = engine.prepare(&isolated, &mut |_| ()).await.unwrap_err();
        assert!(error.to_string().ends_with("is not on this host"), "{error}");
    }
}
