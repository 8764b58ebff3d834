//! The listener: worker threads with a runtime each, TLS, HTTP/1.1 and HTTP/2, and the drain.
//!
//! A connection lives on one worker, with its own pool of upstream connections: no request changes threads.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::http1_guard::Http1Guard;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Longest request head.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_H2_STREAMS: u32 = 512;
/// Pause after accepting failed, as it does while file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct ServerOptions {
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) workers: usize,
    /// Connections open at once; further ones wait in the kernel's backlog.
    pub(crate) max_connections: usize,
    pub(crate) timeouts: ServerTimeouts,
}

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerTimeouts {
    /// For its TLS handshake, and then again for its first request's head.
    pub(crate) greeting: Duration,
    /// For each further head, counted from the last answer: so it is also how long an idle connection is kept.
    pub(crate) head: Duration,
    /// To HTTP/2 pings, and between them.
    pub(crate) http2_ping: Duration,
    /// To stop sending a request that was answered before its end.
    pub(crate) linger: Duration,
    /// To read something of what it is sent.
    pub(crate) stall: Duration,
}

impl Default for ServerTimeouts {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(20),
            head: Duration::from_secs(75),
            http2_ping: Duration::from_secs(25),
            linger: Duration::from_secs(3),
            stall: Duration::from_secs(60),
        }
    }
}

/// A server that runs. Dropping it does not stop it.
pub(crate) struct Server {
    local_addr: SocketAddr,
    drain: watch::Sender<bool>,
    acceptor: tokio::task::JoinHandle<()>,
    workers: Vec<JoinHandle<()>>,
    workers_alive: mpsc::Receiver<()>,
}

struct Worker {
    sender: mpsc::UnboundedSender<TcpStream>,
    /// Connections it has; shared with the connections themselves, which count themselves out.
    load: Arc<AtomicUsize>,
}

impl Server {
    /// Begins to accept. Must be called in a tokio runtime, which runs the acceptor only.
    pub(crate) fn start<S, B>(listener: TcpListener, service: &S, options: &ServerOptions) -> io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        listener.set_nonblocking(true)?;
        let local_addr = listener.local_addr()?;
        let (drain, draining) = watch::channel(false);
        let tls = options.tls.clone().map(TlsAcceptor::from);
        let (alive, workers_alive) = mpsc::channel(1);
        let mut workers = Vec::new();
        let mut threads = Vec::new();
        for index in 0..options.workers.max(1) {
            let (sender, receiver) = mpsc::unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let timeouts = options.timeouts;
            let (service, tls, draining, counter) =
                (service.clone(), tls.clone(), draining.clone(), load.clone());
            let alive = alive.clone();
            let work = move || {
                let _alive: mpsc::Sender<()> = alive;
                runtime.block_on(work(receiver, service, tls, timeouts, draining, counter));
            };
            threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(work)?);
            workers.push(Worker { sender, load });
        }
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let acceptor = tokio::spawn(accept(listener, workers, options.max_connections, draining));
        Ok(Self { local_addr, drain, acceptor, workers: threads, workers_alive })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting, lets every request under way finish, and returns when the last connection is closed. Drop the
    /// future to stop waiting: nothing of it is left behind.
    pub(crate) async fn drain(mut self) {
        // Nobody listening means that all have ended already.
        let _ = self.drain.send(true);
        let _ = self.acceptor.await;
        // Nothing is ever sent: the channel closes when the last worker has dropped its end.
        let _ = self.workers_alive.recv().await;
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    mut workers: Vec<Worker>,
    max: usize,
    mut draining: watch::Receiver<bool>,
) {
    loop {
        let Some((least, total)) = least_loaded(&workers) else {
            if !*draining.borrow() {
                tracing::error!("every worker is gone");
            }
            return;
        };
        let accepted = tokio::select! {
            // First, or a connection would be given to a worker that has gone.
            biased;
            _ = draining.wait_for(|drain| *drain) => return,
            () = tokio::time::sleep(ACCEPT_PAUSE), if total >= max => continue,
            accepted = listener.accept(), if total < max => accepted,
        };
        // The worker's own runtime will watch it.
        match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => {
                workers[least].load.fetch_add(1, Ordering::Relaxed);
                if workers[least].sender.send(stream).is_err() {
                    // Draining, as the next round finds out, or dead.
                    workers.swap_remove(least);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The index of the worker with the fewest connections, and how many connections there are in all.
fn least_loaded(workers: &[Worker]) -> Option<(usize, usize)> {
    let loads = workers.iter().map(|worker| worker.load.load(Ordering::Relaxed)).enumerate();
    let total = loads.clone().map(|(_, load)| load).sum();
    let (least, _) = loads.min_by_key(|(_, load)| *load)?;
    Some((least, total))
}

/// Counts a connection out when it ends, however it ends.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn work<S, B>(
    mut streams: mpsc::UnboundedReceiver<TcpStream>,
    service: S,
    tls: Option<TlsAcceptor>,
    timeouts: ServerTimeouts,
    draining: watch::Receiver<bool>,
    load: Arc<AtomicUsize>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(timeouts.head).max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_H2_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).expect("64 KiB fit"))
        .keep_alive_interval(timeouts.http2_ping)
        .keep_alive_timeout(timeouts.http2_ping);
    let protocols = Arc::new(Protocols::new(builder));
    let graceful = GracefulShutdown::new();
    let mut stop = draining.clone();
    loop {
        let stream = tokio::select! {
            stream = streams.recv() => stream,
            _ = stop.wait_for(|drain| *drain) => None,
        };
        let Some(stream) = stream else { break };
        let counted = Counted(load.clone());
        let (protocols, service, tls, watcher) =
            (protocols.clone(), service.clone(), tls.clone(), graceful.watcher());
        let mut stop = draining.clone();
        tokio::spawn(async move {
            let _counted = counted;
            let stream = tokio::net::TcpStream::from_std(stream)
                .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => return tracing::warn!(%error, "an accepted connection cannot be used"),
            };
            let ended = match tls {
                None => {
                    let spoken = tokio::time::timeout(timeouts.greeting, speaks_http1(&stream));
                    // A connection that has said nothing yet has no request to finish.
                    let is_http1 = tokio::select! {
                        spoken = spoken => match spoken {
                            Ok(Ok(is_http1)) => is_http1,
                            Ok(Err(error)) => return tracing::debug!(%error, "a connection ended before its first byte"),
                            Err(_) => return tracing::debug!("a connection said nothing in time"),
                        },
                        _ = stop.wait_for(|drain| *drain) => return,
                    };
                    let builder = if is_http1 { &protocols.http1 } else { &protocols.either };
                    let io = guarded(stream, timeouts);
                    watcher.watch(builder.serve_connection(io, service).into_owned()).await
                }
                Some(tls) => {
                    let handshake = tokio::time::timeout(timeouts.greeting, tls.accept(stream));
                    // A connection that has not been opened yet has no request to finish.
                    let opened = tokio::select! {
                        opened = handshake => opened,
                        _ = stop.wait_for(|drain| *drain) => return,
                    };
                    let stream = match opened {
                        Ok(Ok(stream)) => stream,
                        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => return tracing::debug!("a TLS handshake took too long"),
                    };
                    let builder = match stream.get_ref().1.alpn_protocol() {
                        Some(b"h2") => &protocols.http2,
                        Some(_) => &protocols.http1,
                        None => &protocols.either,
                    };
                    // In a box: every connection's task would have room for it, with or without TLS.
                    let io = guarded(Box::new(stream), timeouts);
                    watcher.watch(builder.serve_connection(io, service).into_owned()).await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    // Connections that were handed over but not taken yet have sent no request that was read.
    drop(streams);
    graceful.shutdown().await;
}

/// The same settings for each way of finding out what a client speaks. Where it is known beforehand, the connection
/// needs no buffer to look into first, which it would keep.
struct Protocols {
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
    either: auto::Builder<TokioExecutor>,
}

impl Protocols {
    fn new(builder: auto::Builder<TokioExecutor>) -> Self {
        Self { http1: builder.clone().http1_only(), http2: builder.clone().http2_only(), either: builder }
    }
}

/// Waits for the first bytes and looks at them without taking them. Only HTTP/2's preface begins with `PR`; what is
/// too short to tell is not HTTP/1.1 for certain.
async fn speaks_http1(stream: &tokio::net::TcpStream) -> io::Result<bool> {
    let mut start = [0; 2];
    let length = stream.peek(&mut start).await?;
    Ok(length > 0 && !b"PR".starts_with(&start[..length]))
}

fn guarded<S>(stream: S, timeouts: ServerTimeouts) -> TokioIo<Http1Guard<S>> {
    TokioIo::new(Http1Guard::new(stream, timeouts.greeting, timeouts.linger, timeouts.stall))
}

#[cfg(test)]
mod tests;
