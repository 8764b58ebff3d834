//! Limits of an API key: concurrent requests, requests and tokens per window. They hold across instances: what is spent
//! here was taken from the store before ([`LimitStore`](catalog::LimitStore)), a slice at a time.
//!
//! - **Requests per minute** are never over the limit. A request counts from its admission on, whatever becomes of it
//!   then; one that finds no slot does not count.
//! - **Tokens** (per minute, day and month) are reserved once the body is read: the prompt as estimated, and the longest
//!   answer that the client allows, or else that the model is said to give. When the request ends they are settled with
//!   what it used. So a window is over its limit by at most what running requests used beyond their reservation. The
//!   instance that ran them spends that of the minutes that follow, until it fits; what was used too much of a day or a
//!   month is counted there.
//! - **Concurrent requests** have slots, which are held as long as a request's body lives. An instance that vanishes
//!   frees its slots after half a minute.
//!
//! Windows begin and end by the store's clock. A limit that is changed holds for what is taken from then on.
//!
//! **The store fails.** What this instance has been granted is spent on. Beyond that, by setting: *open*, each instance
//! counts on its own, which lets through at most the limit times the number of instances, and charges the store when it
//! is back; or *closed*, requests of limited keys are refused with 503. One request of a key waits for a store that does
//! not answer, a second at most; from then on it is asked in the background, every three seconds. A store that is slow
//! has not failed: until a call has, requests wait for it, up to three seconds.

mod foresight;
mod headers;
mod instance;
mod keep;
mod lease;
mod refusal;
mod slots;
mod trouble;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::{ApiKeyId, ApiKeyLimits, Counter, Period, Quantity, Window};
use futures_util::future::join_all;

pub(crate) use self::foresight::foresee;
pub(crate) use self::headers::{RETRY_AFTER_MS, write_headers};
pub(crate) use self::instance::Limits;
use self::keep::Keep;
use self::lease::{Lease, Now};
use self::slots::Slots;
use self::trouble::Trouble;
use crate::config::CachedKey;
use crate::error::ApiError;

/// How long a request waits for the store, or for another request's call to it.
const PATIENCE: Duration = Duration::from_secs(1);

/// A limit of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    RequestsPerMinute,
    TokensPerMinute,
    TokensPerDay,
    TokensPerMonth,
}

impl Kind {
    const TOKENS: [Self; 3] = [Self::TokensPerMinute, Self::TokensPerDay, Self::TokensPerMonth];

    fn quantity(self) -> Quantity {
        match self {
            Self::RequestsPerMinute => Quantity::Requests,
            Self::TokensPerMinute | Self::TokensPerDay | Self::TokensPerMonth => Quantity::Tokens,
        }
    }

    fn period(self) -> Period {
        match self {
            Self::RequestsPerMinute | Self::TokensPerMinute => Period::Minute,
            Self::TokensPerDay => Period::Day,
            Self::TokensPerMonth => Period::Month,
        }
    }

    fn limit(self, limits: &ApiKeyLimits) -> Option<u64> {
        match self {
            Self::RequestsPerMinute => limits.requests_per_minute.map(u64::from),
            Self::TokensPerMinute => limits.tokens_per_minute,
            Self::TokensPerDay => limits.tokens_per_day,
            Self::TokensPerMonth => limits.tokens_per_month,
        }
    }

    /// The token limits that a key has.
    fn of_tokens(limits: &ApiKeyLimits) -> impl Iterator<Item = (Self, u64)> {
        Self::TOKENS.into_iter().filter_map(|kind| Some((kind, kind.limit(limits)?)))
    }
}

/// A limit that a request may be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    ConcurrentRequests,
    OfWindow(Kind),
}

impl Limit {
    /// For metrics; as the key's record has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ConcurrentRequests => "concurrent_requests",
            Self::OfWindow(Kind::RequestsPerMinute) => "requests_per_minute",
            Self::OfWindow(Kind::TokensPerMinute) => "tokens_per_minute",
            Self::OfWindow(Kind::TokensPerDay) => "tokens_per_day",
            Self::OfWindow(Kind::TokensPerMonth) => "tokens_per_month",
        }
    }
}

/// What a key has in use on this instance. It outlives changes of the key's record.
#[derive(Debug)]
pub(crate) struct Usage {
    key: ApiKeyId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// One for each limit that the key has been held to.
    leases: Vec<(Kind, Lease)>,
    slots: Slots,
    /// Somebody gives back what is not needed; gone for sure at this time.
    watched_until: Option<Duration>,
    /// While the store does not answer: when to try it again. Each key finds out by itself, because the store may well
    /// answer for others: what it throttles is a key's partition.
    retry_at: Option<Duration>,
    /// Set with every failure.
    trouble: Option<Trouble>,
    /// It is among the instance's [`TroubledKeys`](trouble::TroubledKeys).
    is_troubled: bool,
}

impl Usage {
    pub(crate) fn new(key: ApiKeyId) -> Self {
        Self { key, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(&self, kind: Kind, start_ms: u64) -> Counter {
        Counter { key: self.key.clone(), quantity: kind.quantity(), period: kind.period(), start_ms }
    }
}

impl State {
    fn is_failing(&self) -> bool {
        self.retry_at.is_some()
    }

    /// The store answers for this key. What it cannot read stays so.
    fn answered(&mut self) {
        if self.retry_at.take().is_some() {
            self.trouble = None;
        }
    }

    fn step(&mut self, kind: Kind, need: u64, limit: u64, now: Now) -> lease::Step {
        let is_failing = self.is_failing();
        self.lease(kind).step(need, limit, now, is_failing)
    }

    fn step_of_slots(&mut self, limit: u32, now: Duration) -> slots::Step {
        let is_failing = self.is_failing();
        self.slots.step(limit, now, is_failing)
    }

    fn lease(&mut self, kind: Kind) -> &mut Lease {
        let known = self.leases.iter().position(|(known, _)| *known == kind);
        let at = known.unwrap_or_else(|| {
            self.leases.push((kind, Lease::default()));
            self.leases.len() - 1
        });
        &mut self.leases[at].1
    }
}

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug)]
enum Refused {
    /// The window has too little left; `need` where that depends on the request.
    Spent { kind: Kind, limit: u64, need: Option<u64>, window: Window },
    /// As many requests are under way as may be at once.
    Busy { limit: u32 },
    /// The store does not answer, and is not to be done without.
    StoreFails,
}

/// What a request may use, in tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Estimate {
    pub prompt: u64,
    /// The longest answer.
    pub completion: u64,
    /// The client has not said how long an answer may be: less will do.
    pub completion_may_shrink: bool,
}

impl Estimate {
    pub(crate) fn tokens(self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }

    /// What is reserved under these limits; refused if it would not fit into an empty window. Our own guess of the answer
    /// alone is no reason to refuse.
    pub(crate) fn under(self, limits: &ApiKeyLimits) -> Result<Self, ApiError> {
        let Some((_, lowest)) = Kind::of_tokens(limits).min_by_key(|(_, limit)| *limit) else {
            return Ok(self);
        };
        let mut estimate = self;
        if self.completion_may_shrink {
            estimate.completion = self.completion.min(lowest.saturating_sub(self.prompt));
        }
        match Kind::of_tokens(limits).find(|(_, limit)| estimate.tokens() > *limit) {
            Some((kind, limit)) => Err(refusal::too_large(kind, limit, estimate)),
            None => Ok(estimate),
        }
    }
}

/// Held as long as the request lives, its streamed body included.
pub(crate) struct Permit {
    limits: Arc<Limits>,
    usage: Arc<Usage>,
    slot: Option<Slot>,
    reservations: Vec<Reservation>,
    reserved: Estimate,
}

/// One of the requests that may be under way at once.
struct Slot {
    limits: Arc<Limits>,
    usage: Arc<Usage>,
    keep: Keep,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.usage.state().slots.release();
        self.limits.watch(&self.usage);
    }
}

/// Tokens of one window, set aside until it is known how many were used. Dropped, it has used none.
struct Reservation {
    limits: Arc<Limits>,
    usage: Arc<Usage>,
    kind: Kind,
    start_ms: u64,
    tokens: u64,
    used: u64,
}

impl Reservation {
    fn settle(mut self, used: u64) {
        self.used = used;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let now = self.limits.now(self.kind);
        self.usage.state().lease(self.kind).settle(self.start_ms, self.tokens, self.used, now);
        if self.used > self.tokens {
            self.limits.charge(&self.usage, self.kind);
        }
        self.limits.watch(&self.usage);
    }
}

impl Permit {
    /// The request has used this many tokens.
    pub(crate) fn settle(&mut self, tokens: u64) {
        for reservation in self.reservations.drain(..) {
            reservation.settle(tokens);
        }
    }

    /// Wall clock by the store's clock.
    pub(crate) fn fleet_ms(&self) -> u64 {
        self.limits.fleet_ms()
    }

    /// What was reserved for it.
    pub(crate) fn reserved(&self) -> Estimate {
        self.reserved
    }

    /// To be called whenever the request's task runs: renews what has to be renewed while it is under way.
    pub(crate) fn keep(&mut self, cx: &mut std::task::Context<'_>) {
        if let Some(slot) = &mut self.slot {
            slot.keep.poll(cx);
        }
    }

    /// Keeps the permit alive while a future runs.
    pub(crate) async fn keeping<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            let polled = future.as_mut().poll(cx);
            if polled.is_pending() {
                self.keep(cx);
            }
            polled
        })
        .await
    }
}

/// Before the body is read: a slot, and one request out of its minute.
pub(crate) async fn admit(key: &CachedKey, limits: &Arc<Limits>) -> Result<Permit, ApiError> {
    let max = &key.record.limits;
    let refusal = |refused| refusal::error(refused, limits.fleet_ms());
    let mut permit = Permit {
        limits: limits.clone(),
        usage: key.usage.clone(),
        slot: None,
        reservations: Vec::new(),
        reserved: Estimate::default(),
    };
    // What needs no store comes first, and what counts once and for all comes last.
    for (kind, limit) in Kind::of_tokens(max) {
        limits.check(&key.usage, kind, limit).map_err(refusal)?;
    }
    if let Some(limit) = max.concurrent_requests {
        permit.slot = Some(limits.take_slot(&key.usage, limit).await.map_err(refusal)?);
    }
    let kind = Kind::RequestsPerMinute;
    if let Some(limit) = kind.limit(max) {
        limits.spend(&key.usage, kind, 1, limit).await.map_err(refusal)?;
    }
    Ok(permit)
}

/// Whether it is worth knowing how many tokens a request may use.
pub(crate) fn limits_tokens(limits: &ApiKeyLimits) -> bool {
    Kind::of_tokens(limits).next().is_some()
}

/// Once the body is read: the tokens that the request may use, out of each window that is limited.
pub(crate) async fn reserve(
    permit: &mut Permit,
    key: &CachedKey,
    estimate: Estimate,
) -> Result<(), ApiError> {
    let estimate = estimate.under(&key.record.limits)?;
    let tokens = estimate.tokens();
    let (limits, usage) = (permit.limits.clone(), permit.usage.clone());
    let spending = Kind::of_tokens(&key.record.limits).map(|(kind, limit)| {
        let (limits, usage) = (&limits, &usage);
        async move {
            let start_ms = limits.spend(usage, kind, tokens, limit).await?;
            let (limits, usage) = (limits.clone(), usage.clone());
            Ok(Reservation { limits, usage, kind, start_ms, tokens, used: 0 })
        }
    });
    let reserved = permit.keeping(join_all(spending)).await;
    // What was set aside in one window goes back if another refuses.
    let reservations: Result<Vec<_>, Refused> = reserved.into_iter().collect();
    permit.reservations = reservations.map_err(|refused| refusal::error(refused, limits.fleet_ms()))?;
    permit.reserved = estimate;
    Ok(())
}
