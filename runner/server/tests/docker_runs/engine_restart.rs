//! The engine goes down in the middle of a run, and comes back: a private dockerd, so that nobody else's does.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::support::{PATIENCE, TestNode, request, rest, submit, until_said};

/// An engine with everything of its own: data, containerd, socket, and no network at all.
struct PrivateEngine {
    directory: TempDir,
    daemon: Option<Child>,
}

impl PrivateEngine {
    async fn start() -> Self {
        // A short path: there are sockets below it.
        let directory = TempDir::with_prefix_in("dyad-engine-", "/tmp").unwrap();
        let mut engine = Self { directory, daemon: None };
        engine.up().await;
        engine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("docker.sock")
    }

    async fn up(&mut self) {
        let namespace = self.directory.path().file_name().unwrap().to_str().unwrap().to_owned();
        let mut dockerd = Command::new("dockerd");
        dockerd
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .args(["--containerd-namespace", &namespace])
            .args(["--containerd-plugins-namespace", &format!("{namespace}-plugins")])
            .args(["--bridge", "none", "--iptables=false", "--ip-masq=false", "--ip-forward=false"])
            .args(["--shutdown-timeout", "1"]);
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let error = log.try_clone().unwrap();
        let daemon = dockerd.stdin(Stdio::null()).stdout(log).stderr(error).spawn();
        self.daemon = Some(daemon.expect("this test needs dockerd, and to be root"));
        let begun = Instant::now();
        while !self.answers() {
            assert!(begun.elapsed() < PATIENCE, "{}", self.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn answers(&self) -> bool {
        let mut docker = Command::new("docker");
        docker.arg("--host").arg(format!("unix://{}", self.socket().display())).arg("info");
        docker.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// In good order, as a service manager does it.
    fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        terminate(daemon.id());
        daemon.wait().unwrap();
    }
}

fn terminate(id: u32) {
    let id = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    // It may have ended by itself.
    let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_when_the_engine_does_and_nothing_is_left_when_it_is_back() {
    let mut docker = PrivateEngine::start().await;
    let mut node = TestNode::on(&docker.socket());
    node.actor().pool.min = 1;
    node.actor().pool.max = 1;
    let (engine, runs) = node.start().await;
    for id in ["1", "2"] {
        let mut stream = submit(&runs, request(id, "actor", "hang")).await;
        until_said(&mut stream, "hanging").await;
        docker.stop();
        let (_, last) = rest(stream).await;
        assert!(matches!(last, runner_api::RunEvent::Error { .. }), "{last:?}");
        docker.up().await;
        // The runner has gone on trying; and it takes requests again.
        let (said, _) =
            rest(submit(&runs, request(&format!("{id}-after"), "actor", "say hello")).await).await;
        assert_eq!(said, "hello");
    }
    runs.close(PATIENCE).await;
    engine.close(PATIENCE).await.expect("all removed");
    assert!(node.traces().is_empty(), "{:?}", node.traces());
}
