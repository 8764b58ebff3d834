//! One sandbox that waits: watched until a request takes it, or until it should no longer be given out.

use std::sync::Weak;

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

/// A sandbox on a shelf.
pub(super) struct Watch {
    pub(super) entry: Entry,
    pub(super) lease: Lease,
    pub(super) asked: oneshot::Receiver<oneshot::Sender<Lease>>,
}

impl Watch {
    /// Hands the sandbox to whoever asks, unless it is unfit. Lets it go when nobody may ask any more, or when it has
    /// become too old.
    pub(super) async fn keep(self) {
        let Self { entry, mut lease, asked } = self;
        let retire_at = lease.made_at + entry.variant.cli.pool.max_age;
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
        if let Some(inner) = entry.inner.upgrade() {
            inner.note_unfit(&entry.variant);
        }
    }
}
