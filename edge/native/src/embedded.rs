//! A gateway on the embedded store of a data directory: what the binary serves, and what a host application mounts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use catalog::{
    ApiKey, ApiKeyHasher, ApiKeyLimits, ApiKeyRecord, KeyStore as _, Provider, StoreError, Violations,
};
use gateway::{Gateway, GatewayParts, Settings, WholeWindow};
use runner_api::Registry;
use runner_api::node::MemoryRegistry;
use store::DynamoStore;

use crate::data_dir::DataDir;
use crate::host::NativeHost;
use crate::router::gateway_router;
use crate::runners::Runners;

/// A gateway with everything that it needs on one machine. See `examples/integrated.rs`.
pub struct EmbeddedGateway {
    gateway: Gateway,
    store: Arc<DynamoStore>,
    hasher: ApiKeyHasher,
    /// Asks the runners' nodes, until the gateway is closed.
    _watch: Option<AbortOnDrop>,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a gateway cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the data directory {} cannot be used", path.display())]
    DataDir { path: PathBuf, source: std::io::Error },
    #[error("the store in {} cannot be opened", path.display())]
    Store { path: PathBuf, source: Box<store::OpenError> },
    #[error("TLS for upstreams cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("the configuration cannot be read from the store")]
    Load(#[source] StoreError),
}

/// What an API key may do, and for how long. The default: everything, for ever.
#[derive(Clone, Debug, Default)]
pub struct NewApiKey {
    /// What the key is for, as lists show it.
    pub label: String,
    pub expires_in: Option<Duration>,
    /// Model ids; `None` allows all.
    pub allowed_models: Option<Vec<String>>,
    pub limits: ApiKeyLimits,
}

/// Why an API key was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateKeyError {
    #[error("{0}")]
    Refused(Violations),
    #[error("the system has no randomness")]
    Randomness(#[from] getrandom::Error),
    #[error("the key could not be stored")]
    Store(#[from] StoreError),
}

impl EmbeddedGateway {
    /// Opens the store in `data_dir` (made, for its owner only, if it is not there) and reads the configuration.
    /// `providers` are served besides the stored ones, of which one with the same slug wins.
    ///
    /// Providers that discover their models have none until [`Gateway::discover`] has asked them; call it now and
    /// then, since they come and go. Needs a Tokio runtime with timers and I/O, now and later.
    pub async fn open(
        data_dir: impl AsRef<Path>,
        settings: Settings,
        providers: Vec<Provider>,
    ) -> Result<Self, OpenError> {
        Self::open_with_runners(data_dir, settings, providers, None).await
    }

    /// The same, for providers of type `spawn-cli` too: `runners` are asked now and every few seconds, in the
    /// background, as long as the gateway is there.
    pub async fn open_with_runners(
        data_dir: impl AsRef<Path>,
        settings: Settings,
        providers: Vec<Provider>,
        runners: Option<Runners>,
    ) -> Result<Self, OpenError> {
        let data_dir = DataDir::locate(Some(data_dir.as_ref()));
        let store = Arc::new(open_store(&data_dir).await?);
        let has_keys = !store.keys().await.map_err(OpenError::Load)?.keys.is_empty();
        let hasher = data_dir
            .hasher(has_keys)
            .map_err(|source| OpenError::DataDir { path: data_dir.path().to_owned(), source })?;
        let mut host = NativeHost::new()?;
        let mut registry: Arc<dyn Registry> = Arc::new(MemoryRegistry::default());
        let mut watch = None;
        if let Some(runners) = runners {
            host = host.with_runners(&runners);
            registry = runners.registry();
            runners.refresh().await;
            watch = Some(AbortOnDrop(tokio::spawn(async move { runners.watch().await })));
        }
        let gateway = Gateway::new(GatewayParts {
            host: Arc::new(host),
            store: store.clone(),
            hasher: hasher.clone(),
            leases: Arc::new(WholeWindow),
            runners: registry,
            settings,
        });
        gateway.set_providers(providers);
        gateway.load().await.map_err(OpenError::Load)?;
        Ok(Self { gateway, store, hasher, _watch: watch })
    }

    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Every route of the API; see [`gateway_router`].
    pub fn router(&self) -> Router {
        gateway_router(self.gateway.clone())
    }

    /// Makes an API key and stores its hash: the key itself cannot be had again.
    pub async fn create_key(&self, new: NewApiKey) -> Result<ApiKey, CreateKeyError> {
        create_key(&self.store, &self.hasher, new).await
    }

    /// Whether any API key was ever made.
    pub async fn has_keys(&self) -> Result<bool, StoreError> {
        Ok(!self.store.keys().await?.keys.is_empty())
    }
}

/// The store of the data directory, which is made if need be.
pub(crate) async fn open_store(data_dir: &DataDir) -> Result<DynamoStore, OpenError> {
    let path = || data_dir.path().to_owned();
    data_dir.create().map_err(|source| OpenError::DataDir { path: path(), source })?;
    DynamoStore::open_embedded(data_dir.store_file())
        .await
        .map_err(|source| OpenError::Store { path: path(), source: Box::new(source) })
}

pub(crate) async fn create_key(
    store: &DynamoStore,
    hasher: &ApiKeyHasher,
    new: NewApiKey,
) -> Result<ApiKey, CreateKeyError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let key = ApiKey::from_random(&random);
    let now = now_ms();
    let life_ms = new.expires_in.map(|life| u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    let record = ApiKeyRecord {
        id: key.id().clone(),
        hash: hasher.hash(&key),
        label: new.label,
        created_at_ms: now,
        expires_at_ms: life_ms.map(|life_ms| now.saturating_add(life_ms)),
        revoked_at_ms: None,
        allowed_models: new.allowed_models,
        limits: new.limits,
    };
    record.check().map_err(CreateKeyError::Refused)?;
    store.put_key(&record, None).await?;
    Ok(key)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
