//! The capabilities that the gateway needs from whoever hosts it.

use std::future::Future;
use std::pin::Pin;
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
