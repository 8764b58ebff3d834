//! Slots of concurrent requests: taken, and held at the store as long as requests run.

use std::sync::Arc;

use catalog::{Held, Hold};

use super::{Failed, Failure, LOOK_EVERY, Limits, OnDrop, RETRY_EVERY, WAITS_FOR};
use crate::admit::keep::Keep;
use crate::admit::slots::{self, HELD_FOR};
use crate::admit::{Refused, Slot, Usage};
use crate::settings::OnStoreFailure;

impl Limits {
    pub(in crate::admit) async fn take_slot(
        self: &Arc<Self>,
        usage: &Arc<Usage>,
        limit: u32,
    ) -> Result<Slot, Refused> {
        use slots::Step;

        let waits_until = self.host.monotonic() + WAITS_FOR;
        let mut pause = LOOK_EVERY.0;
        let mut now = self.host.monotonic();
        let mut step = usage.state().step_of_slots(limit, now);
        loop {
            match step {
                Step::Taken => return Ok(self.slot(usage)),
                Step::Hold(call) => {
                    let calling = OnDrop(|| usage.state().slots.called(&call));
                    let (limits, asks_for) = (self.clone(), usage.clone());
                    let hold = async move { limits.hold(&asks_for, call).await };
                    let (limits, late_for) = (self.clone(), usage.clone());
                    let late = move |held| {
                        late_for.state().slots.answered(&call, held, limits.host.monotonic());
                        limits.watch(&late_for);
                    };
                    let Ok(held) = self.wait_for(usage, hold, late).await else {
                        return self.take_slot_without_store(usage, limit);
                    };
                    now = self.host.monotonic();
                    let mut state = usage.state();
                    state.slots.answered(&call, held, now);
                    state.slots.called(&call);
                    calling.disarm();
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
        self.keep_renewing(usage);
        let keep = Keep::new(self.clone(), usage.clone());
        Slot { limits: self.clone(), usage: usage.clone(), keep }
    }

    /// In the background as long as a request runs, for clients that do not read: nothing polls their bodies.
    fn keep_renewing(self: &Arc<Self>, usage: &Arc<Usage>) {
        if !usage.state().slots.begin_renewing(self.host.monotonic()) {
            return;
        }
        let (limits, usage) = (self.clone(), usage.clone());
        self.host.spawn(Box::pin(async move {
            loop {
                limits.host.sleep(slots::LOOK_EVERY).await;
                let now = limits.host.monotonic();
                if !usage.state().slots.goes_on_renewing(now) {
                    return;
                }
                let call = usage.state().slots.renew(now);
                if let Some(call) = call {
                    limits.hold_and_note(&usage, call).await;
                }
            }
        }));
    }

    pub(in crate::admit) async fn hold_and_note(&self, usage: &Arc<Usage>, call: slots::Call) {
        let held = self.hold(usage, call).await;
        let mut state = usage.state();
        if let Ok(held) = held {
            state.slots.answered(&call, held, self.host.monotonic());
        }
        state.slots.called(&call);
    }

    async fn hold(&self, usage: &Arc<Usage>, call: slots::Call) -> Result<Held, Failed> {
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
                let failing_until = matches!(failure, Failure::ThisOnly).then(|| now + RETRY_EVERY);
                usage.state().slots.failed(now, failing_until);
                Err(Failed)
            }
        }
    }
}
