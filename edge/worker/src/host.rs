//! The platform's capabilities, as the gateway wants them.

use std::cell::Cell;
use std::time::Duration;

use catalog::{CredentialRef, Secret};
use gateway::{Body, BoxFuture, CallError, Host, Origin};
use js_sys::{Date, Reflect};
use wasm_bindgen::JsValue;
use worker::Env;
use worker::send::SendFuture;

use crate::fetch;
use crate::scope::Scope;
use crate::sleep::Sleep;

/// The binding of `mtls_certificates` in wrangler.toml.
const RUNNERS: &str = "RUNNERS";

thread_local! {
    static LATEST_MS: Cell<u64> = const { Cell::new(0) };
}

/// The bindings are the isolate's: any request may use them.
pub(crate) struct WorkerHost {
    env: Env,
}

impl WorkerHost {
    pub(crate) fn new(env: Env) -> Self {
        Self { env }
    }

    /// Whether there is a client certificate for runners.
    pub(crate) fn has_runners(&self) -> bool {
        self.env.service(RUNNERS).is_ok()
    }

    /// A variable or a secret.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        Reflect::get(&self.env, &JsValue::from_str(name)).ok()?.as_string()
    }
}

impl Host for WorkerHost {
    fn unix_ms(&self) -> u64 {
        unix_ms()
    }

    /// The wall clock, held where it goes back: `performance.now()` is no other clock here. Both stand still between
    /// I/O, so that no timing attack can be made of them.
    fn monotonic(&self) -> Duration {
        let now = LATEST_MS.get().max(unix_ms());
        LATEST_MS.set(now);
        Duration::from_millis(now)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(SendFuture::new(Sleep::new(duration)))
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the platform has randomness while it serves a request");
    }

    /// The platform makes connections by itself, and says neither how long it took nor which of its steps failed: a
    /// connection that cannot be made is waited for until the time for the first byte is over.
    fn call(
        &self,
        request: http::Request<Body>,
        _connect_timeout: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        Box::pin(SendFuture::new(fetch::call(None, request)))
    }

    /// Over whichever version of HTTP the platform speaks to the node.
    fn call_runner(
        &self,
        request: http::Request<Body>,
        _connect_timeout: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        match self.env.service(RUNNERS) {
            Ok(runners) => Box::pin(SendFuture::new(fetch::call(Some(runners), request))),
            Err(_) => Box::pin(std::future::ready(Err(CallError::NoIdentity))),
        }
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) {
        // What is neither polled nor dropped by a request has nobody who would keep it alive.
        if let Some(scope) = Scope::current() {
            scope.wait_until(future);
        }
    }

    fn credential(&self, reference: &CredentialRef, _: Origin) -> Result<Option<Secret>, String> {
        edge_host::credential(reference, |name| self.variable(name))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole milliseconds since 1970")]
pub(crate) fn unix_ms() -> u64 {
    Date::now() as u64
}
