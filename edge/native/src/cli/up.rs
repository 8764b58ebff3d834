//! `dyad-gateway up`: serve.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use gateway::{Discovered, Gateway};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CommonArgs, Failure, ProviderArgs, block_on, keys};
use crate::data_dir::DataDir;
use crate::output::Output;
use crate::providers::{gather, open_gateway};
use crate::router::GatewayService;
use crate::server::{Server, ServerOptions, ServerTimeouts};
use crate::{discovery, logging, tls};

/// How often providers are asked for their models again.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(30);
/// How long the start waits for the answers; those that come later count from then on.
const DISCOVERY_PATIENCE: Duration = Duration::from_secs(3);
/// Models named per provider in the greeting.
const MODELS_SHOWN: usize = 6;

#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4100", env = "DYAD_GATEWAY_LISTEN")]
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
        let gateway = open_gateway(&data_dir, given).await?;
        let listener = TcpListener::bind(args.listen).map_err(|error| {
            Failure::Failed(format!(
                "{} cannot be listened on: {error}; choose another with --listen",
                args.listen
            ))
        })?;
        let mut signals =
            Signals::new().map_err(|error| Failure::failed("signals cannot be handled", error))?;
        let first_key = first_key(&data_dir).await?;
        let discovered =
            tokio::time::timeout(DISCOVERY_PATIENCE, gateway.discover()).await.unwrap_or_default();
        let options = ServerOptions {
            workers: args.workers.map_or_else(cores, usize::from),
            max_connections: usize::try_from(args.max_connections).unwrap_or(usize::MAX),
            tls,
            timeouts: ServerTimeouts::default(),
        };
        let server = Server::start(listener, &GatewayService(gateway.clone()), &options)
            .map_err(|error| Failure::failed("the server cannot start", error))?;
        greet(args, &gateway, server.local_addr(), first_key.as_deref(), &discovered);
        let rediscovery = tokio::spawn(rediscover(gateway));
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
async fn first_key(data_dir: &DataDir) -> Result<Option<String>, Failure> {
    let store = super::open_store(data_dir).await?;
    let keys = catalog::KeyStore::keys(&store)
        .await
        .map_err(|error| Failure::failed("the keys cannot be read", error))?;
    if !keys.is_empty() {
        return Ok(None);
    }
    let key =
        keys::create(&store, data_dir, "first key", None, None, catalog::ApiKeyLimits::default()).await?;
    Ok(Some(key.expose().to_owned()))
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

fn greet(
    args: &UpArgs,
    gateway: &Gateway,
    address: SocketAddr,
    first_key: Option<&str>,
    discovered: &[Discovered],
) {
    let output = Output::new(args.common.json);
    let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
    let base_url = format!("{scheme}://{address}/v1");
    let models = gateway.models();
    let listed: Vec<_> =
        models.iter().map(|m| json!({"id": m.id, "provider": m.provider.as_str()})).collect();
    let mut ready = json!({"event": "ready", "base_url": base_url, "models": listed});
    if let Some(key) = first_key {
        ready["api_key"] = key.into();
    }
    output.object(&ready);

    output.say(format!("Dyad Gateway {} is serving.\n", env!("CARGO_PKG_VERSION")));
    output.say(format!("  Base URL  {base_url}"));
    match first_key {
        Some(key) => output.say(format!(
            "  API key   {key}\n            (shown this once; 'dyad-gateway keys create' makes more)"
        )),
        None => output.say("  API key   one you have ('dyad-gateway keys create' makes another)"),
    }
    output.say("");
    let mut slugs: Vec<&str> = Vec::new();
    for model in &models {
        if !slugs.contains(&model.provider.as_str()) {
            slugs.push(model.provider.as_str());
        }
    }
    for slug in &slugs {
        let of: Vec<&str> =
            models.iter().filter(|m| m.provider.as_str() == *slug).map(|m| m.id.as_str()).collect();
        let more = of.len().saturating_sub(MODELS_SHOWN);
        let tail = if more > 0 { format!(", and {more} more") } else { String::new() };
        output.say(format!("  {slug}: {}{tail}", of[..of.len().min(MODELS_SHOWN)].join(", ")));
    }
    for found in discovered {
        if let Err(reason) = &found.models
            && !discovery::is_local_candidate(found.slug.as_str())
        {
            output.say(format!("  {}: no models: {reason}", found.slug));
        }
    }
    let Some(model) = models.first().map(|model| model.id.as_str()) else {
        output.say("  No models yet. Start Ollama or LM Studio, set OPENAI_API_KEY, or give --upstream URL[=KEY];\n  'dyad-gateway doctor' says what was looked for.");
        return;
    };
    let key = first_key.unwrap_or("$DYAD_API_KEY");
    output.say("\nNext:");
    output.say(format!(
        "  1. curl {base_url}/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n       \
         -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"
    ));
    output.say("  2. In Dyad: Settings, AI providers, Add custom provider; paste the base URL and the API key, add a model of the list.");
    output.say("  3. dyad-gateway doctor     says what works, what does not, and what to do");
}
