//! The binary as people and programs use it: what it prints, how it exits, and what it serves meanwhile.

mod admin;
mod aws_credentials;
mod ca;
mod clis;
mod config;
mod credentials;
mod fleet;
mod integrated;
mod keys;
mod least_privilege;
mod life_cycle;
mod metrics;
mod openapi;
mod programs;
mod provider_commands;
mod remote;
mod runners;
mod store;
mod stored_providers;
mod support;
mod tables;
mod tls;
mod transfer;
