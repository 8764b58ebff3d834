//! However runs, edges, runners and engines come to their ends: nothing of a run is left. On real containers: these tests
//! fail where no Docker engine answers at /var/run/docker.sock, or where they may not start one of their own (they are
//! to be run as root).

#![expect(clippy::unwrap_used, reason = "what cannot be looked at ends its test")]

mod engine;
mod node;
mod runs;
mod support;
mod traces;

#[expect(dead_code, reason = "made for the tests of the commands, of which these need a part")]
#[path = "../docker_cli/support.rs"]
mod binary;
