//! The port for limits that hold across instances: counters of windows, and slots of concurrent requests.
//!
//! An instance takes a slice of a window with one call, spends it without further calls, and gives back what it does
//! not need. What is granted never adds up to more than the limit, whoever crashes and whatever is sent twice.

use crate::{ApiKeyId, BoxFuture, StoreError};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quantity {
    Requests,
    Tokens,
}

/// A span of time, aligned to UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    Minute,
    Day,
    /// A calendar month.
    Month,
}

/// One counter: what a key has taken in one window.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counter {
    pub key: ApiKeyId,
    pub quantity: Quantity,
    pub period: Period,
    /// When the window begins, Unix milliseconds.
    pub start_ms: u64,
}

/// The answer to [`LimitStore::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// 0 to what was asked for; 0 means that the window is spent.
    pub granted: u64,
    /// What the window has left for anybody, after this.
    pub left: u64,
}

/// Slots of one key that an instance holds: as many of its requests may be under way at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    pub held: u32,
    /// What nobody holds.
    pub left: u32,
}

/// Counters and slots. Every call is one request to the store, except where it says otherwise.
pub trait LimitStore: Send + Sync {
    /// Takes up to `ask` of what `limit` leaves in the window. A request that is repeated because its answer was lost
    /// may take twice, which wastes and never exceeds.
    fn take<'a>(
        &'a self,
        counter: &'a Counter,
        ask: u64,
        limit: u64,
    ) -> BoxFuture<'a, Result<Taken, StoreError>>;

    /// Counts what was used beyond what was taken, whatever the limit.
    fn charge<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Gives back what was taken and not used. Never repeated: given back twice, it could be taken twice.
    fn give_back<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Makes `holder` (an instance, named at random) the holder of `wanted` slots until `until_ms`, or of as many as
    /// are free: what others hold counts until its time has passed. 0 gives all of them back. A change that collides
    /// with another instance's is repeated, so this may be more than one request.
    fn hold<'a>(
        &'a self,
        key: &'a ApiKeyId,
        holder: &'a str,
        wanted: u32,
        limit: u32,
        until_ms: u64,
    ) -> BoxFuture<'a, Result<Slots, StoreError>>;

    /// What to add to this instance's wall clock to get the store's, which is the fleet's: all instances must agree on
    /// when a window begins. 0 while it is not known.
    fn clock_offset_ms(&self) -> i64;
}
