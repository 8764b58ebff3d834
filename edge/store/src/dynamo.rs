//! The ports on a DynamoDB client.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, IdentityCache, Region, StalledStreamProtectionConfig};
use aws_smithy_async::rt::sleep::AsyncSleep;
use catalog::{
    ApiKeyId, ApiKeyRecord, AuditedChange, BoxFuture, By, ConfigSnapshot, ConfigVersion, KeyList,
    KeySecretCheck, KeyStore, LeftOut, ProviderSlug, ProviderStore, Store, StoreError, StoredProvider,
    Versioned,
};
use futures_util::future::{Either, select};
use futures_util::lock::Mutex;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::clock::FleetClock;
use crate::error::{RetryCollisions, broken, store_error, unavailable};
use crate::item::{self, ConfigItem, Item, ItemError, Key, PK, PROVIDER_CHANGES};
use crate::registry::SharedClis;
use crate::sdk::{SharedAsyncSleep, SharedCredentialsProvider, SharedHttpClient, SharedTimeSource};
use crate::write::{Target, next_version};

/// Pages of 1 MB that a list may have: it has to fit into the memory of a small instance.
const MAX_PAGES: usize = 32;
/// Partitions that are read at once where a list is spread over many. Workers have six connections.
pub(crate) const PARALLEL: usize = 4;

/// What the host brings along, so that this crate opens no socket, sleeps on no runtime and reads no clock.
#[derive(Clone, Debug)]
pub struct HostPorts {
    pub http_client: SharedHttpClient,
    pub sleep: SharedAsyncSleep,
    pub time: SharedTimeSource,
}

#[derive(Clone, Debug)]
pub struct DynamoOptions {
    pub table: String,
    /// An AWS region, such as `eu-central-1`. It is part of each request's signature, so compatible servers need one too.
    pub region: String,
    /// Where the API is, if it is not AWS's own endpoint of the region.
    pub endpoint_url: Option<String>,
    /// Asked at every request: a provider that fetches credentials has to keep them itself.
    pub credentials: SharedCredentialsProvider,
    pub timing: Timing,
}

/// How long the store may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// One request, once.
    pub attempt: Duration,
    /// One call of a port, with all its pages and retries.
    pub call: Duration,
}

impl Default for Timing {
    /// 2 s and 8 s: for a store across a network.
    fn default() -> Self {
        Self { attempt: Duration::from_secs(2), call: Duration::from_secs(8) }
    }
}

/// The store ports on a DynamoDB table. Cloning it is cheap; clones share connections.
#[derive(Clone, Debug)]
pub struct DynamoStore {
    pub(crate) client: Client,
    pub(crate) table: String,
    pub(crate) sleep: SharedAsyncSleep,
    pub(crate) clock: FleetClock,
    pub(crate) clis: SharedClis,
    /// Whoever makes a change has it.
    pub(crate) changes: Arc<Mutex<()>>,
    deadline: Duration,
}

impl DynamoStore {
    /// Connects to nothing yet.
    pub fn new(host: HostPorts, options: DynamoOptions) -> Self {
        let retries = RetryConfig::standard()
            .with_max_attempts(6)
            .with_initial_backoff(Duration::from_millis(50))
            .with_max_backoff(Duration::from_secs(1));
        let clock = FleetClock::new(host.time);
        let mut config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(options.region))
            .credentials_provider(options.credentials)
            // The caching one needs a runtime's timers, and the protection a stream that can be timed: neither is
            // there on every WebAssembly host.
            .identity_cache(IdentityCache::no_cache())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder().operation_attempt_timeout(options.timing.attempt).build(),
            )
            .retry_config(retries)
            .retry_classifier(RetryCollisions)
            .http_client(clock.watch(host.http_client))
            .sleep_impl(host.sleep.clone())
            .time_source(clock.clone());
        config.set_endpoint_url(options.endpoint_url);
        Self {
            client: Client::from_conf(config.build()),
            table: options.table,
            sleep: host.sleep,
            clock,
            clis: SharedClis::default(),
            changes: Arc::default(),
            deadline: options.timing.call,
        }
    }

    /// A port's call, whatever it is made of, within its deadline.
    pub(crate) fn call<'a, T: Send + 'a>(
        &'a self,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        Box::pin(async move {
            match select(pin!(call), self.sleep.sleep(self.deadline)).await {
                Either::Left((Err(StoreError::NotSetUp { reason }), _)) => {
                    Err(StoreError::NotSetUp { reason: format!("{reason}: {:?}", self.table) })
                }
                Either::Left((result, _)) => result,
                Either::Right(_) => Err(unavailable(format!("no answer within {:?}", self.deadline))),
            }
        })
    }

    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        let request = self.client.get_item().table_name(&self.table).consistent_read(true);
        let answer =
            request.set_key(Some(key.to_item())).send().await.map_err(|error| store_error(&error))?;
        Ok(answer.item)
    }

    /// One record; `Unreadable` if it cannot be read.
    pub(crate) async fn find<T>(
        &self,
        key: Key,
        read: fn(&Item) -> Result<T, ItemError>,
    ) -> Result<Option<T>, StoreError> {
        let Some(item) = self.get(&key).await? else { return Ok(None) };
        read(&item).map(Some).map_err(|error| StoreError::Unreadable(item::left_out(&item, &error)))
    }

    /// What can be read of a partition, ordered by sort key, and what cannot.
    pub(crate) async fn list<T>(
        &self,
        pk: &str,
        consistent: bool,
        read: fn(&Item) -> Result<T, ItemError>,
    ) -> Result<(Vec<T>, Vec<LeftOut>), StoreError> {
        let (mut records, mut left_out) = (Vec::new(), Vec::new());
        let mut next = None;
        for _ in 0..MAX_PAGES {
            let page = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(consistent)
                .key_condition_expression("#pk = :pk")
                .expression_attribute_names("#pk", PK)
                .expression_attribute_values(":pk", item::string(pk))
                .set_exclusive_start_key(next)
                .send()
                .await
                .map_err(|error| store_error(&error))?;
            for item in page.items() {
                match read(item) {
                    Ok(record) => records.push(record),
                    Err(error) => left_out.push(item::left_out(item, &error)),
                }
            }
            next = page.last_evaluated_key;
            if next.is_none() {
                return Ok((records, left_out));
            }
        }
        Err(broken(format!("the partition {pk} has more than {MAX_PAGES} MB")))
    }
}

impl ProviderStore for DynamoStore {
    fn provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
    ) -> BoxFuture<'a, Result<Option<Versioned<StoredProvider>>, StoreError>> {
        self.call(self.find(Key::provider(slug), item::to_provider))
    }

    fn put_provider<'a>(
        &'a self,
        provider: &'a StoredProvider,
        expected: Option<u64>,
        by: &'a By,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.call(async move {
            let slug = &provider.provider.slug;
            let conflict = || StoreError::provider_conflict(slug);
            let version = next_version(expected, conflict)?;
            let item = item::from_provider(provider, version)?;
            let target = Target {
                key: Key::provider(slug),
                read: item::to_provider,
                expected,
                count: PROVIDER_CHANGES,
                conflict: &conflict,
            };
            let change = |before: Option<&_>| AuditedChange::of_provider(before, Some(provider));
            self.write(target, Some(item), by, change).await?;
            Ok(version)
        })
    }

    fn delete_provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
        expected: u64,
        by: &'a By,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.call(async move {
            let conflict = || StoreError::provider_conflict(slug);
            let target = Target {
                key: Key::provider(slug),
                read: item::to_provider,
                expected: Some(expected),
                count: PROVIDER_CHANGES,
                conflict: &conflict,
            };
            self.write(target, None, by, |before| AuditedChange::of_provider(before, None)).await
        })
    }
}

impl KeyStore for DynamoStore {
    fn find_key<'a>(
        &'a self,
        id: &'a ApiKeyId,
    ) -> BoxFuture<'a, Result<Option<Versioned<ApiKeyRecord>>, StoreError>> {
        self.call(self.find(Key::api_key(id), item::to_key))
    }

    fn keys(&self) -> BoxFuture<'_, Result<KeyList, StoreError>> {
        self.call(async move {
            // In the order of the groups, which is the order of the ids.
            let mut groups = stream::iter(0..ApiKeyId::GROUPS)
                .map(|group| async move { self.list(&item::key_partition(group), true, item::to_key).await })
                .buffered(PARALLEL);
            let mut list = KeyList::default();
            while let Some((keys, left_out)) = groups.try_next().await? {
                list.keys.extend(keys);
                list.left_out.extend(left_out);
            }
            Ok(list)
        })
    }

    fn put_key<'a>(
        &'a self,
        key: &'a ApiKeyRecord,
        expected: Option<u64>,
        by: &'a By,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.call(async move {
            let conflict = || StoreError::key_conflict(&key.id);
            let version = next_version(expected, conflict)?;
            let item = item::from_key(key, version)?;
            let count = item::key_changes(key.id.group());
            let target = Target {
                key: Key::api_key(&key.id),
                read: item::to_key,
                expected,
                count: &count,
                conflict: &conflict,
            };
            self.write(target, Some(item), by, |before| AuditedChange::of_key(before, key)).await?;
            Ok(version)
        })
    }

    fn key_secret(&self) -> BoxFuture<'_, Result<Option<Versioned<KeySecretCheck>>, StoreError>> {
        self.call(self.find(Key::key_secret(), item::to_key_secret))
    }

    fn put_key_secret<'a>(
        &'a self,
        check: KeySecretCheck,
        expected: Option<u64>,
        by: &'a By,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.call(async move {
            let conflict = StoreError::key_secret_conflict;
            let version = next_version(expected, conflict)?;
            let item = item::from_key_secret(check, version);
            let target = Target {
                key: Key::key_secret(),
                read: item::to_key_secret,
                expected,
                // Counted so that every instance reads it.
                count: PROVIDER_CHANGES,
                conflict: &conflict,
            };
            let change = |before: Option<&_>| AuditedChange::of_key_secret(before.copied(), check);
            self.write(target, Some(item), by, change).await?;
            Ok(version)
        })
    }
}

impl Store for DynamoStore {
    fn config(&self) -> BoxFuture<'_, Result<ConfigSnapshot, StoreError>> {
        self.call(async {
            let (items, left_out) = self.list(item::CONFIG, true, item::to_config_item).await?;
            let version_is_unreadable = left_out.iter().any(|item| item.name == item::VERSION_NAME);
            let mut snapshot = ConfigSnapshot { left_out, ..ConfigSnapshot::default() };
            snapshot.version = (!version_is_unreadable).then(ConfigVersion::default);
            for item in items {
                match item {
                    ConfigItem::Version(version) => snapshot.version = Some(*version),
                    ConfigItem::Provider(provider) => snapshot.providers.push(*provider),
                    ConfigItem::KeySecret(check) => snapshot.key_secret = Some(check),
                }
            }
            Ok(snapshot)
        })
    }

    fn config_version(&self) -> BoxFuture<'_, Result<ConfigVersion, StoreError>> {
        self.call(async { Ok(self.find(Key::version(), item::to_config_version).await?.unwrap_or_default()) })
    }
}
