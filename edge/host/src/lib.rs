//! What the hosts share: a deployment that is described by variables, the store's HTTP client over the host's own, log
//! lines, and the answer of an edge that is not configured.

mod credential;
mod deployment;
mod log;
mod not_configured;
mod ports;
#[cfg(test)]
mod testing;

pub use credential::credential;
pub use deployment::{Deployment, key_hasher, settings_from_variables, variables};
pub use log::start_log;
pub use not_configured::not_configured;
pub use ports::store_ports;
pub use store::{DynamoStore, StoreAccess, sdk};
