//! The native host: the all-in-one binary `dyad-gateway`, and a library to mount the gateway in another application
//! ([`gateway_router`]).

pub mod cli;
mod config;
mod connect;
mod data_dir;
mod discovery;
mod host;
mod http1_guard;
mod logging;
mod output;
mod providers;
mod random;
mod router;
mod server;
mod tls;

pub use host::NativeHost;
pub use router::gateway_router;
