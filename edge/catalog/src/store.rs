//! The store ports: what the gateway needs kept, named by need.

use std::future::Future;
use std::pin::Pin;

use crate::{
    ApiKeyId, ApiKeyRecord, AuditHead, AuditPage, AuditQuery, By, KeptAnswer, KeySecretCheck, ProviderId,
    ProviderSlug, ProviderStatus, StoredProvider, UsageStore,
};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Counts changes of the configuration: every write raises one of the counts by one, in the same transaction. While a
/// count stands still, what was read from the store is still true.
///
/// Keys are counted in groups, so that a change of one key leaves most others as they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigVersion {
    /// Writes of providers, and of the key secret's check.
    pub providers: u64,
    /// Writes of API keys, by [`ApiKeyId::group`].
    pub keys: [u64; ApiKeyId::GROUPS],
}

/// Nothing was ever written.
impl Default for ConfigVersion {
    fn default() -> Self {
        Self { providers: 0, keys: [0; ApiKeyId::GROUPS] }
    }
}

/// What [`Store::config`] reads at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigSnapshot {
    /// `None` if the counts are there and cannot be read: nobody knows then what has changed.
    pub version: Option<ConfigVersion>,
    /// All providers, enabled or not, ordered by slug.
    pub providers: Vec<Versioned<StoredProvider>>,
    /// Of the secret under which the API keys are hashed; `None` if it was never written, or cannot be read.
    pub key_secret: Option<KeySecretCheck>,
    pub left_out: Vec<LeftOut>,
}

/// All keys that can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyList {
    /// Revoked and expired ones too, ordered by id.
    pub keys: Vec<Versioned<ApiKeyRecord>>,
    pub left_out: Vec<LeftOut>,
}

/// Something that is kept and cannot be used: it was written by another version, or is damaged. It is passed over, and
/// named to whoever looks after the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it is, such as `CONFIG/PROVIDER#ollama`.
    pub name: String,
    pub reason: String,
}

impl LeftOut {
    const MAX_NAME_CHARS: usize = 128;
    const MAX_REASON_CHARS: usize = 512;

    /// What cannot be read may have any name and be wrong in many ways: both texts are cut, and cleared of control
    /// characters.
    pub fn new(name: &str, reason: &str) -> Self {
        let clear =
            |text: &str, max| text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { name: clear(name, Self::MAX_NAME_CHARS), reason: clear(reason, Self::MAX_REASON_CHARS) }
    }
}

/// A record with the version of its last write (1 for the first), for conditional updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    pub value: T,
    pub version: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The record is not at the expected version (or exists already, or is gone). Read again and retry.
    #[error("{what} was changed by somebody else")]
    Conflict { what: String },
    /// The store cannot be reached, is slow or throttles. Trying again later may help.
    #[error("the store does not answer: {reason}")]
    Unavailable { reason: String },
    /// The record is one that no store takes; nothing was written. Writing it again fails again.
    #[error("not stored: {reason}")]
    Refused { reason: String },
    /// What is kept there was written by another version, or is damaged.
    #[error("{} cannot be read: {}", .0.name, .0.reason)]
    Unreadable(LeftOut),
    /// There is nothing that could keep anything: it has yet to be made, or another one was meant.
    #[error("the store is not set up: {reason}")]
    NotSetUp { reason: String },
    /// The store does not accept who asks, or does not let them do this.
    #[error("the store refuses the credentials: {reason}")]
    Denied { reason: String },
    /// The store answered something this version does not understand, or refuses the request for good.
    #[error("the store is not usable: {reason}")]
    Broken { reason: String },
}

impl StoreError {
    /// The class, for metrics and readiness.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::Unavailable { .. } => "unavailable",
            Self::Refused { .. } => "refused",
            Self::Unreadable(_) => "unreadable",
            Self::NotSetUp { .. } => "not_set_up",
            Self::Denied { .. } => "denied",
            Self::Broken { .. } => "broken",
        }
    }

    pub fn provider_conflict(slug: &ProviderSlug) -> Self {
        Self::Conflict { what: format!("provider {slug}") }
    }

    pub fn key_secret_conflict() -> Self {
        Self::Conflict { what: "the check of the key secret".to_owned() }
    }

    pub fn key_conflict(id: &ApiKeyId) -> Self {
        Self::Conflict { what: format!("API key {id}") }
    }
}

/// Providers, as an administrator configured them.
///
/// Every write has its entry in the audit log, and is kept with it or not at all: what was there before is what the store
/// itself has. `by` also brings the answer that is kept for a repeated request; if there is one already under its id,
/// nothing is written and the write is a `Conflict`.
///
/// A write that fails as `Unavailable` may have taken place all the same: read before writing again.
pub trait ProviderStore: Send + Sync {
    /// `Unreadable` if there is a record that cannot be read.
    fn provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
    ) -> BoxFuture<'a, Result<Option<Versioned<StoredProvider>>, StoreError>>;

    /// Writes a provider if it is at version `expected` (`None`: if it does not exist). Answers its new version.
    /// `Refused` for a provider that [`Provider::check`](crate::Provider::check) would not accept or that has an inline
    /// credential.
    fn put_provider<'a>(
        &'a self,
        provider: &'a StoredProvider,
        expected: Option<u64>,
        by: &'a By,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Deletes a provider if it is at version `expected`. One that is made later begins again at version 1.
    fn delete_provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
        expected: u64,
        by: &'a By,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// API keys, by public id. What is said of writes at [`ProviderStore`] holds here.
pub trait KeyStore: Send + Sync {
    /// `Unreadable` if there is a record that cannot be read.
    fn find_key<'a>(
        &'a self,
        id: &'a ApiKeyId,
    ) -> BoxFuture<'a, Result<Option<Versioned<ApiKeyRecord>>, StoreError>>;

    fn keys(&self) -> BoxFuture<'_, Result<KeyList, StoreError>>;

    /// Writes a key if it is at version `expected` (`None`: if it does not exist). Answers its new version.
    /// `Refused` for a record that [`ApiKeyRecord::check`] does not accept.
    fn put_key<'a>(
        &'a self,
        key: &'a ApiKeyRecord,
        expected: Option<u64>,
        by: &'a By,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// The check of the secret under which all the keys are hashed, so that who has another one can be told.
    /// `Unreadable` if there is one that cannot be read.
    fn key_secret(&self) -> BoxFuture<'_, Result<Option<Versioned<KeySecretCheck>>, StoreError>>;

    /// Writes it if it is at version `expected` (`None`: if there is none). Answers its new version.
    fn put_key_secret<'a>(
        &'a self,
        check: KeySecretCheck,
        expected: Option<u64>,
        by: &'a By,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;
}

/// Everything that a gateway serves from.
///
/// A reading that meets a write under way may have the new count with the old record, or the other way round: what was
/// read when a count was first seen is to be read once more a moment later.
pub trait Store: ProviderStore + KeyStore {
    /// The counts and all providers: what an instance starts from. One request, as long as there is not very much.
    fn config(&self) -> BoxFuture<'_, Result<ConfigSnapshot, StoreError>>;

    /// The counts alone: one small read. `Unreadable` if they cannot be read.
    fn config_version(&self) -> BoxFuture<'_, Result<ConfigVersion, StoreError>>;
}

/// The audit log, to read. It is written with each change; see [`ProviderStore`].
pub trait AuditStore: Send + Sync {
    /// The latest first. Reads so many entries at once that it answers soon: see [`AuditPage::next`].
    fn audit<'a>(&'a self, query: &'a AuditQuery) -> BoxFuture<'a, Result<AuditPage, StoreError>>;

    /// Up to `limit` entries from `first_seq` on, the earliest first: to check the chain. Fewer at the end, where they are
    /// long, and before one that cannot be read; none where there are no more. `Unreadable` if the first cannot be read.
    fn audit_from(
        &self,
        first_seq: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<crate::AuditEntry>, StoreError>>;

    fn audit_head(&self) -> BoxFuture<'_, Result<AuditHead, StoreError>>;
}

/// Answers that were given to requests with an idempotency key; they are written with the change that they tell of.
pub trait AnswerStore: Send + Sync {
    /// `None` if there is none, or none any more at `now_ms`.
    fn kept_answer(&self, id: [u8; 32], now_ms: u64)
    -> BoxFuture<'_, Result<Option<KeptAnswer>, StoreError>>;
}

/// What was found out about providers, whoever did: the last word counts. No change of the configuration, so it is in no
/// count and no audit log. Forgotten after 90 days without a word.
pub trait StatusStore: Send + Sync {
    /// What is `None` in the status stays as it was: who tests does not take away what who checks has found. `Refused`
    /// for one of more than 64 KB.
    fn put_status<'a>(
        &'a self,
        id: &'a ProviderId,
        status: &'a ProviderStatus,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Of all providers that have one that can be read, ordered by id.
    fn statuses(&self) -> BoxFuture<'_, Result<Vec<(ProviderId, ProviderStatus)>, StoreError>>;
}

/// Everything that is kept: what administrators work on.
pub trait AdminStore: Store + AuditStore + AnswerStore + StatusStore + UsageStore {}

impl<T: Store + AuditStore + AnswerStore + StatusStore + UsageStore + ?Sized> AdminStore for T {}
