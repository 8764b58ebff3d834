//! Renewal of the slots while a request is under way: whichever request is polled when it is due does it, for all of
//! this instance, as part of its own task. There is one in the background as well, which on some hosts ends with the
//! request that began it.

use std::sync::Arc;
use std::task::Context;

use super::{Limits, Usage};
use crate::host::BoxFuture;
use crate::timer::LazyTimer;

pub(super) struct Keep {
    limits: Arc<Limits>,
    usage: Arc<Usage>,
    timer: LazyTimer,
    renewing: Option<BoxFuture<'static, ()>>,
}

impl Keep {
    pub(super) fn new(limits: Arc<Limits>, usage: Arc<Usage>) -> Self {
        Self { limits, usage, timer: LazyTimer::default(), renewing: None }
    }

    /// Goes on with what is to be done, and wakes the task when there is more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(renewing) = &mut self.renewing {
                if renewing.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.renewing = None;
            }
            let now = self.limits.monotonic();
            let renew_at = self.usage.state().slots.renew_at();
            if self.timer.poll(renew_at, now, self.limits.host(), cx).is_pending() {
                return;
            }
            // Another request may have been faster.
            if let Some(call) = self.usage.state().slots.renew(now) {
                let (limits, usage) = (self.limits.clone(), self.usage.clone());
                self.renewing = Some(Box::pin(async move { limits.hold_and_note(&usage, call).await }));
            }
        }
    }
}
