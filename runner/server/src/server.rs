//! The node's listener: connections, who may open them, and what is answered on them.
//!
//! What a connection is and who is behind it is the [`Handshake`]'s affair, what runs are the [`Runs`]'. Everything here
//! has a limit: connections, streams on them, heads, bodies, and the time that a peer may take for each.

mod api;
mod body;
mod event_body;
mod first_words;
mod handshakes;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use futures_util::Stream;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use runner_api::{Capacity, CliInfo, Refusal, RunEvent, RunRequest};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tower::Layer as _;

pub use api::{api, probes};
use first_words::FirstWords;
use handshakes::Handshakes;

use crate::metrics::Metrics;
use crate::tls::{ClientStream, TlsIdentity};

const MAX_STREAMS: u32 = 256;
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// To HTTP/2 pings, and between them.
const PING: Duration = Duration::from_secs(20);
/// How long the kernel keeps what a peer does not acknowledge, or does not read. A peer that is gone without a word
/// ends its runs by that.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// Pause after accepting failed, as it does while file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The runs of this node, as the listener needs them.
pub trait Runs: Send + Sync + 'static {
    /// The events of one run. Its last item [is the last](RunEvent::is_last). Dropping it ends the run.
    type Stream: Stream<Item = RunEvent> + Send + 'static;

    /// Waits until the run has its sandbox. Dropping the future takes the request back.
    fn submit(
        &self,
        request: RunRequest,
        arrived: Instant,
    ) -> impl Future<Output = Result<Self::Stream, Refusal>> + Send;

    /// Ends a run. Whether there was one.
    fn cancel(&self, id: &str) -> bool;

    fn capacity(&self) -> Capacity;

    fn clis(&self) -> Vec<CliInfo>;

    /// From now on nothing new is taken. What runs goes on; what waits is refused, for another node to take.
    fn drain(&self);

    /// The error says why the node should get no requests, draining aside.
    fn ready(&self) -> Result<(), String>;
}

/// Makes a connection of what came in, or refuses the peer.
pub trait Handshake: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The connection, and by what name its client was let in: one of few. Takes a limited time. The error says why not, as metrics have it; it has been logged. The peer sees its connection closed.
    fn accept(
        &self,
        stream: TcpStream,
    ) -> impl Future<Output = Result<(Self::Stream, Arc<str>), &'static str>> + Send;
}

impl Handshake for TlsIdentity {
    type Stream = ClientStream;

    async fn accept(&self, stream: TcpStream) -> Result<(ClientStream, Arc<str>), &'static str> {
        let (stream, client) = Self::accept(self, stream).await.map_err(|error| error.code())?;
        tracing::debug!(client = client.name, "a client came in");
        Ok((stream, client.name.into()))
    }
}

/// By what name the client on a request's connection was let in.
#[derive(Clone, Debug)]
struct Client(Arc<str>);

/// No handshake: for probes on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Handshake for Plain {
    type Stream = TcpStream;

    async fn accept(&self, stream: TcpStream) -> Result<(TcpStream, Arc<str>), &'static str> {
        Ok((stream, Arc::from("anybody")))
    }
}

/// What the listener bears with.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Of peers that were let in, open at once. A further one waits for its place, and is closed if none becomes free.
    /// An edge needs few.
    pub connections: usize,
    /// Of peers that have not been let in yet. A further one takes the place of the oldest of the address with the most.
    pub handshakes: usize,
    /// For a place among the connections, once a peer was let in, and for its first words there.
    pub greeting: Duration,
    /// For each request's head over HTTP/1.1, counted from the last answer: so it is also how long an idle connection
    /// is kept.
    pub head: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            handshakes: 256,
            greeting: Duration::from_secs(10),
            head: Duration::from_secs(75),
        }
    }
}

/// A listener that serves. Dropping it closes everything at once.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    pub fn start<H: Handshake>(
        listener: TcpListener,
        handshake: Arc<H>,
        router: Router,
        metrics: Arc<Metrics>,
        limits: ServerLimits,
    ) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, handshake, router, metrics, limits, stopped));
        Ok(Self { addr, stop, task })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops listening, lets every answer under way come to its end, and closes what is left after `grace`.
    pub async fn close(mut self, grace: Duration) {
        // Nobody listening means that the task has ended.
        let _ = self.stop.send(true);
        if tokio::time::timeout(grace, &mut self.task).await.is_err() {
            tracing::debug!("connections were still open and are closed");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The connections' tasks are the task's: they end with it.
        self.task.abort();
    }
}

async fn accept<H: Handshake>(
    listener: TcpListener,
    handshake: Arc<H>,
    router: Router,
    metrics: Arc<Metrics>,
    limits: ServerLimits,
    mut stop: watch::Receiver<bool>,
) {
    let protocols = protocols(limits);
    let graceful = GracefulShutdown::new();
    let handshakes = Handshakes::new(limits.handshakes);
    let places = Arc::new(Semaphore::new(limits.connections));
    // As many as both limits together, and those that are just ending.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            // An error: the server was dropped.
            _ = stop.wait_for(|stop| *stop) => break,
            Some(ended) = connections.join_next() => {
                note_panic(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%peer, %error, "a connection ended at once");
            continue;
        }
        let (handshake, protocols, metrics) =
            (Arc::clone(&handshake), protocols.clone(), Arc::clone(&metrics));
        let router = router.clone();
        let watcher = graceful.watcher();
        let mut stop = stop.clone();
        let waiting = handshakes.begin(peer.ip());
        let places = Arc::clone(&places);
        connections.spawn(async move {
            let open = async {
                let (stream, client) = handshake.accept(stream).await?;
                match tokio::time::timeout(limits.greeting, places.acquire_owned()).await {
                    Ok(Ok(place)) => Ok((stream, client, place)),
                    _ => Err("no_place"),
                }
            };
            // A peer that has not been let in yet has no request to finish.
            let opened = tokio::select! {
                opened = open => opened,
                () = waiting.crowded_out() => Err("crowded_out"),
                _ = stop.wait_for(|stop| *stop) => return,
            };
            drop(waiting);
            let (stream, client, _place) = match opened {
                Ok(opened) => opened,
                Err(reason) => return metrics.connection_refused(reason),
            };
            let service = TowerToHyperService::new(Extension(Client(client)).layer(router));
            let stream = TokioIo::new(FirstWords::expected(stream, limits.greeting));
            let connection = protocols.serve_connection(stream, service).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%peer, %error, "a connection ended early");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    while let Some(ended) = connections.join_next().await {
        note_panic(ended);
    }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("a connection's task panicked");
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(UNACKNOWLEDGED).with_interval(UNACKNOWLEDGED / 3),
    )?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

fn protocols(limits: ServerLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).expect("64 KiB fit"))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}
