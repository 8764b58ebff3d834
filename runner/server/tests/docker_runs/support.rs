//! A node on the engine that all tests share, and what is left of it.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cli_dialect::{Kind, Settings};
use dyad_runner::config::model::{
    CapacityLimits, Cli, ECHO_ARGV, Egress, Engine as EngineConfig, Image, Isolated, Limits, Mode, Node,
    Piece, PoolSize, RunnerConfig, Template, Tls,
};
use dyad_runner::egress::{EgressProxy, EgressTimeouts, SystemLookup};
use dyad_runner::pool::Launcher;
use dyad_runner::run::{RunStream, Runs};
use dyad_runner::sandbox::Engine;
use futures_util::StreamExt as _;
use runner_api::{Message, Part, Role, RunEvent, RunRequest};
use tempfile::TempDir;
use tokio::time::Instant;

/// Longer than anything takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What is promised: nothing is left of a run so long after its end.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(1);

pub(crate) struct TestNode {
    pub(crate) config: RunnerConfig,
    directory: TempDir,
}

impl TestNode {
    pub(crate) fn new() -> Self {
        Self::on(Path::new("/var/run/docker.sock"))
    }

    /// Of the engine with this socket.
    pub(crate) fn on(socket: &Path) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let directory = TempDir::new().unwrap();
        let id = format!("runs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let unused = PathBuf::new();
        let config = RunnerConfig {
            clis: vec![Arc::new(actor(&id)), Arc::new(echo())],
            node: Node { id, url: "https://localhost:1".to_owned() },
            listen: ([127, 0, 0, 1], 0).into(),
            metrics_listen: None,
            tls: Tls {
                certificate: unused.clone(),
                key: unused.clone(),
                client_ca: unused,
                revocation_list: None,
                allowed_clients: Vec::new(),
            },
            state_dir: directory.path().join("state"),
            capacity: CapacityLimits {
                runs: 8,
                queue: 64,
                queue_per_caller: 64,
                memory_bytes: 4 << 30,
                starts: 4,
                drain_grace: Duration::from_secs(1),
            },
            engine: EngineConfig { socket: socket.to_owned(), allow_process: false },
        };
        Self { config, directory }
    }

    /// The entry of the actor, to be changed before the node starts.
    pub(crate) fn actor(&mut self) -> &mut Cli {
        Arc::get_mut(&mut self.config.clis[0]).expect("not started yet")
    }

    pub(crate) async fn start(&self) -> (Engine, Arc<Runs>) {
        let (engine, launcher) = self.launcher().await;
        (engine, Runs::new(&self.config.clis, self.config.capacity.clone(), Arc::new(launcher)))
    }

    /// What a start has before there are runs.
    pub(crate) async fn launcher(&self) -> (Engine, Launcher) {
        let lookup = Arc::new(SystemLookup);
        let egress =
            EgressProxy::new(&self.config.state_dir, &self.config.clis, EgressTimeouts::default(), lookup)
                .unwrap();
        let engine = Engine::connect(&self.config).await.expect("these tests need a Docker engine");
        engine.sweep().await.unwrap();
        let mut prepared = BTreeMap::new();
        for cli in &self.config.clis {
            prepared.insert(cli.name.clone(), engine.prepare(&cli.isolated, &mut |_| ()).await.unwrap());
        }
        (engine.clone(), Launcher::new(engine, egress, prepared))
    }

    /// A file's path that lives as long as the node.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What there is of this node: containers, processes, sockets and their directories.
    pub(crate) fn traces(&self) -> Vec<String> {
        let id = &self.config.node.id;
        let mut docker = Command::new("docker");
        docker.arg("--host").arg(format!("unix://{}", self.config.engine.socket.display()));
        docker.args([
            "ps",
            "--all",
            "--filter",
            &format!("label=dyad.node={id}"),
            "--format",
            "container {{.Names}}",
        ]);
        let listed = docker.output().unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let containers = String::from_utf8(listed.stdout).unwrap();
        let mut traces: Vec<_> = containers.lines().map(str::to_owned).collect();
        traces.extend(processes(id));
        traces.extend(sockets(&self.config.state_dir));
        traces
    }

    /// Waits until there are no traces, and says how long that took.
    pub(crate) async fn until_gone(&self) -> Duration {
        let begun = Instant::now();
        loop {
            let asked = begun.elapsed();
            let traces = self.traces();
            if traces.is_empty() {
                return asked;
            }
            assert!(begun.elapsed() < PATIENCE, "left behind: {traces:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Of the actors of a node: its name is in their argv.
pub(crate) fn processes(node: &str) -> Vec<String> {
    let of_node = |id: &str| {
        let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let mut arguments = command.split(|&byte| byte == 0);
        arguments.next() == Some(b"/actor") && arguments.next() == Some(node.as_bytes())
    };
    let all = std::fs::read_dir("/proc").unwrap();
    let ids = all.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    ids.filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()) && of_node(id))
        .map(|id| format!("process {id}"))
        .collect()
}

/// Below the directory.
fn sockets(directory: &Path) -> Vec<String> {
    use std::os::unix::fs::FileTypeExt as _;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(sockets(&entry.path()));
        } else if kind.is_socket() {
            found.push(format!("socket {}", entry.path().display()));
        }
    }
    found
}

impl Drop for TestNode {
    /// What a test that failed left.
    fn drop(&mut self) {
        if std::thread::panicking() && !self.config.engine.socket.starts_with("/var/run") {
            // A private engine, which may be down, takes all with it.
            return;
        }
        for trace in self.traces() {
            if let Some(container) = trace.strip_prefix("container ") {
                let _ = Command::new("docker").args(["rm", "--force", "--volumes", container]).output();
            }
        }
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
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
    }
}

fn entry(name: &str, image: Image, argv: &[&str]) -> Cli {
    Cli {
        name: name.to_owned(),
        isolated: Isolated::Container { image, runtime: None },
        mode: Mode::OneShot,
        argv: argv.iter().map(|&text| Template(vec![Piece::Literal(text.to_owned())])).collect(),
        parameters: BTreeMap::new(),
        dialect: Kind::Text,
        settings: Settings::default(),
        environment: Vec::new(),
        limits: limits(),
        egress: None,
        pool: PoolSize { min: 0, max: 0, max_age: PATIENCE },
        images: false,
    }
}

fn echo() -> Cli {
    entry("echo", Image::Echo, &ECHO_ARGV)
}

/// With a way out that leads nowhere: there is a socket that could be left behind.
fn actor(node: &str) -> Cli {
    let egress = Egress { port: 8080, upstreams: Vec::new(), connect: Vec::new(), max_bytes: 1 << 20 };
    Cli { egress: Some(egress), ..entry("actor", actor_image(), &["/actor", node]) }
}

const ACTOR: &str = include_str!("actor.rs");
const DOCKERFILE: &str = "FROM scratch\nADD root.tar /\n";

/// Built from a directory that stays, once for each state of the actor's source.
pub(crate) fn actor_image() -> Image {
    let mut hasher = DefaultHasher::new();
    (ACTOR, DOCKERFILE).hash(&mut hasher);
    let version = format!("{:016x}", hasher.finish());
    let context = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("actor-{version}"));
    if !context.exists() {
        let partial = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (source, program) = (partial.path().join("actor.rs"), partial.path().join("actor"));
        std::fs::write(&source, ACTOR).unwrap();
        let flags = ["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"];
        let compiled = Command::new("rustc").args(flags).args([&program, &source]).status().unwrap();
        assert!(compiled.success(), "actor.rs does not compile");
        // In a tar: of files that it copies itself, the builder may drop the mode.
        let mut root = tar::Builder::new(std::fs::File::create(partial.path().join("root.tar")).unwrap());
        root.append_path_with_name(&program, "actor").unwrap();
        root.finish().unwrap();
        std::fs::write(partial.path().join("Dockerfile"), DOCKERFILE).unwrap();
        // Another test may have been quicker.
        if std::fs::rename(partial.path(), &context).is_ok() {
            let _ = partial.keep();
        }
    }
    Image::Build { context, tag: format!("dyad-test-actor:{version}") }
}

pub(crate) fn request(id: &str, cli: &str, text: &str) -> RunRequest {
    let message = Message { role: Role::User, parts: vec![Part::Text { text: text.to_owned() }] };
    RunRequest {
        id: id.to_owned(),
        cli: cli.to_owned(),
        parameters: BTreeMap::new(),
        caller: "key".to_owned(),
        timeout_ms: None,
        system: None,
        messages: vec![message],
    }
}

pub(crate) async fn submit(runs: &Runs, request: RunRequest) -> RunStream {
    runs.submit(request, Instant::now()).await.unwrap()
}

/// The next event, which must come.
pub(crate) async fn next(stream: &mut RunStream) -> RunEvent {
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("an event in time").expect("an event")
}

/// Until the actor said this.
pub(crate) async fn until_said(stream: &mut RunStream, word: &str) {
    let mut said = String::new();
    while !said.contains(word) {
        match next(stream).await {
            RunEvent::Text { text } => said.push_str(&text),
            RunEvent::Started { .. } => {}
            other => panic!("{other:?} after {said:?}"),
        }
    }
}

/// All that is left, text in one piece.
pub(crate) async fn rest(mut stream: RunStream) -> (String, RunEvent) {
    let mut said = String::new();
    loop {
        match next(&mut stream).await {
            RunEvent::Text { text } => said.push_str(&text),
            last if last.is_last() => return (said, last),
            _ => {}
        }
    }
}
