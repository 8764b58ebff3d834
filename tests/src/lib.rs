//! Harness of the suites that cross processes: fake upstreams that misbehave on demand, the
//! gateway as a child process on any of its hosts, the real client libraries, and sockets that
//! say exactly what a test wants said.
//!
//! The suites are in `tests/`: `contract` (real client libraries), `raw` (bytes on the wire),
//! `bad_input`, `admin`, and `real` (servers that nobody here wrote). `README.md` maps the numbered lines
//! of the wire contract to tests.
//!
//! Everything is bounded: what is waited for is waited for with [`within`], and children are
//! killed when their owner is dropped.

pub mod admin;
pub mod clients;
pub mod config;
pub mod dyad;
pub mod fixture;
pub mod gateway;
pub mod h2;
pub mod hosts;
pub mod http1;
pub mod raw;
pub mod real;
pub mod secrets;
pub mod spin;
pub mod sse;
pub mod store_relay;
pub mod table;
pub mod tls;
pub mod turn;
pub mod upstream;
pub mod vendor;
pub mod worker;

use std::time::Duration;

/// How long anything that should happen at once may take on a loaded machine.
pub const SOON: Duration = Duration::from_secs(10);

/// The bound the contract sets for noticing an abort.
pub const ABORT_BOUND: Duration = Duration::from_secs(1);

/// Awaits `future` for at most `limit`; panics with `what` when it takes longer.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(limit, future).await;
    result.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}
