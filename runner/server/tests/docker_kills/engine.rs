//! The engine's end under a runner, on an engine of the test's own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use runner_api::{FinishReason, RunEvent};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::support::{AT_ONCE, Node, UNRULY, Unruly, eventually};

const CLIS: [Unruly; 2] = [Unruly { name: "parked", parked: 1, ..UNRULY }, UNRULY];

/// A dockerd with a containerd, both of this test alone: no networks, no packet filters, images copied, not laid over
/// one another.
struct PrivateEngine {
    directory: TempDir,
    child: Option<Child>,
}

impl PrivateEngine {
    fn start() -> Self {
        let mut engine = Self { directory: TempDir::new().unwrap(), child: None };
        engine.restart();
        engine
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// After its end.
    fn restart(&mut self) {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let log = File::options().create(true).append(true).open(path("log")).unwrap();
        // A containerd that serves the whole host, where there is one, must not mistake these containers for others.
        let name = self.directory.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.');
        // In a network of its own: a dockerd without a bridge removes the host's, whosever that is.
        let mut dockerd = Command::new("unshare");
        dockerd.args(["--net", "dockerd"]);
        dockerd.arg(format!("--data-root={}", path("data"))).arg(format!("--exec-root={}", path("exec")));
        dockerd.arg(format!("--host=unix://{}", self.socket().display()));
        dockerd
            .arg(format!("--pidfile={}", path("pid")))
            .arg(format!("--config-file={}", self.no_settings()));
        dockerd.arg(format!("--containerd-namespace={name}"));
        dockerd.arg(format!("--containerd-plugins-namespace={name}-plugins"));
        dockerd.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"]);
        let child = dockerd.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.child = Some(child.expect("these tests need dockerd(8)"));
        let socket = format!("unix://{}", self.socket().display());
        eventually("the engine answers", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            let log = || fs::read_to_string(self.directory.path().join("log")).unwrap();
            assert!(ended.is_none(), "dockerd ended (these tests are to be run as root): {}", log());
            let mut version = Command::new("docker");
            version.args(["--host", &socket, "version"]).stdout(Stdio::null()).stderr(Stdio::null());
            version.status().unwrap().success().then_some(())
        });
    }

    /// The host's own are not for this engine.
    fn no_settings(&self) -> String {
        let path = self.directory.path().join("daemon.json");
        fs::write(&path, "{}").unwrap();
        path.display().to_string()
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            let containerd = fs::read_to_string(self.directory.path().join("exec/containerd/containerd.pid"));
            // It may have ended by itself.
            let _ = kill_process(Pid::from_child(&child), signal);
            eventually("dockerd ends", || child.try_wait().unwrap());
            // It dies with dockerd, but not at once, and the next dockerd would take it for its own.
            let containerd = Path::new("/proc").join(containerd.as_deref().unwrap_or("0").trim());
            eventually("containerd ends", || (!containerd.exists()).then_some(()));
        }
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        self.end(Signal::TERM);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_outlives_an_engine_that_is_stopped() {
    outlives(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_outlives_an_engine_that_is_killed() {
    outlives(Signal::KILL).await;
}

async fn outlives(signal: Signal) {
    let mut engine = PrivateEngine::start();
    let node = Node::on(&engine.socket(), "", &CLIS);
    let runner = node.place.serve();
    let edge = node.edge(&runner).await;
    let mut running = edge.run("a", "unruly", "do:deaf").await;
    running.begun().await;
    edge.has_parked(1).await;
    let before = node.has_containers(2);
    engine.end(signal);
    // With its container or with the word of it: the run has an end.
    let last = running.last().await;
    assert!(matches!(last, Some(RunEvent::Error { .. })), "{last:?}");
    let refused = edge.run("b", "unruly", "do:answer").await;
    assert_eq!(refused.status(), 503, "there is no engine");

    engine.restart();
    eventually("what was before is removed, and the pool is filled", || {
        let now = node.scene.look(&before);
        let is_left = |id: &String| now.processes.iter().any(|process| process.contains(id));
        let is_gone = now.containers.is_disjoint(&before) && !before.iter().any(is_left);
        (is_gone && now.containers.len() == 1 && now.files.len() == 2).then_some(())
    });
    let mut answer = edge.run("c", "unruly", "do:answer").await;
    assert_eq!(answer.last().await, Some(RunEvent::Finished { reason: FinishReason::Stop }), "{signal:?}");
    let containers = node.containers();
    runner.stop();
    node.scene.is_clear(&containers, AT_ONCE, "the runner's end");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_had_that_was_killed_with_its_engine_is_removed_by_the_next() {
    let mut engine = PrivateEngine::start();
    let node = Node::on(&engine.socket(), "", &CLIS);
    let runner = node.place.serve();
    let edge = node.edge(&runner).await;
    let mut running = edge.run("a", "unruly", "do:deaf").await;
    running.begun().await;
    edge.has_parked(1).await;
    let before = node.has_containers(2);
    engine.end(Signal::KILL);
    runner.signal(Signal::KILL);
    let (status, _) = runner.ended();
    assert!(!status.success());
    let ran = node.place.run(&["serve"]).expect(1);
    assert!(ran.stderr.contains("Docker"), "without an engine it does not start, and says why: {ran:#?}");

    engine.restart();
    let next = node.place.serve();
    let now = node.scene.look(&before);
    assert!(now.containers.is_disjoint(&before), "{now:#?}");
    next.stop();
    node.scene.is_clear(&before, AT_ONCE, "the runner's end");
}
