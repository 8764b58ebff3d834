//! The native host: the all-in-one binary `dyad-gateway`, and a library to mount the gateway in another application.
//!
//! A host application opens an [`EmbeddedGateway`] and mounts its router (see `examples/integrated.rs`), or makes a
//! [`gateway::Gateway`] of its own parts, with [`NativeHost`] among them, and mounts [`gateway_router`].

mod admin;
pub mod ca;
pub mod cli;
mod config;
mod connect;
mod credential;
mod data_dir;
mod discovery;
mod embedded;
mod error_chain;
mod file;
mod host;
mod http1_guard;
mod local_runner;
mod logging;
mod master_keys;
mod metrics;
mod output;
mod providers;
mod random;
mod router;
mod runners;
mod server;
mod store_location;
mod tls;

/// The administration API.
pub use admin_api;
/// The vocabulary of configuration: providers, models, API keys.
pub use catalog;
/// The host-free core.
pub use gateway;

pub use embedded::{CreateKeyError, EmbeddedGateway, NewApiKey, OpenError};
pub use host::NativeHost;
pub use router::gateway_router;
pub use runners::{IdentityError, RunnerIdentity, RunnerNodes, Runners, RunnersConfig};
pub use store::StoreAccess;
pub use store_location::StoreLocation;
