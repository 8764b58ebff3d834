//! When what is kept in memory is read again: in the background as it ages, and before a request goes on where it is
//! too old to be relied on.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::host::{BoxFuture, Host};

/// How long a request waits for a reading that is overdue.
const INLINE_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct Freshness {
    refresh_after: Duration,
    max_age: Duration,
    loaded: AtomicBool,
    source_answers: AtomicBool,
    refreshing: Arc<AtomicBool>,
    /// Monotonic milliseconds of the last reading that succeeded.
    checked_ms: AtomicU64,
    /// Monotonic milliseconds of the last reading, whatever came of it.
    tried_ms: AtomicU64,
    turn: futures_util::lock::Mutex<()>,
}

impl Freshness {
    pub(crate) fn new(refresh_after: Duration, max_age: Duration) -> Self {
        Self {
            refresh_after,
            max_age,
            loaded: AtomicBool::new(false),
            source_answers: AtomicBool::new(false),
            refreshing: Arc::default(),
            checked_ms: AtomicU64::new(0),
            tried_ms: AtomicU64::new(0),
            turn: futures_util::lock::Mutex::default(),
        }
    }

    /// Whether anything has been read.
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Whether the source answered when last asked.
    pub(crate) fn source_answers(&self) -> bool {
        self.source_answers.load(Ordering::Relaxed)
    }

    /// Reads when it is due: in the background, or, when overdue and the source is not known to be down, before the
    /// request goes on. `refresh` ends in [`Freshness::read`].
    pub(crate) async fn ensure(&self, host: &dyn Host, refresh: impl FnOnce() -> BoxFuture<'static, ()>) {
        let now = now_ms(host);
        let age = u128::from(now.saturating_sub(self.checked_ms.load(Ordering::Relaxed)));
        let loaded = self.is_loaded();
        if age < self.refresh_after.as_millis() && loaded {
            return;
        }
        let overdue = age >= self.max_age.as_millis() || !loaded;
        let down = loaded && !self.source_answers();
        if overdue && !down {
            let timeout = host.sleep(INLINE_TIMEOUT);
            if let futures_util::future::Either::Right(_) =
                futures_util::future::select(refresh(), timeout).await
            {
                self.source_answers.store(false, Ordering::Relaxed);
            }
            return;
        }
        // A source that fails is asked no more often than one that answers.
        let tried = u128::from(now.saturating_sub(self.tried_ms.load(Ordering::Relaxed)));
        if tried >= self.refresh_after.as_millis() && !self.refreshing.swap(true, Ordering::AcqRel) {
            let done = Reset(self.refreshing.clone());
            let refresh = refresh();
            host.spawn(Box::pin(async move {
                refresh.await;
                drop(done);
            }));
        }
    }

    /// Runs a reading and remembers how it went. One at a time; who had to wait for another's needs none of their own.
    pub(crate) async fn read<E>(
        &self,
        host: &dyn Host,
        reading: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let asked = now_ms(host);
        let _turn = self.turn.lock().await;
        if self.is_loaded() && self.checked_ms.load(Ordering::Relaxed) > asked {
            return Ok(());
        }
        self.tried_ms.store(now_ms(host), Ordering::Relaxed);
        let read = reading.await;
        if read.is_ok() {
            self.checked_ms.store(now_ms(host), Ordering::Relaxed);
            self.loaded.store(true, Ordering::Release);
        }
        self.source_answers.store(read.is_ok(), Ordering::Relaxed);
        read
    }
}

/// Clears a flag when dropped, so that a cancelled reading does not block the next.
struct Reset(Arc<AtomicBool>);

impl Drop for Reset {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn now_ms(host: &dyn Host) -> u64 {
    u64::try_from(host.monotonic().as_millis()).unwrap_or(u64::MAX)
}
