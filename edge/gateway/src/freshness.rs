//! When what is kept in memory is read again: in the background as it ages, and before a request goes on where it is
//! too old to be relied on.
//!
//! One request reads for all. No request ever waits for another's future or lock: on a Worker, whoever is woken by
//! another request goes on in that one's context, where its own calls hang or end with it. Who needs what another one
//! is reading looks again after short sleeps of its own, and reads itself where that takes too long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::StoreError;
use futures_util::future::{Either, select};
use runner_api::RegistryError;

use crate::host::{BoxFuture, Host};

/// How long a request waits for a reading that is overdue.
const WARM_WAIT: Duration = Duration::from_secs(1);
/// The same where nothing is known yet.
const COLD_WAIT: Duration = Duration::from_secs(3);
/// A reading that has gone on for longer is not waited for: its request may have ended, and a Worker's request that
/// ends takes its futures along without dropping them.
const PATIENCE: Duration = Duration::from_secs(1);
/// No reading goes on for longer.
const READING_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at whether another request's reading has ended.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Freshness {
    /// What is read, for logs.
    what: &'static str,
    refresh_after: Duration,
    max_age: Duration,
    /// Monotonic milliseconds until when nothing needs to be read. 0 while nothing was read.
    fresh_until_ms: AtomicU64,
    /// Never held across an await.
    state: Mutex<State>,
}

/// What went wrong at a reading.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// For metrics and readiness.
    pub(crate) class: &'static str,
    /// For logs.
    pub(crate) reason: String,
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        Self { class: error.code(), reason: error.to_string() }
    }
}

impl From<&RegistryError> for Failure {
    fn from(error: &RegistryError) -> Self {
        Self { class: "unavailable", reason: error.to_string() }
    }
}

#[derive(Default)]
struct State {
    /// When the last reading that succeeded began, on the monotonic clock: what was read is as old as that.
    read_at: Option<Duration>,
    /// When the last reading ended, whatever came of it.
    ended_at: Option<Duration>,
    /// The class of the last reading's error.
    failure: Option<&'static str>,
    turns: u64,
    /// The turn that reads, and since when.
    reading: Option<(u64, Duration)>,
    /// When the last turn was taken.
    taken_at: Option<Duration>,
}

/// Whose turn it is to read. Dropped, as a cancelled reading's is, it is somebody else's.
pub(crate) struct Turn {
    freshness: Arc<Freshness>,
    /// A later turn has a greater one: what it read is newer.
    pub(crate) number: u64,
    pub(crate) began: Duration,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.freshness.state();
        if state.reading.is_some_and(|(number, _)| number == self.number) {
            state.reading = None;
        }
    }
}

impl Turn {
    /// Ends the reading.
    pub(crate) fn end(self, host: &dyn Host, outcome: Result<(), Failure>) {
        let freshness = &self.freshness;
        let mut state = freshness.state();
        let succeeded = outcome.is_ok();
        freshness.note(&mut state, outcome, host.monotonic());
        if succeeded && state.read_at.is_none_or(|at| at < self.began) {
            state.read_at = Some(self.began);
            let fresh_until = self.began.saturating_add(freshness.refresh_after);
            // Never 0, which would say that nothing was read.
            freshness.fresh_until_ms.store(millis(fresh_until).max(1), Ordering::Release);
        }
    }
}

impl Freshness {
    pub(crate) fn new(what: &'static str, refresh_after: Duration, max_age: Duration) -> Arc<Self> {
        Arc::new(Self {
            what,
            // What is fresh is never too old.
            refresh_after: refresh_after.min(max_age),
            max_age,
            fresh_until_ms: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    /// Whether anything was ever read.
    pub(crate) fn is_loaded(&self) -> bool {
        self.fresh_until_ms.load(Ordering::Acquire) != 0
    }

    /// The class of the error with which the source answered last; `None` if it answered well, or was never asked.
    pub(crate) fn failure(&self) -> Option<&'static str> {
        self.state().failure
    }

    pub(crate) fn max_age(&self) -> Duration {
        self.max_age
    }

    /// How old what is known is.
    pub(crate) fn age(&self, host: &dyn Host) -> Option<Duration> {
        self.state().read_at.map(|at| host.monotonic().saturating_sub(at))
    }

    /// The source failed at something else than a reading.
    pub(crate) fn fails(&self, failure: Failure, host: &dyn Host) {
        self.note(&mut self.state(), Err(failure), host.monotonic());
    }

    /// The turn to read now, whoever else reads.
    pub(crate) fn take_turn(self: &Arc<Self>, host: &dyn Host) -> Turn {
        self.begin(&mut self.state(), host.monotonic())
    }

    /// Reads when it is due: in the background, or, when overdue and the source has not failed lately, before the
    /// request goes on. `read` ends the turn that it is given.
    pub(crate) async fn ensure(
        self: &Arc<Self>,
        host: &dyn Host,
        read: impl Fn(Turn) -> BoxFuture<'static, ()>,
    ) {
        let now = host.monotonic();
        if millis(now) < self.fresh_until_ms.load(Ordering::Acquire) {
            return;
        }
        let wait = {
            let state = self.state();
            match state.read_at {
                None => Some(COLD_WAIT),
                Some(read_at) => {
                    // When it was last known to fail, nothing newer could have been read: but that was then.
                    let failed_at = state.failure.and(state.ended_at);
                    let known_at = failed_at.map_or(read_at, |failed_at| failed_at.max(read_at));
                    (now.saturating_sub(known_at) >= self.max_age).then_some(WARM_WAIT)
                }
            }
        };
        match wait {
            Some(wait) => self.read_or_wait(host, read, now, now.saturating_add(wait)).await,
            None => {
                if let Some(turn) = self.turn_in_the_background(now) {
                    spawn_limited(host, read(turn));
                }
            }
        }
    }

    async fn read_or_wait(
        self: &Arc<Self>,
        host: &dyn Host,
        read: impl Fn(Turn) -> BoxFuture<'static, ()>,
        asked: Duration,
        deadline: Duration,
    ) {
        let mut pause = FIRST_PAUSE;
        loop {
            let now = host.monotonic();
            let left = deadline.saturating_sub(now);
            if let Some(turn) = self.turn_unless_taken(now) {
                if let Either::Right(((), reading)) = select(read(turn), host.sleep(left)).await {
                    let reason = format!("no answer within {left:?}");
                    self.fails(Failure { class: "unavailable", reason }, host);
                    // What comes late still serves the next.
                    spawn_limited(host, reading);
                }
                return;
            }
            if left.is_zero() {
                return;
            }
            host.sleep(pause.min(left)).await;
            pause = LONGEST_PAUSE.min(pause * 2);
            // Another's reading, good or bad: where many wait for a source that fails, one tries.
            if self.state().ended_at.is_some_and(|at| at >= asked) {
                return;
            }
        }
    }

    fn turn_unless_taken(self: &Arc<Self>, now: Duration) -> Option<Turn> {
        let mut state = self.state();
        let taken = state.reading.is_some_and(|(_, since)| now.saturating_sub(since) < PATIENCE);
        (!taken).then(|| self.begin(&mut state, now))
    }

    /// A source that fails is asked no more often than one that answers.
    fn turn_in_the_background(self: &Arc<Self>, now: Duration) -> Option<Turn> {
        let mut state = self.state();
        let taken = state.reading.is_some_and(|(_, since)| now.saturating_sub(since) < READING_LIMIT);
        let recent = state.taken_at.is_some_and(|at| now.saturating_sub(at) < self.refresh_after);
        (!taken && !recent).then(|| self.begin(&mut state, now))
    }

    fn begin(self: &Arc<Self>, state: &mut State, now: Duration) -> Turn {
        state.turns += 1;
        state.reading = Some((state.turns, now));
        state.taken_at = Some(now);
        Turn { freshness: self.clone(), number: state.turns, began: now }
    }

    fn note(&self, state: &mut State, outcome: Result<(), Failure>, now: Duration) {
        let what = self.what;
        match &outcome {
            Ok(()) if state.failure.is_some() => tracing::info!(what, "the source answers again"),
            Err(Failure { class, reason }) if state.failure != Some(class) => {
                tracing::warn!(what, class, reason, "the source fails; what is known serves on");
            }
            Ok(()) | Err(_) => {}
        }
        state.failure = outcome.err().map(|failure| failure.class);
        state.ended_at = Some(now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn_limited(host: &dyn Host, reading: BoxFuture<'static, ()>) {
    let limit = host.sleep(READING_LIMIT);
    host.spawn(Box::pin(async move {
        select(reading, limit).await;
    }));
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
