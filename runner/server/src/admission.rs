//! Which request runs next: a bounded queue, fair between callers.
//!
//! A run takes a slot and the memory of its sandbox. Where either is short, requests wait: callers take turns, and
//! within a caller the first comes first. Whoever is next waits until there is enough memory for it; nobody overtakes,
//! so a large sandbox cannot be starved by small ones.

mod replay;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runner_api::{Refusal, RefusalCode};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

pub use self::replay::RunIds;
use crate::config::model::{CapacityLimits, Cli};

/// What a run is assumed to take while none has been measured.
const ASSUMED_RUN: Duration = Duration::from_secs(5);
/// How much the latest run weighs in the mean of its CLI's runs.
const WEIGHT_OF_LATEST: f64 = 0.2;
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Clients take a minute or more for a failure that is not worth a retry.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(55);

pub struct Admission {
    limits: CapacityLimits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    draining: bool,
    /// The tickets that hold a slot.
    running: HashSet<u64>,
    running_bytes: u64,
    waiting: usize,
    /// By caller, oldest first. None is empty.
    queues: HashMap<Arc<str>, VecDeque<Waiter>>,
    /// The callers that have a queue, the next to be served first.
    turns: VecDeque<Arc<str>>,
    last_ticket: u64,
    /// The mean time that a run of a CLI held its slot, in seconds.
    mean_seconds: HashMap<String, f64>,
}

struct Waiter {
    ticket: u64,
    cli: Arc<Cli>,
    /// Dropped unused when the node drains.
    go: oneshot::Sender<()>,
}

/// A run's slot and memory: given back when it is dropped.
#[must_use]
pub struct Permit {
    admission: Arc<Admission>,
    caller: Arc<str>,
    cli: Arc<Cli>,
    ticket: u64,
    /// When it got its slot; None while it waits.
    since: Option<Instant>,
}

impl Admission {
    pub fn new(limits: CapacityLimits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// Waits for a slot. A caller that stops waiting (drops the future) leaves the queue at once.
    ///
    /// Refuses with `saturated` when the queue, or the caller's part of it, is full; `timeout` at the deadline;
    /// `draining` when the node takes no more.
    pub async fn admit(
        self: &Arc<Self>,
        caller: &str,
        cli: &Arc<Cli>,
        deadline: Instant,
    ) -> Result<Permit, Refusal> {
        let (mut permit, go) = self.enter(caller, cli)?;
        let Some(go) = go else { return Ok(permit) };
        match timeout_at(deadline, go).await {
            Ok(Ok(())) => {
                permit.since = Some(Instant::now());
                Ok(permit)
            }
            Ok(Err(_)) => Err(draining()),
            Err(_) => Err(Refusal::new(
                RefusalCode::Timeout,
                "the deadline passed while the run waited for its turn",
            )),
        }
    }

    /// Takes a slot if one is free and nobody waits, a place in the queue otherwise.
    fn enter(
        self: &Arc<Self>,
        caller: &str,
        cli: &Arc<Cli>,
    ) -> Result<(Permit, Option<oneshot::Receiver<()>>), Refusal> {
        let mut state = self.lock();
        if state.draining {
            return Err(draining());
        }
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        let permit = |caller, since| Permit {
            admission: Arc::clone(self),
            caller,
            cli: Arc::clone(cli),
            ticket,
            since,
        };
        if state.waiting == 0 && self.fits(&state, cli) {
            state.take(cli, ticket);
            return Ok((permit(caller.into(), Some(Instant::now())), None));
        }
        let queued_of_caller = state.queues.get(caller).map_or(0, VecDeque::len);
        if state.waiting >= self.limits.queue || queued_of_caller >= self.limits.queue_per_caller {
            let wait = self.expected_wait(&state, cli);
            let message = if state.waiting >= self.limits.queue {
                "the queue of this node is full"
            } else {
                "this caller has too many requests in the queue"
            };
            return Err(Refusal::new(RefusalCode::Saturated, message)
                .retry_after_ms(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)));
        }
        let caller: Arc<str> = caller.into();
        let (go, told) = oneshot::channel();
        let queue = state.queues.entry(Arc::clone(&caller)).or_default();
        queue.push_back(Waiter { ticket, cli: Arc::clone(cli), go });
        if queue.len() == 1 {
            state.turns.push_back(Arc::clone(&caller));
        }
        state.waiting += 1;
        Ok((permit(caller, None), Some(told)))
    }

    fn fits(&self, state: &State, cli: &Cli) -> bool {
        state.running.len() < self.limits.runs
            && state.running_bytes.saturating_add(cli.limits.memory_bytes) <= self.limits.memory_bytes
    }

    /// When a request that came now would have its turn: the runs before it, at their CLIs' mean times, on all slots.
    fn expected_wait(&self, state: &State, cli: &Cli) -> Duration {
        let before = state.queues.values().flatten().map(|waiter| state.mean(&waiter.cli)).sum::<f64>();
        #[expect(clippy::cast_precision_loss, reason = "a number of slots")]
        let seconds = (before + state.mean(cli)) / self.limits.runs.max(1) as f64;
        Duration::from_secs_f64(seconds.min(MAX_RETRY_AFTER.as_secs_f64())).max(MIN_RETRY_AFTER)
    }

    /// Gives slots to those whose turn it is.
    fn serve(&self, state: &mut State) {
        while let Some(caller) = state.turns.front() {
            let queue = state.queues.get_mut(caller).expect("a caller with a turn has a queue");
            let cli = Arc::clone(&queue.front().expect("no queue is empty").cli);
            if !self.fits(state, &cli) {
                return;
            }
            let caller = state.turns.pop_front().expect("it is the front's turn");
            let queue = state.queues.get_mut(&caller).expect("a caller with a turn has a queue");
            let waiter = queue.pop_front().expect("no queue is empty");
            if queue.is_empty() {
                state.queues.remove(&caller);
            } else {
                state.turns.push_back(caller);
            }
            state.waiting -= 1;
            state.take(&cli, waiter.ticket);
            // One that has just given up gives the slot back when its permit is dropped.
            let _ = waiter.go.send(());
        }
    }

    /// Refuses whoever waits and whoever comes from now on.
    pub fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.waiting = 0;
        state.turns.clear();
        state.queues.clear();
    }

    pub fn is_draining(&self) -> bool {
        self.lock().draining
    }

    pub fn running(&self) -> usize {
        self.lock().running.len()
    }

    pub fn queued(&self) -> usize {
        self.lock().waiting
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, cli: &Cli, ticket: u64) {
        self.running.insert(ticket);
        self.running_bytes += cli.limits.memory_bytes;
    }

    fn mean(&self, cli: &Cli) -> f64 {
        self.mean_seconds.get(&cli.name).copied().unwrap_or(ASSUMED_RUN.as_secs_f64())
    }

    fn learn(&mut self, cli: &Cli, took: Duration) {
        let latest = took.as_secs_f64();
        match self.mean_seconds.get_mut(&cli.name) {
            Some(mean) => *mean += WEIGHT_OF_LATEST * (latest - *mean),
            None => drop(self.mean_seconds.insert(cli.name.clone(), latest)),
        }
    }

    fn leave_queue(&mut self, caller: &str, ticket: u64) {
        let Some(queue) = self.queues.get_mut(caller) else { return };
        let Some(at) = queue.iter().position(|waiter| waiter.ticket == ticket) else { return };
        queue.remove(at);
        if queue.is_empty() {
            self.queues.remove(caller);
            self.turns.retain(|turn| **turn != *caller);
        }
        self.waiting -= 1;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        if state.running.remove(&self.ticket) {
            state.running_bytes -= self.cli.limits.memory_bytes;
            if let Some(since) = self.since {
                state.learn(&self.cli, since.elapsed());
            }
        } else {
            state.leave_queue(&self.caller, self.ticket);
        }
        // Whoever is next now may fit where this one did not.
        self.admission.serve(&mut state);
    }
}

fn draining() -> Refusal {
    Refusal::new(RefusalCode::Draining, "this node finishes what runs and takes nothing new")
}
