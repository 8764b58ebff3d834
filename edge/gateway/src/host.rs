//! The capabilities that the gateway needs from whoever hosts it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use catalog::{CredentialRef, Secret};
use http::HeaderName;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Request and response bodies, inwards and outwards.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Names a request, from the client's log through ours to the upstream's.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A body that is known in full.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Why an upstream could not be asked. Nothing of the request's content is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("connecting took longer than its timeout")]
    ConnectTimeout,
    #[error("the connection could not be made")]
    Connect,
    #[error("the TLS handshake failed")]
    Tls,
    /// The connection ended before a response came.
    #[error("the connection was closed before it answered")]
    Closed,
    #[error("the answer is not HTTP")]
    Protocol,
    /// The upstream's host has only addresses that are beyond the request's [`Reach`](catalog::Reach).
    #[error("the host's addresses are none that may be called")]
    Refused,
    /// This host has nothing that would identify it to runners.
    #[error("this host has no client certificate for runners")]
    NoIdentity,
}

/// Where a provider is written. Who may write to the store may not therefore read what is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file, on the command line, in the surroundings: by whoever runs this gateway.
    Given,
    Stored,
}

/// When a call to an upstream came how far, for those who want to know: an extension of the request, as
/// `Arc<CallTrace>`. Times are of the host's monotonic clock.
#[derive(Debug, Default)]
pub struct CallTrace {
    resolved: Moment,
    connected: Moment,
    answered: Moment,
}

/// Microseconds, and one more; 0 where it has not come.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl CallTrace {
    /// The host's name was looked up.
    pub fn resolved(&self, at: Duration) {
        self.resolved.is(at);
    }

    /// The connection was made, TLS included.
    pub fn connected(&self, at: Duration) {
        self.connected.is(at);
    }

    /// The answer's head came.
    pub(crate) fn answered(&self, at: Duration) {
        self.answered.is(at);
    }

    /// Another call begins.
    pub(crate) fn begin(&self) {
        for moment in [&self.resolved, &self.connected, &self.answered] {
            moment.0.store(0, Ordering::Relaxed);
        }
    }

    /// When its host was looked up, when it was connected, and when the answer's head came.
    pub fn moments(&self) -> [Option<Duration>; 3] {
        [self.resolved.get(), self.connected.get(), self.answered.get()]
    }
}

impl Moment {
    fn is(&self, at: Duration) {
        let micros = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        self.0.store(micros.saturating_add(1), Ordering::Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        self.0.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_micros)
    }
}

/// One trait for all of it, so that a host is one type and a test needs one fake.
pub trait Host: Send + Sync + 'static {
    /// Wall clock, milliseconds since the Unix epoch.
    fn unix_ms(&self) -> u64;

    /// A clock that never goes back; its zero is arbitrary.
    fn monotonic(&self) -> Duration;

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    fn fill_random(&self, bytes: &mut [u8]);

    /// Sends a request to an upstream; redirects are not followed. Dropping the future or the response's body
    /// cancels the call. `connect_timeout` bounds name look-up, connection and TLS handshake together.
    ///
    /// Two extensions of the request are for the host. A [`Reach`](catalog::Reach): a host that looks names up itself
    /// connects to no address beyond it, neither at first nor later, and answers [`CallError::Refused`]; what the URL
    /// itself says was held to it before. A [`CallTrace`]: a host that can tell makes a connection of its own for the
    /// request, and notes when.
    fn call(
        &self,
        request: http::Request<Body>,
        connect_timeout: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>>;

    /// As [`call`](Host::call), to a runner: over HTTP/2, with the edge's client certificate. A host that has none
    /// answers [`CallError::NoIdentity`].
    fn call_runner(
        &self,
        request: http::Request<Body>,
        connect_timeout: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        let _ = (request, connect_timeout);
        Box::pin(std::future::ready(Err(CallError::NoIdentity)))
    }

    /// Runs a future that may outlive the response.
    fn spawn(&self, future: BoxFuture<'static, ()>);

    /// The upstream credential behind a reference of a provider; `Err` says, without the secret, why there is none.
    /// What [`CredentialRef::refusal`] refuses is not read.
    fn credential(&self, reference: &CredentialRef, origin: Origin) -> Result<Option<Secret>, String>;
}
