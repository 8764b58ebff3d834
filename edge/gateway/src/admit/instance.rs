//! What this instance does at the store: takes, gives back, holds slots, and bears it when there is no answer.
//!
//! Requests of one key share a call, and none waits on another's future: a future that one request began may not be
//! driven by another on every host. Who finds a call under way sleeps a little and looks again.

mod slots;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use catalog::{LimitStore, StoreError, Taken};
use futures_util::future::{Either, select};

use super::lease::{self, Now};
use super::trouble::{TroubledKeys, Troubles};
use super::{Kind, PATIENCE, Refused, State, Usage};
use crate::host::{BoxFuture, Host};
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
    troubles: TroubledKeys,
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
        let holder = format!("{instance:016x}");
        Self { store, host, on_store_failure, holder, troubles: TroubledKeys::default() }
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
                    // Others may ask from then on, whether it was answered, given up or left behind.
                    let asking = OnDrop(|| usage.state().lease(kind).asked(&call));
                    let (limits, asks_for) = (self.clone(), usage.clone());
                    let take = async move { limits.take(&asks_for, kind, call).await };
                    let (limits, late_for) = (self.clone(), usage.clone());
                    let late = move |taken| limits.credit(&late_for, kind, &call, taken);
                    let Ok(taken) = self.wait_for(usage, take, late).await else {
                        return self.spend_without_store(usage, kind, need, limit);
                    };
                    now = self.now(kind);
                    let mut state = usage.state();
                    let lease = state.lease(kind);
                    lease.answered(&call, taken, now.monotonic);
                    lease.asked(&call);
                    asking.disarm();
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
                        let call = usage.state().lease(kind).probe(limit, now);
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
            let taken = limits.take(&usage, kind, call).await;
            usage.state().lease(kind).asked(&call);
            if let Ok(taken) = taken {
                limits.credit(&usage, kind, &call, taken);
            }
        }));
    }

    fn credit(self: &Arc<Self>, usage: &Arc<Usage>, kind: Kind, call: &lease::Call, taken: Taken) {
        usage.state().lease(kind).answered(call, taken, self.host.monotonic());
        self.watch(usage);
    }

    /// What was used without having been granted is charged along: before, so that the answer takes it into account,
    /// unless it is not known whether the store answers at all. A charge that is lost on its way back counts twice.
    async fn take(&self, usage: &Arc<Usage>, kind: Kind, call: lease::Call) -> Result<Taken, Failed> {
        let is_probe = usage.state().is_failing();
        if !is_probe {
            self.charge_now(usage, kind).await?;
        }
        let counter = usage.counter(kind, call.start_ms);
        let taken = self.counted(usage, kind, self.store.take(&counter, call.ask, call.limit)).await?;
        if is_probe {
            // The store answers: what does not come through now does so with the next call.
            let _ = self.charge_now(usage, kind).await;
        }
        Ok(taken)
    }

    /// Charges what a request used beyond its reservation.
    pub(super) fn charge(self: &Arc<Self>, usage: &Arc<Usage>, kind: Kind) {
        let (limits, usage) = (self.clone(), usage.clone());
        self.host.spawn(Box::pin(async move {
            // What cannot be charged now is charged with the next call.
            let _ = limits.charge_now(&usage, kind).await;
        }));
    }

    async fn charge_now(&self, usage: &Arc<Usage>, kind: Kind) -> Result<(), Failed> {
        // At most that of a window that is over, and that of the one of now.
        for _ in 0..2 {
            let Some((start_ms, debt)) = usage.state().lease(kind).take_debt() else { break };
            let counter = usage.counter(kind, start_ms);
            let begun = self.host.monotonic();
            let charged = self.counted(usage, kind, self.store.charge(&counter, debt)).await;
            let mut state = usage.state();
            if charged.is_err() {
                // What fails at once was not counted; after a while it may have been.
                let may_count = self.host.monotonic() >= begun + PATIENCE;
                state.lease(kind).keep_debt(start_ms, debt, may_count);
                return charged;
            }
            state.lease(kind).charged();
        }
        Ok(())
    }

    async fn counted<T>(
        &self,
        usage: &Arc<Usage>,
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

    async fn give_back(&self, usage: &Arc<Usage>, kept_for: Duration) {
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
        if !usage.state().is_failing() {
            self.charge_all(usage).await;
        }
        let fewer = usage.state().slots.let_go(self.host.monotonic());
        if let Some(call) = fewer {
            self.hold_and_note(usage, call).await;
        }
    }

    /// Waits [`PATIENCE`] for a call. What takes longer goes on in the background, and so it does if whoever waits is
    /// gone: the store may have counted it, so somebody has to hear of it.
    async fn wait_for<T: Send + 'static>(
        self: &Arc<Self>,
        usage: &Arc<Usage>,
        call: impl Future<Output = Result<T, Failed>> + Send + 'static,
        late: impl FnOnce(T) + Send + 'static,
    ) -> Result<T, Failed> {
        let mut pending = Pending { host: self.host.clone(), call: Some((Box::pin(call), late)) };
        let answered = select(poll_fn(|cx| pending.poll(cx)), self.host.sleep(PATIENCE)).await;
        match answered {
            Either::Left((answered, _)) => answered,
            Either::Right(_) => {
                let error = StoreError::Unavailable { reason: format!("no answer within {PATIENCE:?}") };
                self.note(usage, &error);
                Err(Failed)
            }
        }
    }

    /// A call to the store, which takes no longer than [`CountedLimits`](crate::metrics::CountedLimits) lets it.
    async fn call<T>(
        &self,
        usage: &Arc<Usage>,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Failure> {
        match call.await {
            Ok(answer) => {
                usage.state().answered();
                Ok(answer)
            }
            Err(error) => Err(self.note(usage, &error)),
        }
    }

    fn note(&self, usage: &Arc<Usage>, error: &StoreError) -> Failure {
        tracing::warn!(%error, key_id = %usage.key, "limits cannot be counted in the store");
        let now = self.host.monotonic();
        let failure = match error {
            StoreError::Unavailable { .. } | StoreError::NotSetUp { .. } | StoreError::Denied { .. } => {
                usage.state().retry_at = Some(now + RETRY_EVERY);
                Failure::Down
            }
            StoreError::Broken { .. }
            | StoreError::Unreadable(_)
            | StoreError::Refused { .. }
            | StoreError::Conflict { .. } => Failure::ThisOnly,
        };
        self.troubles.note(usage, error, now);
        failure
    }

    /// Goes on with keys that had trouble and fell silent: to be called by requests of any key.
    pub(crate) fn heal(self: &Arc<Self>) {
        let Some(usage) = self.troubles.next_owing(self.host.monotonic()) else { return };
        let limits = self.clone();
        self.host.spawn(Box::pin(async move { limits.charge_all(&usage).await }));
    }

    async fn charge_all(&self, usage: &Arc<Usage>) {
        let kinds: Vec<_> = usage.state().leases.iter().map(|(kind, _)| *kind).collect();
        for kind in kinds {
            if self.charge_now(usage, kind).await.is_err() {
                return;
            }
        }
    }

    /// What does not work of late, for the instance's status.
    pub(crate) fn troubles(&self) -> Troubles {
        self.troubles.now(self.host.monotonic())
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

/// A call that goes on without whoever waits for it.
struct Pending<T: Send + 'static, F: FnOnce(T) + Send + 'static> {
    host: Arc<dyn Host>,
    call: Option<(BoxFuture<'static, Result<T, Failed>>, F)>,
}

impl<T: Send + 'static, F: FnOnce(T) + Send + 'static> Pending<T, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Failed>> {
        let Some((call, _)) = &mut self.call else { return Poll::Pending };
        let polled = call.as_mut().poll(cx);
        if polled.is_ready() {
            self.call = None;
        }
        polled
    }
}

impl<T: Send + 'static, F: FnOnce(T) + Send + 'static> Drop for Pending<T, F> {
    fn drop(&mut self) {
        let Some((call, late)) = self.call.take() else { return };
        self.host.spawn(Box::pin(async move {
            if let Ok(answer) = call.await {
                late(answer);
            }
        }));
    }
}

/// Calls a function when it is dropped, however that comes about.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> OnDrop<F> {
    /// It is not to be called any more.
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
