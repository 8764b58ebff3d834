//! A whole gateway on a table that is reached as an edge reaches it: what it asks for, and what it does while the store
//! fails.

#![expect(clippy::unwrap_used, reason = "all of it is test code, which clippy sees only in test functions")]

mod cost;
#[path = "../../../store/tests/suite/fault_proxy.rs"]
#[expect(dead_code, reason = "the store's own suite uses all of it")]
mod fault_proxy;
mod faults;
mod limits;
mod support;
