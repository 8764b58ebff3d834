//! The Spin host.
#![cfg(target_os = "wasi")]
