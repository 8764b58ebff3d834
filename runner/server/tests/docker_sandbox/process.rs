//! The backend that needs no Docker, where the host allows namespaces to be made.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use dyad_runner::config::model::Isolated;
use dyad_runner::sandbox::{EgressSocket, Engine, Output, Prepared, SandboxError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::support::{PATIENCE, TestNode, prepare, run, spec};

async fn allowed(node: &mut TestNode) -> (Engine, Prepared) {
    node.config.engine.allow_process = true;
    let engine = node.engine().await;
    let prepared = prepare(&engine, &Isolated::Process).await;
    (engine, prepared)
}

#[tokio::test]
async fn a_process_reads_and_prints() {
    let mut node = TestNode::new();
    let (engine, prepared) = allowed(&mut node).await;
    let finished = run(&engine, spec(&prepared, &["cat"]), b"hello").await;
    assert_eq!((finished.text().as_str(), finished.stderr.as_str()), ("hello", ""));
    assert_eq!(finished.exit.code, Some(0));
}

#[tokio::test]
async fn processes_are_refused_unless_allowed() {
    let node = TestNode::new();
    let engine = node.engine().await;
    let error = engine.prepare(&Isolated::Process, &mut |_| ()).await.unwrap_err();
    assert!(matches!(error, SandboxError::Process(_)), "{error}");
}

/// What is promised, each as a shell sees it. The rest is not promised: this is no container.
#[tokio::test]
async fn what_a_process_may_not() {
    let mut node = TestNode::new();
    let (engine, prepared) = allowed(&mut node).await;
    let cases = [
        ("pwd", "/tmp/workspace"),
        ("echo $HOME $TMPDIR", "/tmp/home /tmp/tmp"),
        ("echo x > file && echo x > $HOME/file && echo x > $TMPDIR/file && echo written", "written"),
        ("grep -c : /proc/net/dev", "1"),
        ("grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | grep -vc '\t0000000000000000$'", "0"),
        ("grep -c 'NoNewPrivs:\t1' /proc/self/status", "1"),
        // The shell that stays, and this one.
        ("set -- /proc/[0-9]*; echo $#", "2"),
        ("ulimit -n -H", "64"),
        ("ulimit -c -H", "0"),
        ("head -c 2097152 /dev/zero > file 2> /dev/null; echo $?", "153"),
        ("touch /tmp/file 2> /dev/null || echo refused", "refused"),
        // The runner has such ones here: cargo sets them.
        ("env | grep -c ^CARGO", "0"),
    ];
    for (script, expected) in cases {
        let finished = run(&engine, spec(&prepared, &["sh", "-c", script]), b"").await;
        assert_eq!(finished.text().trim_end(), expected, "{script}: {finished:?}");
    }
}

#[tokio::test]
async fn exit_codes_are_as_a_containers() {
    let mut node = TestNode::new();
    let (engine, prepared) = allowed(&mut node).await;
    for (argv, code) in [
        (&["sh", "-c", "exit 3"][..], 3),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["/absent-program"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let finished = run(&engine, spec(&prepared, argv), b"").await;
        assert_eq!(finished.exit.code, Some(code), "{argv:?} {finished:?}");
    }
}

#[tokio::test]
async fn the_egress_socket_is_a_port_of_its_own_loopback() {
    let mut node = TestNode::new();
    let (engine, prepared) = allowed(&mut node).await;
    let path = node.config.state_dir.join("egress.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let script = "exec 3<> /dev/tcp/127.0.0.1/8080; echo question >&3; head -n 1 <&3";
    let mut spec = spec(&prepared, &["bash", "-c", script]);
    spec.egress = Some(EgressSocket { path, port: 8080 });
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = [0; 9];
        stream.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"question\n");
        stream.write_all(b"answer\n").await.unwrap();
        // Until the other side has read, and closes.
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let (finished, ()) = tokio::join!(run(&engine, spec, b""), serve);
    assert_eq!((finished.text().as_str(), finished.stderr.as_str()), ("answer\n", ""));
}

/// Starts a daemon that left its session, and another that is deaf, both with `mark` in their arguments.
fn daemons(mark: &str) -> String {
    format!("setsid sleep {mark} & trap '' TERM HUP INT; sleep {mark} & echo ready; wait")
}

/// Processes of this host with `mark` as an argument.
fn marked(mark: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap();
    let lines = processes.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes())).count()
}

fn until_marked(mark: &str, count: usize) {
    let start = std::time::Instant::now();
    while marked(mark) != count {
        assert!(start.elapsed() < PATIENCE, "{} instead of {count}", marked(mark));
    }
}

#[tokio::test]
async fn all_of_a_processs_processes_go_with_it() {
    let mut node = TestNode::new();
    let (engine, prepared) = allowed(&mut node).await;
    let mark = format!("9{}", std::process::id());
    let mut sandbox = engine.start(spec(&prepared, &["sh", "-c", &daemons(&mark)])).await.unwrap();
    assert_eq!(sandbox.output.recv().await, Some(Output::Stdout("ready\n".into())));
    until_marked(&mark, 2);
    tokio::time::timeout(PATIENCE, sandbox.remove()).await.unwrap();
    // They were killed; the kernel takes its time with them where much goes on.
    let ended = async {
        while marked(&mark) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), ended).await.expect("they end within a second");
    assert_eq!(engine.sandboxes(), 0);
}

/// Two roles in one: the process that is killed runs this test, too.
#[tokio::test]
async fn processes_go_with_a_runner_that_is_killed() {
    const MARK: &str = "DYAD_TEST_MARK";
    const TEST: &str = "process::processes_go_with_a_runner_that_is_killed";
    if let Ok(mark) = std::env::var(MARK) {
        let mut node = TestNode::new();
        let (engine, prepared) = allowed(&mut node).await;
        let mut sandbox = engine.start(spec(&prepared, &["sh", "-c", &daemons(&mark)])).await.unwrap();
        assert_eq!(sandbox.output.recv().await, Some(Output::Stdout("ready\n".into())));
        println!("\nready");
        std::future::pending::<()>().await;
    }
    let mark = format!("8{}", std::process::id());
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture"])
        .env(MARK, &mark)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "ready"));
    until_marked(&mark, 2);
    owner.kill().unwrap();
    owner.wait().unwrap();
    until_marked(&mark, 0);
}
