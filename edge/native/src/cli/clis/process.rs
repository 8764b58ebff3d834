//! Programs of this machine.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Runs a program to its end and returns what it wrote to stdout; an error has the end of what it wrote to stderr. One
/// that takes longer than `limit` is killed.
pub(super) async fn run(command: &mut Command, limit: Duration) -> io::Result<String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(limit, output).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("{name} had not ended after {} s", limit.as_secs()))
    })??;
    if output.status.success() {
        return String::from_utf8(output.stdout).map_err(io::Error::other);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last: Vec<_> = stderr.lines().rev().filter(|line| !line.trim().is_empty()).take(5).collect();
    let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(io::Error::other(format!("{name} failed ({}): {last}", output.status)))
}

/// Where a shell would find a program.
pub(super) fn on_path(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|directory| directory.join(name)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::block_on;

    fn shell(script: &str, limit: Duration) -> io::Result<String> {
        block_on(run(Command::new("sh").args(["-c", script]), limit)).unwrap()
    }

    #[test]
    fn programs_end_in_time_or_are_ended() {
        let limit = Duration::from_secs(20);
        assert_eq!(shell("echo out; echo err >&2", limit).unwrap(), "out\n");
        let failed = shell("echo why >&2; exit 3", limit).unwrap_err().to_string();
        assert!(failed.contains("exit status: 3") && failed.ends_with("why"), "{failed}");
        let late = shell("exec sleep 1000", Duration::from_millis(200)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(on_path("sh", OsStr::new("/nowhere:/bin:/usr/bin")).is_some());
        assert_eq!(on_path("no-such-program", OsStr::new("/bin:/usr/bin")), None);
        assert_eq!(on_path("passwd", OsStr::new("/etc")), None, "not a program");
    }
}
