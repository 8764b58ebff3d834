//! One sandbox that waits: watched until a request takes it, or until it should no longer be given out.

use std::sync::Weak;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::sleep_until;

use super::{Inner, Lease, Variant};

/// Its place on the shelf: cleared when the watch ends, however that comes about.
pub(super) struct Entry {
    pub(super) inner: Weak<Inner>,
    pub(super) variant: Variant,
    pub(super) ticket: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            if let Some(shelf) = inner.lock().shelves.get_mut(&self.variant) {
                shelf.remove(self.ticket);
            }
            inner.work();
        }
    }
}

/// Hands the sandbox to whoever asks, unless it is unfit. Lets it go when nobody may ask any more, or after `max_age`.
pub(super) async fn keep(
    entry: Entry,
    mut lease: Lease,
    asked: oneshot::Receiver<oneshot::Sender<Lease>>,
    max_age: Duration,
) {
    let retire_at = lease.made_at + max_age;
    tokio::select! {
        biased;
        taker = asked => {
            let Ok(taker) = taker else { return };
            // What it said just now counts too.
            if lease.unfit().now_or_never().is_none() {
                // One who has gone drops it.
                let _ = taker.send(lease);
                return;
            }
        }
        () = lease.unfit() => {}
        () = sleep_until(retire_at) => return,
    }
    tracing::warn!(cli = entry.variant.cli.name, "a waiting CLI ended or spoke out of turn, and is replaced");
}
