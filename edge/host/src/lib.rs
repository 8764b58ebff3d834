//! What the hosts share: a deployment that is described by variables, and the store's HTTP client over the host's own.

mod deployment;
mod ports;

pub use deployment::{Deployment, StoreAccess, variables};
pub use ports::store_ports;
pub use store::{DynamoStore, sdk};
