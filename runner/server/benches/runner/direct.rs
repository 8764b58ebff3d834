//! The same CLI without the runner.

use std::path::PathBuf;
use std::process::Stdio;

use dyad_runner::config::model::Image;
use dyad_runner::pool::{Launcher, Sandboxes as _, Variant};
use dyad_runner::sandbox::Output;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::Instant;

use crate::figures::Times;
use crate::support::actor_image;
use crate::unix_nanos;

/// The flags are what the runner asks the engine for.
pub(crate) async fn docker_run(node: &str) -> Times {
    let Image::Build { tag, .. } = actor_image() else { unreachable!("it is built") };
    let mut docker = Command::new("docker");
    let seccomp = concat!("seccomp=", env!("CARGO_MANIFEST_DIR"), "/src/sandbox/seccomp.json");
    let tmpfs = |place: &str| {
        format!("{place}:rw,noexec,nosuid,nodev,size=4194304,nr_inodes=64,uid=65532,gid=65532,mode=0700")
    };
    docker.args(["run", "--rm", "--interactive", "--init", "--read-only"]);
    docker.args(["--network", "none", "--ipc", "none", "--cgroupns", "private", "--log-driver", "none"]);
    docker.args(["--user", "65532:65532", "--cap-drop", "ALL"]);
    docker.args(["--security-opt", "no-new-privileges:true", "--security-opt", seccomp]);
    docker.args(["--memory", "64m", "--memory-swap", "64m", "--cpus", "1", "--pids-limit", "32"]);
    docker.args(["--ulimit", "nofile=64", "--ulimit", "core=0", "--ulimit", "fsize=1048576"]);
    for place in ["/tmp", "/workspace", "/home/cli"] {
        docker.args(["--tmpfs", &tmpfs(place)]);
    }
    docker.args(["--workdir", "/workspace", "--label", "dyad.bench", &tag, "/actor", node]);
    ask(docker).await
}

pub(crate) async fn bare_process() -> Times {
    ask(Command::new(actor_program())).await
}

/// Beside the image's context.
fn actor_program() -> PathBuf {
    let Image::Build { context, .. } = actor_image() else { unreachable!("it is built") };
    context.join("actor")
}

async fn ask(mut command: Command) -> Times {
    let (begun, at) = (Instant::now(), unix_nanos());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"when\n").await.unwrap();
    drop(stdin);
    let mut stdout = child.stdout.take().unwrap();
    let mut answer = vec![0; 64];
    let length = stdout.read(&mut answer).await.unwrap();
    let first_byte = begun.elapsed();
    answer.truncate(length);
    stdout.read_to_end(&mut answer).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    Times::new(at, std::str::from_utf8(&answer).unwrap(), first_byte, begun.elapsed())
}

/// One sandbox of the echo CLI from its start to its removal.
pub(crate) async fn through_launcher(launcher: &Launcher, variant: &Variant) {
    let mut place = launcher.start(variant).await.unwrap();
    place.stdin.write_all(&launcher.files_header(&[]).unwrap()).await.unwrap();
    place.stdin.write_all(b"hello").await.unwrap();
    place.stdin.shutdown().await.unwrap();
    let mut said = Vec::new();
    while let Some(piece) = place.output.recv().await {
        if let Output::Stdout(bytes) = piece {
            said.extend_from_slice(&bytes);
        }
    }
    assert_eq!(said, b"hello");
    place.hold.exit().await;
    place.hold.remove().await;
}
