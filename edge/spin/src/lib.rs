//! The Spin host: a WASI 0.3 HTTP component over the gateway's core. It only converts.
//!
//! An instance serves up to 128 requests, 16 of them at once, on one thread: the gateway is made for its first request
//! and shared by the rest. Work that outlives a response keeps the instance alive until it is done. A request must not
//! wait for another of the same instance: the SDK's runtime cannot wake one from within another, and traps.
#![cfg(target_os = "wasi")]

mod call;
mod host;
mod message;
mod service;
mod variables;

use gateway::Host as _;
use spin_sdk::http::IntoResponse as _;
use spin_sdk::wasip3::exports::http::handler::Guest;
use spin_sdk::wasip3::http::types::{ErrorCode, Request, Response};
use spin_sdk::wasip3::http_compat::http_from_wasi_request;

/// What `spin_sdk::http_service` would make, but that it answers what cannot be converted with a bare 500.
struct Component;

spin_sdk::wasip3::http::service::export!(Component);

impl Guest for Component {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let response = match (service::gateway(), http_from_wasi_request(request)) {
            (Ok(gateway), Ok(request)) => gateway.handle(message::from_wasi(request)).await,
            (Err(violations), _) => {
                edge_host::not_configured(&violations, |bytes| host::SpinHost.fill_random(bytes))
            }
            (_, Err(error)) => {
                tracing::info!(%error, "a request was refused that cannot be read");
                message::malformed()
            }
        };
        message::to_wasi(response).into_response()
    }
}
