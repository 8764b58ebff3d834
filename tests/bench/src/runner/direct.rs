//! The same CLI without a runner: as `docker run` starts it, and as a bare process.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::Fault;
use crate::figures::{Times, milliseconds};

/// With anything that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// So many nanoseconds since 1970.
pub(crate) fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// `answer`: what clock.rs said. `asked`: [`now`] at the request.
pub(crate) fn had_input_after(answer: &str, asked: u128) -> Result<f64, Fault> {
    let had: u128 = answer.trim().parse().map_err(|_| format!("the CLI answers {answer:?}"))?;
    let nanos = u64::try_from(had.saturating_sub(asked))?;
    Ok(milliseconds(Duration::from_nanos(nanos)))
}

/// With the flags that the runner asks for.
pub(crate) fn docker_run(tag: &str, seccomp: &Path, command: &[&str]) -> Command {
    let mut docker = Command::new("docker");
    docker.args(["run", "--rm", "--interactive", "--init", "--read-only", "--network", "none"]);
    docker.args(["--ipc", "none", "--cgroupns", "private", "--log-driver", "none", "--cap-drop", "ALL"]);
    docker.args(["--user", "65532:65532", "--security-opt", "no-new-privileges:true"]);
    docker.args(["--security-opt", &format!("seccomp={}", seccomp.display())]);
    docker.args(["--memory", "64m", "--memory-swap", "64m", "--cpus", "1", "--pids-limit", "32"]);
    docker.args(["--ulimit", "nofile=1024", "--ulimit", "core=0", "--ulimit", "fsize=67108864"]);
    for place in ["/tmp", "/workspace", "/home/cli"] {
        let options = "rw,noexec,nosuid,nodev,size=16777216,nr_inodes=16384,uid=65532,gid=65532,mode=0700";
        docker.args(["--tmpfs", &format!("{place}:{options}")]);
    }
    docker.args(["--workdir", "/workspace", tag]).args(command);
    docker
}

/// Starts it, and gives it a line.
pub(crate) async fn ask(command: Command) -> Result<Times, Fault> {
    let name = command.as_std().get_program().display().to_string();
    let asked = tokio::time::timeout(PATIENCE, ask_without_end(command)).await;
    asked.unwrap_or_else(|_| Err(format!("{name} does not end").into()))
}

async fn ask_without_end(mut command: Command) -> Result<Times, Fault> {
    let (begun, asked) = (Instant::now(), now());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut stdin = child.stdin.take().ok_or("stdin is not a pipe")?;
    stdin.write_all(b"when\n").await?;
    drop(stdin);
    let mut stdout = child.stdout.take().ok_or("stdout is not a pipe")?;
    let mut answer = [0; 64];
    let length = stdout.read(&mut answer).await?;
    let first_text = milliseconds(begun.elapsed());
    let mut answer = String::from_utf8(answer[..length].to_vec())?;
    stdout.read_to_string(&mut answer).await?;
    let status = child.wait().await?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    let stdin = Some(had_input_after(&answer, asked)?);
    Ok(Times { stdin, first_text, end: milliseconds(begun.elapsed()) })
}
