//! What the hosts share: a deployment that is described by variables, the store's HTTP client over the host's own, and
//! the log of an edge.

mod deployment;
mod log;
mod ports;
mod unconfigured;

pub use deployment::{Deployment, StoreAccess, variables};
pub use log::JsonLog;
pub use ports::store_ports;
pub use store::{DynamoStore, sdk};
pub use unconfigured::not_configured;
