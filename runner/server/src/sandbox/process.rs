//! A CLI as a process of this host, for development without Docker. **Weaker than a container.**
//!
//! It has namespaces of its own (mounts, processes, network with nothing but loopback, IPC, host name), a tmpfs in
//! place of /tmp, no capabilities and no way to get any, and limits per process. It is killed as a whole by the end of
//! its first process. But it sees this host's file system with the rights of its user, and reaches the Unix sockets in
//! it: Docker's too, and by that the whole host, if the runner's user is in Docker's group. No seccomp profile keeps
//! system calls from it, memory is limited per process and not in sum, and CPU time not at all. A runner that is root
//! gives it a user of its own; any other runner's CLIs run as the runner's own user, who can read the runner's files.
//!
//! Made by util-linux: setpriv(1), unshare(1), prlimit(1), mount(8), and ip(8) where there is egress.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::keeper::Started;
use super::{Exit, Output, SandboxError, SandboxSpec, Stdin, program};

/// Not a container's user: the kernel counts the processes of a user in sum.
const UID: &str = "65533";
const TIMEOUT: Duration = Duration::from_secs(10);
const PIECE: usize = 32 * 1024;

/// Runs as the first process of the namespaces, before anything is given up. Its text is fixed; what varies comes in
/// as arguments. It stays, since a first process has to reap orphans and is deaf to signals from inside.
const SCRIPT: &str = r#"
set -e
owner=$1 size=$2 inodes=$3 stage=$4 program=$5 socket=$6; shift 6
mount -t tmpfs -o "size=$size,nr_inodes=$inodes,nosuid,nodev,mode=755" tmpfs "$stage"
mkdir "$stage/workspace" "$stage/home" "$stage/tmp"
chown "$owner:$owner" "$stage/workspace" "$stage/home" "$stage/tmp"
: > "$stage/init"; mount --bind "$program" "$stage/init"
if [ -n "$socket" ]; then
  : > "$stage/egress.sock"; mount --bind "$socket" "$stage/egress.sock"
  ip link set lo up
fi
mount --move "$stage" /tmp
cd /tmp/workspace
set +e
"$@"
exit $?
"#;

pub(super) struct Process {
    command: Command,
    child: Option<Child>,
}

impl Process {
    /// `stage` is a directory that a mount may cover.
    pub(super) fn new(spec: &SandboxSpec, program: &Path, stage: &Path) -> Self {
        let limits = &spec.limits;
        let confines = Confines {
            size: limits.tmpfs_bytes,
            inodes: limits.tmpfs_inodes,
            open_files: limits.open_files,
            file_bytes: limits.file_bytes,
            pids: limits.pids.into(),
            data: limits.memory_bytes,
        };
        let relay = spec.egress.as_ref().map(|egress| (egress.port, "/tmp/egress.sock"));
        let arguments = program::arguments(&spec.argv, relay, spec.waits_for_files);
        let socket = spec.egress.as_ref().map(|egress| egress.path.as_path());
        let mut command = command(&confines, program, stage, socket, &arguments);
        command.env_clear();
        // Where the CLI is found: the runner's own, unless the operator says otherwise.
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("HOME", "/tmp/home").env("TMPDIR", "/tmp/tmp");
        command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, child: None }
    }

    pub(super) fn start(&mut self) -> Result<Started, SandboxError> {
        let mut child = self.command.spawn().map_err(SandboxError::io("starting setpriv(1)"))?;
        let missing = || SandboxError::Process("a pipe is missing".to_owned());
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = pieces(child.stdout.take().ok_or_else(missing)?).map(Output::Stdout);
        let stderr = pieces(child.stderr.take().ok_or_else(missing)?).map(Output::Stderr);
        self.child = Some(child);
        Ok(Started { stdin: Stdin::new(stdin), output: stream::select(stdout, stderr).boxed() })
    }

    pub(super) async fn exit(&mut self) -> Exit {
        let Some(child) = &mut self.child else { return Exit::default() };
        // It may have closed its output and live on.
        match tokio::time::timeout(TIMEOUT, child.wait()).await {
            Ok(Ok(status)) => Exit { code: Some(code(status)), limit: None },
            Ok(Err(_)) | Err(_) => Exit::default(),
        }
    }

    /// The kernel ends all that is in the namespaces together with their first process, and takes their mounts away.
    pub(super) async fn remove(&mut self) -> Result<(), SandboxError> {
        let Some(child) = &mut self.child else { return Ok(()) };
        // unshare(1) ends after that process, which ends after all others: what is waited for is the end of all.
        let first = child.id().and_then(first_child);
        if let Some(first) = first {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(first, rustix::process::Signal::KILL);
        } else {
            // It is not there yet. Were it only hidden, it would die with its parent, if a moment later.
            child.start_kill().map_err(SandboxError::io("killing a process"))?;
        }
        match tokio::time::timeout(TIMEOUT, child.wait()).await {
            Ok(outcome) => outcome.map(drop).map_err(SandboxError::io("waiting for a process")),
            Err(_) => Err(SandboxError::Process("a process does not die".to_owned())),
        }
    }
}

/// Of a process with one thread. None, too, where the kernel does not tell.
fn first_child(parent: u32) -> Option<rustix::process::Pid> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    rustix::process::Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

/// Tries whether this host has what it takes: a process that does nothing, in all that a CLI would get.
pub(super) async fn probe(program: &Path, stage: &Path) -> Result<(), SandboxError> {
    let limits =
        Confines { size: 1 << 20, inodes: 16, open_files: 64, file_bytes: 1 << 20, pids: 64, data: 1 << 30 };
    let argv = ["/tmp/init".to_owned(), "echo".to_owned()];
    let mut command = command(&limits, program, stage, None, &program::arguments(&argv, None, false));
    command.stdin(Stdio::null());
    let output = match tokio::time::timeout(TIMEOUT, command.output()).await {
        Ok(output) => output.map_err(SandboxError::io("starting setpriv(1)"))?,
        Err(_) => return Err(SandboxError::TimedOut { doing: "starting a process in namespaces" }),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(SandboxError::Process(format!("this host does not let one be made: {}", said.trim_end())))
}

/// The part of the limits that can be had without control groups.
struct Confines {
    /// Of the tmpfs: workspace, home and temporary files together.
    size: u64,
    inodes: u64,
    open_files: u64,
    file_bytes: u64,
    /// Of the user, over all sandboxes.
    pids: u64,
    /// Writable memory of one process. Its address space is no measure: Node and Bun reserve far more than they use.
    data: u64,
}

fn command(
    confines: &Confines,
    program: &Path,
    stage: &Path,
    socket: Option<&Path>,
    arguments: &[String],
) -> Command {
    let is_root = rustix::process::geteuid().is_root();
    // Dies with the runner, whatever ends that; and with it, by --kill-child, all the rest.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    if !is_root {
        command.args(["--user", "--map-root-user"]);
    }
    command.args([
        "--mount",
        "--pid",
        "--net",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child=KILL",
        "--mount-proc",
    ]);
    // Inside a user namespace there is nobody else to be.
    let owner = if is_root { UID } else { "0" };
    command.args(["sh", "-c", SCRIPT, "sh", owner, &confines.size.to_string(), &confines.inodes.to_string()]);
    command.arg(stage).arg(program).arg(socket.unwrap_or(Path::new("")));
    command.arg("prlimit").args([
        format!("--nofile={0}:{0}", confines.open_files),
        format!("--fsize={0}:{0}", confines.file_bytes),
        format!("--nproc={0}:{0}", confines.pids),
        format!("--data={0}:{0}", confines.data),
        "--core=0:0".to_owned(),
    ]);
    command.args(["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]);
    if is_root {
        command.args(["--reuid", UID, "--regid", UID, "--clear-groups"]);
    }
    command.arg("/tmp/init").args(arguments);
    command.kill_on_drop(true);
    command
}

/// What comes, as it comes. A broken pipe is an end.
fn pieces(pipe: impl AsyncRead + Send + Unpin + 'static) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(pipe, async |mut pipe| {
        let mut buffer = BytesMut::with_capacity(PIECE);
        let count = pipe.read_buf(&mut buffer).await.unwrap_or(0);
        (count > 0).then(|| (buffer.freeze(), pipe))
    })
}

/// As a container's: 128 + N for signal N.
fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}
