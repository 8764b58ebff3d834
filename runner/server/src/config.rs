//! The operator's file, `runner.toml`.

pub mod model;
