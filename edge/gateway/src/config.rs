//! The cache of configuration and API keys. The store is asked for one small version item every few seconds, and for
//! the rest only when that version has moved; while it does not answer, the last known configuration serves on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use catalog::{ApiKeyId, ApiKeyRecord, ConfigVersion, Model, Provider, ProviderSlug, Store, StoreError};

use crate::admit::Usage;
use crate::freshness::Freshness;
use crate::host::{BoxFuture, Host};
use crate::metrics::{Metrics, StoreCall};
use crate::routes::Routes;

/// Keys held in memory; beyond it an arbitrary one makes room.
const MAX_CACHED_KEYS: usize = 100_000;
/// Ids that were looked up and do not exist, likewise.
const MAX_CACHED_MISSES: usize = 10_000;
/// Reads of the store on behalf of keys that are not known, per instance.
const MAX_UNKNOWN_LOOKUPS_PER_SECOND: u32 = 200;

pub(crate) struct Config {
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    metrics: Arc<Metrics>,
    freshness: Freshness,
    /// Everything that the routes are made from.
    sources: Mutex<Sources>,
    routes: ArcSwap<Routes>,
    version: AtomicU64,
    /// Look-ups of ids that were not known: the second they were made in, and how many.
    unknown_lookups: Mutex<(u64, u32)>,
    keys: RwLock<HashMap<ApiKeyId, Arc<CachedKey>>>,
    misses: RwLock<HashMap<ApiKeyId, ConfigVersion>>,
}

#[derive(Default)]
struct Sources {
    /// From the store.
    stored: Vec<Provider>,
    /// From the command line, a file or the surroundings; a stored one of the same slug wins.
    given: Vec<Provider>,
    discovered: HashMap<ProviderSlug, Vec<Model>>,
}

impl Sources {
    fn providers(&self) -> impl Iterator<Item = &Provider> {
        let given = self.given.iter().filter(|g| self.stored.iter().all(|s| s.slug != g.slug));
        self.stored.iter().chain(given)
    }
}

/// A key's record with what it has used on this instance.
pub(crate) struct CachedKey {
    pub record: ApiKeyRecord,
    version: ConfigVersion,
    pub usage: Arc<Usage>,
}

impl Config {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        metrics: Arc<Metrics>,
        refresh_after: Duration,
        max_age: Duration,
    ) -> Self {
        Self {
            store,
            host,
            metrics,
            freshness: Freshness::new(refresh_after, max_age),
            sources: Mutex::default(),
            routes: ArcSwap::default(),
            version: AtomicU64::new(0),
            unknown_lookups: Mutex::default(),
            keys: RwLock::default(),
            misses: RwLock::default(),
        }
    }

    pub(crate) fn routes(&self) -> arc_swap::Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// Whether any configuration has been read, and whether the store answered when last asked.
    pub(crate) fn state(&self) -> (bool, bool) {
        (self.freshness.is_loaded(), self.freshness.source_answers())
    }

    /// Checks the configuration when it is due.
    pub(crate) async fn ensure_fresh(self: &Arc<Self>) {
        let refresh = || -> BoxFuture<'static, ()> {
            let config = self.clone();
            Box::pin(async move {
                if let Err(error) = config.refresh().await {
                    tracing::warn!(%error, "the configuration could not be checked; the last known one serves");
                }
            })
        };
        self.freshness.ensure(&*self.host, refresh).await;
    }

    /// Reads the version and, if it has moved, the providers.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        let reading = async {
            let version = self.ask(StoreCall::Version, self.store.config_version()).await?;
            if self.freshness.is_loaded() && version.0 == self.version.load(Ordering::Acquire) {
                return Ok(());
            }
            let stored = self.ask(StoreCall::Providers, self.store.providers()).await?;
            let stored = stored.into_iter().map(|p| p.value).collect();
            self.change_sources(|sources| sources.stored = stored);
            // Keys that were read under an older version are read again before they are used.
            self.version.store(version.0, Ordering::Release);
            Ok(())
        };
        self.freshness.read(&*self.host, reading).await
    }

    async fn ask<T>(
        &self,
        call: StoreCall,
        future: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.metrics.store_call(call, &*self.host, future).await
    }

    pub(crate) fn set_given(&self, providers: Vec<Provider>) {
        self.change_sources(|sources| sources.given = providers);
    }

    pub(crate) fn set_discovered(&self, slug: ProviderSlug, models: Vec<Model>) {
        let unchanged = {
            let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            sources.discovered.get(&slug) == Some(&models)
        };
        if !unchanged {
            self.change_sources(|sources| {
                sources.discovered.insert(slug, models);
            });
        }
    }

    pub(crate) fn enabled(&self) -> Vec<Provider> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.providers().filter(|p| p.enabled).cloned().collect()
    }

    /// Enabled providers whose models are asked of the upstream.
    pub(crate) fn discovering(&self) -> Vec<Provider> {
        let mut providers = self.enabled();
        providers.retain(|provider| provider.adapter.discovers_models());
        providers
    }

    fn change_sources(&self, change: impl FnOnce(&mut Sources)) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut sources);
        let with_models = sources
            .providers()
            .map(|provider| {
                let mut models = provider.models.clone();
                if provider.adapter.discovers_models() {
                    let found = sources.discovered.get(&provider.slug).into_iter().flatten();
                    let new = found.filter(|f| provider.models.iter().all(|m| m.id != f.id));
                    models.extend(new.cloned());
                }
                (provider.clone(), models)
            })
            .collect();
        let routes = Routes::build(with_models, &*self.host, &self.metrics);
        routes.keep_lessons(&self.routes.load());
        self.routes.store(Arc::new(routes));
    }

    /// The record of a key; `Ok(None)` if there is none. With the store down, the last known record.
    pub(crate) async fn key(&self, id: &ApiKeyId) -> Result<Option<Arc<CachedKey>>, StoreError> {
        let version = ConfigVersion(self.version.load(Ordering::Acquire));
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(known) = &known
            && known.version == version
        {
            return Ok(Some(known.clone()));
        }
        if self.misses.read().unwrap_or_else(PoisonError::into_inner).get(id) == Some(&version) {
            return Ok(None);
        }
        if known.is_none() && !self.may_look_up() {
            return Err(StoreError::Unavailable {
                reason: "too many unknown API keys are being tried".to_owned(),
            });
        }
        match self.ask(StoreCall::Key, self.store.find_key(id)).await {
            Ok(Some(found)) => Ok(Some(self.remember(id, found.value, version))),
            Ok(None) => {
                self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(id);
                let mut misses = self.misses.write().unwrap_or_else(PoisonError::into_inner);
                insert_bounded(&mut misses, MAX_CACHED_MISSES, id, version);
                Ok(None)
            }
            Err(error) => match known {
                Some(known) => Ok(Some(known)),
                None => Err(error),
            },
        }
    }

    /// A well-formed key with any id is easily made up, and each costs a read before it is refused.
    fn may_look_up(&self) -> bool {
        let second = self.host.monotonic().as_secs();
        let mut lookups = self.unknown_lookups.lock().unwrap_or_else(PoisonError::into_inner);
        if lookups.0 != second {
            *lookups = (second, 0);
        }
        lookups.1 += 1;
        lookups.1 <= MAX_UNKNOWN_LOOKUPS_PER_SECOND
    }

    /// Keeps what a key has in use: look-ups of the same key may run side by side, and must count as one.
    fn remember(&self, id: &ApiKeyId, record: ApiKeyRecord, version: ConfigVersion) -> Arc<CachedKey> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let known = keys.get(id).map(|known| known.usage.clone());
        let usage = known.unwrap_or_else(|| Arc::new(Usage::new(id.clone())));
        let entry = Arc::new(CachedKey { record, version, usage });
        insert_bounded(&mut keys, MAX_CACHED_KEYS, id, entry.clone());
        entry
    }
}

fn insert_bounded<V>(map: &mut HashMap<ApiKeyId, V>, max: usize, id: &ApiKeyId, value: V) {
    if map.len() >= max
        && !map.contains_key(id)
        && let Some(victim) = map.keys().next().cloned()
    {
        map.remove(&victim);
    }
    map.insert(id.clone(), value);
}
