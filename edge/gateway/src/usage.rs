//! What requests used, counted by API key, provider, model and day, and added to the store in the background.
//!
//! A request costs one look into a map. What is counted goes to the store every
//! [`usage_flush`](crate::Settings::usage_flush): an instance that vanishes takes along what it counted since. What the
//! store does not take is kept and tried again, as long as there is room for it.

use std::hash::RandomState;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::{ApiKeyId, Day, ProviderSlug, StoreError, UsageCounts, UsageKey, UsageRow, UsageStore};
use futures_util::future::{Either, join_all, select};
use hashbrown::{Equivalent, HashMap};

use crate::host::Host;
use crate::metrics::{Metrics, StoreCall};

/// Rows in memory. What finds no room is lost, which metrics tell.
const MAX_ROWS: usize = 8_192;
/// So many are not kept until their time comes.
const MANY_ROWS: usize = MAX_ROWS / 2;
/// Rows that are added at the same time. Workers have six connections.
const AT_ONCE: usize = 4;
/// No flush goes on for longer.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
/// How often a flush that fails is repeated where no request comes: on some hosts nothing outlives its request for long.
const ROUNDS: u32 = 4;
/// A row that the store refuses for a reason of its own is given up after so many times.
const MAX_REFUSALS: u32 = 5;

pub(crate) struct UsageCounter {
    store: Arc<dyn UsageStore>,
    host: Arc<dyn Host>,
    metrics: Arc<Metrics>,
    flush_every: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: HashMap<UsageKey, Pending, RandomState>,
    /// Somebody will flush; gone for sure at this time of the monotonic clock.
    flusher_until: Option<Duration>,
}

/// What is to be added to a row.
#[derive(Clone, Copy, Default)]
struct Pending {
    counts: UsageCounts,
    last_at_ms: u64,
    refusals: u32,
}

impl Pending {
    fn add(&mut self, more: Self) {
        self.counts.add(more.counts);
        self.last_at_ms = self.last_at_ms.max(more.last_at_ms);
        self.refusals = self.refusals.max(more.refusals);
    }
}

/// A [`UsageKey`] that owns nothing: its members are those of that, in the same order, so that it has the same hash.
#[derive(Hash)]
struct RowName<'a> {
    day: Day,
    key: &'a ApiKeyId,
    provider: &'a ProviderSlug,
    model: &'a str,
}

impl Equivalent<UsageKey> for RowName<'_> {
    fn equivalent(&self, other: &UsageKey) -> bool {
        self.day == other.day
            && self.key == &other.key
            && self.provider == &other.provider
            && self.model == other.model
    }
}

impl From<&RowName<'_>> for UsageKey {
    fn from(name: &RowName<'_>) -> Self {
        Self {
            day: name.day,
            key: name.key.clone(),
            provider: name.provider.clone(),
            model: name.model.to_owned(),
        }
    }
}

impl UsageCounter {
    pub(crate) fn new(
        store: Arc<dyn UsageStore>,
        host: Arc<dyn Host>,
        metrics: Arc<Metrics>,
        flush_every: Duration,
    ) -> Self {
        Self { store, host, metrics, flush_every, state: Mutex::default() }
    }

    /// A request has ended, at `at_ms` by the store's clock. `model` is the public name.
    pub(crate) fn count(
        self: &Arc<Self>,
        key: &ApiKeyId,
        provider: &ProviderSlug,
        model: &str,
        counts: UsageCounts,
        at_ms: u64,
    ) {
        let more = Pending { counts, last_at_ms: at_ms, refusals: 0 };
        let name = RowName { day: Day::of_ms(at_ms), key, provider, model };
        let now = self.host.monotonic();
        let (flush_later, flush_now) = {
            let mut state = self.state();
            let has_grown = match state.rows.get_mut(&name) {
                Some(row) => {
                    row.add(more);
                    false
                }
                None => self.insert(&mut state, UsageKey::from(&name), more),
            };
            (self.begins_flushing(&mut state, now), has_grown && state.rows.len() == MANY_ROWS)
        };
        if flush_later {
            let usage = self.clone();
            self.host.spawn(Box::pin(async move { usage.flush_when_due().await }));
        }
        if flush_now {
            let usage = self.clone();
            self.host.spawn(Box::pin(async move {
                usage.flush().await;
            }));
        }
    }

    /// Adds what was counted to the store, now. Gives the number of rows that could not be added; they are kept.
    pub(crate) async fn flush(&self) -> usize {
        let rows = self.state().rows.drain().collect();
        let mut flush = Flush { usage: self, rows, kept: Vec::new() };
        let error = {
            let run = pin!(flush.run());
            match select(run, self.host.sleep(FLUSH_LIMIT)).await {
                Either::Left((error, _)) => error,
                Either::Right(_) => {
                    Some(StoreError::Unavailable { reason: format!("no answer within {FLUSH_LIMIT:?}") })
                }
            }
        };
        let left = flush.rows.len() + flush.kept.len();
        drop(flush);
        if let Some(error) = error {
            tracing::warn!(%error, rows = left, "usage cannot be added to the store; it is kept");
        }
        left
    }

    /// Rows that are not in the store yet.
    pub(crate) fn pending(&self) -> usize {
        self.state().rows.len()
    }

    async fn flush_when_due(self: &Arc<Self>) {
        for _ in 0..ROUNDS {
            self.host.sleep(self.flush_every).await;
            // What is counted from now on needs another flush, which belongs to the request that counts it.
            self.state().flusher_until = None;
            let is_done = self.flush().await == 0;
            if is_done || !self.begins_flushing(&mut self.state(), self.host.monotonic()) {
                return;
            }
        }
        self.state().flusher_until = None;
    }

    /// Whether nobody else will flush.
    fn begins_flushing(&self, state: &mut State, now: Duration) -> bool {
        let is_taken = state.flusher_until.is_some_and(|until| now < until);
        if !is_taken {
            state.flusher_until = Some(now + self.flush_every + FLUSH_LIMIT);
        }
        !is_taken
    }

    /// Whether there is room for another row.
    fn insert(&self, state: &mut State, of: UsageKey, pending: Pending) -> bool {
        let has_room = state.rows.len() < MAX_ROWS;
        if has_room {
            state.rows.insert(of, pending);
        } else {
            self.metrics.usage_lost(pending.counts.requests);
        }
        has_room
    }

    fn keep(&self, of: UsageKey, pending: Pending) {
        let mut state = self.state();
        match state.rows.get_mut(&of) {
            Some(row) => row.add(pending),
            None => {
                self.insert(&mut state, of, pending);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows on their way to the store. What is left when it is dropped, as a flush that is cancelled is, is kept.
struct Flush<'a> {
    usage: &'a UsageCounter,
    rows: Vec<(UsageKey, Pending)>,
    /// Were tried, and not added.
    kept: Vec<(UsageKey, Pending)>,
}

impl Flush<'_> {
    /// Until all were tried, or the store does not answer. Gives the last error.
    async fn run(&mut self) -> Option<StoreError> {
        let mut last = None;
        while !self.rows.is_empty() {
            let first = self.rows.len().saturating_sub(AT_ONCE);
            // They stay in the list until it is known what came of them.
            let outcomes =
                join_all(self.rows[first..].iter().map(|(of, pending)| self.add(of, *pending))).await;
            let mut answers = true;
            for ((of, mut pending), outcome) in self.rows.split_off(first).into_iter().zip(outcomes) {
                let Err(error) = outcome else { continue };
                if is_about_the_row(&error) {
                    pending.refusals += 1;
                } else {
                    answers = false;
                }
                last = Some(error);
                if pending.refusals < MAX_REFUSALS {
                    self.kept.push((of, pending));
                } else {
                    self.usage.metrics.usage_lost(pending.counts.requests);
                }
            }
            if !answers {
                break;
            }
        }
        last
    }

    async fn add(&self, of: &UsageKey, pending: Pending) -> Result<(), StoreError> {
        let row = UsageRow { of: of.clone(), counts: pending.counts, last_at_ms: pending.last_at_ms };
        let usage = self.usage;
        usage.metrics.store_call(StoreCall::Usage, &*usage.host, usage.store.add_usage(&row)).await
    }
}

impl Drop for Flush<'_> {
    fn drop(&mut self) {
        for (of, pending) in self.rows.drain(..).chain(self.kept.drain(..)) {
            self.usage.keep(of, pending);
        }
    }
}

/// Whether other rows may fare better.
fn is_about_the_row(error: &StoreError) -> bool {
    match error {
        StoreError::Refused { .. } | StoreError::Unreadable(_) | StoreError::Broken { .. } => true,
        StoreError::Unavailable { .. }
        | StoreError::NotSetUp { .. }
        | StoreError::Denied { .. }
        | StoreError::Conflict { .. } => false,
    }
}
