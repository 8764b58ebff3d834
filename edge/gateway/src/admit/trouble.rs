//! Keys whose limits the store could not count of late: for the instance's status, and so that what they owe is charged
//! even if they fall silent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::{LeftOut, StoreError};

use super::Usage;

/// What was not tried again for so long is no news any more.
const TOLD_FOR: Duration = Duration::from_secs(10);
/// More keys than these are neither told of nor charged once silent; an instance seldom serves as many in an outage.
const MAX_KEYS: usize = 1_000;
/// Items that are named at a time.
const MAX_NAMED: usize = 20;

/// What a key's last failure was.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    code: &'static str,
    unreadable: Option<LeftOut>,
    until: Duration,
}

/// What does not work of late.
#[derive(Clone, Debug, Default)]
pub(crate) struct Troubles {
    /// The class of one of the errors.
    pub(crate) failure: Option<&'static str>,
    /// How many keys have one.
    pub(crate) keys: usize,
    pub(crate) unreadable: Vec<LeftOut>,
}

#[derive(Debug, Default)]
pub(super) struct TroubledKeys {
    /// Each once; it knows that it is here.
    keys: Mutex<VecDeque<Arc<Usage>>>,
}

impl TroubledKeys {
    fn keys(&self) -> MutexGuard<'_, VecDeque<Arc<Usage>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, usage: &Arc<Usage>, error: &StoreError, now: Duration) {
        let unreadable = match error {
            StoreError::Unreadable(item) => Some(item.clone()),
            _ => None,
        };
        let mut keys = self.keys();
        let mut state = usage.state();
        state.trouble = Some(Trouble { code: error.code(), unreadable, until: now + TOLD_FOR });
        if !state.is_troubled && keys.len() < MAX_KEYS {
            state.is_troubled = true;
            keys.push_back(usage.clone());
        }
    }

    /// Looks at one key: one that is to be charged again is taken off the list, for the caller to do so.
    pub(super) fn next_owing(&self, now: Duration) -> Option<Arc<Usage>> {
        let mut keys = self.keys();
        let usage = keys.pop_front()?;
        let mut state = usage.state();
        let owes = state.leases.iter().any(|(_, lease)| lease.owes());
        let is_told = state.trouble.as_ref().is_some_and(|trouble| now < trouble.until);
        let is_due = state.retry_at.is_none_or(|at| at <= now);
        if owes && is_due {
            state.is_troubled = false;
            drop(state);
            return Some(usage);
        }
        if owes || is_told {
            drop(state);
            keys.push_back(usage);
        } else {
            state.is_troubled = false;
        }
        None
    }

    pub(super) fn now(&self, now: Duration) -> Troubles {
        let mut troubles = Troubles::default();
        for usage in self.keys().iter() {
            let state = usage.state();
            let Some(trouble) = state.trouble.as_ref().filter(|trouble| now < trouble.until) else {
                continue;
            };
            troubles.failure = Some(trouble.code);
            troubles.keys += 1;
            if troubles.unreadable.len() < MAX_NAMED {
                troubles.unreadable.extend(trouble.unreadable.clone());
            }
        }
        troubles
    }
}
