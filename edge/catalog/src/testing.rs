//! Writes without an administrator, for the tests of other crates.

use crate::{
    Action, ApiKeyRecord, BoxFuture, By, KeySecretCheck, Provider, ProviderId, ProviderSlug, Store,
    StoreError, StoredProvider,
};

/// Whoever tests.
pub fn by(action: Action) -> By {
    By::program("test", action, 1_700_000_000_000)
}

/// A record of the provider; the same one for the same slug.
pub fn stored(provider: &Provider) -> StoredProvider {
    let mut bytes = [b'-'; 16];
    let slug = provider.slug.as_str().as_bytes();
    let length = slug.len().min(bytes.len());
    bytes[..length].copy_from_slice(&slug[..length]);
    StoredProvider::new(ProviderId::from_random(&bytes), provider.clone(), &by(Action::Create))
}

fn action(expected: Option<u64>) -> Action {
    if expected.is_some() { Action::Update } else { Action::Create }
}

/// The writes of [`Store`], by whoever tests.
pub trait SeedStore {
    fn seed_provider<'a>(
        &'a self,
        provider: &'a Provider,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;

    fn remove_provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
        expected: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    fn seed_key<'a>(
        &'a self,
        key: &'a ApiKeyRecord,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;

    fn seed_key_secret(
        &self,
        check: KeySecretCheck,
        expected: Option<u64>,
    ) -> BoxFuture<'_, Result<u64, StoreError>>;
}

impl<T: Store + ?Sized> SeedStore for T {
    fn seed_provider<'a>(
        &'a self,
        provider: &'a Provider,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move { self.put_provider(&stored(provider), expected, &by(action(expected))).await })
    }

    fn remove_provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
        expected: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move { self.delete_provider(slug, expected, &by(Action::Delete)).await })
    }

    fn seed_key<'a>(
        &'a self,
        key: &'a ApiKeyRecord,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move { self.put_key(key, expected, &by(action(expected))).await })
    }

    fn seed_key_secret(
        &self,
        check: KeySecretCheck,
        expected: Option<u64>,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.put_key_secret(check, expected, &by(action(expected))).await })
    }
}
