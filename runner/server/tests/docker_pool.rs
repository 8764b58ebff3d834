//! The pool on real containers. Needs a Docker engine at /var/run/docker.sock.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cli_dialect::{Kind, Settings};
use dyad_runner::config::model::{
    CapacityLimits, Cli, ECHO_ARGV, Engine as EngineConfig, Image, Isolated, Limits, Mode, Node, Piece,
    PoolSize, RunnerConfig, Template, Tls,
};
use dyad_runner::egress::{EgressProxy, EgressTimeouts, SystemLookup};
use dyad_runner::pool::Launcher;
use dyad_runner::run::Runs;
use dyad_runner::sandbox::Engine;
use futures_util::StreamExt as _;
use runner_api::{FinishReason, Message, Part, Role, RunEvent, RunRequest};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct TestNode {
    config: RunnerConfig,
    engine: Engine,
    runs: Arc<Runs>,
    _directory: TempDir,
}

impl TestNode {
    /// With `cli-echo` in this mode, of which one waits at any time.
    async fn new(mode: Mode) -> Self {
        let directory = TempDir::new().unwrap();
        let name = directory.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.');
        let unused = PathBuf::new();
        let config = RunnerConfig {
            node: Node { id: format!("pool-{name}"), url: "https://localhost:1".to_owned() },
            listen: ([127, 0, 0, 1], 0).into(),
            metrics_listen: None,
            registry: None,
            tls: Tls {
                certificate: unused.clone(),
                key: unused.clone(),
                client_ca: unused,
                revocation_list: None,
                allowed_clients: Vec::new(),
            },
            state_dir: directory.path().to_owned(),
            capacity: CapacityLimits {
                runs: 8,
                queue: 8,
                queue_per_caller: 8,
                memory_bytes: 1 << 30,
                starts: 4,
                drain_grace: PATIENCE,
            },
            engine: EngineConfig { socket: "/var/run/docker.sock".into(), allow_process: false },
            clis: vec![Arc::new(echo(mode))],
        };
        let (timeouts, lookup) = (EgressTimeouts::default(), Arc::new(SystemLookup));
        let egress = EgressProxy::new(Path::new(&config.state_dir), &config.clis, timeouts, lookup).unwrap();
        let engine = Engine::connect(&config).await.expect("this test needs a Docker engine");
        let prepared = engine.prepare(&config.clis[0].isolated, &mut |_| ()).await.unwrap();
        let prepared = BTreeMap::from([(config.clis[0].name.clone(), prepared)]);
        let launcher = Launcher::new(engine.clone(), egress, prepared);
        let runs = Runs::new(&config.clis, config.capacity.clone(), Arc::new(launcher));
        Self { config, engine, runs, _directory: directory }
    }

    async fn until_one_waits(&self) {
        let parked = async {
            while self.runs.capacity().parked != 1 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, parked).await.unwrap_or_else(|_| panic!("{:?}", self.runs.capacity()));
    }

    fn containers(&self) -> Vec<String> {
        let filter = format!("label=dyad.node={}", self.config.node.id);
        let listed = docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"]);
        listed.lines().map(str::to_owned).collect()
    }

    /// The events of a run that says `text`.
    async fn run(&self, id: &str, text: &str) -> Vec<RunEvent> {
        let message = Message { role: Role::User, parts: vec![Part::Text { text: text.to_owned() }] };
        let request = RunRequest {
            id: id.to_owned(),
            cli: "cli-echo".to_owned(),
            parameters: BTreeMap::new(),
            caller: "key".to_owned(),
            timeout_ms: None,
            system: None,
            messages: vec![message],
        };
        let stream = self.runs.submit(request, Instant::now()).await.unwrap();
        timeout(PATIENCE, stream.collect()).await.expect("an end in time")
    }

    /// Ends it, and sees that nothing is left.
    async fn close(self) {
        assert!(self.runs.close(PATIENCE).await);
        self.engine.close(PATIENCE).await.expect("nothing is left");
        assert!(self.containers().is_empty(), "{:?}", self.containers());
    }
}

impl Drop for TestNode {
    /// What a test that failed left.
    fn drop(&mut self) {
        for container in self.containers() {
            docker(&["rm", "--force", "--volumes", &container]);
        }
    }
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn echo(mode: Mode) -> Cli {
    Cli {
        name: "cli-echo".to_owned(),
        isolated: Isolated::Container { image: Image::Echo, runtime: None },
        mode,
        argv: ECHO_ARGV.iter().map(|&text| Template(vec![Piece::Literal(text.to_owned())])).collect(),
        parameters: BTreeMap::new(),
        dialect: Kind::Text,
        settings: Settings::default(),
        environment: Vec::new(),
        limits: Limits {
            memory_bytes: 64 << 20,
            cpu_milli: 1000,
            pids: 32,
            open_files: 64,
            file_bytes: 1 << 20,
            tmpfs_bytes: 4 << 20,
            tmpfs_inodes: 64,
            output_bytes: 4 << 20,
            wall_time: PATIENCE,
            idle_time: PATIENCE,
            boot_time: PATIENCE,
        },
        egress: None,
        pool: PoolSize { min: 1, max: 1, max_age: Duration::from_secs(600) },
        images: false,
    }
}

/// Of events that are as they should be.
fn said(events: &[RunEvent]) -> String {
    let [RunEvent::Started { .. }, texts @ .., RunEvent::Finished { reason: FinishReason::Stop }] = events
    else {
        panic!("{events:?}");
    };
    let text = |event: &RunEvent| match event {
        RunEvent::Text { text } => text.clone(),
        other => panic!("{other:?}"),
    };
    texts.iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_is_used_once_and_replaced() {
    for mode in [Mode::Parked, Mode::OneShot] {
        let node = TestNode::new(mode).await;
        let mut used = BTreeSet::new();
        for id in ["1", "2", "3"] {
            node.until_one_waits().await;
            used.extend(node.containers());
            let events = node.run(id, "hello").await;
            assert!(matches!(events[0], RunEvent::Started { warm: true, .. }), "{mode:?}: {events:?}");
            assert_eq!(said(&events), "hello");
        }
        assert_eq!(used.len(), 3, "one for each run: {used:?}");
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_killed_while_it_waited_is_not_given_out() {
    for mode in [Mode::Parked, Mode::OneShot] {
        let node = TestNode::new(mode).await;
        node.until_one_waits().await;
        docker(&["kill", &node.containers()[0]]);
        // Whether its end has been noticed yet or not.
        assert_eq!(said(&node.run("1", "hello").await), "hello");
        node.close().await;
    }
}
