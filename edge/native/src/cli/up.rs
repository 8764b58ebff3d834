//! `dyad-gateway up`: serve.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use catalog::{ApiKey, Provider};
use clap::Args;
use gateway::{Discovered, Gateway};
use tokio::task::JoinHandle;

use super::greeting::{Greeting, base_url, metrics_url};
use super::serving::{ServingArgs, Signals, bind, listen_address};
use super::{CommonArgs, Failure, ProviderArgs, StoreArgs};
use crate::admin::{self, Access};
use crate::data_dir::DataDir;
use crate::embedded::NewApiKey;
use crate::error_chain::error_chain;
use crate::local_runner::{LocalRunner, LocalRunnerError, Plan};
use crate::output::Output;
use crate::providers::{Given, gather, open_gateway, without_credential};
use crate::router::{GatewayServes, Site};
use crate::runners::Runners;
use crate::server::{Server, ServerOptions};
use crate::{discovery, metrics};

const RUNTIME_THREADS: usize = 2;
/// How often providers are asked for their models again.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(30);
/// How long the store may take to add the usage that was counted last.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);
/// How long the start waits for the answers; those that come later count from then on.
const DISCOVERY_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:4100", env = "DYAD_GATEWAY_LISTEN", value_parser = listen_address)]
    listen: SocketAddr,
    /// Serve neither the administration under /admin nor its console
    #[arg(long)]
    no_admin: bool,
    #[command(flatten)]
    serving: ServingArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    providers: ProviderArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

pub(crate) fn run(args: &UpArgs) -> Result<(), Failure> {
    // Everything that can be wrong is looked at before a port is bound.
    let mut given = gather(&args.providers, &args.store, &args.common)?;
    let without_credential = without_credential(&given.providers);
    let options = args.serving.server_options()?;
    args.serving.start_logging(args.common.json)?;
    // Two sockets per stream: the usual soft limit of 1,024 is soon reached.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let data_dir = DataDir::locate(args.common.data_dir.as_deref());
    // The requests have threads of their own; these are for the runner, and for what is done now and then.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("the runtime cannot start", &error))?;
    runtime.block_on(async {
        // Before the runner, which takes its time to start, and after it, which takes its time to stop.
        let mut signals = Signals::new()?;
        let listener = bind(args.listen, "--listen")?;
        let metrics = args.serving.bind_metrics()?;
        let starting = Local::start(args, &given, &data_dir);
        let local = tokio::select! {
            local = starting => local,
            // Dropping the start ends what it has begun.
            signal = signals.next() => return Err(Failure::Failed(format!("{signal}: stopped while starting"))),
        };
        let Local { runner, connection, mut unusable } = local;
        if let Some(runner) = &runner {
            let is_new = |new: &&Provider| given.providers.iter().all(|other| other.slug != new.slug);
            let new: Vec<_> = runner.providers.iter().filter(is_new).cloned().collect();
            given.providers.extend(new);
        }
        unusable.extend(without_credential);
        let served = serve(args, given, Connections { listener, metrics, runners: connection, options }, unusable, &mut signals);
        let served = served.await;
        // Nothing is asked of it any more: its sandboxes go, however the serving ended.
        let stopped = match runner {
            Some(runner) => unless_again(runner.shutdown(), signals.next()).await,
            None => Ok(()),
        };
        served.and(stopped)
    })
}

/// Who asks again does not want to wait.
async fn unless_again(
    shutdown: impl Future<Output = ()>,
    signal: impl Future<Output = &'static str>,
) -> Result<(), Failure> {
    tokio::select! {
        () = shutdown => Ok(()),
        signal = signal => Err(Failure::Failed(format!(
            "{signal} again: stopped while sandboxes were being removed; the next start removes what is left"
        ))),
    }
}

/// How the gateway is reached, and reaches its runners.
struct Connections {
    listener: TcpListener,
    metrics: Option<TcpListener>,
    runners: Option<Runners>,
    options: ServerOptions,
}

async fn serve(
    args: &UpArgs,
    given: Given,
    connections: Connections,
    unusable: Vec<(String, String)>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let (opened, access) = open_gateway(given, connections.runners).await?;
    let (administration, served_to) =
        admin::routes(&opened, if args.no_admin { Access::Off } else { access })?;
    let gateway = opened.gateway();
    let discovered = tokio::time::timeout(DISCOVERY_PATIENCE, gateway.discover()).await.unwrap_or_default();
    let is_tls = connections.options.tls.is_some();
    let site = Site { gateway: gateway.clone(), administration, gateway_serves: GatewayServes::Everything };
    let server = Server::start(connections.listener, &site, &connections.options)
        .map_err(|error| Failure::failed("the server cannot start", &error))?;
    // To the end: a drain is worth watching.
    let metrics = connections.metrics.map(|listener| metrics::serve(listener, gateway)).transpose();
    let metrics = metrics.map_err(|error| Failure::failed("the metrics cannot be served", &error))?;
    // Last of all, so that no key is made that nobody gets to see.
    let new = NewApiKey { label: "first key".to_owned(), ..NewApiKey::default() };
    let first_key = opened.create_first_key(new).await?;
    let greeting = Greeting {
        base_url: base_url(server.local_addr(), is_tls),
        administration: served_to,
        metrics_url: metrics.as_ref().map(|server| metrics_url(server.local_addr())),
        first_key: first_key.as_ref().map(ApiKey::expose),
        models: gateway.models(),
        unusable: all_unusable(unusable, &discovered),
    };
    greeting.show(Output::new(args.common.json)).map_err(|error| Failure::failed("the greeting", &error))?;
    let background =
        [tokio::spawn(rediscover(gateway.clone())), tokio::spawn(admin::check_health(gateway.clone()))];
    let signal = signals.next().await;
    background.iter().for_each(JoinHandle::abort);
    let drained = args.serving.drain(server, signal, signals).await;
    flush_usage(gateway, signals).await;
    drained
}

/// What was counted since the last time would be lost. Who asks again does not want to wait.
async fn flush_usage(gateway: &Gateway, signals: &mut Signals) {
    let left = tokio::select! {
        left = tokio::time::timeout(FLUSH_PATIENCE, gateway.flush_usage()) => left,
        _ = signals.next() => return,
    };
    if !matches!(left, Ok(0)) {
        tracing::warn!("the store did not take all of the usage that was counted last; it is lost");
    }
}

/// The runner of this machine, if there is to be one and it can be.
#[derive(Default)]
struct Local {
    runner: Option<LocalRunner>,
    connection: Option<Runners>,
    /// What it does not serve, and why.
    unusable: Vec<(String, String)>,
}

impl Local {
    async fn start(args: &UpArgs, given: &Given, data_dir: &DataDir) -> Self {
        // Whoever names runners has them elsewhere.
        if args.providers.no_runner || given.runners.is_some() {
            return Self::default();
        }
        match Self::try_start(data_dir).await {
            Ok(local) => local,
            Err(error) => {
                Self { unusable: vec![("CLIs".to_owned(), error_chain(&error))], ..Self::default() }
            }
        }
    }

    async fn try_start(data_dir: &DataDir) -> Result<Self, LocalRunnerError> {
        let plan = Plan::make(data_dir)?;
        let connection = Runners::new(plan.connection())?;
        let mut runner = plan.start(connection.registry()).await?;
        let unusable = std::mem::take(&mut runner.left_out);
        Ok(Self { runner: Some(runner), connection: Some(connection), unusable })
    }
}

/// Providers that serve nothing now, and why. What was only looked for, and is not there, is no provider.
fn all_unusable(mut unusable: Vec<(String, String)>, discovered: &[Discovered]) -> Vec<(String, String)> {
    for found in discovered {
        let slug = found.slug.as_str();
        if let Err(reason) = &found.models
            && !discovery::is_local_candidate(slug)
            && unusable.iter().all(|(known, _)| known != slug)
        {
            unusable.push((slug.to_owned(), reason.clone()));
        }
    }
    unusable
}

/// Providers come and go: Ollama is started later, a vendor adds a model.
async fn rediscover(gateway: Gateway) {
    let mut before: Vec<(String, bool)> = Vec::new();
    loop {
        tokio::time::sleep(DISCOVERY_INTERVAL).await;
        let now: Vec<_> = gateway
            .discover()
            .await
            .into_iter()
            .map(|d| (d.slug.as_str().to_owned(), d.models.is_ok()))
            .collect();
        for (slug, answers) in now.iter().filter(|state| !before.is_empty() && !before.contains(state)) {
            tracing::info!(provider = slug, answers, "a provider came or went");
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::cli::block_on;

    #[test]
    fn a_runner_that_does_not_end_is_waited_for_until_the_next_signal() {
        block_on(unless_again(ready(()), pending())).unwrap().unwrap();
        let cut_off = block_on(unless_again(pending(), ready("SIGINT"))).unwrap().unwrap_err();
        assert!(matches!(cut_off, Failure::Failed(line) if line.starts_with("SIGINT again")));
    }
}
