//! The runner inside the gateway's own process: CLIs as models on one machine.
//!
//! It is the same runner as on a node of a fleet, reached the same way, over mTLS, with certificates that the two make for
//! themselves in the data directory. Its file, `runner.toml`, has only what the operator adds (`dyad-gateway clis add`); the
//! rest is filled in here, and `cli-echo` is always there.

mod file;
mod state_dir;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use catalog::{Provider, RawProvider};
use dyad_runner::config::model::{Allowed, Cli, Isolated, RunnerConfig};
use dyad_runner::sandbox::{Engine, SandboxError};
use dyad_runner::{Runner, RunningRunner, StartError};
use runner_api::Registry;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::ca::{CaError, LocalCertificates};
use crate::data_dir::DataDir;
use crate::error_chain::error_chain;
use crate::runners::{IdentityError, RunnerIdentity, RunnerNodes, RunnersConfig};

use file::Machine;
pub(crate) use file::{Checked, NotLocal, docker_socket};

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
    #[error(transparent)]
    Engine(#[from] NotLocal),
    #[error("{}", path.display())]
    StateDir { path: PathBuf, source: io::Error },
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
    short_state_dir: Option<File>,
}

impl Plan {
    /// Reads the operator's file, if there is one, and makes certificates.
    pub(crate) fn make(data_dir: &DataDir) -> Result<Self, LocalRunnerError> {
        let path = data_dir.runner_file();
        let wrong = |lines| LocalRunnerError::Config { path: path.clone(), lines };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(wrong(vec![error.to_string()])),
        };
        let certificates_dir = data_dir.path().join("certs");
        let certificates = LocalCertificates::ensure(&certificates_dir, SystemTime::now())?;
        let id = node_id(data_dir).map_err(|error| wrong(vec![format!("node-id: {error}")]))?;
        let Checked { mut config, mut left_out } = checked(&text, data_dir, &id, &certificates)?;
        let short_state_dir = state_dir::secure_if_short(&config.state_dir)
            .map_err(|source| LocalRunnerError::StateDir { path: config.state_dir.clone(), source })?;
        for name in config.clis.iter().map(|cli| cli.name.clone()).collect::<Vec<_>>() {
            if let Some(missing) = config.missing_credentials(Some(&name)).first() {
                config.clis.retain(|cli| cli.name != name);
                left_out.push((name, missing.message.clone()));
            }
        }
        Ok(Self { config, certificates_dir, certificates, left_out, short_state_dir })
    }

    /// How the gateway reaches the runner.
    pub(crate) fn connection(&self) -> RunnersConfig {
        let LocalCertificates { authority, edge, .. } = self.certificates.clone();
        let identity =
            RunnerIdentity { client_cert: edge.clone(), client_key: edge, ca: authority, crl: None };
        // The runner announces itself.
        RunnersConfig { identity, nodes: RunnerNodes::Listed(Vec::new()) }
    }

    /// Whether sandboxes can be made at all.
    pub(crate) async fn reach_engine(&self) -> Result<(), SandboxError> {
        Engine::connect(&self.config).await.map(drop)
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.config.clis.iter().map(|cli| cli.name.as_str()).collect()
    }

    pub(crate) fn left_out(&self) -> &[(String, String)] {
        &self.left_out
    }

    /// CLIs that the operator's file lets run without a container.
    pub(crate) fn weakly_isolated(&self) -> impl Iterator<Item = &str> {
        let weak = self.config.clis.iter().filter(|cli| cli.isolated == Isolated::Process);
        weak.map(|cli| cli.name.as_str())
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
        let renewal = tokio::spawn(renew(self.certificates_dir.clone()));
        let providers = self.config.clis.iter().filter_map(|cli| provider(cli)).collect();
        let Self { left_out, short_state_dir, .. } = self;
        Ok(LocalRunner { node, renewal, providers, left_out, _short_state_dir: short_state_dir })
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
    _short_state_dir: Option<File>,
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

/// What [`Plan::make`] would make of this text of the operator's file. Nothing is made on disk.
pub(crate) fn check(text: &str, data_dir: &DataDir) -> Result<Checked, LocalRunnerError> {
    let certificates = LocalCertificates::in_directory(&data_dir.path().join("certs"));
    checked(text, data_dir, "local", &certificates)
}

fn checked(
    text: &str,
    data_dir: &DataDir,
    id: &str,
    certificates: &LocalCertificates,
) -> Result<Checked, LocalRunnerError> {
    let wrong = |lines| LocalRunnerError::Config { path: data_dir.runner_file(), lines };
    let mut table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| wrong(vec![error.to_string()]))?;
    if table.contains_key("registry") {
        return Err(wrong(vec![
            "registry: this runner serves its own gateway alone; leave it out".to_owned(),
        ]));
    }
    // Sockets are named to the Docker engine, which knows nothing of our working directory.
    let folder = std::path::absolute(data_dir.path()).map_err(|error| wrong(vec![error.to_string()]))?;
    let state_dir = state_dir::choose(&folder, id);
    let docker_host = std::env::var_os("DOCKER_HOST");
    let machine = Machine { id, certificates, state_dir: &state_dir, docker_host: docker_host.as_deref() };
    file::fill_in(&mut table, &machine)?;
    file::check(table, &folder).map_err(wrong)
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
        match crate::file::write_new(&path, &id, crate::file::PRIVATE) {
            // Another process was first: its id is the one.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
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

#[cfg(test)]
mod tests;
