//! `dyad-gateway up`: serve.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use catalog::ApiKey;
use clap::Args;
use gateway::{Discovered, Gateway};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::greeting::{Greeting, base_url};
use super::{CommonArgs, Failure, ProviderArgs, block_on};
use crate::data_dir::DataDir;
use crate::embedded::{EmbeddedGateway, NewApiKey};
use crate::output::Output;
use crate::providers::{gather, open_gateway, without_credential};
use crate::router::GatewayService;
use crate::server::{Server, ServerOptions, ServerTimeouts};
use crate::{discovery, logging, tls};

/// How often providers are asked for their models again.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(30);
/// How long the start waits for the answers; those that come later count from then on.
const DISCOVERY_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:4100", env = "DYAD_GATEWAY_LISTEN", value_parser = listen_address)]
    listen: SocketAddr,
    /// Serve HTTPS with this certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Connections served at once
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// How long requests under way may take to finish after SIGTERM, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain_timeout: u64,
    /// Which log lines to write: error, warn, info, debug, or a filter such as gateway=debug
    #[arg(long, value_name = "FILTER", default_value = "info", env = "RUST_LOG")]
    log: String,
    #[command(flatten)]
    providers: ProviderArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

pub(crate) fn run(args: &UpArgs) -> Result<(), Failure> {
    // Everything that can be wrong is looked at before a port is bound.
    let given = gather(&args.providers)?;
    let without_credential = without_credential(&given.providers);
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => {
            Some(tls::server_config(cert, key).map_err(|line| Failure::Usage(vec![line]))?)
        }
        _ => None,
    };
    logging::start(&args.log, args.common.json)
        .map_err(|line| Failure::Usage(vec![format!("--log: {line}")]))?;
    // Two sockets per stream: the usual soft limit of 1,024 is soon reached.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let data_dir = DataDir::locate(args.common.data_dir.as_deref());
    block_on(async {
        let opened = open_gateway(&data_dir, given).await?;
        let gateway = opened.gateway();
        let listener = TcpListener::bind(args.listen).map_err(|error| {
            Failure::Failed(format!(
                "{} cannot be listened on: {error}; choose another with --listen",
                args.listen
            ))
        })?;
        let mut signals =
            Signals::new().map_err(|error| Failure::failed("signals cannot be handled", &error))?;
        let discovered =
            tokio::time::timeout(DISCOVERY_PATIENCE, gateway.discover()).await.unwrap_or_default();
        let options = ServerOptions {
            workers: args.workers.map_or_else(cores, usize::from),
            max_connections: usize::try_from(args.max_connections).unwrap_or(usize::MAX),
            tls,
            timeouts: ServerTimeouts::default(),
        };
        let server = Server::start(listener, &GatewayService(gateway.clone()), &options)
            .map_err(|error| Failure::failed("the server cannot start", &error))?;
        // Last of all, so that no key is made that nobody gets to see.
        let first_key = first_key(&opened).await?;
        let greeting = Greeting {
            base_url: base_url(server.local_addr(), args.tls_cert.is_some()),
            first_key: first_key.as_ref().map(ApiKey::expose),
            models: gateway.models(),
            unusable: unusable(without_credential, &discovered),
        };
        greeting
            .show(Output::new(args.common.json))
            .map_err(|error| Failure::failed("the greeting", &error))?;
        let rediscovery = tokio::spawn(rediscover(gateway.clone()));
        let signal = signals.next().await;
        rediscovery.abort();
        tracing::info!(
            signal,
            timeout_s = args.drain_timeout,
            "draining: no new requests; those under way may finish"
        );
        tokio::select! {
            () = server.drain() => {
                tracing::info!("drained");
                Ok(())
            }
            () = tokio::time::sleep(Duration::from_secs(args.drain_timeout)) => {
                Err(Failure::Failed("requests were still under way when the drain timeout ended; they were cut off".to_owned()))
            }
            signal = signals.next() => {
                Err(Failure::Failed(format!("{signal} again: stopped without waiting for the requests under way")))
            }
        }
    })?
}

/// An address, or a name of this machine such as `localhost`, with a port.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || "write an address and a port, such as 127.0.0.1:4100 or [::]:4100".to_owned();
    text.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A key, if there is none yet: otherwise nobody could use the gateway.
async fn first_key(opened: &EmbeddedGateway) -> Result<Option<ApiKey>, Failure> {
    let has_keys = opened.has_keys().await;
    if has_keys.map_err(|error| Failure::failed("the keys cannot be read", &error))? {
        return Ok(None);
    }
    let new = NewApiKey { label: "first key".to_owned(), ..NewApiKey::default() };
    Ok(Some(opened.create_key(new).await?))
}

/// Providers that serve nothing now, and why. What was only looked for, and is not there, is no provider.
fn unusable(without_credential: Vec<(String, String)>, discovered: &[Discovered]) -> Vec<(String, String)> {
    let mut unusable = without_credential;
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
