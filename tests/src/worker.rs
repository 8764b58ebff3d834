//! The Worker in `workerd`, the runtime that Cloudflare runs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::config::Config;
use crate::gateway::{Gateway, artifact};
use crate::hosts::{self, Variables};
use crate::{SOON, within};

const WRANGLER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../wrangler.toml");
/// Where it listens is told on descriptor 3, apart from what the Worker prints.
const COMMAND: &str = r#"exec "$0" serve --control-fd=3 "$1" 3>&1 >"$2" 2>&1"#;

/// How a Worker is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Beside the table's own, and instead of those of the same names; an empty one is as good as none.
    pub variables: Variables,
    /// What the binding `RUNNERS` leads to.
    pub runners: Option<Runners>,
}

/// `mtls_certificates` on Cloudflare; on this machine one node. Paths of PEM files.
#[derive(Clone, Debug)]
pub struct Runners {
    /// `host:port` of the node.
    pub address: String,
    /// The name that the node's certificate has to have.
    pub host: String,
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A running Worker. It ends when it is dropped.
#[derive(Debug)]
pub struct Worker {
    pub gateway: Gateway,
}

impl Worker {
    /// Starts the Worker on a table, with the settings of `config`. Its providers are the table's. It has served nothing
    /// yet.
    pub async fn start(table: &Variables, api_key: &str, config: &Config, options: Options) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let variables = hosts::variables(table, config);
        let (process, origin) = launch(directory.path(), &variables, &options).await;
        Self { gateway: Gateway::of_process(process, directory, &origin, api_key.to_owned()) }
    }

    /// What the Worker has logged so far, each line an event.
    pub fn events(&self) -> Vec<Value> {
        self.gateway.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until the log shows what is looked for.
    pub async fn logged(&self, what: &str, shows: impl Fn(&[Value]) -> bool) {
        within(SOON, what, async {
            while !shows(&self.events()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// Starts the Worker, which writes its log into `directory`; its process, and where it serves.
pub(crate) async fn launch(directory: &Path, variables: &Variables, options: &Options) -> (Child, String) {
    let mut variables = variables.clone();
    variables.extend(options.variables.clone());
    let log = directory.join("log");
    let script = artifact("DYAD_WORKER_DIR");
    for module in ["index.js", "index_bg.wasm"] {
        fs::copy(script.join(module), directory.join(module)).expect("the Worker is built");
    }
    let configuration = directory.join("workerd.capnp");
    fs::write(&configuration, capnp(&variables, options.runners.as_ref()))
        .expect("the temporary directory is writable");
    let mut command = Command::new("sh");
    command
        .args(["-c", COMMAND])
        .arg(artifact("DYAD_WORKERD_BIN"))
        .arg(configuration)
        .arg(&log)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(&variables)
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
fn capnp(variables: &Variables, runners: Option<&Runners>) -> String {
    let wrangler = fs::read_to_string(WRANGLER).expect("wrangler.toml is in the repository");
    let wrangler: toml::Table = wrangler.parse().expect("wrangler.toml is TOML");
    let date = &wrangler["compatibility_date"];
    let flags = &wrangler["compatibility_flags"];
    let mut bindings = String::new();
    for name in variables.keys() {
        let _ = write!(bindings, r#"(name = "{name}", fromEnvironment = "{name}"),"#);
    }
    let mut service = String::new();
    if let Some(runners) = runners {
        bindings.push_str(r#"(name = "RUNNERS", service = "runners"),"#);
        service = external(runners);
    }
    format!(
        r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "gateway", worker = .gateway),
    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true))),
    {service}
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

/// A service that presents the client certificate and knows one authority.
fn external(Runners { address, host, ca, certificate, key }: &Runners) -> String {
    // Neither PEM nor Cap'n Proto's text knows a character of the other's that would need escaping, but for lines' ends.
    let pem =
        |path: &Path| fs::read_to_string(path).expect("the certificates are there").replace('\n', "\\n");
    let (ca, certificate, key) = (pem(ca), pem(certificate), pem(key));
    format!(
        r#"(name = "runners", external = (address = "{address}", https = (
      options = (),
      certificateHost = "{host}",
      tlsOptions = (
        keypair = (privateKey = "{key}", certificateChain = "{certificate}"),
        trustedCertificates = ["{ca}"],
      ),
    )))"#
    )
}
