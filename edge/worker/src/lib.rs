//! The Cloudflare Workers host. It only converts: a request and its bindings in, a response out.
//!
//! An isolate runs one thread and serves many requests at once, and the platform ties every timer, fetch and stream to
//! the request that made it: used on behalf of another, it fails. So a request's futures, bodies and background tasks
//! are polled, and dropped, within the request's own [`Scope`], and the isolate's gateway holds none of them.
#![cfg(target_arch = "wasm32")]

mod body;
mod exchange;
mod fetch;
mod host;
mod log;
mod scope;
mod sleep;

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use edge_host::{Deployment, not_configured};
use futures_util::future::select;
use gateway::{Body, Gateway, Host as _, Settings};
use worker::{Context, Env, event};

use crate::exchange::Exchange;
use crate::host::WorkerHost;
use crate::scope::Scope;
use crate::sleep::Sleep;

/// How long an answer that is there waits for the rest of its request.
const MAX_BODY_WAIT: Duration = Duration::from_secs(3);

thread_local! {
    /// Made at the isolate's first request: before it the platform allows neither I/O nor randomness.
    static GATEWAY: OnceCell<Gateway> = const { OnceCell::new() };
}

#[event(fetch)]
async fn fetch(request: web_sys::Request, env: Env, context: Context) -> worker::Result<web_sys::Response> {
    let signal = request.signal();
    let (request, read) = body::request(&request)?;
    let answer = async move {
        let response = match GATEWAY.with(|cell| cell.get().cloned()).map_or_else(|| open(env), Ok) {
            Ok(gateway) => gateway.handle(request).await,
            Err(response) => response,
        };
        // A refusal may come before the body was read. The gateway reads what it has no use for, within bounds: a
        // connection that is closed while the client still sends takes the answer with it.
        select(read, Sleep::new(MAX_BODY_WAIT)).await;
        response
    };
    Exchange::run(Rc::new(Scope::new(context)), answer, signal).await
}

/// An isolate has 128 MB for all of its requests, code and JavaScript's copies of bodies included; one that takes more is
/// ended with all its streams. So one body of the longest at a time, beside small ones.
fn settings() -> Settings {
    Settings { max_response_bytes: 8 << 20, max_held_bytes: Some(32 << 20), ..Settings::default() }
}

/// Makes this isolate's gateway. Where variables are wrong there is none: the next request tries again.
fn open(env: Env) -> Result<Gateway, http::Response<Body>> {
    log::start();
    let host = Arc::new(WorkerHost::new(env));
    let deployment = Deployment::from_variables(|name| host.variable(name), settings());
    // The platform verifies nodes by public authorities: anybody can have such a certificate.
    let deployment =
        if host.has_runners() { deployment.and_then(Deployment::require_runner_hosts) } else { deployment };
    match deployment {
        Ok(deployment) => Ok(GATEWAY.with(|cell| cell.get_or_init(|| deployment.into_gateway(host)).clone())),
        Err(violations) => Err(not_configured(&violations, |bytes| host.fill_random(bytes))),
    }
}
