//! The node that runs AI CLIs in sandboxes.

pub mod config;
pub mod egress;
pub mod metrics;
pub mod server;
pub mod tls;
