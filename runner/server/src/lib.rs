//! The node that runs AI CLIs in sandboxes.

pub mod config;
pub mod sandbox;
