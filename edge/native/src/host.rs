//! The native host's capabilities: tokio's clock, the system's randomness, hyper's client over rustls.

use std::cell::RefCell;
use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use catalog::{CredentialRef, Reach, Secret};
use gateway::{Body, BoxFuture, CallError, CallTrace, Host, Origin};
use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use thread_local::ThreadLocal;

use crate::connect::{self, ConnectTimeout, LookUp, Names, OnWay, RefusedAddress, Way};
use crate::credential;
use crate::error_chain::error_chain;
use crate::runners::{RunnerClient, Runners};
use crate::tls;

/// Connections kept open to one upstream, per worker thread.
const MAX_IDLE_PER_UPSTREAM: usize = 256;
/// After so much silence a peer is asked whether it is there, and given up after as much again.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(30);
pub(crate) const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// By connect timeout and reach.
type UpstreamClients = Vec<((Duration, Reach), UpstreamClient)>;
type UpstreamClient = Client<ConnectTimeout<OnWay<HttpsConnector<HttpConnector<Names>>>>, Body>;

pub struct NativeHost {
    tls: Arc<rustls::ClientConfig>,
    started: Instant,
    /// Each worker thread has its own pool, so that a request never changes threads. One client per connect timeout
    /// and reach in use, of which the configuration has few: who may not connect somewhere may not use a connection
    /// there either.
    clients: ThreadLocal<RefCell<UpstreamClients>>,
    look_up: LookUp,
    runners: Option<Arc<RunnerClient>>,
    /// Where files are that stored providers may name.
    credential_dir: Option<PathBuf>,
}

impl NativeHost {
    /// Upstreams are verified against the system's certificates (`SSL_CERT_FILE` is honoured), or, where there are
    /// none, against Mozilla's.
    pub fn new() -> Result<Self, rustls::Error> {
        let tls = tls::client_config(tls::system_roots()?)?;
        Ok(Self {
            tls: Arc::new(tls),
            started: Instant::now(),
            clients: ThreadLocal::new(),
            look_up: connect::system_look_up(),
            runners: None,
            credential_dir: None,
        })
    }

    /// Makes runners' nodes reachable.
    #[must_use]
    pub fn with_runners(mut self, runners: &Runners) -> Self {
        self.runners = Some(runners.client());
        self
    }

    /// Stored providers may name files below this directory as their credentials; without it they may name none.
    #[must_use]
    pub fn with_credential_dir(mut self, directory: Option<PathBuf>) -> Self {
        self.credential_dir = directory;
        self
    }

    fn client(&self, connect_timeout: Duration, reach: Reach) -> UpstreamClient {
        let key = (connect_timeout, reach);
        let mut clients = self.clients.get_or_default().borrow_mut();
        if let Some((_, client)) = clients.iter().find(|(known, _)| *known == key) {
            return client.clone();
        }
        let client = self.new_client(connect_timeout, Way { reach, trace: None });
        clients.push((key, client.clone()));
        client
    }

    fn new_client(&self, connect_timeout: Duration, way: Way) -> UpstreamClient {
        let https = HttpsConnectorBuilder::new()
            .with_tls_config((*self.tls).clone())
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(way.tcp(self.look_up.clone()));
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_UPSTREAM)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(KEEPALIVE)
            .http2_keep_alive_timeout(KEEPALIVE)
            .build(ConnectTimeout::new(OnWay::new(https, way), connect_timeout))
    }
}

impl Host for NativeHost {
    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system has randomness once it has booted");
    }

    fn call(
        &self,
        request: http::Request<Body>,
        connect_timeout: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        // What is not an upstream of a provider is called at the word of whoever runs this gateway.
        let reach = request.extensions().get().copied().unwrap_or(Reach::Anywhere);
        let client = match request.extensions().get::<Arc<CallTrace>>() {
            None => self.client(connect_timeout, reach),
            // Its connection is made for it, and ends with it.
            Some(trace) => {
                let trace = Some((trace.clone(), self.started));
                self.new_client(connect_timeout, Way { reach, trace })
            }
        };
        send(&client, request)
    }

    fn call_runner(
        &self,
        request: http::Request<Body>,
        connect_timeout: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        match &self.runners {
            Some(runners) => runners.call(request, connect_timeout),
            None => Box::pin(std::future::ready(Err(CallError::NoIdentity))),
        }
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) {
        tokio::spawn(future);
    }

    fn credential(&self, reference: &CredentialRef, origin: Origin) -> Result<Option<Secret>, String> {
        match origin {
            Origin::Given => credential::of_given(reference),
            Origin::Stored => credential::of_stored(reference, self.credential_dir.as_deref()),
        }
    }
}

/// Dropping the future or the response's body cancels the call.
pub(crate) fn send<C>(
    client: &Client<C, Body>,
    request: http::Request<Body>,
) -> BoxFuture<'static, Result<http::Response<Body>, CallError>>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let call = client.request(request);
    Box::pin(async move {
        match call.await {
            Ok(response) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
            Err(error) => {
                tracing::debug!(error = %error_chain(&error), "call failed");
                Err(classify(&error))
            }
        }
    })
}

fn classify(error: &hyper_util::client::legacy::Error) -> CallError {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<crate::connect::TimedOut>() {
            return CallError::ConnectTimeout;
        }
        if error.is::<RefusedAddress>() {
            return CallError::Refused;
        }
        if error.is::<rustls::Error>() {
            return CallError::Tls;
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            if error.is_parse() {
                return CallError::Protocol;
            }
            if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
                return CallError::Closed;
            }
        }
        // rustls' errors travel inside io errors, several deep, whose source skips them.
        let mut io = error.downcast_ref::<std::io::Error>();
        while let Some(inner) = io.and_then(std::io::Error::get_ref) {
            if inner.is::<rustls::Error>() {
                return CallError::Tls;
            }
            io = inner.downcast_ref::<std::io::Error>();
        }
        cause = error.source();
    }
    if error.is_connect() { CallError::Connect } else { CallError::Closed }
}

#[cfg(test)]
mod tests;
