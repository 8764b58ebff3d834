//! A gateway with its store and all else that it needs: what the binary serves, and what a host application mounts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use admin_api::{AdminParts, Authenticator, TokenRules};
use axum::Router;
use catalog::{
    Action, ApiKey, ApiKeyHasher, ApiKeyId, ApiKeyLimits, ApiKeyRecord, By, ClaimError, KeyStore as _,
    MasterKeys, Provider, StoreError, UpstreamHosts, Violations, claim_key_secret,
};
use gateway::{Gateway, GatewayParts, Settings};
use runner_api::Registry;
use runner_api::node::MemoryRegistry;
use store::{DynamoStore, NoCredentials, StoreAccess};

use crate::admin::{self, NativeEngine};
use crate::host::NativeHost;
use crate::router::gateway_router;
use crate::runners::Runners;
use crate::store_location::{OpenedStore, StoreLocation};

/// The id of the key that a first start makes: of several that start at once on one store, one can store it.
const FIRST_KEY: &str = "FirstKey0000";

/// A gateway with everything that it needs. See `examples/integrated.rs`.
pub struct EmbeddedGateway {
    gateway: Gateway,
    store: OpenedStore,
    hasher: ApiKeyHasher,
    master_keys: Arc<dyn MasterKeys>,
    host: Arc<NativeHost>,
    /// Providers besides the stored ones.
    given: Vec<Provider>,
    /// Asks the runners' nodes, until the gateway is closed.
    _watch: Option<AbortOnDrop>,
    /// Where stored providers may lead.
    upstream_hosts: UpstreamHosts,
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
    #[error(transparent)]
    Credentials(#[from] NoCredentials),
    /// The table was reached and did not answer as it should, or was not reached.
    #[error("{access} cannot be used: {error}{advice}")]
    Table { access: Box<StoreAccess>, error: StoreError, advice: String },
    /// The secret under which the store's API keys are hashed is not there, cannot be one, or is another one.
    #[error("{0}")]
    KeySecret(String),
    /// The master keys under which credentials are sealed are not there, or are no master keys.
    #[error("the master keys: {0}")]
    MasterKeys(String),
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
    #[error("the store's API keys are hashed under another secret than this gateway has; nothing was stored")]
    OtherKeySecret,
    #[error("the key could not be stored")]
    Store(#[from] StoreError),
}

impl From<ClaimError> for CreateKeyError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::OtherKeySecret => Self::OtherKeySecret,
            ClaimError::Store(error) => Self::Store(error),
        }
    }
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
        let location = StoreLocation::DataDir(data_dir.as_ref().to_owned());
        Self::open_with_runners(&location, settings, providers, None, None).await
    }

    /// The same on any store, and for providers of type `spawn-cli` too: `runners` are asked now and every few seconds,
    /// in the background, as long as the gateway is there. `credential_dir` has the files that stored providers may name
    /// as their credentials; without it they may name none.
    pub async fn open_with_runners(
        location: &StoreLocation,
        settings: Settings,
        providers: Vec<Provider>,
        runners: Option<Runners>,
        credential_dir: Option<PathBuf>,
    ) -> Result<Self, OpenError> {
        let store = location.open().await?;
        let hasher = store.hasher().await?;
        let master_keys = store.master_keys().map_err(OpenError::MasterKeys)?;
        let mut host = NativeHost::new()?.with_credential_dir(credential_dir);
        let mut registry: Arc<dyn Registry> = Arc::new(MemoryRegistry::default());
        let mut watch = None;
        if let Some(runners) = runners {
            host = host.with_runners(&runners);
            registry = if runners.are_in_store() { store.store.clone() } else { runners.registry() };
            runners.refresh().await;
            watch = Some(AbortOnDrop(tokio::spawn(async move { runners.watch().await })));
        }
        let host = Arc::new(host);
        let upstream_hosts = settings.upstream_hosts.clone();
        let gateway = Gateway::new(GatewayParts {
            host: host.clone(),
            store: store.store.clone(),
            hasher: hasher.clone(),
            limits: store.store.clone(),
            runners: registry,
            master_keys: master_keys.clone(),
            usage: store.store.clone(),
            settings,
        });
        gateway.set_providers(providers.clone());
        gateway.load().await.map_err(|error| store.error(error))?;
        Ok(Self {
            gateway,
            store,
            hasher,
            master_keys,
            host,
            given: providers,
            _watch: watch,
            upstream_hosts,
        })
    }

    /// The store that it serves from.
    pub(crate) fn opened_store(&self) -> &OpenedStore {
        &self.store
    }

    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Every route of the API; see [`gateway_router`].
    pub fn router(&self) -> Router {
        gateway_router(self.gateway.clone())
    }

    /// The administration API with its console and document, for whoever has a token that `authenticator` accepts: what
    /// [`admin_api::router`] has, bounded. See [`token_authenticator`](Self::token_authenticator).
    pub fn admin_router(&self, authenticator: Authenticator) -> Router {
        admin::bounded(admin_api::router(self.admin_parts(), authenticator))
    }

    /// Of tokens that `dyad-gateway admin token` prints for this data directory. `None` on a table, which has no secret
    /// for them.
    pub fn token_authenticator(&self) -> Result<Option<Authenticator>, OpenError> {
        let Some(secret) = self.store.token_secret()? else { return Ok(None) };
        let authenticator = Authenticator::hs256(&secret, TokenRules::default());
        Ok(Some(authenticator.expect("the secret has 64 digits")))
    }

    /// What the administration API works with, for a router with another authentication.
    pub fn admin_parts(&self) -> AdminParts {
        let engine = NativeEngine {
            gateway: self.gateway.clone(),
            host: self.host.clone(),
            given: self.given.clone(),
        };
        AdminParts {
            store: self.store.store.clone(),
            engine: Arc::new(engine),
            master_keys: self.master_keys.clone(),
            hasher: self.hasher.clone(),
            upstream_hosts: self.upstream_hosts.clone(),
        }
    }

    /// Makes an API key and stores its hash: the key itself cannot be had again.
    pub async fn create_key(&self, new: NewApiKey) -> Result<ApiKey, CreateKeyError> {
        create_key(&self.store.store, &self.hasher, new).await
    }

    /// Whether any API key was ever made.
    pub async fn has_keys(&self) -> Result<bool, StoreError> {
        self.store.has_keys().await
    }

    /// Makes a key if none was ever made, as otherwise nobody could use the gateway. Of several instances that begin on
    /// one store at the same time, one makes it. None is made where a table does not let this gateway do so.
    pub async fn create_first_key(&self, new: NewApiKey) -> Result<Option<ApiKey>, CreateKeyError> {
        match self.has_keys().await {
            Ok(true) | Err(StoreError::Denied { .. }) => return Ok(None),
            Ok(false) => {}
            Err(error) => return Err(error.into()),
        }
        let id = ApiKeyId::parse(FIRST_KEY).expect("it has 12 letters and digits");
        let key = ApiKey::with_id(id, &random()?);
        match store_key(&self.store.store, &self.hasher, &key, new).await {
            Ok(()) => Ok(Some(key)),
            Err(CreateKeyError::Store(StoreError::Conflict { .. } | StoreError::Denied { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

pub(crate) async fn create_key(
    store: &DynamoStore,
    hasher: &ApiKeyHasher,
    new: NewApiKey,
) -> Result<ApiKey, CreateKeyError> {
    let key = ApiKey::from_random(&random()?);
    store_key(store, hasher, &key, new).await?;
    Ok(key)
}

async fn store_key(
    store: &DynamoStore,
    hasher: &ApiKeyHasher,
    key: &ApiKey,
    new: NewApiKey,
) -> Result<(), CreateKeyError> {
    let now = now_ms();
    let life_ms = new.expires_in.map(|life| u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    let record = ApiKeyRecord {
        id: key.id().clone(),
        hash: hasher.hash(key),
        label: new.label,
        created_at_ms: now,
        expires_at_ms: life_ms.map(|life_ms| now.saturating_add(life_ms)),
        revoked_at_ms: None,
        owner: String::new(),
        previous: None,
        allowed_models: new.allowed_models,
        limits: new.limits,
    };
    record.check().map_err(CreateKeyError::Refused)?;
    let by = by(Action::Create);
    claim_key_secret(store, hasher, &by).await?;
    store.put_key(&record, None, &by).await?;
    Ok(())
}

/// This program, as the audit log has it.
pub(crate) fn by(action: Action) -> By {
    By::program("dyad-gateway", action, now_ms())
}

fn random() -> Result<[u8; 32], getrandom::Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    Ok(random)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
