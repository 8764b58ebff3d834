//! What the hosts share: a deployment that is described by variables, and the store's HTTP client over the host's own.

mod deployment;
mod ports;

pub use deployment::{Deployment, key_hasher, settings_from_variables, variables};
pub use ports::store_ports;
pub use store::{DynamoStore, StoreAccess, sdk};
