//! The API in this process, on the store: for whoever may read and write that anyhow.

use std::sync::{Arc, LazyLock};

use admin_api::{Actor, AdminParts, Engine, FetchError, RunnerInfo, local_router};
use axum::Router;
use bytes::Bytes;
use catalog::{
    ApiKeyHasher, ApiKeyRecord, BoxFuture, CheckReport, CredentialRef, Explanation, Failure as CheckFailure,
    Health, Provider, ProviderSlug, Secret, Store as _, TestReport, TestRequest, UpstreamHosts,
};
use edge_host::variables;
use url::Url;

use super::{ApiArgs, ApiError, Refusal};
use crate::cli::user::user;
use crate::cli::{Failure, ProviderArgs, StoreArgs};
use crate::config::{self, FileConfig};
use crate::embedded::{EmbeddedGateway, now_ms};
use crate::error_chain::error_chain;
use crate::providers::{gather, open_gateway};
use crate::random;
use crate::store_location::{OpenedStore, StoreLocation, locate_for, variable};

static BASE: LazyLock<Url> = LazyLock::new(|| Url::parse("http://localhost/").expect("it is a URL"));

/// What a command takes to work on a store. No more is opened and read, so that a key can be revoked where the rest of the
/// configuration is not at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing else.
    Store,
    /// The secret under which API keys are hashed.
    KeySecret,
    /// What the configuration says of where providers may lead.
    UpstreamHosts,
    /// A gateway with the whole configuration, which calls providers.
    Gateway,
}

pub(super) struct LocalApi {
    router: Router,
    location: StoreLocation,
    opened: Opened,
}

enum Opened {
    Store(Box<OpenedStore>),
    Gateway(Box<EmbeddedGateway>),
}

impl LocalApi {
    pub(super) async fn open(args: &ApiArgs, needs: Needs) -> Result<Self, Failure> {
        let (store, common) = (&args.store, &args.common);
        let (opened, location, parts) = if needs == Needs::Gateway {
            // What is given is in the file: this start finds other surroundings than the one that serves.
            let none = ProviderArgs { upstreams: Vec::new(), no_discovery: true, no_runner: true };
            let given = gather(&none, store, common)?;
            let location = given.location.clone();
            let opened = Box::new(open_gateway(given, None).await?.0);
            let parts = opened.admin_parts();
            (Opened::Gateway(opened), location, parts)
        } else {
            let location = locate_for(store, common).map_err(Failure::Usage)?;
            let opened = location.open().await?;
            let hasher = match needs {
                Needs::KeySecret => opened.hasher().await?,
                // Nothing is hashed by it.
                _ => ApiKeyHasher::new(&random_secret()?),
            };
            let upstream_hosts = match needs {
                Needs::UpstreamHosts => upstream_hosts(store).map_err(Failure::Usage)?,
                _ => UpstreamHosts::default(),
            };
            let parts = AdminParts {
                store: opened.store.clone(),
                engine: Arc::new(NoGateway),
                master_keys: opened.master_keys().map_err(|wrong| Failure::Usage(vec![wrong]))?,
                hasher,
                upstream_hosts,
            };
            (Opened::Store(Box::new(opened)), location, parts)
        };
        let router = local_router(parts, Actor::local_admin(format!("cli:{}", user())));
        Ok(Self { router, location, opened })
    }

    /// Paths begin after it.
    pub(super) fn base() -> &'static Url {
        &BASE
    }

    pub(super) fn router(&self) -> Router {
        self.router.clone()
    }

    pub(super) fn location(&self) -> &StoreLocation {
        &self.location
    }

    /// The API keeps to itself what is wrong on its side; whoever runs this command is on that side.
    pub(super) async fn explain(&self, refusal: Box<Refusal>, cause: Option<String>) -> ApiError {
        let opened = match &self.opened {
            Opened::Store(opened) => opened,
            Opened::Gateway(gateway) => gateway.opened_store(),
        };
        match (opened.store.config_version().await, cause) {
            (Err(error), _) => ApiError::Failed(error_chain(&opened.error(error))),
            (Ok(_), Some(cause)) => ApiError::Failed(cause),
            (Ok(_), None) => ApiError::Refused(refusal),
        }
    }
}

/// As a gateway on the same configuration has it.
fn upstream_hosts(args: &StoreArgs) -> Result<UpstreamHosts, Vec<String>> {
    let file = match &args.config {
        Some(path) => config::read_only(path, &["upstream_hosts", "private_upstream_hosts"])?,
        None => FileConfig::default(),
    };
    let names = [variables::UPSTREAM_HOSTS, variables::PRIVATE_UPSTREAM_HOSTS];
    let get = |name: &str| variable(name).filter(|_| names.contains(&name));
    let settings = edge_host::settings_from_variables(get, file.settings);
    let settings = settings.map_err(|wrong| wrong.0.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    Ok(settings.upstream_hosts)
}

fn random_secret() -> Result<Secret, Failure> {
    let random = random::hex::<32>();
    random.map(Secret::new).map_err(|error| Failure::failed("the system has no randomness", &error))
}

/// In the place of a gateway, where the command needs none.
struct NoGateway;

const NO_GATEWAY: &str = "there is no gateway in this process";

impl Engine for NoGateway {
    fn given(&self) -> Vec<Provider> {
        Vec::new()
    }

    /// The gateway that serves may read what this command may not.
    fn unreadable(&self, _: &CredentialRef) -> Option<String> {
        None
    }

    fn test(&self, test: TestRequest) -> BoxFuture<'_, TestReport> {
        let model = test.model.unwrap_or_default();
        let report =
            TestReport { at_ms: now_ms(), model, failure: Some(no_gateway()), ..TestReport::default() };
        Box::pin(std::future::ready(report))
    }

    fn check<'a>(&'a self, _: &'a Provider) -> BoxFuture<'a, CheckReport> {
        let report = CheckReport { at_ms: now_ms(), duration_ms: 0, outcome: Err(no_gateway()) };
        Box::pin(std::future::ready(report))
    }

    fn health(&self) -> Vec<(ProviderSlug, Health)> {
        Vec::new()
    }

    fn explain<'a>(&'a self, _: &'a [u8], _: &'a ApiKeyRecord) -> BoxFuture<'a, Explanation> {
        Box::pin(std::future::ready(Explanation::default()))
    }

    fn runners(&self) -> BoxFuture<'_, Result<Vec<RunnerInfo>, String>> {
        Box::pin(std::future::ready(Err(NO_GATEWAY.to_owned())))
    }

    fn drain_runner<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Err(NO_GATEWAY.to_owned())))
    }

    fn fetch<'a>(&'a self, _: &'a str, _: usize) -> BoxFuture<'a, Result<Bytes, FetchError>> {
        Box::pin(std::future::ready(Err(FetchError(NO_GATEWAY.to_owned()))))
    }

    fn unix_ms(&self) -> u64 {
        now_ms()
    }
}

fn no_gateway() -> CheckFailure {
    CheckFailure {
        class: "unusable".to_owned(),
        message: NO_GATEWAY.to_owned(),
        advice: String::new(),
        status: None,
    }
}
