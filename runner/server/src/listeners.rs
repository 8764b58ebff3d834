//! Where a node is reached.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::config::model::RunnerConfig;
use crate::metrics::Metrics;
use crate::server::{Plain, Runs, Server, ServerLimits, api, probes};
use crate::tls::{TlsError, TlsIdentity};

/// For answers to be sent whose runs have ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{} of the TLS files cannot be used", .0.len())]
    Tls(Vec<TlsError>),
    #[error("{addr} cannot be listened on")]
    Address { addr: SocketAddr, source: io::Error },
}

/// Certificates and ports, taken before anything else is begun. Who comes early waits.
#[derive(Debug)]
pub(crate) struct Bound {
    identity: Arc<TlsIdentity>,
    listener: TcpListener,
    probes: Option<TcpListener>,
}

impl Bound {
    pub(crate) async fn bind(config: &RunnerConfig) -> Result<Self, ListenError> {
        let identity = TlsIdentity::load(&config.tls).map_err(ListenError::Tls)?;
        let listener = bind(config.listen).await?;
        let probes = match config.metrics_listen {
            Some(addr) => Some(bind(addr).await?),
            None => None,
        };
        Ok(Self { identity, listener, probes })
    }

    /// Where the node is reached; the port is the one that was given where any was asked for.
    pub(crate) fn url(&self, url: &str) -> io::Result<String> {
        Ok(match url.strip_suffix(":0") {
            Some(host) => format!("{host}:{}", self.listener.local_addr()?.port()),
            None => url.to_owned(),
        })
    }

    pub(crate) fn serve<R: Runs>(self, runs: &Arc<R>, metrics: &Arc<Metrics>) -> io::Result<Listeners> {
        let limits = ServerLimits::default();
        let router = api(Arc::clone(runs), Arc::clone(metrics));
        let server =
            Server::start(self.listener, Arc::clone(&self.identity), router, Arc::clone(metrics), limits)?;
        let probes = self.probes.map(|listener| {
            let router = probes(Arc::clone(runs), Arc::clone(metrics));
            Server::start(listener, Arc::new(Plain), router, Arc::clone(metrics), limits)
        });
        let tls_watch = AbortOnDrop(tokio::spawn(self.identity.keep_current()));
        Ok(Listeners { server, probes: probes.transpose()?, _tls_watch: tls_watch })
    }
}

async fn bind(addr: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(addr).await.map_err(|source| ListenError::Address { addr, source })
}

/// Dropping them closes all connections.
#[derive(Debug)]
pub(crate) struct Listeners {
    server: Server,
    probes: Option<Server>,
    _tls_watch: AbortOnDrop,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Listeners {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    pub(crate) fn metrics_addr(&self) -> Option<SocketAddr> {
        self.probes.as_ref().map(Server::addr)
    }

    /// When runs have ended, so that their last words can be sent.
    pub(crate) async fn close(self) {
        self.server.close(LAST_WORDS).await;
        if let Some(probes) = self.probes {
            probes.close(Duration::ZERO).await;
        }
    }
}
