//! The memory of all sandboxes: what is promised to them, and what is about to come back.

use std::collections::HashMap;

pub(super) struct Memory {
    budget: u64,
    used: u64,
    /// Of `used`, that of sandboxes that are being removed.
    leaving: u64,
    shares: HashMap<u64, Share>,
}

struct Share {
    bytes: u64,
    leaving: bool,
}

impl Memory {
    pub(super) fn new(budget: u64) -> Self {
        Self { budget, used: 0, leaving: 0, shares: HashMap::new() }
    }

    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.used.saturating_add(bytes) <= self.budget
    }

    /// Whether there will be room once those that leave have gone.
    pub(super) fn will_have_room(&self, bytes: u64) -> bool {
        (self.used - self.leaving).saturating_add(bytes) <= self.budget
    }

    pub(super) fn take(&mut self, ticket: u64, bytes: u64) {
        self.used += bytes;
        self.shares.insert(ticket, Share { bytes, leaving: false });
    }

    /// Its sandbox is to be removed. Saying so twice changes nothing.
    pub(super) fn leave(&mut self, ticket: u64) {
        if let Some(share) = self.shares.get_mut(&ticket)
            && !share.leaving
        {
            share.leaving = true;
            self.leaving += share.bytes;
        }
    }

    /// Its sandbox is no more.
    pub(super) fn free(&mut self, ticket: u64) {
        if let Some(share) = self.shares.remove(&ticket) {
            self.used -= share.bytes;
            self.leaving -= if share.leaving { share.bytes } else { 0 };
        }
    }

    /// How many sandboxes there are, those included that are being made or removed.
    pub(super) fn sandboxes(&self) -> usize {
        self.shares.len()
    }
}
