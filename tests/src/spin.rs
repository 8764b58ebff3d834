//! The Spin component, on the program that stands in for `spin up` (`tests/spin-host`).

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::gateway::artifact;
use crate::hosts::Variables;
use crate::{SOON, within};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../spin.toml");

/// Serves with `variables`; the log goes to `log`. What it calls are servers of this machine.
pub(crate) async fn start(log: &Path, variables: &Variables) -> (Child, SocketAddr) {
    let mut command = Command::new(artifact("DYAD_SPIN_HOST_BIN"));
    command
        .args(["--from", MANIFEST, "--listen", "127.0.0.1:0", "--component"])
        .arg(artifact("DYAD_SPIN_COMPONENT"))
        .env_clear()
        // Where compiled components are kept.
        .env("HOME", std::env::var_os("HOME").unwrap_or_default())
        .env("SPIN_VARIABLE_DYAD_UPSTREAM_HOSTS", "http://127.0.0.1:*")
        .envs(variables.iter().map(|(name, value)| (format!("SPIN_VARIABLE_{name}"), value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(log).expect("the temporary directory is writable"))
        .kill_on_drop(true);
    let mut child = command.spawn().expect("the Spin application's host starts");
    let address = within(SOON * 3, "the Spin application serves", async {
        let mut interval = tokio::time::interval(Duration::from_millis(10));
        loop {
            interval.tick().await;
            let said = fs::read_to_string(log).unwrap_or_default();
            let mut complete = said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            if let Some(address) = complete.find_map(|line| line.strip_prefix("Serving http://")) {
                return address.parse().expect("it says where it serves");
            }
            assert!(child.try_wait().expect("it is our child").is_none(), "it ended: {said}");
        }
    })
    .await;
    (child, address)
}
