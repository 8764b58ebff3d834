//! The port for what was used: counts per API key, provider, model and day.

use crate::{ApiKeyId, BoxFuture, ProviderSlug, StoreError};

/// A day of UTC: days since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(pub u32);

impl Day {
    const MS: u64 = 24 * 60 * 60 * 1_000;

    /// So many days a row is kept, its own not counted.
    pub const KEPT: u32 = 400;

    pub fn of_ms(unix_ms: u64) -> Self {
        Self(u32::try_from(unix_ms / Self::MS).unwrap_or(u32::MAX))
    }

    pub fn start_ms(self) -> u64 {
        u64::from(self.0) * Self::MS
    }
}

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsageKey {
    pub day: Day,
    pub key: ApiKeyId,
    /// Who answered; where nobody did, who was to answer first.
    pub provider: ProviderSlug,
    /// The public name that the client asked for.
    pub model: String,
}

/// Counts, or what is to be added to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageCounts {
    pub requests: u64,
    /// Of the requests, those that were not answered in full.
    pub failed: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Of the requests, those whose tokens were estimated.
    pub estimated: u64,
}

impl UsageCounts {
    pub fn add(&mut self, more: Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.failed = self.failed.saturating_add(more.failed);
        self.prompt_tokens = self.prompt_tokens.saturating_add(more.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(more.completion_tokens);
        self.estimated = self.estimated.saturating_add(more.estimated);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    pub of: UsageKey,
    pub counts: UsageCounts,
    /// When the last of the requests ended, in milliseconds since the Unix epoch.
    pub last_at_ms: u64,
}

impl UsageKey {
    /// Longest name of a model, as that of a provider's model: a longer one was not served by anybody.
    pub const MAX_MODEL_CHARS: usize = 256;

    /// Fails as [`StoreError::Refused`] where the model has no name or too long a one.
    pub fn check(&self) -> Result<(), StoreError> {
        let characters = self.model.chars().count();
        if (1..=Self::MAX_MODEL_CHARS).contains(&characters) {
            return Ok(());
        }
        let most = Self::MAX_MODEL_CHARS;
        let reason = format!("model: has {characters} characters; 1 to {most} are allowed");
        Err(StoreError::Refused { reason })
    }
}

impl UsageRow {
    /// Takes in another row of the same key.
    pub fn add(&mut self, counts: UsageCounts, last_at_ms: u64) {
        self.counts.add(counts);
        self.last_at_ms = self.last_at_ms.max(last_at_ms);
    }
}

/// Rows are kept for 400 days.
pub trait UsageStore: Send + Sync {
    /// Adds a row to what is counted already. What fails as `Unavailable` may have been added all the same: to add it
    /// again may count it twice. `Refused` for a row that [`UsageKey::check`] does not accept.
    fn add_usage<'a>(&'a self, row: &'a UsageRow) -> BoxFuture<'a, Result<(), StoreError>>;

    /// All rows of a day that can be read, ordered by key, provider and model.
    fn usage(&self, day: Day) -> BoxFuture<'_, Result<Vec<UsageRow>, StoreError>>;

    /// When each key was last used, as far as it was added; ordered by id. Keys that never were are not in it.
    fn last_used(&self) -> BoxFuture<'_, Result<Vec<(ApiKeyId, u64)>, StoreError>>;
}
