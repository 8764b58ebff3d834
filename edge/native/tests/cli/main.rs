//! The binary as people and programs use it: what it prints, how it exits, and what it serves meanwhile.

mod ca;
mod clis;
mod config;
mod credentials;
mod integrated;
mod keys;
mod life_cycle;
mod metrics;
mod programs;
mod runners;
mod support;
mod tls;
