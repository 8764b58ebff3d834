//! The Worker in `workerd`, the runtime that Cloudflare runs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::gateway::artifact;
use crate::hosts::Variables;
use crate::{SOON, within};

const WRANGLER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../wrangler.toml");
/// Where it listens is told on descriptor 3, apart from what the Worker prints.
const COMMAND: &str = r#"exec "$0" serve --control-fd=3 "$1" 3>&1 >"$2" 2>&1"#;

/// Starts the Worker, which writes its log into `directory`; its process, and where it serves.
pub(crate) async fn launch(directory: &Path, variables: &Variables) -> (Child, String) {
    let log = directory.join("log");
    let script = artifact("DYAD_WORKER_DIR");
    for module in ["index.js", "index_bg.wasm"] {
        fs::copy(script.join(module), directory.join(module)).expect("the Worker is built");
    }
    let configuration = directory.join("workerd.capnp");
    fs::write(&configuration, capnp(variables)).expect("the temporary directory is writable");
    let mut command = Command::new("sh");
    command
        .args(["-c", COMMAND])
        .arg(artifact("DYAD_WORKERD_BIN"))
        .arg(configuration)
        .arg(&log)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("workerd starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let port = within(SOON * 3, "workerd listens", async {
        while let Ok(Some(line)) = lines.next_line().await {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["event"] == "listen" {
                return event["port"].as_u64();
            }
        }
        None
    });
    let port = port.await.unwrap_or_else(|| panic!("{}", fs::read_to_string(log).unwrap_or_default()));
    (child, format!("http://127.0.0.1:{port}"))
}

/// As `wrangler.toml` has it for Cloudflare. Variables come from the environment.
fn capnp(variables: &Variables) -> String {
    let wrangler = fs::read_to_string(WRANGLER).expect("wrangler.toml is in the repository");
    let wrangler: toml::Table = wrangler.parse().expect("wrangler.toml is TOML");
    let date = &wrangler["compatibility_date"];
    let flags = &wrangler["compatibility_flags"];
    let mut bindings = String::new();
    for name in variables.keys() {
        let _ = write!(bindings, "(name = \"{name}\", fromEnvironment = \"{name}\"),");
    }
    format!(
        r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "gateway", worker = .gateway),
    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true)))
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "gateway")]
);
const gateway :Workerd.Worker = (
  modules = [
    (name = "index.js", esModule = embed "index.js"),
    (name = "index_bg.wasm", wasm = embed "index_bg.wasm")
  ],
  compatibilityDate = {date},
  compatibilityFlags = {flags},
  bindings = [{bindings}]
);
"#
    )
}
