//! `dyad-runner serve`.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use runner_api::Registry;
use runner_api::node::MemoryRegistry;
use serde_json::json;
use store::DynamoStore;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigArgs, Failure, LogArgs, block_on};
use crate::config::model::RunnerConfig;
use crate::output::Output;
use crate::runner::{Runner, RunningRunner, StartError};

#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    // Everything that can be wrong is looked at before a port is bound.
    let config = args.config.read()?;
    args.log.start("info")?;
    // Connections, and some descriptors for each sandbox: the usual soft limit of 1,024 is soon reached.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    block_on(async {
        let signals = Signals::new();
        let mut signals = signals.map_err(|error| Failure::failed("signals cannot be handled", &error))?;
        let grace = config.capacity.drain_grace;
        let start = async {
            let registry = registry(&config).await?;
            Runner::start(config, registry).await.map_err(|error| match error {
                StartError::Credentials(missing) => args.config.usage(&missing),
                error => Failure::Failed(error.lines()),
            })
        };
        let node = tokio::select! {
            started = start => started?,
            // Dropping the start ends what it has begun.
            signal = signals.next() => return Err(Failure::Failed(vec![format!("{signal}: stopped while starting")])),
        };
        let ready = json!({"event": "ready", "addr": node.addr(), "metrics_addr": node.metrics_addr()});
        Output::new(args.config.json).object(&ready);
        tracing::info!(addr = %node.addr(), metrics = node.metrics_addr().map(tracing::field::display), "serving");
        let signal = signals.next().await;
        tracing::info!(
            signal,
            grace_s = grace.as_secs(),
            "draining: no new runs; those under way may finish"
        );
        stop(node, grace, &mut signals).await
    })
}

/// Where the node announces itself; one of this process alone, if nowhere. A table that does not answer is asked again
/// for as long as the node runs.
async fn registry(config: &RunnerConfig) -> Result<Arc<dyn Registry>, Failure> {
    let Some(access) = &config.registry else { return Ok(Arc::new(MemoryRegistry::default())) };
    let store = DynamoStore::connect(access).await;
    Ok(Arc::new(store.map_err(|error| Failure::failed("[registry]", &error))?))
}

/// Drains, but not for ever, and ends what is left.
async fn stop(node: RunningRunner, grace: Duration, signals: &mut Signals) -> Result<(), Failure> {
    let cut_off = tokio::select! {
        () = node.drained() => None,
        () = tokio::time::sleep(grace) => Some("runs went on when the drain's grace ended; they were ended".to_owned()),
        signal = signals.next() => Some(format!("{signal} again: runs were ended that went on")),
    };
    let closed = node.shutdown().await;
    let left = closed.err().map(|left| left.to_string());
    let failures: Vec<_> = cut_off.into_iter().chain(left).collect();
    if failures.is_empty() {
        tracing::info!("drained");
        Ok(())
    } else {
        Err(Failure::Failed(failures))
    }
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
