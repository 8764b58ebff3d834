//! From a configuration to a node that serves, and to its end.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use runner_api::Registry;

use crate::config::Violation;
use crate::config::model::RunnerConfig;
use crate::egress::{EgressError, EgressProxy, EgressTimeouts, SystemLookup};
use crate::error_chain::error_chain;
use crate::heartbeat::Heartbeat;
use crate::listeners::{Bound, ListenError, Listeners};
use crate::metrics::Metrics;
use crate::pool::Launcher;
use crate::run::Runs;
use crate::sandbox::{Engine, LeftBehind, Progress, SandboxError};
use crate::state_lock::{StateError, StateLock};

/// For the engine to remove what the end of all runs has left.
const REMOVE_WITHIN: Duration = Duration::from_secs(10);
/// Longer than any run.
const FOR_EVER: Duration = Duration::from_secs(7 * 86_400);

/// Starts runners, for the binary and for programs that have one inside.
#[derive(Clone, Copy, Debug)]
pub struct Runner;

/// Why a runner does not start. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{} credentials are missing", .0.len())]
    Credentials(Vec<Violation>),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("{} ways out of sandboxes cannot be opened", .0.len())]
    Egress(Vec<EgressError>),
    #[error("sandboxes cannot be made")]
    Engine(#[from] SandboxError),
    #[error("CLI {cli} cannot be made ready")]
    Prepare { cli: String, source: SandboxError },
    #[error("the listener cannot start")]
    Serve(#[source] io::Error),
}

impl StartError {
    /// One line for each thing to mend.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Credentials(violations) => violations.iter().map(ToString::to_string).collect(),
            Self::Listen(ListenError::Tls(faults)) => faults.iter().map(|fault| error_chain(fault)).collect(),
            Self::Egress(faults) => faults.iter().map(|fault| error_chain(fault)).collect(),
            Self::State(_)
            | Self::Listen(ListenError::Address { .. })
            | Self::Engine(_)
            | Self::Prepare { .. }
            | Self::Serve(_) => vec![error_chain(self)],
        }
    }
}

impl Runner {
    /// Takes the state directory, certificates and ports; removes what a killed predecessor left; makes images that are
    /// not there, which can take minutes; and serves. Must be called in a tokio runtime.
    pub async fn start(
        mut config: RunnerConfig,
        registry: Arc<dyn Registry>,
    ) -> Result<RunningRunner, StartError> {
        let missing = config.missing_credentials(None);
        if !missing.is_empty() {
            return Err(StartError::Credentials(missing));
        }
        let lock = StateLock::take(&config)?;
        let bound = Bound::bind(&config).await?;
        config.node.url = bound.url(&config.node.url).map_err(StartError::Serve)?;
        let mut progress = |cli: &str, step: Progress| {
            // Lines with bytes are too many.
            if step.bytes.is_none() {
                tracing::info!(cli, step = step.message, "making an image");
            }
        };
        let local = LocalRuns::start(&config, lock, &mut progress).await?;
        let listeners = bound.serve(&local.runs, &Metrics::new()).map_err(StartError::Serve)?;
        let runs = Arc::clone(&local.runs);
        let (clis, draining) = (runs.clis(), runs.draining());
        let heartbeat = Heartbeat::start(registry, config.node, clis, move || runs.capacity(), draining);
        Ok(RunningRunner { heartbeat, listeners, local })
    }
}

/// A runner that serves in this process. [`shutdown`](Self::shutdown) ends it in good order. Dropping it closes its
/// connections, which ends its runs, but nobody waits for their sandboxes to be removed.
pub struct RunningRunner {
    heartbeat: Heartbeat,
    listeners: Listeners,
    local: LocalRuns,
}

impl RunningRunner {
    pub fn addr(&self) -> SocketAddr {
        self.listeners.addr()
    }

    /// Of the listener for probes, if there is one.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.listeners.metrics_addr()
    }

    /// Takes nothing new from now on, and says so to whoever asks. What runs goes on.
    pub fn drain(&self) {
        self.local.runs.drain();
    }

    /// Drains, and waits until nothing runs any more.
    pub async fn drained(&self) {
        self.local.runs.close(FOR_EVER).await;
    }

    /// Ends what still runs, removes every sandbox, withdraws the node, and closes the listeners.
    pub async fn shutdown(self) -> Result<(), LeftBehind> {
        let (closed, ()) = tokio::join!(self.local.close(), self.heartbeat.stop());
        self.listeners.close().await;
        closed
    }
}

/// Runs and all that they need, without listeners.
pub(crate) struct LocalRuns {
    pub(crate) runs: Arc<Runs>,
    engine: Engine,
    _lock: StateLock,
}

impl LocalRuns {
    /// `progress` hears what is done for which CLI.
    pub(crate) async fn start(
        config: &RunnerConfig,
        lock: StateLock,
        progress: &mut (dyn FnMut(&str, Progress) + Send),
    ) -> Result<Self, StartError> {
        let lookup = Arc::new(SystemLookup);
        let egress = EgressProxy::new(&config.state_dir, &config.clis, EgressTimeouts::default(), lookup)
            .map_err(StartError::Egress)?;
        let engine = Engine::connect(config).await?;
        let orphans = engine.sweep().await?;
        if orphans > 0 {
            tracing::warn!(orphans, "sandboxes of a runner that was killed were removed");
        }
        let mut prepared = BTreeMap::new();
        for cli in &config.clis {
            let ready = engine.prepare(&cli.isolated, &mut |step| progress(&cli.name, step)).await;
            let ready = ready.map_err(|source| StartError::Prepare { cli: cli.name.clone(), source })?;
            tracing::info!(cli = cli.name, image = ready.image_id(), "ready");
            prepared.insert(cli.name.clone(), ready);
        }
        let launcher = Launcher::new(engine.clone(), egress, prepared);
        let runs = Runs::new(&config.clis, config.capacity.clone(), Arc::new(launcher));
        Ok(Self { runs, engine, _lock: lock })
    }

    /// Ends every run, and removes every sandbox.
    pub(crate) async fn close(&self) -> Result<(), LeftBehind> {
        // What its runs leave behind the engine removes.
        self.runs.close(Duration::ZERO).await;
        self.engine.close(REMOVE_WITHIN).await
    }
}
