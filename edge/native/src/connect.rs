//! TCP connections as all clients make them, and connectors around them: one that gives up, since hyper's own timeout
//! covers neither name look-up nor TLS, and one that holds an upstream's addresses to what may be called.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use catalog::Reach;
use gateway::{BoxFuture, CallTrace};
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// A network that went away without a word is noticed in minutes, not never.
const KEEPALIVE: Duration = Duration::from_secs(30);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) fn tcp() -> HttpConnector {
    set_up(HttpConnector::new())
}

fn set_up<R>(mut tcp: HttpConnector<R>) -> HttpConnector<R> {
    // What is behind it speaks TLS where the URL says so.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp
}

/// Finds the addresses of a name; their port is 0.
pub(crate) type LookUp = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// As this machine does it.
pub(crate) fn system_look_up() -> LookUp {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }))
}

/// What is particular about the connections to an upstream.
#[derive(Clone)]
pub(crate) struct Way {
    pub reach: Reach,
    /// With what its times count from.
    pub trace: Option<(Arc<CallTrace>, Instant)>,
}

/// The host's addresses are beyond the reach; the first of them is named.
#[derive(Debug, thiserror::Error)]
#[error("{address} is {what}")]
pub(crate) struct RefusedAddress {
    address: IpAddr,
    what: &'static str,
}

impl Way {
    /// TCP connections to names' addresses within reach. What a name leads to is decided by the very look-up whose
    /// addresses are connected to: between a check and its use nothing can change.
    pub(crate) fn tcp(&self, look_up: LookUp) -> HttpConnector<Names> {
        set_up(HttpConnector::new_with_resolver(Names { look_up, way: self.clone() }))
    }

    fn check(&self, address: IpAddr) -> Result<(), RefusedAddress> {
        self.reach.refusal(address).map_or(Ok(()), |what| Err(RefusedAddress { address, what }))
    }

    fn note(&self, note: impl FnOnce(&CallTrace, Duration)) {
        if let Some((trace, began)) = &self.trace {
            note(trace, began.elapsed());
        }
    }
}

/// Names' addresses that are within reach.
#[derive(Clone)]
pub(crate) struct Names {
    look_up: LookUp,
    way: Way,
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = (self.look_up)(name.as_str().to_owned());
        let way = self.way.clone();
        Box::pin(async move {
            let mut addresses = found.await?;
            way.note(CallTrace::resolved);
            let mut refused = None;
            addresses
                .retain(|address| way.check(address.ip()).map_err(|error| refused = Some(error)).is_ok());
            match refused {
                Some(refused) if addresses.is_empty() => Err(refused.into()),
                _ => Ok(addresses.into_iter()),
            }
        })
    }
}

/// Connects on a [`Way`]: addresses that stand in the URL itself are never looked up.
#[derive(Clone)]
pub(crate) struct OnWay<C> {
    inner: C,
    way: Way,
}

impl<C> OnWay<C> {
    pub(crate) fn new(inner: C, way: Way) -> Self {
        Self { inner, way }
    }
}

impl<C> Service<Uri> for OnWay<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
    C::Response: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let checked = address.map_or(Ok(()), |address| self.way.check(address));
        if let Err(refused) = checked {
            return Box::pin(std::future::ready(Err(refused.into())));
        }
        let connecting = self.inner.call(uri);
        let way = self.way.clone();
        Box::pin(async move {
            let connection = connecting.await?;
            way.note(CallTrace::connected);
            Ok(connection)
        })
    }
}

#[derive(Clone)]
pub(crate) struct ConnectTimeout<C> {
    inner: C,
    timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("connecting took too long")]
pub(crate) struct TimedOut;

impl<C> ConnectTimeout<C> {
    pub(crate) fn new(inner: C, timeout: Duration) -> Self {
        Self { inner, timeout }
    }
}

impl<C> Service<Uri> for ConnectTimeout<C>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.timeout, self.inner.call(uri));
        Box::pin(async move {
            match connecting.await {
                Ok(result) => result.map_err(Into::into),
                Err(_) => Err(TimedOut.into()),
            }
        })
    }
}
