//! The node that runs AI CLIs in sandboxes.

pub mod admission;
pub mod config;
pub mod egress;
#[cfg(test)]
mod testing;
pub mod sandbox;
