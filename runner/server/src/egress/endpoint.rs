//! One sandbox's socket.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cli_dialect::Observed;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

use super::connect::Tunnel;
use super::directory::{Claim, Directory};
use super::meter::{Budget, Metered};
use super::observe::Observation;
use super::outgoing::OutgoingClient;
use super::{EgressError, Secret, Shared, relay};
use crate::config::model::Egress;

/// Connections of one sandbox; further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 64;
/// Longest request head.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Pause after accepting failed, as it does while file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Refusals of one sandbox that are logged: a hostile one shall not fill the disk.
const MAX_LOGGED_REFUSALS: u32 = 20;

/// A sandbox's way out. Dropping it closes all connections, cancels the calls to vendors, and removes the socket.
#[derive(Debug)]
pub struct Endpoint {
    route: Arc<Route>,
    accepting: AbortHandle,
    claim: Claim,
}

/// What a request of this sandbox needs to be answered.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) cli: String,
    pub(super) egress: Egress,
    /// One per upstream, in the same order.
    pub(super) clients: Vec<OutgoingClient>,
    pub(super) token: Secret,
    pub(super) budget: Arc<Budget>,
    pub(super) observation: Arc<Observation>,
    pub(super) shared: Arc<Shared>,
    refusals: AtomicU32,
}

impl Endpoint {
    pub(super) fn open(
        directory: &Directory,
        shared: &Arc<Shared>,
        cli: &str,
        egress: &Egress,
    ) -> Result<Self, EgressError> {
        let clients = egress
            .upstreams
            .iter()
            .map(|upstream| shared.outgoing.client(upstream.ca.as_deref()))
            .collect::<Result<_, _>>()?;
        let route = Arc::new(Route {
            cli: cli.to_owned(),
            egress: egress.clone(),
            clients,
            token: Secret::random()?,
            budget: Arc::new(Budget::new(egress.max_bytes)),
            observation: Arc::default(),
            shared: Arc::clone(shared),
            refusals: AtomicU32::new(0),
        });
        let claim = directory.claim()?;
        let listener = claim
            .bind()
            .map_err(|source| EgressError::Directory { path: claim.path().to_owned(), source })?;
        let accepting = tokio::spawn(accept(listener, Arc::clone(&route))).abort_handle();
        Ok(Self { route, accepting, claim })
    }

    /// The directory that has nothing but the socket in it: for a read-only mount.
    pub fn dir(&self) -> &Path {
        self.claim.path()
    }

    pub fn socket_path(&self) -> PathBuf {
        self.claim.socket_path()
    }

    /// The sandbox's stand-in for its vendors' keys, and its password for CONNECT.
    pub fn token(&self) -> &Secret {
        &self.route.token
    }

    /// Where the sandbox finds the upstream of this name.
    pub fn base_url(&self, upstream: &str) -> String {
        format!("http://127.0.0.1:{}/{upstream}", self.route.egress.port)
    }

    /// What was seen of the vendors' answers so far.
    pub fn observed(&self) -> Observed {
        let mut observed = self.route.observation.observed();
        if self.route.budget.is_used_up() {
            observed.broken = true;
            let max = self.route.budget.max_bytes();
            observed.message = Some(format!("the egress limit of {max} bytes is used up"));
        }
        observed
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Route {
    /// Whether this refusal is to be logged.
    pub(super) fn count_refusal(&self) -> bool {
        // Wraps after four thousand million.
        let before = self.refusals.fetch_add(1, Ordering::Relaxed);
        if before == MAX_LOGGED_REFUSALS {
            tracing::warn!(cli = self.cli, "a sandbox's further egress refusals are not logged");
        }
        before < MAX_LOGGED_REFUSALS
    }
}

/// Owns the connections: they end with it.
async fn accept(listener: UnixListener, route: Arc<Route>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&route)));
                }
                Err(error) => {
                    tracing::warn!(cli = route.cli, %error, "a sandbox's connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: UnixStream, route: Arc<Route>) {
    let stream = Metered::new(stream, Arc::clone(&route.budget));
    let moved = stream.moved();
    // A CONNECT leaves its tunnel here, for this task to carry on with.
    let tunnel = Arc::<Mutex<Option<Tunnel>>>::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (route, tunnel) = (Arc::clone(&route), Arc::clone(&tunnel));
        async move { Ok::<_, Infallible>(relay::handle(&route, &tunnel, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(route.shared.timeouts.head)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_header_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(cli = route.cli, %error, "a sandbox's connection ended early");
    }
    let tunnel = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel
        && let Err(error) = tunnel.run(moved, route.shared.timeouts.idle).await
    {
        tracing::debug!(cli = route.cli, %error, "a sandbox's tunnel ended early");
    }
}
