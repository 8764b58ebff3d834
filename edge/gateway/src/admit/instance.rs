//! What this instance does at the store: takes, gives back, holds slots, and bears it when there is no answer.
//!
//! Requests of one key share a call, and none waits on another's future: a future that one request began may not be
//! driven by another on every host. Who finds a call under way sleeps a little and looks again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use catalog::{Held, Hold, LimitStore, StoreError, Taken};
use futures_util::future::{Either, select};

use super::keep::Keep;
use super::lease::{self, Now};
use super::slots::{self, HELD_FOR};
use super::{Kind, PATIENCE, Refused, Slot, State, Usage};
use crate::host::Host;
use crate::settings::OnStoreFailure;

/// How often a store that does not answer is tried, by key.
const RETRY_EVERY: Duration = Duration::from_secs(3);
/// Between two looks at whether another request's call is over; the second number is where it stops doubling.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// What was not needed for so long is given back.
const IDLE: Duration = Duration::from_secs(2);
/// How often a watch looks before it ends, with everything given back: hosts let nothing outlive its request by more
/// than half a minute.
const LOOKS: u32 = 12;
/// How long a request waits for the calls of others before it makes its own. A call that finds it waiting asks for it
/// too, so it seldom comes to that.
const WAITS_FOR: Duration = PATIENCE.saturating_mul(2);

pub(crate) struct Limits {
    store: Arc<dyn LimitStore>,
    host: Arc<dyn Host>,
    on_store_failure: OnStoreFailure,
    /// This instance, by a name that no other has.
    holder: String,
}

/// A call failed, and it was logged.
struct Failed;

impl Limits {
    pub(crate) fn new(
        store: Arc<dyn LimitStore>,
        host: Arc<dyn Host>,
        on_store_failure: OnStoreFailure,
        instance: u64,
    ) -> Self {
        Self { store, host, on_store_failure, holder: format!("{instance:016x}") }
    }

    pub(super) fn monotonic(&self) -> Duration {
        self.host.monotonic()
    }

    pub(super) fn host(&self) -> &dyn Host {
        &*self.host
    }

    /// Wall clock by the store's clock, which is the same for all instances.
    pub(crate) fn fleet_ms(&self) -> u64 {
        self.host.unix_ms().saturating_add_signed(self.store.clock_offset_ms())
    }

    pub(super) fn now(&self, kind: Kind) -> Now {
        Now { monotonic: self.host.monotonic(), window: kind.period().window(self.fleet_ms()) }
    }

    /// Refuses where a window is known to be spent, at no cost.
    pub(super) fn check(&self, usage: &Usage, kind: Kind, limit: u64) -> Result<(), Refused> {
        let now = self.now(kind);
        if usage.state().lease(kind).is_spent(limit, now) {
            return Err(Refused::Spent { kind, limit, need: None, window: now.window });
        }
        Ok(())
    }

    /// Spends `need`, which is at most `limit`, of the current window. Answers when that began.
    pub(super) async fn spend(
        self: &Arc<Self>,
        usage: &Arc<Usage>,
        kind: Kind,
        need: u64,
        limit: u64,
    ) -> Result<u64, Refused> {
        use lease::Step;

        let waits_until = self.host.monotonic() + WAITS_FOR;
        let mut pause = LOOK_EVERY.0;
        let mut now = self.now(kind);
        let mut step = usage.state().step(kind, need, limit, now);
        loop {
            match step {
                Step::Spent { start_ms, refill } => {
                    if let Some(call) = refill {
                        self.take_in_background(usage, kind, call);
                    }
                    self.watch(usage);
                    return Ok(start_ms);
                }
                Step::Refused => {
                    return Err(Refused::Spent { kind, limit, need: Some(need), window: now.window });
                }
                Step::Ask(call) => {
                    let Ok(taken) = self.take(usage, kind, call).await else {
                        return self.spend_without_store(usage, kind, need, limit);
                    };
                    now = self.now(kind);
                    let mut state = usage.state();
                    let lease = state.lease(kind);
                    lease.answered(&call, taken, now.monotonic);
                    // Before anybody else spends what was taken for this request.
                    step = lease.step(need, limit, now, false);
                    continue;
                }
                Step::Wait if now.monotonic < waits_until => {
                    usage.state().lease(kind).waits(need);
                    let _waiting = OnDrop(|| usage.state().lease(kind).waited(need));
                    self.host.sleep(pause).await;
                    pause = (pause * 2).min(LOOK_EVERY.1);
                }
                Step::Wait => {
                    step = Step::Ask(usage.state().lease(kind).ask_anyway(need, limit, now));
                    continue;
                }
                Step::Failing => {
                    self.retry_when_due(usage, || {
                        let call = usage.state().lease(kind).retry(need, limit, now);
                        self.take_in_background(usage, kind, call);
                    });
                    return self.spend_without_store(usage, kind, need, limit);
                }
            }
            now = self.now(kind);
            step = usage.state().step(kind, need, limit, now);
        }
    }

    fn spend_without_store(
        self: &Arc<Self>,
        usage: &Arc<Usage>,
        kind: Kind,
        need: u64,
        limit: u64,
    ) -> Result<u64, Refused> {
        if self.on_store_failure == OnStoreFailure::FailClosed {
            return Err(Refused::StoreFails);
        }
        let now = self.now(kind);
        let Some(start_ms) = usage.state().lease(kind).spend_uncounted(need, limit, now) else {
            return Err(Refused::Spent { kind, limit, need: Some(need), window: now.window });
        };
        self.watch(usage);
        Ok(start_ms)
    }

    fn take_in_background(self: &Arc<Self>, usage: &Arc<Usage>, kind: Kind, call: lease::Call) {
        let (limits, usage) = (self.clone(), usage.clone());
        self.host.spawn(Box::pin(async move {
            if let Ok(taken) = limits.take(&usage, kind, call).await {
                usage.state().lease(kind).answered(&call, taken, limits.host.monotonic());
                limits.watch(&usage);
            }
        }));
    }

    /// What was used without having been granted is charged first.
    async fn take(&self, usage: &Usage, kind: Kind, call: lease::Call) -> Result<Taken, Failed> {
        let _asking = OnDrop(|| usage.state().lease(kind).asked(&call));
        self.charge_now(usage, kind).await?;
        let counter = usage.counter(kind, call.start_ms);
        self.counted(usage, kind, self.store.take(&counter, call.ask, call.limit)).await
    }

    /// Charges what a request used beyond its reservation.
    pub(super) fn charge(self: &Arc<Self>, usage: &Arc<Usage>, kind: Kind) {
        let (limits, usage) = (self.clone(), usage.clone());
        self.host.spawn(Box::pin(async move {
            // What cannot be charged now is charged with the next call.
            let _ = limits.charge_now(&usage, kind).await;
        }));
    }

    async fn charge_now(&self, usage: &Usage, kind: Kind) -> Result<(), Failed> {
        // At most that of a window that is over, and that of the one of now.
        for _ in 0..2 {
            let Some((start_ms, debt)) = usage.state().lease(kind).take_debt() else { break };
            let counter = usage.counter(kind, start_ms);
            let charged = self.counted(usage, kind, self.store.charge(&counter, debt)).await;
            if charged.is_err() {
                usage.state().lease(kind).keep_debt(start_ms, debt);
                return charged;
            }
        }
        Ok(())
    }

    async fn counted<T>(
        &self,
        usage: &Usage,
        kind: Kind,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Failed> {
        match self.call(usage, call).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Down) => Err(Failed),
            Err(Failure::ThisOnly) => {
                usage.state().lease(kind).failed(self.host.monotonic() + RETRY_EVERY);
                Err(Failed)
            }
        }
    }

    pub(super) async fn take_slot(self: &Arc<Self>, usage: &Arc<Usage>, limit: u32) -> Result<Slot, Refused> {
        use slots::Step;

        let waits_until = self.host.monotonic() + WAITS_FOR;
        let mut pause = LOOK_EVERY.0;
        let mut now = self.host.monotonic();
        let mut step = usage.state().step_of_slots(limit, now);
        loop {
            match step {
                Step::Taken => return Ok(self.slot(usage)),
                Step::Hold(call) => {
                    let Ok(held) = self.hold(usage, call).await else {
                        return self.take_slot_without_store(usage, limit);
                    };
                    now = self.host.monotonic();
                    let mut state = usage.state();
                    state.slots.answered(&call, held, now);
                    step = state.slots.step(limit, now, false);
                    continue;
                }
                Step::Wait if now < waits_until => {
                    usage.state().slots.waits();
                    let _waiting = OnDrop(|| usage.state().slots.waited());
                    self.host.sleep(pause).await;
                    pause = (pause * 2).min(LOOK_EVERY.1);
                }
                // One call is for all that wait, so two at a time would be in each other's way.
                Step::Refused | Step::Wait => return Err(Refused::Busy { limit }),
                Step::Failing => {
                    let taken = self.take_slot_without_store(usage, limit);
                    self.retry_when_due(usage, || {
                        let call = usage.state().slots.hold_again(now);
                        let (limits, usage) = (self.clone(), usage.clone());
                        self.host.spawn(Box::pin(async move { limits.hold_and_note(&usage, call).await }));
                    });
                    return taken;
                }
            }
            now = self.host.monotonic();
            step = usage.state().step_of_slots(limit, now);
        }
    }

    fn take_slot_without_store(self: &Arc<Self>, usage: &Arc<Usage>, limit: u32) -> Result<Slot, Refused> {
        if self.on_store_failure == OnStoreFailure::FailClosed {
            return Err(Refused::StoreFails);
        }
        if !usage.state().slots.take_uncounted() {
            return Err(Refused::Busy { limit });
        }
        Ok(self.slot(usage))
    }

    fn slot(self: &Arc<Self>, usage: &Arc<Usage>) -> Slot {
        let keep = Keep::new(self.clone(), usage.clone());
        Slot { limits: self.clone(), usage: usage.clone(), keep }
    }

    pub(super) async fn hold_and_note(&self, usage: &Usage, call: slots::Call) {
        if let Ok(held) = self.hold(usage, call).await {
            usage.state().slots.answered(&call, held, self.host.monotonic());
        }
    }

    async fn hold(&self, usage: &Usage, call: slots::Call) -> Result<Held, Failed> {
        let _calling = OnDrop(|| usage.state().slots.called(&call));
        let now_ms = self.fleet_ms();
        let held_for = u64::try_from(HELD_FOR.as_millis()).unwrap_or(u64::MAX);
        let until_ms = now_ms.saturating_add(held_for);
        let wanted = Held { slots: call.wanted, until_ms };
        let slots::Call { known, limit, .. } = call;
        let hold = Hold { key: &usage.key, holder: &self.holder, known, wanted, limit, now_ms };
        match self.call(usage, self.store.hold(hold)).await {
            Ok(slots) => Ok(Held { slots, until_ms }),
            Err(failure) => {
                let now = self.host.monotonic();
                let failing_until = matches!(failure, Failure::ThisOnly).then_some(now + RETRY_EVERY);
                usage.state().slots.failed(now, failing_until);
                Err(Failed)
            }
        }
    }

    /// Gives back what is not needed for a while, in the background, unless somebody does already.
    pub(super) fn watch(self: &Arc<Self>, usage: &Arc<Usage>) {
        let now = self.host.monotonic();
        let until = now + IDLE * (LOOKS + 1);
        {
            let mut state = usage.state();
            if state.watched_until.is_some_and(|until| now < until) || !self.is_open(&state) {
                return;
            }
            state.watched_until = Some(until);
        }
        let (limits, usage) = (self.clone(), usage.clone());
        self.host.spawn(Box::pin(async move {
            for look in 1..=LOOKS {
                limits.host.sleep(IDLE).await;
                // The last look takes what is in use as well: nobody may look again.
                let kept_for = if look == LOOKS { Duration::ZERO } else { IDLE };
                limits.give_back(&usage, kept_for).await;
                let mut state = usage.state();
                if look == LOOKS || !limits.is_open(&state) {
                    state.watched_until = None;
                    return;
                }
            }
        }));
    }

    fn is_open(&self, state: &State) -> bool {
        let windows = state.leases.iter().any(|(kind, lease)| lease.is_open(self.now(*kind).window));
        windows || state.slots.is_open()
    }

    async fn give_back(&self, usage: &Usage, kept_for: Duration) {
        let rests: Vec<_> = {
            let mut state = usage.state();
            let rest = |(kind, lease): &mut (Kind, lease::Lease)| {
                let now = self.now(*kind);
                let (start_ms, rest) = lease.take_rest(now, now.monotonic.saturating_sub(kept_for))?;
                Some((*kind, start_ms, rest))
            };
            state.leases.iter_mut().filter_map(rest).collect()
        };
        for (kind, start_ms, rest) in rests {
            let counter = usage.counter(kind, start_ms);
            // One that fails is wasted: it may have taken place.
            let _ = self.counted(usage, kind, self.store.give_back(&counter, rest)).await;
        }
        let kinds: Vec<_> = usage.state().leases.iter().map(|(kind, _)| *kind).collect();
        for kind in kinds {
            if !usage.state().is_failing() {
                let _ = self.charge_now(usage, kind).await;
            }
        }
        let fewer = usage.state().slots.let_go(self.host.monotonic());
        if let Some(call) = fewer {
            self.hold_and_note(usage, call).await;
        }
    }

    /// A call to the store, within [`PATIENCE`].
    async fn call<T>(
        &self,
        usage: &Usage,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Failure> {
        let error = match select(pin!(call), self.host.sleep(PATIENCE)).await {
            Either::Left((Ok(answer), _)) => {
                usage.state().retry_at = None;
                return Ok(answer);
            }
            Either::Left((Err(error), _)) => error,
            Either::Right(_) => StoreError::Unavailable { reason: format!("no answer within {PATIENCE:?}") },
        };
        tracing::warn!(%error, key_id = %usage.key, "limits cannot be counted in the store");
        match error {
            StoreError::Unavailable { .. } | StoreError::NotSetUp { .. } | StoreError::Denied { .. } => {
                usage.state().retry_at = Some(self.host.monotonic() + RETRY_EVERY);
                Err(Failure::Down)
            }
            StoreError::Broken { .. }
            | StoreError::Unreadable(_)
            | StoreError::Refused { .. }
            | StoreError::Conflict { .. } => Err(Failure::ThisOnly),
        }
    }

    /// One of the key's requests tries again, in the background.
    fn retry_when_due(&self, usage: &Usage, retry: impl FnOnce()) {
        let now = self.host.monotonic();
        {
            let retry_at = &mut usage.state().retry_at;
            if retry_at.is_none_or(|at| now < at) {
                return;
            }
            *retry_at = Some(now + RETRY_EVERY);
        }
        retry();
    }
}

enum Failure {
    /// The store does not answer, for this key at least.
    Down,
    /// It answers, but there is something wrong with what was asked.
    ThisOnly,
}

/// Calls a function when it is dropped, however that comes about.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
