//! The HTTP/2 client to runners.

use std::cell::RefCell;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use gateway::{Body, BoxFuture, CallError};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use thread_local::ThreadLocal;

use super::RunnerIdentity;
use super::identity::{Identity, IdentityError};
use crate::connect::{self, ConnectTimeout};
use crate::host::{self, KEEPALIVE, POOL_IDLE_TIMEOUT};

type Http2Client = Client<ConnectTimeout<HttpsConnector<HttpConnector>>, Body>;

pub(crate) struct RunnerClient {
    files: RunnerIdentity,
    identity: RwLock<Arc<Identity>>,
    /// Each worker thread has its own connections, as those to upstreams: one per node, identity and connect timeout.
    clients: ThreadLocal<RefCell<Clients>>,
}

#[derive(Default)]
struct Clients {
    /// The identity that they were made with.
    identity: Option<Arc<Identity>>,
    by_timeout: Vec<(Duration, Http2Client)>,
}

impl RunnerClient {
    pub(super) fn new(files: RunnerIdentity) -> Result<Self, IdentityError> {
        let identity = RwLock::new(Arc::new(Identity::read(&files)?));
        Ok(Self { files, identity, clients: ThreadLocal::new() })
    }

    /// Takes new certificates into use for connections that are yet to be made.
    pub(super) fn reload_if_changed(&self) {
        if !self.identity().is_stale(&self.files) {
            return;
        }
        match Identity::read(&self.files) {
            Ok(identity) => {
                *self.identity.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
                tracing::info!("the certificates for runners were read again");
            }
            Err(error) => {
                tracing::warn!(%error, "the certificates for runners have changed and cannot be used; the former serve on");
            }
        }
    }

    /// Dropping the future or the body resets the stream, which cancels the run.
    pub(crate) fn call(
        &self,
        request: http::Request<Body>,
        connect_timeout: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        host::send(&self.client(connect_timeout), request)
    }

    fn identity(&self) -> Arc<Identity> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn client(&self, connect_timeout: Duration) -> Http2Client {
        let identity = self.identity();
        let mut clients = self.clients.get_or_default().borrow_mut();
        if !clients.identity.as_ref().is_some_and(|known| Arc::ptr_eq(known, &identity)) {
            // What runs over the former connections runs on.
            *clients = Clients { identity: Some(identity.clone()), by_timeout: Vec::new() };
        }
        if identity.is_over() {
            // Nobody knows whom the former connections lead to: new ones are made, and refused.
            clients.by_timeout.clear();
        }
        if let Some((_, client)) = clients.by_timeout.iter().find(|(timeout, _)| *timeout == connect_timeout)
        {
            return client.clone();
        }
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(identity.tls.clone())
            .https_only()
            .enable_http2()
            .wrap_connector(connect::tcp());
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(KEEPALIVE)
            .http2_keep_alive_timeout(KEEPALIVE)
            .build(ConnectTimeout::new(https, connect_timeout));
        clients.by_timeout.push((connect_timeout, client.clone()));
        client
    }
}
