//! A timer for deadlines that keep moving away, as they do with every byte of a stream.

use std::task::{Context, Poll};
use std::time::Duration;

use crate::host::{BoxFuture, Host};

/// Arms the host's timer once and looks again when it fires, instead of resetting it for every byte.
#[derive(Default)]
pub(crate) struct LazyTimer {
    armed: Option<(Duration, BoxFuture<'static, ()>)>,
}

impl LazyTimer {
    /// Ready once the host's monotonic clock has passed `deadline`. The deadline may differ between calls.
    pub(crate) fn poll(&mut self, deadline: Duration, host: &dyn Host, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = host.monotonic();
            if now >= deadline {
                self.armed = None;
                return Poll::Ready(());
            }
            if self.armed.as_ref().is_some_and(|(at, _)| *at > deadline) {
                self.armed = None;
            }
            let (_, sleep) = self.armed.get_or_insert_with(|| (deadline, host.sleep(deadline - now)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.armed = None;
        }
    }
}
