//! Sandboxes on a real Docker engine: these tests fail where none answers at /var/run/docker.sock.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod escape;
mod flaky;
mod hardening;
mod life;
mod process;
mod support;
