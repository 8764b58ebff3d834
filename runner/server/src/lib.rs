//! The node that runs AI CLIs in sandboxes.

pub mod admission;
pub mod cli;
pub mod config;
pub mod egress;
mod error_chain;
pub mod heartbeat;
mod listeners;
mod logging;
pub mod metrics;
mod output;
mod own_directory;
pub mod pool;
pub mod run;
mod runner;
pub mod sandbox;
pub mod server;
mod state_lock;
#[cfg(test)]
mod testing;
pub mod tls;

pub use listeners::ListenError;
pub use runner::{Runner, RunningRunner, StartError};
pub use state_lock::StateError;
