//! What the hosts share: a deployment that is described by variables, the store's HTTP client over the host's own, the
//! log of an edge, its answer while it is not configured, and the credentials that it finds.

mod credential;
mod deployment;
mod log;
mod ports;
mod unconfigured;

pub use credential::{credential, credential_of};
pub use deployment::{Deployment, key_hasher, settings_from_variables, settle_refresh, variables};
pub use log::JsonLog;
pub use ports::store_ports;
pub use store::{DynamoStore, StoreAccess, sdk};
pub use unconfigured::not_configured;
