//! The administration API under `/admin`: an axum router over the store ports.
//!
//! `authenticate → authorize → validate → seal credentials → store with audit`. `dyad-gateway up` mounts it beside the
//! gateway's own routes; `dyad-admin` serves it alone where the edge is a Worker or a Spin component. What only a running
//! gateway can do (test a provider, explain a request) is behind the [`Engine`] port.

mod actor;
mod answer;
mod audit;
mod auth;
mod body;
mod change;
mod console;
mod credentials;
mod engine;
mod error;
mod explain;
mod keys;
mod members;
mod moment;
mod observe;
mod openapi;
mod path;
mod providers;
mod query;
mod runners;
mod schemas;
mod secrets;
mod service;
#[cfg(test)]
mod testing;
mod usage;
mod whoami;

pub use actor::{Actor, Role};
pub use auth::{Algorithm, AuthError, Authenticator, JwksSource, TokenRules, mint};
pub use engine::{Engine, FetchError, RunnerInfo};
pub use error::cause_of_failure;
pub use providers::provider_body;
pub use service::{AdminParts, local_router, router};
