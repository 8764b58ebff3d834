//! A timer for deadlines that keep moving away, as they do with every byte of a stream.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::host::{BoxFuture, Host};

/// Arms the host's timer once and looks again when it fires, instead of resetting it for every byte.
#[derive(Default)]
pub(crate) struct LazyTimer {
    armed: Option<Armed>,
}

struct Armed {
    at: Duration,
    sleep: BoxFuture<'static, ()>,
    /// Whom the sleep wakes: as long as that is the one who asks, it need not be polled again.
    waker: Waker,
}

impl LazyTimer {
    /// Ready once the host's monotonic clock, which says `now`, has passed `deadline`. The deadline may differ between
    /// calls.
    pub(crate) fn poll(
        &mut self,
        deadline: Duration,
        mut now: Duration,
        host: &dyn Host,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            if now >= deadline {
                self.armed = None;
                return Poll::Ready(());
            }
            if let Some(armed) = self.armed.as_mut().filter(|armed| armed.at <= deadline) {
                if armed.at > now && armed.waker.will_wake(cx.waker()) {
                    return Poll::Pending;
                }
                armed.waker.clone_from(cx.waker());
            } else {
                self.armed = Some(Armed {
                    at: deadline,
                    sleep: host.sleep(deadline.saturating_sub(now)),
                    waker: cx.waker().clone(),
                });
            }
            let Some(armed) = &mut self.armed else { continue };
            if armed.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.armed = None;
            now = host.monotonic();
        }
    }
}
