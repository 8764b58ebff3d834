//! A sandbox being made.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::{Conversation, Inner, Lease, Sandboxes, StartError, Variant};
use crate::config::model::Mode;

/// However it ends, the pool hears of it: a dialect that panics must not leave it waiting.
pub(super) struct Attempt {
    pub(super) inner: Arc<Inner>,
    pub(super) variant: Variant,
    pub(super) begun: Instant,
    pub(super) made: Option<Result<Lease, StartError>>,
}

impl Attempt {
    pub(super) async fn make(mut self, share: Share, turn: Option<RefillTurn>) {
        let (inner, variant) = (Arc::clone(&self.inner), self.variant.clone());
        self.made = Some(make(&*inner.sandboxes, &variant, share, turn).await);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let made = self.made.take().unwrap_or_else(|| Err(StartError("the start was cut off".to_owned())));
        if let Err(error) = &made {
            tracing::warn!(cli = self.variant.cli.name, %error, "a sandbox could not be made");
        }
        self.inner.made(&self.variant, self.begun, made);
    }
}

async fn make(
    sandboxes: &dyn Sandboxes,
    variant: &Variant,
    share: Share,
    turn: Option<RefillTurn>,
) -> Result<Lease, StartError> {
    let place = sandboxes.start(variant).await?;
    // The rest is the CLI's own time.
    drop(turn);
    let conversation = Conversation::new(place, sandboxes.dialect(variant));
    let mut lease = Lease {
        held: Some(Box::new((conversation, share))),
        variant: variant.clone(),
        is_warm: false,
        in_use: false,
        made_at: Instant::now(),
    };
    if variant.cli.mode == Mode::Parked {
        lease.boot().await?;
    }
    Ok(lease)
}

/// The engine's time for a refill: over when it is dropped.
pub(super) struct RefillTurn(pub(super) Arc<Inner>);

impl Drop for RefillTurn {
    fn drop(&mut self) {
        self.0.lock().is_refilling = false;
        self.0.work();
    }
}

/// A sandbox's memory: given back when it is dropped.
pub(super) struct Share {
    pub(super) inner: Weak<Inner>,
    pub(super) ticket: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.lock().memory.free(self.ticket);
            inner.work();
        }
    }
}
