//! The administration beside the gateway, and alone: `admin-api` with what only this host can do.

mod config;

pub(crate) use config::{AdminConfig, AdminSection, check, settle};
