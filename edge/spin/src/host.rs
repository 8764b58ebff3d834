//! The Spin host's capabilities: WASI's clocks and randomness, Spin's HTTP client and variables.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use catalog::{CredentialRef, Secret};
use gateway::{Body, BoxFuture, CallError, Host, Origin};
use spin_sdk::{time, wasip3};

use crate::{call, variables};

pub(crate) struct SpinHost;

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Host for SpinHost {
    fn unix_ms(&self) -> u64 {
        unix_ms()
    }

    fn monotonic(&self) -> Duration {
        static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
        STARTED.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(time::sleep(duration))
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("WASI's randomness cannot fail");
    }

    fn call(
        &self,
        request: http::Request<Body>,
        connect_timeout: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        Box::pin(call::send(request, connect_timeout))
    }

    /// To the component a call like any other: Spin's runtime configuration (`[[client_tls]]`) adds the client
    /// certificate for the runners' hosts, and Spin's client negotiates HTTP/2.
    fn call_runner(
        &self,
        request: http::Request<Body>,
        connect_timeout: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        self.call(request, connect_timeout)
    }

    /// The instance lives on until the future is done, response or not.
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        wasip3::spawn(future);
    }

    /// `env:NAME` is the application's variable of that name in lower case.
    fn credential(&self, reference: &CredentialRef, _: Origin) -> Result<Option<Secret>, String> {
        edge_host::credential(reference, variables::get)
    }
}
