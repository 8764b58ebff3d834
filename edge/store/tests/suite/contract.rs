//! What every store must do. Each test runs on each engine, from an empty store.

use std::collections::BTreeSet;

use catalog::testing::{SeedStore as _, by};
use catalog::{
    Action, Adapter, ApiKeyId, ApiKeyLimits, ApiKeyRecord, ConfigVersion, CredentialRef, KeySecretCheck,
    PreviousHash, Provider, ProviderId, Secret, Store, StoreError, StoredProvider, Versioned,
};
use tokio::task::JoinSet;

use crate::backend::Backend;
use crate::records::{cli_provider, fat_key, fat_provider, key, provider, rotated_provider};

macro_rules! on_every_engine {
    ($($test:ident)*) => {
        on_every_engine!(@ memory: $($test)*);
        on_every_engine!(@ embedded: $($test)*);
        on_every_engine!(@ over_http: $($test)*);
    };
    (@ $engine:ident: $($test:ident)*) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test(super::Backend::$engine().await).await;
                }
            )*
        }
    };
}

pub(crate) use on_every_engine;

on_every_engine! {
    providers_are_kept
    what_is_known_of_a_provider_is_kept
    keys_are_kept
    the_key_secrets_check_is_kept
    stale_writes_change_nothing
    every_change_is_counted
    what_breaks_the_rules_is_refused
    keys_of_all_groups_are_listed_in_order
    long_lists_are_whole_and_ordered
    one_of_many_creators_wins
    no_update_is_lost
}

fn is_conflict<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Conflict { .. }))
}

fn is_refused<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Refused { .. }))
}

/// How many writes there were, of providers and of keys.
async fn writes(store: &dyn Store) -> (u64, u64) {
    let version = store.config_version().await.unwrap();
    (version.providers, version.keys.iter().sum())
}

/// All providers, where all can be read.
async fn providers(store: &dyn Store) -> Vec<Versioned<Provider>> {
    let config = store.config().await.unwrap();
    assert_eq!(config.left_out, []);
    let value = |stored: Versioned<StoredProvider>| Versioned {
        value: stored.value.provider,
        version: stored.version,
    };
    config.providers.into_iter().map(value).collect()
}

async fn keys(store: &dyn Store) -> Vec<Versioned<ApiKeyRecord>> {
    let list = store.keys().await.unwrap();
    assert_eq!(list.left_out, []);
    list.keys
}

async fn providers_are_kept(backend: Backend) {
    let store = backend.store;
    let (a, mut b) = (cli_provider("a"), provider("b"));
    b.credential = CredentialRef::Env("B_KEY".to_owned());
    assert_eq!(store.provider(&a.slug).await.unwrap(), None);
    assert_eq!(providers(&*store).await, []);

    assert_eq!(store.seed_provider(&b, None).await.unwrap(), 1);
    assert_eq!(store.seed_provider(&a, None).await.unwrap(), 1);
    let changed = Provider { enabled: false, ..b.clone() };
    assert_eq!(store.seed_provider(&changed, Some(1)).await.unwrap(), 2);

    let changed = Versioned { value: changed, version: 2 };
    let kept = store.provider(&b.slug).await.unwrap().unwrap();
    assert_eq!((kept.value.provider, kept.version), (changed.value.clone(), changed.version));
    assert_eq!(providers(&*store).await, [Versioned { value: a.clone(), version: 1 }, changed]);

    store.remove_provider(&b.slug, 2).await.unwrap();
    assert_eq!(store.provider(&b.slug).await.unwrap(), None);
    assert_eq!(providers(&*store).await, [Versioned { value: a, version: 1 }]);
    assert_eq!(store.seed_provider(&b, None).await.unwrap(), 1);
}

async fn what_is_known_of_a_provider_is_kept(backend: Backend) {
    let store = backend.store;
    let rotated = rotated_provider("a");
    let slug = rotated.provider.slug.clone();
    store.put_provider(&rotated, None, &by(Action::Create)).await.unwrap();
    let kept = Versioned { value: rotated.clone(), version: 1 };
    assert_eq!(store.provider(&slug).await.unwrap(), Some(kept.clone()));
    assert_eq!(store.config().await.unwrap().providers, [kept]);

    let mut other = rotated;
    other.id = ProviderId::from_random(&[1; 16]);
    "ü@example.com".clone_into(&mut other.history.created_by);
    other.history.updated_at_ms = u64::MAX;
    other.history.previous = None;
    store.put_provider(&other, Some(1), &by(Action::Update)).await.unwrap();
    let kept = Versioned { value: other, version: 2 };
    assert_eq!(store.provider(&slug).await.unwrap(), Some(kept.clone()));
    assert_eq!(store.config().await.unwrap().providers, [kept]);
}

async fn the_key_secrets_check_is_kept(backend: Backend) {
    let store = backend.store;
    let (one, other) = (KeySecretCheck([7; 32]), KeySecretCheck([8; 32]));
    assert_eq!(store.key_secret().await.unwrap(), None);
    assert_eq!(store.config().await.unwrap().key_secret, None);
    assert_eq!(store.seed_key_secret(one, None).await.unwrap(), 1);
    for stale in [None, Some(2)] {
        assert!(is_conflict(&store.seed_key_secret(other, stale).await));
    }
    assert_eq!(store.key_secret().await.unwrap(), Some(Versioned { value: one, version: 1 }));
    assert_eq!(store.seed_key_secret(other, Some(1)).await.unwrap(), 2);
    assert_eq!(store.key_secret().await.unwrap(), Some(Versioned { value: other, version: 2 }));
    let config = store.config().await.unwrap();
    assert_eq!((config.key_secret, config.left_out), (Some(other), vec![]));
    assert_eq!(writes(&*store).await, (2, 0), "counted, so that every instance reads it");
}

async fn keys_are_kept(backend: Backend) {
    let store = backend.store;
    let plain = key(1);
    let full = ApiKeyRecord {
        hash: [255; 32],
        label: "Jürgens Laptop ☕".to_owned(),
        created_at_ms: 1,
        expires_at_ms: Some(u64::MAX),
        revoked_at_ms: Some(3),
        owner: "Jürgen".to_owned(),
        previous: Some(PreviousHash { hash: [254; 32], until_ms: u64::MAX }),
        allowed_models: Some(vec!["vendor/model:free".to_owned(), "ü".to_owned()]),
        limits: ApiKeyLimits {
            requests_per_minute: Some(u32::MAX),
            concurrent_requests: Some(1),
            tokens_per_minute: Some(1),
            tokens_per_day: Some(2),
            tokens_per_month: Some(ApiKeyLimits::MAX_TOKENS),
        },
        ..key(2)
    };
    let nothing_allowed = ApiKeyRecord { allowed_models: Some(Vec::new()), ..key(3) };
    assert_eq!(store.find_key(&plain.id).await.unwrap(), None);
    for key in [&plain, &full, &nothing_allowed] {
        assert_eq!(store.seed_key(key, None).await.unwrap(), 1);
        assert_eq!(
            store.find_key(&key.id).await.unwrap(),
            Some(Versioned { value: key.clone(), version: 1 })
        );
    }
    let revoked = ApiKeyRecord { revoked_at_ms: Some(2_000), ..plain };
    assert_eq!(store.seed_key(&revoked, Some(1)).await.unwrap(), 2);

    let mut expected =
        [(revoked, 2), (full, 1), (nothing_allowed, 1)].map(|(value, version)| Versioned { value, version });
    expected.sort_by(|one, other| one.value.id.cmp(&other.value.id));
    assert_eq!(keys(&*store).await, expected);
}

async fn stale_writes_change_nothing(backend: Backend) {
    let store = backend.store;
    let (known, unknown) = (provider("known"), provider("unknown"));
    let changed = Provider { rank: 1, ..known.clone() };
    store.seed_provider(&known, None).await.unwrap();
    store.seed_provider(&known, Some(1)).await.unwrap();
    for expected in [None, Some(0), Some(1), Some(3), Some(u64::MAX)] {
        assert!(is_conflict(&store.seed_provider(&changed, expected).await), "{expected:?}");
    }
    assert!(is_conflict(&store.seed_provider(&unknown, Some(1)).await));
    assert!(is_conflict(&store.remove_provider(&known.slug, 1).await));
    assert!(is_conflict(&store.remove_provider(&unknown.slug, 1).await));
    assert_eq!(providers(&*store).await, [Versioned { value: known, version: 2 }]);

    let known = key(1);
    store.seed_key(&known, None).await.unwrap();
    let changed = ApiKeyRecord { label: "changed".to_owned(), ..known.clone() };
    for expected in [None, Some(0), Some(2), Some(u64::MAX)] {
        assert!(is_conflict(&store.seed_key(&changed, expected).await), "{expected:?}");
    }
    assert!(is_conflict(&store.seed_key(&key(2), Some(1)).await));
    assert_eq!(keys(&*store).await, [Versioned { value: known, version: 1 }]);

    assert_eq!(writes(&*store).await, (2, 1), "only the three writes that took place are counted");
}

async fn every_change_is_counted(backend: Backend) {
    let store = backend.store;
    let mut expected = ConfigVersion::default();
    let seen = async || {
        let version = store.config_version().await.unwrap();
        assert_eq!(store.config().await.unwrap().version.as_ref(), Some(&version));
        version
    };
    assert_eq!(seen().await, expected);
    let (provider, one, other) = (provider("a"), key(1), key(2));
    assert_ne!(one.id.group(), other.id.group());
    store.seed_provider(&provider, None).await.unwrap();
    expected.providers = 1;
    assert_eq!(seen().await, expected);
    store.seed_key(&one, None).await.unwrap();
    expected.keys[one.id.group()] = 1;
    assert_eq!(seen().await, expected);
    store.seed_key(&one, Some(1)).await.unwrap();
    store.seed_key(&other, None).await.unwrap();
    expected.keys[one.id.group()] = 2;
    expected.keys[other.id.group()] = 1;
    assert_eq!(seen().await, expected);
    store.seed_provider(&provider, Some(1)).await.unwrap();
    store.remove_provider(&provider.slug, 2).await.unwrap();
    expected.providers = 3;
    assert_eq!(seen().await, expected);
}

async fn what_breaks_the_rules_is_refused(backend: Backend) {
    let store = backend.store;
    let inline = Provider { credential: CredentialRef::Inline(Secret::new("hunter2")), ..provider("a") };
    let nameless = Provider { name: String::new(), ..provider("a") };
    let mut unchecked_url = provider("a");
    let Adapter::Local(config) = &mut unchecked_url.adapter else { panic!("{unchecked_url:?}") };
    config.base_url.push('/');
    let mut unchecked_cli = cli_provider("a");
    let Adapter::SpawnCli(config) = &mut unchecked_cli.adapter else { panic!("{unchecked_cli:?}") };
    config.cli.push('/');
    for refused in [inline, nameless, unchecked_url, unchecked_cli] {
        assert!(is_refused(&store.seed_provider(&refused, None).await), "{refused:?}");
    }
    assert!(is_refused(&store.seed_key(&ApiKeyRecord { label: "a\nb".to_owned(), ..key(1) }, None).await));
    assert_eq!(writes(&*store).await, (0, 0));
}

async fn keys_of_all_groups_are_listed_in_order(backend: Backend) {
    let store = backend.store;
    let mut records = Vec::new();
    for (first, seed) in ApiKeyId::FIRST_CHARACTERS.iter().rev().zip(0..) {
        let id = ApiKeyId::parse(&format!("{}{seed:011}", char::from(*first))).unwrap();
        records.push(ApiKeyRecord { id, ..key(seed) });
        store.seed_key(&records[records.len() - 1], None).await.unwrap();
    }
    records.reverse();
    let listed: Vec<_> = keys(&*store).await.into_iter().map(|key| key.value).collect();
    assert_eq!(listed, records);
}

async fn long_lists_are_whole_and_ordered(backend: Backend) {
    let store = backend.store;
    let mut records = Vec::new();
    for seed in 0..9 {
        records.push(fat_key(seed));
        store.seed_key(&records[records.len() - 1], None).await.unwrap();
    }
    records.sort_by(|one, other| one.id.cmp(&other.id));
    let listed: Vec<_> = keys(&*store).await.into_iter().map(|key| key.value).collect();
    assert!(listed == records, "{} of {} keys, or out of order", listed.len(), records.len());

    let names = ["a", "a-1", "a1", "b", "c", "d", "e"].map(fat_provider);
    for provider in names.iter().rev() {
        store.seed_provider(provider, None).await.unwrap();
    }
    let listed: Vec<_> = providers(&*store).await.into_iter().map(|provider| provider.value).collect();
    assert!(listed == names, "{} of {} providers, or out of order", listed.len(), names.len());
}

async fn one_of_many_creators_wins(backend: Backend) {
    let mut creators = JoinSet::new();
    for creator in 0..16 {
        let store = backend.store.clone();
        creators.spawn(async move {
            let provider = Provider { rank: creator, ..provider("a") };
            match store.seed_provider(&provider, None).await {
                Ok(version) => Some((provider, version)),
                Err(StoreError::Conflict { .. }) => None,
                Err(error) => panic!("{error}"),
            }
        });
    }
    let winners: Vec<_> = creators.join_all().await.into_iter().flatten().collect();
    let [(value, version)] = <[_; 1]>::try_from(winners).unwrap();
    assert_eq!(providers(&*backend.store).await, [Versioned { value, version }]);
}

/// Sixteen writers raise one number five times each: read, add one, write, and again if another one was faster.
async fn no_update_is_lost(backend: Backend) {
    const WRITERS: u32 = 16;
    const EACH: u32 = 5;
    let start = ApiKeyRecord {
        limits: ApiKeyLimits { requests_per_minute: Some(1), ..ApiKeyLimits::default() },
        ..key(1)
    };
    backend.store.seed_key(&start, None).await.unwrap();
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (store, id) = (backend.store.clone(), start.id.clone());
        writers.spawn(async move {
            let mut written = Vec::new();
            while written.len() < EACH as usize {
                let Versioned { mut value, version } = store.find_key(&id).await.unwrap().unwrap();
                value.limits.requests_per_minute = value.limits.requests_per_minute.map(|limit| limit + 1);
                match store.seed_key(&value, Some(version)).await {
                    Ok(version) => written.push(version),
                    Err(StoreError::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            written
        });
    }
    let written: BTreeSet<u64> = writers.join_all().await.into_iter().flatten().collect();
    let last = u64::from(WRITERS * EACH) + 1;
    assert!(written.into_iter().eq(2..=last), "every version has exactly one writer");
    let end = backend.store.find_key(&start.id).await.unwrap().unwrap();
    assert_eq!((end.value.limits.requests_per_minute, end.version), (Some(WRITERS * EACH + 1), last));
    assert_eq!(writes(&*backend.store).await, (0, last));
}
