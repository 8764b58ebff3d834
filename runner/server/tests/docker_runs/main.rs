//! Runs in real sandboxes, and what is left of them when something ends before its time. Needs a Docker engine.

mod engine_restart;
mod kill;
mod parked;
mod support;
