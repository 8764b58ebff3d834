//! The node that runs AI CLIs in sandboxes.

pub mod admission;
pub mod config;
pub mod egress;
pub mod heartbeat;
pub mod metrics;
pub mod pool;
pub mod run;
pub mod sandbox;
pub mod server;
#[cfg(test)]
mod testing;
pub mod tls;
