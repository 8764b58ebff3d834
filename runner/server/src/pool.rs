//! Sandboxes that wait for requests.
//!
//! A request [leases](Pool::lease) a sandbox: one that waits, or else the next that has been made. Each serves one
//! request and is removed. All starts go through here: those for requests that wait come first, oldest first; the pool is
//! refilled with what starts are left, to what [demand] lets expect. All sandboxes together stay within the memory
//! of the node: whoever waits makes idle sandboxes of others leave.

mod attempt;
mod conversation;
mod demand;
mod keep;
mod launch;
mod lease;
mod memory;
mod place;
mod shelf;
#[cfg(test)]
mod tests;
mod variant;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use self::attempt::{Attempt, RefillTurn, Share};
pub use self::conversation::{Conversation, Heard};
use self::keep::{Entry, Watch};
pub use self::launch::Launcher;
pub use self::lease::Lease;
use self::memory::Memory;
pub use self::place::{Hold, Place, Sandboxes, StartError};
use self::shelf::{Shelf, Waiter};
pub use self::variant::Variant;
use crate::config::model::{CapacityLimits, Cli, Mode};

/// How often demand that has faded, starts that may be tried again and the like are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Variants with a shelf of their own. Requests choose among them: their number is not the operator's alone.
const MAX_SHELVES: usize = 64;
/// So many starts that failed in a row, the latest so long ago at most, mean that the node is in trouble.
const TROUBLE_FAILURES: u32 = 3;
const TROUBLE_LASTS: Duration = Duration::from_secs(30);

/// Clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    sandboxes: Arc<dyn Sandboxes>,
    /// Starts at the same time.
    starts: usize,
    state: Mutex<State>,
    /// How many sandboxes there are.
    count: watch::Sender<usize>,
    runtime: Handle,
}

struct State {
    closed: bool,
    shelves: HashMap<Variant, Shelf>,
    memory: Memory,
    last_ticket: u64,
    /// Starts under way.
    starting: usize,
    /// Whether the engine makes a sandbox that nobody waits for.
    is_refilling: bool,
    failures: u32,
    last_failure: Option<(Instant, StartError)>,
}

impl Pool {
    /// Fills up to the minimum of each CLI at once, in the background. Must be called in a tokio runtime.
    pub fn new(sandboxes: Arc<dyn Sandboxes>, capacity: &CapacityLimits, clis: &[Arc<Cli>]) -> Self {
        let now = Instant::now();
        let defaults = clis.iter().filter(|cli| cli.pool.min > 0).filter_map(Variant::default_of);
        let inner = Arc::new(Inner {
            sandboxes,
            starts: capacity.starts.max(1),
            state: Mutex::new(State {
                closed: false,
                shelves: defaults.map(|variant| (variant, Shelf::new(now, true))).collect(),
                memory: Memory::new(capacity.memory_bytes),
                last_ticket: 0,
                starting: 0,
                is_refilling: false,
                failures: 0,
                last_failure: None,
            }),
            count: watch::Sender::new(0),
            runtime: Handle::current(),
        });
        inner.work();
        tokio::spawn(tend(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// A sandbox for one request, its CLI ready for it if its mode is parked. Waits until there is one; the caller
    /// bounds that. May be dropped at any time.
    pub async fn lease(&self, variant: &Variant) -> Result<Lease, StartError> {
        loop {
            let lease = match self.0.take(variant)? {
                // A keeper that does not answer has just found its sandbox unfit.
                Found::Idle(handed) => handed.await.ok(),
                Found::Nothing(waiting) => {
                    self.0.work();
                    Some(waiting.await.unwrap_or_else(|_| Err(closed()))?)
                }
            };
            if let Some(mut lease) = lease {
                lease.in_use = true;
                self.0.hand_out(variant);
                return Ok(lease);
            }
        }
    }

    /// Takes back what its request could not use and has not touched. A CLI that was started for that request goes.
    pub fn give_back(&self, mut lease: Lease) {
        if lease.variant.cli.mode == Mode::OneShot {
            return;
        }
        let variant = lease.variant.clone();
        let placed = {
            let mut state = self.0.lock();
            lease.in_use = false;
            state.shelf(&variant, Instant::now()).in_use -= 1;
            self.0.put_on_shelf(&mut state, lease)
        };
        self.0.settle(placed);
    }

    /// Sandboxes that wait for a request.
    pub fn idle(&self) -> usize {
        self.0.lock().shelves.values().map(Shelf::idle).sum()
    }

    /// Sandboxes that there are, those included that are being made or removed.
    pub fn sandboxes(&self) -> usize {
        *self.0.count.borrow()
    }

    /// Why no sandboxes can be made, if the latest attempts all failed.
    pub fn trouble(&self) -> Option<StartError> {
        let state = self.0.lock();
        let (at, error) = state.last_failure.as_ref()?;
        (state.failures >= TROUBLE_FAILURES && at.elapsed() < TROUBLE_LASTS).then(|| error.clone())
    }

    /// Gives out nothing more, removes what waits, and waits until no sandbox is left, leased ones included. False:
    /// some still are after `grace`.
    pub async fn close(&self, grace: Duration) -> bool {
        {
            let mut state = self.0.lock();
            state.closed = true;
            let variants: Vec<_> = state.shelves.keys().cloned().collect();
            for variant in variants {
                state.clear_shelf(&variant);
            }
        }
        let mut count = self.0.count.subscribe();
        timeout(grace, count.wait_for(|count| *count == 0)).await.is_ok()
    }
}

#[derive(PartialEq, Eq)]
enum Purpose {
    Request,
    Refill,
}

enum Found {
    /// Its keeper hands it over.
    Idle(oneshot::Receiver<Lease>),
    /// The next one that is made comes here.
    Nothing(oneshot::Receiver<Result<Lease, StartError>>),
}

impl Inner {
    fn take(&self, variant: &Variant) -> Result<Found, StartError> {
        let mut state = self.lock();
        if state.closed {
            return Err(closed());
        }
        let now = Instant::now();
        if let Some(handed) = state.shelf(variant, now).hand_over() {
            return Ok(Found::Idle(handed));
        }
        let ticket = state.ticket();
        let (taker, waiting) = oneshot::channel();
        state.shelf(variant, now).waiters.push_back(Waiter { ticket, since: now, taker });
        Ok(Found::Nothing(waiting))
    }

    /// Starts whatever is to be started, and lets go of what is not wanted. To be called after every change.
    fn work(self: &Arc<Self>) {
        while let Some((attempt, share, turn)) = self.next_attempt() {
            self.runtime.spawn(attempt.make(share, turn));
        }
    }

    fn next_attempt(self: &Arc<Self>) -> Option<(Attempt, Share, Option<RefillTurn>)> {
        let now = Instant::now();
        let mut state = self.lock();
        self.count.send_replace(state.memory.sandboxes());
        if state.closed || state.starting >= self.starts {
            return None;
        }
        let (variant, purpose) = state.next_start(now, self.starts)?;
        let ticket = state.ticket();
        state.memory.take(ticket, variant.cli.limits.memory_bytes);
        state.starting += 1;
        state.shelf(&variant, now).starting += 1;
        let turn = (purpose == Purpose::Refill).then(|| {
            state.is_refilling = true;
            RefillTurn(Arc::clone(self))
        });
        let share = Share { inner: Arc::downgrade(self), ticket };
        Some((Attempt { inner: Arc::clone(self), variant, begun: now, made: None }, share, turn))
    }

    /// A request has got its sandbox.
    fn hand_out(self: &Arc<Self>, variant: &Variant) {
        {
            let now = Instant::now();
            let mut state = self.lock();
            state.shelf(variant, now).note_request(now);
        }
        self.work();
    }

    /// A sandbox has been made, or has not. The first who waits gets it, or hears why there is none.
    fn made(self: &Arc<Self>, variant: &Variant, begun: Instant, made: Result<Lease, StartError>) {
        let now = Instant::now();
        let placed = {
            let mut state = self.lock();
            state.starting -= 1;
            state.note_outcome(now, made.as_ref().err());
            let shelf = state.shelf(variant, now);
            shelf.starting -= 1;
            match made {
                Ok(lease) => {
                    shelf.note_start(now.duration_since(begun));
                    shelf.give_to_waiter(lease).map(|lease| self.put_on_shelf(&mut state, lease))
                }
                Err(error) => {
                    shelf.note_failure(now);
                    shelf.refuse_waiter(begun, &error);
                    None
                }
            }
        };
        if let Some(placed) = placed {
            self.settle(placed);
        }
        self.work();
    }

    /// The lease comes back if there are enough.
    fn put_on_shelf(self: &Arc<Self>, state: &mut State, mut lease: Lease) -> Result<Watch, Lease> {
        let closed = state.closed;
        let max = lease.variant.cli.pool.max;
        let shelf = state.shelf(&lease.variant, Instant::now());
        if closed || shelf.idle() >= max {
            return Err(lease);
        }
        lease.is_warm = true;
        let (variant, ticket) = (lease.variant.clone(), lease.ticket());
        let asked = shelf.put(ticket);
        Ok(Watch { entry: Entry { inner: Arc::downgrade(self), variant, ticket }, lease, asked })
    }

    /// Not under the lock, which the end of either takes.
    fn settle(&self, placed: Result<Watch, Lease>) {
        match placed {
            Ok(watch) => drop(self.runtime.spawn(watch.keep())),
            Err(unwanted) => drop(unwanted),
        }
    }

    /// A sandbox did not last until a request came.
    fn note_unfit(&self, variant: &Variant) {
        tracing::warn!(cli = variant.cli.name, "a waiting CLI ended or spoke out of turn, and is replaced");
        if let Some(shelf) = self.lock().shelves.get_mut(variant) {
            shelf.note_failure(Instant::now());
        }
    }

    /// A sandbox is about to be removed; its memory is given back once it has gone.
    fn leave(&self, lease: &Lease) {
        let mut state = self.lock();
        state.memory.leave(lease.ticket());
        if lease.in_use
            && let Some(shelf) = state.shelves.get_mut(&lease.variant)
        {
            shelf.in_use -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    fn shelf(&mut self, variant: &Variant, now: Instant) -> &mut Shelf {
        if self.shelves.len() >= MAX_SHELVES && !self.shelves.contains_key(variant) {
            // One that was not asked for in the longest time; what is idle on it leaves.
            let unused = self.shelves.iter().filter(|(_, shelf)| shelf.may_go());
            if let Some((unused, _)) = unused.min_by_key(|(_, shelf)| shelf.last_request()) {
                let unused = unused.clone();
                self.clear_shelf(&unused);
                self.shelves.remove(&unused);
            }
        }
        self.shelves.entry(variant.clone()).or_insert_with(|| Shelf::new(now, false))
    }

    fn clear_shelf(&mut self, variant: &Variant) {
        let Some(shelf) = self.shelves.get_mut(variant) else { return };
        shelf.waiters.clear();
        while let Some(ticket) = shelf.evict() {
            self.memory.leave(ticket);
        }
    }

    /// What is to be started next, if anything, and if there is memory for it.
    fn next_start(&mut self, now: Instant, starts: usize) -> Option<(Variant, Purpose)> {
        for shelf in self.shelves.values_mut() {
            shelf.forget_gone_waiters();
        }
        let oldest = self.shelves.iter().filter_map(|(variant, shelf)| Some((shelf.unserved()?, variant)));
        if let Some((_, variant)) = oldest.min_by_key(|(ticket, _)| *ticket) {
            let variant = variant.clone();
            return self.make_room(&variant, now).then_some((variant, Purpose::Request));
        }
        // A refill does not compete with starts that somebody waits for, and leaves one free for whoever comes. The
        // engine, which makes one sandbox after the other for the most part, has one refill at a time.
        let awaited = self.shelves.values().any(|shelf| !shelf.waiters.is_empty());
        if awaited || self.is_refilling || self.starting >= starts.saturating_sub(1).max(1) {
            return None;
        }
        let lacking = self.shelves.iter_mut().filter(|(variant, shelf)| {
            shelf.is_lacking(now, &variant.cli.pool) && self.memory.has_room(variant.cli.limits.memory_bytes)
        });
        // They take turns.
        let (variant, shelf) = lacking.min_by_key(|(_, shelf)| shelf.last_refill)?;
        shelf.last_refill = Some(now);
        Some((variant.clone(), Purpose::Refill))
    }

    /// Whether there is memory for a sandbox that somebody waits for. If not, idle ones of others are made to leave:
    /// first those that are more than demand wants, then those that nobody asked for in the longest time.
    fn make_room(&mut self, variant: &Variant, now: Instant) -> bool {
        let bytes = variant.cli.limits.memory_bytes;
        while !self.memory.will_have_room(bytes) {
            let idle = self.shelves.iter_mut().filter(|(_, shelf)| shelf.idle() > 0);
            let least_missed = idle.min_by_key(|(variant, shelf)| {
                (!shelf.has_surplus(now, &variant.cli.pool), shelf.last_request())
            });
            let Some(ticket) = least_missed.and_then(|(_, shelf)| shelf.evict()) else { break };
            self.memory.leave(ticket);
        }
        self.memory.has_room(bytes)
    }

    fn note_outcome(&mut self, now: Instant, error: Option<&StartError>) {
        match error {
            None => self.failures = 0,
            Some(error) => {
                self.failures = self.failures.saturating_add(1);
                self.last_failure = Some((now, error.clone()));
            }
        }
    }

    /// Lets go of what demand no longer wants.
    fn shrink(&mut self, now: Instant) {
        for (variant, shelf) in &mut self.shelves {
            if shelf.has_surplus(now, &variant.cli.pool)
                && let Some(ticket) = shelf.evict()
            {
                self.memory.leave(ticket);
            }
        }
        self.shelves.retain(|variant, shelf| !shelf.is_done(now, &variant.cli.pool));
    }
}

/// As long as there is a pool.
async fn tend(pool: Weak<Inner>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(inner) = pool.upgrade() else { return };
        inner.lock().shrink(Instant::now());
        inner.work();
    }
}

fn closed() -> StartError {
    StartError("the node is shutting down".to_owned())
}
