//! Bytes on the wire: what client libraries hide or prevent.

mod connections;
mod cors;
mod disconnects;
mod drain;
mod fallback;
mod http2;
mod metrics;
mod streams;
mod upstreams;
