//! The runner inside the gateway's own process: CLIs as models on one machine.
//!
//! It is the same runner as on a node of a fleet, reached the same way, over mTLS, with certificates that the two make for
//! themselves in the data directory. Its file, `runner.toml`, has only what the operator adds (`dyad-gateway clis add`); the
//! rest is filled in here, and `cli-echo` is always there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use catalog::{Provider, RawProvider};
use dyad_runner::config::model::{Allowed, Cli, RunnerConfig};
use dyad_runner::{Runner, RunningRunner, StartError};
use runner_api::Registry;
use serde_json::json;
use tokio::task::JoinHandle;
use toml::{Table, Value};

use crate::ca::{CaError, LocalCertificates};
use crate::data_dir::DataDir;
use crate::error_chain::error_chain;
use crate::file;
use crate::runners::{IdentityError, RunnerIdentity, RunnersConfig};

/// The CLI that needs nothing but Docker: it prints what it is told.
pub(crate) const ECHO: &str = "cli-echo";
/// CLIs of one's own come before what was merely found, and after what was asked for by name.
const RANK: u32 = 900;
/// The parameter whose values are models.
const MODEL: &str = "model";
/// Certificates are looked at so often, and renewed long before they end.
const RENEWAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Why there is no runner; the gateway serves without one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalRunnerError {
    #[error("{}: {}", path.display(), lines.join("; "))]
    Config { path: PathBuf, lines: Vec<String> },
    #[error("its certificates cannot be made")]
    Certificates(#[from] CaError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{0}")]
    Start(String),
}

/// What is known before anything is started.
pub(crate) struct Plan {
    config: RunnerConfig,
    certificates_dir: PathBuf,
    certificates: LocalCertificates,
    /// CLIs that cannot run, and why.
    left_out: Vec<(String, String)>,
}

impl Plan {
    /// Reads the operator's file, if there is one, and makes certificates.
    pub(crate) fn make(data_dir: &DataDir) -> Result<Self, LocalRunnerError> {
        let path = data_dir.runner_file();
        let wrong = |lines| LocalRunnerError::Config { path: path.clone(), lines };
        let mut table = match std::fs::read_to_string(&path) {
            Ok(text) => text.parse().map_err(|error: toml::de::Error| wrong(vec![error.to_string()]))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Table::new(),
            Err(error) => return Err(wrong(vec![error.to_string()])),
        };
        let certificates_dir = data_dir.path().join("certs");
        let certificates = LocalCertificates::ensure(&certificates_dir, SystemTime::now())?;
        let id = node_id(data_dir).map_err(|error| wrong(vec![format!("node-id: {error}")]))?;
        fill_in(&mut table, &id, &certificates, &data_dir.path().join("run"));
        let folder = std::path::absolute(data_dir.path()).map_err(|error| wrong(vec![error.to_string()]))?;
        let mut config = RunnerConfig::from_table(&table, &folder)
            .map_err(|violations| wrong(violations.iter().map(ToString::to_string).collect()))?;
        let mut left_out = Vec::new();
        for name in config.clis.iter().map(|cli| cli.name.clone()).collect::<Vec<_>>() {
            if let Some(missing) = config.missing_credentials(Some(&name)).first() {
                config.clis.retain(|cli| cli.name != name);
                left_out.push((name, missing.message.clone()));
            }
        }
        Ok(Self { config, certificates_dir, certificates, left_out })
    }

    /// How the gateway reaches the runner.
    pub(crate) fn connection(&self) -> RunnersConfig {
        let LocalCertificates { authority, edge, .. } = self.certificates.clone();
        let identity = RunnerIdentity { client_cert: edge.clone(), client_key: edge, ca: authority };
        // The runner announces itself.
        RunnersConfig { identity, nodes: Vec::new() }
    }

    /// Starts the runner, which announces itself to `registry`. A CLI that cannot be made ready is left out; the others
    /// are served. Must be called in a runtime with more than one thread.
    pub(crate) async fn start(
        mut self,
        registry: Arc<dyn Registry>,
    ) -> Result<LocalRunner, LocalRunnerError> {
        let node = loop {
            match Runner::start(self.config.clone(), Arc::clone(&registry)).await {
                Ok(node) => break node,
                Err(StartError::Prepare { cli, source }) if cli != ECHO => {
                    self.config.clis.retain(|other| other.name != cli);
                    self.left_out.push((cli, error_chain(&source)));
                }
                Err(error) => return Err(LocalRunnerError::Start(error.lines().join("; "))),
            }
        };
        let renewal = tokio::spawn(renew(self.certificates_dir));
        let providers = self.config.clis.iter().filter_map(|cli| provider(cli)).collect();
        Ok(LocalRunner { node, renewal, providers, left_out: self.left_out })
    }
}

/// A runner that serves in this process.
pub(crate) struct LocalRunner {
    node: RunningRunner,
    renewal: JoinHandle<()>,
    /// One per CLI: its models are the values of its parameter `model`, or it is one itself.
    pub(crate) providers: Vec<Provider>,
    /// CLIs that it does not serve, and why.
    pub(crate) left_out: Vec<(String, String)>,
}

impl LocalRunner {
    /// Ends runs that still go on and removes every sandbox. To be called once the gateway has drained.
    pub(crate) async fn shutdown(self) {
        self.renewal.abort();
        if let Err(left) = self.node.shutdown().await {
            tracing::warn!(%left, "the runner has left something behind; its next start removes it");
        }
    }
}

async fn renew(directory: PathBuf) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        // Both ends read their files again when they change.
        if let Err(error) = LocalCertificates::ensure(&directory, SystemTime::now()) {
            tracing::error!(error = error_chain(&error), "the runner's certificates cannot be renewed");
        }
    }
}

/// By this the runner knows its own containers, after a crash too.
fn node_id(data_dir: &DataDir) -> io::Result<String> {
    let path = data_dir.path().join("node-id");
    loop {
        match std::fs::read_to_string(&path) {
            Ok(id) => return Ok(id.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let id = format!("local-{}", crate::random::hex::<8>()?);
        match file::write_new(&path, &id, file::PRIVATE) {
            // Another process was first: its id is the one.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
}

/// What the operator's file does not say and one machine has no choice about.
fn fill_in(table: &mut Table, id: &str, certificates: &LocalCertificates, state_dir: &Path) {
    let text = |path: &Path| Value::from(path.display().to_string());
    let node = Table::from_iter([
        ("id".to_owned(), id.into()),
        // Its port is the one that it gets.
        ("url".to_owned(), "https://localhost:0".into()),
    ]);
    let tls = Table::from_iter([
        ("certificate".to_owned(), text(&certificates.node)),
        ("key".to_owned(), text(&certificates.node)),
        ("client_ca".to_owned(), text(&certificates.authority)),
        ("allowed_clients".to_owned(), vec![LocalCertificates::EDGE].into()),
    ]);
    table.insert("listen".to_owned(), "127.0.0.1:0".into());
    table.insert("node".to_owned(), node.into());
    table.insert("tls".to_owned(), tls.into());
    table.entry("state_dir").or_insert_with(|| text(state_dir));
    let echo = toml::toml! {
        name = "cli-echo"
        dialect = "text"
        mode = "parked"
        image = { builtin = "echo" }
        [limits]
        memory = "64MiB"
        pids = 32
    };
    if let Value::Array(clis) = table.entry("cli").or_insert_with(|| Value::Array(Vec::new()))
        && !clis.iter().any(|cli| cli.get("name").and_then(Value::as_str) == Some(ECHO))
    {
        clis.push(echo.into());
    }
}

fn provider(cli: &Cli) -> Option<Provider> {
    let model = |id: &str, upstream_id: &str| {
        json!({"id": id, "upstream_id": upstream_id, "owned_by": cli.name,
            "capabilities": {"embeddings": false, "images": cli.images}})
    };
    let (parameter, models) = match cli.parameters.get(MODEL).map(|parameter| &parameter.allowed) {
        Some(Allowed::OneOf(values)) => (MODEL, values.iter().map(|value| model(value, value)).collect()),
        _ => ("", vec![model(&cli.name, &cli.name)]),
    };
    // A vendor's API may have the bare name already: `gemini` with its key in the environment.
    let slug = if cli.name.starts_with("cli-") { cli.name.clone() } else { format!("cli-{}", cli.name) };
    let raw = RawProvider::from(json!({"name": cli.name, "slug": slug, "type": "spawn-cli", "rank": RANK,
        "cli": cli.name, "model_parameter": parameter, "models": models}));
    Provider::check(&raw)
        .inspect_err(|violations| tracing::warn!(cli = cli.name, %violations, "a CLI cannot be a provider"))
        .ok()
}
