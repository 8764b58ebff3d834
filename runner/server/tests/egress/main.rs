//! The egress endpoint between a sandbox, which is not to be trusted, and vendors on loopback. Both ends are plain
//! sockets here, so that every byte that passes can be looked at.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

mod support;

mod access;
mod calls;
mod limits;
mod tunnels;
mod vendor_tls;
