//! The administration API under `/admin`: an axum router over the store ports.
//!
//! `authenticate → authorize → validate → seal credentials → store with audit`. `dyad-gateway up` mounts it beside the
//! gateway's own routes; `dyad-admin` serves it alone where the edge is a Worker or a Spin component. What only a running
//! gateway can do (test a provider, explain a request) is behind the [`Engine`] port.

mod console;
mod engine;

pub use console::console_routes;
pub use engine::{Engine, FetchError, RunnerInfo};
