//! The cache of configuration and API keys. The store is asked for one small version item every few seconds, and for
//! the rest only when that version has moved; while it does not answer, the last known configuration serves on.
//!
//! A change is effective on every instance within [`Settings::config_max_age`](crate::Settings), as long as the store
//! answers: an instance that has requests checks in the background every
//! [`config_refresh`](crate::Settings::config_refresh), and one that has had none checks before it serves the next. A
//! change of a key makes an instance read again those of the same group, each when it is next used.

mod keys;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use catalog::{
    ApiKeyId, KeySecretCheck, LeftOut, Model, Provider, ProviderSlug, Store, StoreError, StoredProvider,
    UpstreamHosts,
};

pub(crate) use self::keys::CachedKey;
use self::keys::Miss;
use crate::admit::Usage;
use crate::changes::Changes;
use crate::credentials::{CredentialSource, OpenedCredentials};
use crate::freshness::{Failure, Freshness, Turn, millis};
use crate::host::{BoxFuture, Host, Origin};
use crate::metrics::{Metrics, StoreCall};
use crate::routes::{Routes, Upstream};
use crate::settings::Settings;

pub(crate) struct Config {
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    metrics: Arc<Metrics>,
    /// Of the secret that this gateway hashes API keys under.
    key_secret: KeySecretCheck,
    freshness: Arc<Freshness>,
    credentials: CredentialSource,
    /// Where upstreams may be.
    upstream_hosts: UpstreamHosts,
    /// Everything that the routes are made from.
    sources: Mutex<Sources>,
    routes: ArcSwap<Routes>,
    /// By group: a record that was read under another generation is read again before it is used.
    key_generations: [AtomicU64; ApiKeyId::GROUPS],
    /// By group: when the check began that last found nothing changed, in milliseconds of the monotonic clock.
    keys_confirmed_ms: [AtomicU64; ApiKeyId::GROUPS],
    /// Known records that are being read again, and since when.
    reading: Mutex<HashMap<ApiKeyId, Duration>>,
    /// Look-ups of ids that were not known: the second they were made in, and how many.
    unknown_lookups: Mutex<(u64, u32)>,
    keys: RwLock<HashMap<ApiKeyId, Arc<CachedKey>>>,
    misses: RwLock<HashMap<ApiKeyId, Miss>>,
    /// What keys have in use on this instance, which outlives their records: one may be unreadable for a moment.
    usages: Mutex<HashMap<ApiKeyId, Arc<Usage>>>,
}

#[derive(Default)]
struct Sources {
    /// From the store.
    stored: Vec<StoredProvider>,
    opened: Arc<OpenedCredentials>,
    left_out: Vec<LeftOut>,
    /// The store's API keys were hashed under another secret.
    key_secret_differs: bool,
    changes: Changes,
    /// The turn in which they were read.
    turn: u64,
    /// From the command line, a file or the surroundings; a stored one of the same slug wins.
    given: Vec<Provider>,
    discovered: HashMap<ProviderSlug, Vec<Model>>,
}

impl Sources {
    fn providers(&self) -> impl Iterator<Item = (&Provider, Origin)> {
        let given = self.given.iter().filter(|g| self.stored.iter().all(|s| s.provider.slug != g.slug));
        let stored = self.stored.iter().map(|stored| (&stored.provider, Origin::Stored));
        stored.chain(given.map(|provider| (provider, Origin::Given)))
    }
}

impl Config {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        metrics: Arc<Metrics>,
        key_secret: KeySecretCheck,
        credentials: CredentialSource,
        settings: &Settings,
    ) -> Self {
        Self {
            store,
            host,
            metrics,
            key_secret,
            credentials,
            upstream_hosts: settings.upstream_hosts.clone(),
            freshness: Freshness::new("configuration", settings.config_refresh, settings.config_max_age),
            sources: Mutex::default(),
            routes: ArcSwap::default(),
            key_generations: [const { AtomicU64::new(0) }; ApiKeyId::GROUPS],
            keys_confirmed_ms: [const { AtomicU64::new(0) }; ApiKeyId::GROUPS],
            reading: Mutex::default(),
            unknown_lookups: Mutex::default(),
            usages: Mutex::default(),
            keys: RwLock::default(),
            misses: RwLock::default(),
        }
    }

    pub(crate) fn routes(&self) -> arc_swap::Guard<Arc<Routes>> {
        self.routes.load()
    }

    pub(crate) fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// What is kept and cannot be read, as far as this instance came across it.
    pub(crate) fn left_out(&self) -> Vec<LeftOut> {
        let mut left_out = {
            let sources = self.sources();
            sources.left_out.iter().cloned().chain(sources.opened.left_out()).collect::<Vec<_>>()
        };
        let misses = self.misses.read().unwrap_or_else(PoisonError::into_inner);
        left_out.extend(misses.values().filter_map(|miss| miss.left_out.clone()));
        left_out
    }

    /// Whether the store's API keys were hashed under another secret than this gateway's, so that none is valid here.
    pub(crate) fn key_secret_differs(&self) -> bool {
        self.sources().key_secret_differs
    }

    /// Checks the configuration when it is due.
    pub(crate) async fn ensure_fresh(self: &Arc<Self>) {
        let read = |turn| -> BoxFuture<'static, ()> {
            let config = self.clone();
            Box::pin(async move {
                // What went wrong is kept and logged by the turn.
                let _ = config.read(turn).await;
            })
        };
        self.freshness.ensure(&*self.host, read).await;
    }

    /// Reads the configuration now.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        self.read(self.freshness.take_turn(&*self.host)).await
    }

    async fn read(&self, turn: Turn) -> Result<(), StoreError> {
        let read = self.read_changes(&turn).await;
        turn.end(&*self.host, read.as_ref().copied().map_err(Failure::from));
        read
    }

    /// Reads the counts and, if they concern the providers, those.
    async fn read_changes(&self, turn: &Turn) -> Result<(), StoreError> {
        if self.freshness.is_loaded() {
            let version = match self.ask(StoreCall::Version, self.store.config_version()).await {
                Ok(version) => Some(version),
                Err(StoreError::Unreadable(_)) => None,
                Err(error) => return Err(error),
            };
            let concerns_providers = {
                let mut sources = self.sources();
                // A later reading was faster.
                if turn.number < sources.turn {
                    return Ok(());
                }
                sources.turn = turn.number;
                sources.changes.see_keys(version.as_ref(), turn.began);
                self.publish_key_generations(&sources.changes, turn.began);
                sources.changes.concern_providers(version.as_ref(), turn.began)
            };
            if !concerns_providers {
                self.open_again(turn).await;
                return Ok(());
            }
        }
        let snapshot = self.ask(StoreCall::Config, self.store.config()).await?;
        let stored: Vec<_> = snapshot.providers.into_iter().map(|stored| stored.value).collect();
        let known = self.sources().opened.clone();
        let opened = self.credentials.open(&stored, &known).await;
        self.change_sources(|sources| {
            if turn.number < sources.turn {
                return;
            }
            sources.turn = turn.number;
            sources.changes.see_keys(snapshot.version.as_ref(), turn.began);
            sources.changes.see_providers(snapshot.version.as_ref(), turn.began);
            self.publish_key_generations(&sources.changes, turn.began);
            for item in snapshot.left_out.iter().filter(|item| !sources.left_out.contains(item)) {
                log_left_out(item);
            }
            sources.left_out = snapshot.left_out;
            let differs = snapshot.key_secret.is_some_and(|stored| stored != self.key_secret);
            if differs && !sources.key_secret_differs {
                tracing::error!(
                    "no API key is valid here: the store's were hashed under another key secret than this gateway has"
                );
            }
            sources.key_secret_differs = differs;
            sources.stored = stored;
            sources.opened = Arc::new(opened);
        });
        Ok(())
    }

    /// A master key that was missing may be there by now.
    async fn open_again(&self, turn: &Turn) {
        let (stored, known) = {
            let sources = self.sources();
            if !self.credentials.is_due(&sources.opened) {
                return;
            }
            (sources.stored.clone(), sources.opened.clone())
        };
        let opened = self.credentials.open(&stored, &known).await;
        if opened == *known {
            return;
        }
        self.change_sources(|sources| {
            if turn.number >= sources.turn {
                sources.opened = Arc::new(opened);
            }
        });
    }

    fn publish_key_generations(&self, changes: &Changes, began: Duration) {
        let published = self.key_generations.iter().zip(&self.keys_confirmed_ms);
        for ((published, confirmed_ms), generation) in published.zip(changes.key_generations()) {
            if published.swap(generation, Ordering::AcqRel) == generation {
                confirmed_ms.store(millis(began), Ordering::Relaxed);
            }
        }
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
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
            let sources = self.sources();
            sources.discovered.get(&slug) == Some(&models)
        };
        if !unchanged {
            self.change_sources(|sources| {
                sources.discovered.insert(slug, models);
            });
        }
    }

    /// The provider, ready to be called, or why it cannot be.
    pub(crate) fn upstream(&self, provider: &Provider, origin: Origin) -> Result<Upstream, String> {
        self.build_upstream(&self.sources(), provider, origin)
    }

    fn build_upstream(
        &self,
        sources: &Sources,
        provider: &Provider,
        origin: Origin,
    ) -> Result<Upstream, String> {
        // One that is only being tested has nothing of the record that it would replace: its credentials are for where
        // that one leads.
        let is_it = |stored: &&StoredProvider| {
            let known = &stored.provider;
            known.slug == provider.slug
                && known.adapter == provider.adapter
                && known.credential == provider.credential
        };
        let stored = sources.stored.iter().find(is_it).filter(|_| origin == Origin::Stored);
        let credentials = || self.credentials.of(provider, origin, stored, &sources.opened);
        Upstream::build(provider, origin, &self.upstream_hosts, credentials)
    }

    /// Where the provider is written, as it is here.
    pub(crate) fn origin(&self, provider: &Provider) -> Origin {
        if self.sources().given.contains(provider) { Origin::Given } else { Origin::Stored }
    }

    pub(crate) fn enabled(&self) -> Vec<(Provider, Origin)> {
        let sources = self.sources();
        let enabled = sources.providers().filter(|(provider, _)| provider.enabled);
        enabled.map(|(provider, origin)| (provider.clone(), origin)).collect()
    }

    /// Enabled providers whose models are asked of the upstream.
    pub(crate) fn discovering(&self) -> Vec<(Provider, Origin)> {
        let mut providers = self.enabled();
        providers.retain(|(provider, _)| provider.adapter.discovers_models());
        providers
    }

    /// Providers that have the model and are not among its targets, with the reason.
    pub(crate) fn left_aside(&self, model: &str) -> Vec<(Provider, Model, String)> {
        let sources = self.sources();
        let of_model = sources.providers().filter_map(|(provider, origin)| {
            let own = model.strip_prefix(provider.slug.as_str()).and_then(|rest| rest.strip_prefix('/'));
            let found = provider.models.iter().find(|m| m.id == model || own == Some(&m.id))?;
            let reason = if provider.enabled {
                self.build_upstream(&sources, provider, origin).err()?
            } else {
                "it is not enabled".to_owned()
            };
            Some((provider.clone(), found.clone(), reason))
        });
        of_model.collect()
    }

    fn change_sources(&self, change: impl FnOnce(&mut Sources)) {
        let mut sources = self.sources();
        change(&mut sources);
        let with_models = sources
            .providers()
            .map(|(provider, origin)| {
                let mut models = provider.models.clone();
                if provider.adapter.discovers_models() {
                    let found = sources.discovered.get(&provider.slug).into_iter().flatten();
                    let new = found.filter(|f| provider.models.iter().all(|m| m.id != f.id));
                    models.extend(new.cloned());
                }
                (provider.clone(), origin, models)
            })
            .collect();
        let upstream = |provider: &_, origin| self.build_upstream(&sources, provider, origin);
        let routes = Routes::build(with_models, upstream, &self.metrics);
        routes.keep_lessons(&self.routes.load());
        self.routes.store(Arc::new(routes));
    }
}

pub(crate) fn log_left_out(item: &LeftOut) {
    tracing::warn!(item = item.name, reason = item.reason, "a stored item cannot be read and is left out");
}
