//! What the tests of sandboxes share: a node's configuration and sandboxes on it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dyad_runner::config::model::{
    CapacityLimits, Engine as EngineConfig, Image, Isolated, Limits, Node, RunnerConfig, Tls,
};
use dyad_runner::sandbox::{Engine, Exit, Output, Prepared, Sandbox, SandboxSpec};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

/// Longer than anything takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A node of its own on the engine that all tests share.
pub(crate) struct TestNode {
    pub(crate) config: RunnerConfig,
    _state_dir: TempDir,
}

impl TestNode {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let state_dir = TempDir::new().unwrap();
        let id = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let unused = PathBuf::new();
        let config = RunnerConfig {
            node: Node { id, url: "https://localhost:1".to_owned() },
            listen: ([127, 0, 0, 1], 0).into(),
            tls: Tls {
                certificate: unused.clone(),
                key: unused.clone(),
                client_ca: unused,
                revocation_list: None,
                allowed_clients: Vec::new(),
            },
            metrics_listen: None,
            registry: None,
            state_dir: state_dir.path().to_owned(),
            capacity: CapacityLimits {
                runs: 8,
                queue: 8,
                queue_per_caller: 8,
                memory_bytes: 1 << 30,
                starts: 4,
                drain_grace: Duration::from_secs(1),
            },
            engine: EngineConfig { socket: "/var/run/docker.sock".into(), allow_process: false },
            clis: Vec::new(),
        };
        Self { config, _state_dir: state_dir }
    }

    pub(crate) async fn engine(&self) -> Engine {
        Engine::connect(&self.config).await.expect("these tests need a Docker engine at /var/run/docker.sock")
    }

    /// The names of the containers that this node has, in any state.
    pub(crate) fn containers(&self) -> Vec<String> {
        let filter = format!("label=dyad.node={}", self.config.node.id);
        docker(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"])
            .lines()
            .map(str::to_owned)
            .collect()
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

/// What docker(1) prints.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = std::process::Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
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

pub(crate) fn echo() -> Isolated {
    Isolated::Container { image: Image::Echo, runtime: None }
}

pub(crate) async fn prepare(engine: &Engine, isolated: &Isolated) -> Prepared {
    engine.prepare(isolated, &mut |_| ()).await.unwrap()
}

pub(crate) fn spec(prepared: &Prepared, argv: &[&str]) -> SandboxSpec {
    SandboxSpec {
        cli: "test".to_owned(),
        prepared: prepared.clone(),
        limits: limits(),
        argv: argv.iter().map(|&argument| argument.to_owned()).collect(),
        environment: Vec::new(),
        egress: None,
        waits_for_files: false,
    }
}

/// What a CLI left when it ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) exit: Exit,
}

impl Finished {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Gives it its input, waits for its end, and removes it.
pub(crate) async fn finish(mut sandbox: Sandbox, input: &[u8]) -> Finished {
    let run = async {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let write = async {
            // A CLI need not read all of it.
            let _ = sandbox.stdin.write_all(input).await;
            let _ = sandbox.stdin.shutdown().await;
        };
        let read = async {
            while let Some(piece) = sandbox.output.recv().await {
                match piece {
                    Output::Stdout(bytes) => stdout.extend_from_slice(&bytes),
                    Output::Stderr(bytes) => stderr.extend_from_slice(&bytes),
                }
            }
        };
        tokio::join!(write, read);
        let exit = sandbox.lifeline.exit().await;
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        sandbox.remove().await;
        Finished { stdout, stderr, exit }
    };
    tokio::time::timeout(PATIENCE, run).await.expect("it ended in time")
}

pub(crate) async fn run(engine: &Engine, spec: SandboxSpec, input: &[u8]) -> Finished {
    finish(engine.start(spec).await.unwrap(), input).await
}

/// The hostile CLI, `/attacker` in an image of its own. See attacker.rs.
pub(crate) async fn attacker(engine: &Engine) -> Prepared {
    let program = std::fs::read(compiled_attacker()).unwrap();
    let context = TempDir::new().unwrap();
    std::fs::write(context.path().join("Dockerfile"), DOCKERFILE).unwrap();
    // In a tar of its own: of files that it copies itself, the builder drops the bit.
    let mut root = tar::Builder::new(std::fs::File::create(context.path().join("root.tar")).unwrap());
    let mut add = |name: &str, mode, kind, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        root.append_data(&mut header, name, bytes).unwrap();
    };
    add("attacker", 0o755, tar::EntryType::Regular, &program);
    add("attacker-setuid", 0o4755, tar::EntryType::Regular, &program);
    add("open/", 0o1777, tar::EntryType::Directory, b"");
    root.finish().unwrap();
    let image = Image::Build { context: context.path().to_owned(), tag: attacker_tag() };
    prepare(engine, &Isolated::Container { image, runtime: None }).await
}

const DOCKERFILE: &str = "FROM scratch\nADD root.tar /\n";
const ATTACKER: &str = include_str!("attacker.rs");

fn attacker_tag() -> String {
    let mut hasher = DefaultHasher::new();
    (DOCKERFILE, ATTACKER).hash(&mut hasher);
    format!("dyad-test-attacker:{:016x}", hasher.finish())
}

/// Compiled once for each state of its source.
fn compiled_attacker() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(attacker_tag().replace(':', "-"));
    if path.exists() {
        return path;
    }
    let source = directory.join(format!("attacker-{}.rs", std::process::id()));
    let partial = source.with_extension("");
    std::fs::write(&source, ATTACKER).unwrap();
    let status = std::process::Command::new("rustc")
        .args([
            "--edition",
            "2024",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "opt-level=1",
            "-C",
            "strip=symbols",
        ])
        .arg("-o")
        .args([&partial, &source])
        .status()
        .unwrap();
    assert!(status.success(), "attacker.rs does not compile");
    // Other tests may do the same at the same time.
    std::fs::rename(&partial, &path).unwrap();
    std::fs::remove_file(source).unwrap();
    path
}
