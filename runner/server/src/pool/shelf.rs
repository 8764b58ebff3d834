//! The sandboxes of one variant, and the requests that wait for one.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::demand::Demand;
use super::{Lease, StartError};
use crate::config::model::PoolSize;

/// From a failed start to the next that nobody waits for; doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

pub(super) struct Shelf {
    /// Oldest first.
    idle: VecDeque<Idle>,
    /// Oldest first: the first `starting` of them get what is being made.
    pub(super) waiters: VecDeque<Waiter>,
    /// Starts under way.
    pub(super) starting: usize,
    /// Sandboxes that requests have.
    pub(super) in_use: usize,
    demand: Demand,
    /// Whether the minimum is kept even if nobody asks.
    always: bool,
    /// Since a request got a sandbox that worked: starts that failed, and sandboxes that did not last.
    failures: u32,
    retry_at: Option<Instant>,
    pub(super) last_refill: Option<Instant>,
}

struct Idle {
    ticket: u64,
    /// To its keeper. Dropped: nobody will ask any more.
    ask: oneshot::Sender<oneshot::Sender<Lease>>,
}

pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) since: Instant,
    pub(super) taker: oneshot::Sender<Result<Lease, StartError>>,
}

impl Shelf {
    pub(super) fn new(now: Instant, always: bool) -> Self {
        Self {
            idle: VecDeque::new(),
            waiters: VecDeque::new(),
            starting: 0,
            in_use: 0,
            demand: Demand::new(now),
            always,
            failures: 0,
            retry_at: None,
            last_refill: None,
        }
    }

    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// What the keeper of a new idle sandbox listens to.
    pub(super) fn put(&mut self, ticket: u64) -> oneshot::Receiver<oneshot::Sender<Lease>> {
        let (ask, asked) = oneshot::channel();
        self.idle.push_back(Idle { ticket, ask });
        asked
    }

    pub(super) fn remove(&mut self, ticket: u64) {
        self.idle.retain(|idle| idle.ticket != ticket);
    }

    /// Asks the keeper of the oldest for it: so none grows older than it must.
    pub(super) fn hand_over(&mut self) -> Option<oneshot::Receiver<Lease>> {
        while let Some(idle) = self.idle.pop_front() {
            let (taker, handed) = oneshot::channel();
            if idle.ask.send(taker).is_ok() {
                return Some(handed);
            }
        }
        None
    }

    /// Lets the oldest go, and says which it was.
    pub(super) fn evict(&mut self) -> Option<u64> {
        self.idle.pop_front().map(|idle| idle.ticket)
    }

    /// Returns it if nobody waits.
    pub(super) fn give_to_waiter(&mut self, lease: Lease) -> Option<Lease> {
        let mut made = Ok(lease);
        while let Some(waiter) = self.waiters.pop_front() {
            match waiter.taker.send(made) {
                Ok(()) => return None,
                Err(unsent) => made = unsent,
            }
        }
        made.ok()
    }

    /// A start that had `begun` then has failed. The first who waited already hears of it; whoever came later gets a
    /// start of his own.
    pub(super) fn refuse_waiter(&mut self, begun: Instant, error: &StartError) {
        while self.waiters.front().is_some_and(|waiter| waiter.since <= begun)
            && let Some(waiter) = self.waiters.pop_front()
        {
            if waiter.taker.send(Err(error.clone())).is_ok() {
                return;
            }
        }
    }

    pub(super) fn forget_gone_waiters(&mut self) {
        self.waiters.retain(|waiter| !waiter.taker.is_closed());
    }

    /// The oldest waiter for whom nothing is being made.
    pub(super) fn unserved(&self) -> Option<u64> {
        self.waiters.get(self.starting).map(|waiter| waiter.ticket)
    }

    /// A request has got a sandbox.
    pub(super) fn note_request(&mut self, now: Instant) {
        self.in_use += 1;
        self.failures = 0;
        self.retry_at = None;
        self.demand.request(now, self.in_use);
    }

    pub(super) fn note_start(&mut self, took: Duration) {
        self.demand.started(took);
    }

    pub(super) fn note_failure(&mut self, now: Instant) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LAST_PAUSE);
        self.failures += 1;
        self.retry_at = Some(now + pause);
    }

    /// Whether there are less than desired, and it is not too early to try again after a failure.
    pub(super) fn is_lacking(&self, now: Instant, size: &PoolSize) -> bool {
        self.idle.len() + self.starting < self.demand.desired(now, size, self.always)
            && self.retry_at.is_none_or(|at| at <= now)
    }

    pub(super) fn has_surplus(&self, now: Instant, size: &PoolSize) -> bool {
        self.idle.len() > self.demand.desired(now, size, self.always)
    }

    pub(super) fn last_request(&self) -> Option<Instant> {
        self.demand.last_request()
    }

    /// Whether nothing but idle sandboxes would be lost.
    pub(super) fn may_go(&self) -> bool {
        !self.always && self.waiters.is_empty() && self.starting == 0 && self.in_use == 0
    }

    /// Whether nothing at all would be lost.
    pub(super) fn is_done(&self, now: Instant, size: &PoolSize) -> bool {
        self.may_go() && self.idle.is_empty() && self.demand.desired(now, size, self.always) == 0
    }
}
