//! A sandbox that one request has to itself.

use std::ops::{Deref, DerefMut};

use runner_api::RunEvent;
use tokio::time::{Instant, timeout};

use super::conversation::Conversation;
use super::place::StartError;
use super::{Share, Variant};

/// Dropping it removes the sandbox in the background.
pub struct Lease {
    /// Always there, until the drop.
    pub(super) held: Option<Box<(Conversation, Share)>>,
    pub(super) variant: Variant,
    pub(super) is_warm: bool,
    /// Whether a request has it.
    pub(super) in_use: bool,
    pub(super) made_at: Instant,
}

impl Lease {
    /// Whether the sandbox was there before its request.
    pub fn is_warm(&self) -> bool {
        self.is_warm
    }

    /// Brings the CLI to where it waits for its request, within the time that its entry gives it.
    pub(crate) async fn boot(&mut self) -> Result<(), StartError> {
        let within = self.variant.cli.limits.boot_time;
        let booted = timeout(within, self.deref_mut().boot()).await;
        let name = &self.variant.cli.name;
        match booted {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Some(RunEvent::Error { class, message, .. }))) => {
                Err(StartError(format!("{name} ended before its request ({}): {message}", class.as_str())))
            }
            Ok(Err(_)) => Err(StartError(format!("{name} ended before its request"))),
            Err(_) => Err(StartError(format!(
                "{name} was not ready for a request within {} s",
                within.as_secs_f64()
            ))),
        }
    }

    pub(super) fn ticket(&self) -> u64 {
        self.held.as_ref().expect("taken in the drop only").1.ticket
    }
}

impl Deref for Lease {
    type Target = Conversation;

    fn deref(&self) -> &Conversation {
        &self.held.as_ref().expect("taken in the drop only").0
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Conversation {
        &mut self.held.as_mut().expect("taken in the drop only").0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Without a pool nobody counts any more, and dropping the conversation removes the sandbox as well.
        let inner = self.held.as_ref().and_then(|held| held.1.inner.upgrade());
        if let Some(inner) = inner {
            inner.leave(self);
            if let Some(held) = self.held.take() {
                let (conversation, share) = *held;
                inner.runtime.spawn(async move {
                    conversation.remove().await;
                    drop(share);
                });
            }
        }
    }
}
