//! The binary as people and the edge use it. Some of these tests run containers: they fail where no Docker engine
//! answers at /var/run/docker.sock.

mod check;
mod config;
mod embedded;
mod registry;
mod run;
mod serve;
mod support;
