//! The node that runs AI CLIs in sandboxes.

pub mod admission;
pub mod config;
#[cfg(test)]
mod testing;
