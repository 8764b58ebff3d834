//! What the tests of this crate stand on.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use catalog::{CredentialRef, Secret};
use gateway::{Body, BoxFuture, CallError, Host};

/// A host where it is always 1.5 s after the epoch and nothing can be reached.
pub(crate) struct StillHost;

impl Host for StillHost {
    fn unix_ms(&self) -> u64 {
        1_500
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }

    fn call(
        &self,
        _: http::Request<Body>,
        _: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        Box::pin(std::future::ready(Err(CallError::Connect)))
    }

    fn spawn(&self, _: BoxFuture<'static, ()>) {}

    fn credential(&self, _: &CredentialRef) -> Result<Option<Secret>, String> {
        Ok(None)
    }
}

/// What a future gives that waits for nothing.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits"),
    }
}
