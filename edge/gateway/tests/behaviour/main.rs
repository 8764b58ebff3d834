//! The gateway as its clients see it, on a host made for tests: its clock moves when the test says so, its upstreams
//! say what the test wrote, and nothing runs that the test does not run.

#![expect(clippy::unwrap_used, reason = "all of it is test code, which clippy sees only in test functions")]

mod access;
mod bodies;
mod cli_nodes;
mod cli_requests;
mod clis;
mod config;
mod corners;
mod credentials;
mod explain;
mod fallback;
mod freshness;
mod health;
mod limits;
mod limits_failures;
mod limits_instances;
mod limits_simulation;
mod limits_tokens;
mod logs;
mod metrics;
mod provider_tests;
mod runners;
mod streams;
mod support;
mod timing;
mod upstream_hosts;
mod usage;
