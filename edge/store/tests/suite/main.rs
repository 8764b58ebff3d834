//! The store on every engine it runs on, on good days and bad ones.

#![expect(clippy::unwrap_used, reason = "all of it is test code, which clippy sees only in test functions")]

mod audit;
mod backend;
mod contract;
mod durability;
mod fault_proxy;
mod faults;
mod http_client;
mod items;
mod limits;
mod records;
mod registry;
mod reports;
mod transfer;
