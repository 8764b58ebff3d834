//! What every server of ours has on the command line, and how it is stopped.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use crate::server::{Server, ServerOptions, ServerTimeouts};
use crate::{logging, tls};

#[derive(Debug, Clone, Args)]
pub(super) struct ServingArgs {
    /// Serve Prometheus metrics at /metrics on this address, and nothing else there. They tell who uses what, and no
    /// key is asked for: keep it inside
    #[arg(long, value_name = "ADDR:PORT", env = "DYAD_GATEWAY_METRICS", value_parser = listen_address)]
    pub(super) metrics: Option<SocketAddr>,
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
}

impl ServingArgs {
    /// The certificate, if there is to be one, and the rest of the server's options.
    pub(super) fn server_options(&self) -> Result<ServerOptions, Failure> {
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                Some(tls::server_config(cert, key).map_err(|line| Failure::Usage(vec![line]))?)
            }
            _ => None,
        };
        Ok(ServerOptions {
            tls,
            workers: self.workers.map_or_else(cores, usize::from),
            max_connections: usize::try_from(self.max_connections).unwrap_or(usize::MAX),
            timeouts: ServerTimeouts::default(),
        })
    }

    pub(super) fn start_logging(&self, json: bool) -> Result<(), Failure> {
        logging::start(&self.log, json).map_err(|line| Failure::Usage(vec![format!("--log: {line}")]))
    }

    /// The listener for Prometheus, if there is to be one.
    pub(super) fn bind_metrics(&self) -> Result<Option<TcpListener>, Failure> {
        self.metrics.map(|address| bind(address, "--metrics")).transpose()
    }

    /// Lets the requests under way finish, but not for longer than they may take, nor than until the next signal.
    pub(super) async fn drain(
        &self,
        server: Server,
        signal: &'static str,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        tracing::info!(
            signal,
            timeout_s = self.drain_timeout,
            "draining: no new requests; those under way may finish"
        );
        tokio::select! {
            () = server.drain() => {
                tracing::info!("drained");
                Ok(())
            }
            () = tokio::time::sleep(Duration::from_secs(self.drain_timeout)) => {
                Err(Failure::Failed("requests were still under way when the drain timeout ended; they were cut off".to_owned()))
            }
            signal = signals.next() => {
                Err(Failure::Failed(format!("{signal} again: stopped without waiting for the requests under way")))
            }
        }
    }
}

pub(super) fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| {
        Failure::Failed(format!("{address} cannot be listened on: {error}; choose another with {option}"))
    })
}

/// An address, or a name of this machine such as `localhost`, with a port.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || "write an address and a port, such as 127.0.0.1:4100 or [::]:4100".to_owned();
    text.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Needs a Tokio runtime.
    pub(super) fn new() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(|error| Failure::failed("signals cannot be handled", &error));
        Ok(Self { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
