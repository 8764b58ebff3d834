//! Who gets a TLS connection to the node, and what those get who do not: a failed handshake, and nothing of HTTP.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

mod authority;
mod support;

mod changes;
mod files;
mod handshakes;
