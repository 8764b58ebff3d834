//! The administration beside the gateway, and alone: `admin-api` with what only this host can do.

mod config;
mod engine;
mod routes;

pub(crate) use config::{Access, AdminSection, check, settle};
pub(crate) use engine::NativeEngine;
pub(crate) use routes::{bounded, is_administration, not_set_up};
