//! The Cloudflare Workers host.
#![cfg(target_arch = "wasm32")]
