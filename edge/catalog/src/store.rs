//! The store ports: what the gateway needs kept, named by need.

use std::future::Future;
use std::pin::Pin;

use crate::{ApiKeyId, ApiKeyRecord, Provider, ProviderSlug};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Counts changes of the whole configuration (providers and API keys): every write raises it by one, in the
/// same transaction. While it stands still, whatever was read from the store is still true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ConfigVersion(pub u64);

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
    /// The store answered something this version does not understand, or refuses the request for good.
    #[error("the store is not usable: {reason}")]
    Broken { reason: String },
}

impl StoreError {
    pub fn provider_conflict(slug: &ProviderSlug) -> Self {
        Self::Conflict { what: format!("provider {slug}") }
    }

    pub fn key_conflict(id: &ApiKeyId) -> Self {
        Self::Conflict { what: format!("API key {id}") }
    }
}

/// Providers, as an administrator configured them.
///
/// A write that fails as `Unavailable` may have taken place all the same: read before writing again.
pub trait ProviderStore: Send + Sync {
    /// All providers, enabled or not, ordered by slug. Records that cannot be read are left out and logged.
    fn providers(&self) -> BoxFuture<'_, Result<Vec<Versioned<Provider>>, StoreError>>;

    /// `Broken` if there is a record that cannot be read.
    fn provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
    ) -> BoxFuture<'a, Result<Option<Versioned<Provider>>, StoreError>>;

    /// Writes a provider if it is at version `expected` (`None`: if it does not exist). Answers its new version.
    /// `Refused` for a provider that [`Provider::check`] would not accept or that has an inline credential.
    fn put_provider<'a>(
        &'a self,
        provider: &'a Provider,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Deletes a provider if it is at version `expected`. One that is made later begins again at version 1.
    fn delete_provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
        expected: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// API keys, by public id. What is said of writes at [`ProviderStore`] holds here.
pub trait KeyStore: Send + Sync {
    /// `Broken` if there is a record that cannot be read.
    fn find_key<'a>(
        &'a self,
        id: &'a ApiKeyId,
    ) -> BoxFuture<'a, Result<Option<Versioned<ApiKeyRecord>>, StoreError>>;

    /// All keys, revoked and expired ones too, ordered by id. Records that cannot be read are left out and logged.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<Versioned<ApiKeyRecord>>, StoreError>>;

    /// Writes a key if it is at version `expected` (`None`: if it does not exist). Answers its new version.
    /// `Refused` for a record that [`ApiKeyRecord::check`] does not accept.
    fn put_key<'a>(
        &'a self,
        key: &'a ApiKeyRecord,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;
}

/// Everything that is kept. Read the version before what it stands for: a change in between is then seen at the next
/// look.
pub trait Store: ProviderStore + KeyStore {
    /// 0 until the first write. One small read.
    fn config_version(&self) -> BoxFuture<'_, Result<ConfigVersion, StoreError>>;
}
