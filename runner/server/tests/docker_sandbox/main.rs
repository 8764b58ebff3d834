//! Sandboxes on a real Docker engine: these tests fail where none answers at /var/run/docker.sock.

mod escape;
mod hardening;
mod life;
mod process;
mod support;
