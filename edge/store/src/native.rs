//! A table as a native process reaches it: over TLS of its own, with the credentials that AWS's own tools would find.
//!
//! Credentials come from the first of: the variables `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
//! `AWS_SESSION_TOKEN`; the shared configuration and credentials files (static keys and assumed roles); a web identity
//! (`AWS_WEB_IDENTITY_TOKEN_FILE`, as in EKS); the container's role (ECS, EKS Pod Identity); the instance's role
//! (EC2, `IMDSv2`). Those that end are fetched again ahead of their end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::imds;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_dynamodb::config::{BehaviorVersion, Region};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::Instant;

use crate::sdk::{SharedAsyncSleep, SharedCredentialsProvider, SharedTimeSource};
use crate::{DynamoOptions, DynamoStore, HostPorts, StoreAccess, Timing};

/// For all the places in which credentials may be.
const LOAD_WITHIN: Duration = Duration::from_secs(5);
/// For the instance's metadata service, which does not answer at all where there is none.
const INSTANCE_WITHIN: Duration = Duration::from_secs(3);
/// Credentials are fetched again so long before they end.
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// Between two attempts to fetch them.
const PAUSE: Duration = Duration::from_secs(10);

/// There are no credentials, and why. The reason has no secret in it.
#[derive(Debug, thiserror::Error)]
#[error(
    "there are no AWS credentials for {access}: {reason} (looked for in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the shared credentials file, a web identity, the container's role and the instance's role)"
)]
pub struct NoCredentials {
    access: StoreAccess,
    reason: String,
}

impl DynamoStore {
    /// The store on a table, with credentials that are there: they are looked for now, which takes some seconds at
    /// most. The table itself is not asked for anything yet. Needs a Tokio runtime with timers and I/O, now and later.
    pub async fn connect(access: &StoreAccess) -> Result<Self, NoCredentials> {
        let ports = ports();
        let chain = credentials_chain(&ports, &access.region).await;
        let credentials = KeptCredentials::new(chain);
        credentials
            .current()
            .await
            .map_err(|error| NoCredentials { access: access.clone(), reason: reason(&error) })?;
        Ok(Self::on_table(ports, access, SharedCredentialsProvider::new(credentials)))
    }

    /// The same with credentials that are at hand.
    pub fn connect_with(access: &StoreAccess, credentials: SharedCredentialsProvider) -> Self {
        Self::on_table(ports(), access, credentials)
    }

    fn on_table(ports: HostPorts, access: &StoreAccess, credentials: SharedCredentialsProvider) -> Self {
        let options = DynamoOptions {
            table: access.table.clone(),
            region: access.region.clone(),
            endpoint_url: access.endpoint_url.clone(),
            credentials,
            timing: Timing::default(),
        };
        Self::new(ports, options)
    }
}

/// Servers are verified against the system's certificates (`SSL_CERT_FILE` is honoured).
fn ports() -> HostPorts {
    let tls = Provider::Rustls(CryptoMode::Ring);
    HostPorts {
        http_client: aws_smithy_http_client::Builder::new().tls_provider(tls).build_https(),
        sleep: SharedAsyncSleep::new(TokioSleep::new()),
        time: SharedTimeSource::new(SystemTimeSource::new()),
    }
}

async fn credentials_chain(ports: &HostPorts, region: &str) -> DefaultCredentialsChain {
    let region = Region::new(region.to_owned());
    let config = ProviderConfig::without_region()
        .with_behavior_version(Some(BehaviorVersion::latest()))
        .with_region(Some(region.clone()))
        .with_http_client(ports.http_client.clone())
        .with_sleep_impl(ports.sleep.clone())
        .with_time_source(ports.time.clone());
    let instance =
        imds::Client::builder().configure(&config).max_attempts(2).operation_timeout(INSTANCE_WITHIN);
    DefaultCredentialsChain::builder()
        .configure(config)
        .region(region)
        .imds_client(instance.build())
        .build()
        .await
}

/// What went wrong, and what that came from: neither has more than names and statuses in it.
fn reason(error: &CredentialsError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

type Fetched = Result<Credentials, Arc<CredentialsError>>;
type Load = Shared<BoxFuture<'static, Fetched>>;

/// Keeps credentials, and fetches those that end again, in the background while the former are still good.
struct KeptCredentials<P>(Arc<Kept<P>>);

struct Kept<P> {
    source: P,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Credentials>,
    /// The latest attempt to fetch them, perhaps still under way, and when it began.
    load: Option<(Load, Instant)>,
}

impl<P> std::fmt::Debug for KeptCredentials<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeptCredentials")
    }
}

impl<P: ProvideCredentials + 'static> ProvideCredentials for KeptCredentials<P> {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.current().await.map_err(CredentialsError::provider_error)
        })
    }
}

impl<P: ProvideCredentials + 'static> KeptCredentials<P> {
    fn new(source: P) -> Self {
        Self(Arc::new(Kept { source, state: Mutex::default() }))
    }

    /// Good credentials; those that are there, as long as they are good.
    async fn current(&self) -> Fetched {
        let load = {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            let ends_within = |time| {
                let end = state.current.as_ref().map(Credentials::expiry);
                end.is_none_or(|end| end.is_some_and(|end| end <= SystemTime::now() + time))
            };
            let is_over = ends_within(Duration::ZERO);
            if ends_within(AHEAD) {
                let is_recent = |(_, began): &(Load, Instant)| began.elapsed() < PAUSE;
                if !state.load.as_ref().is_some_and(is_recent) {
                    state.load = Some((self.load(), Instant::now()));
                }
            }
            match (&state.current, &state.load) {
                (Some(credentials), _) if !is_over => return Ok(credentials.clone()),
                (_, Some((load, _))) => load.clone(),
                (_, None) => unreachable!("what is over, or not there, is being fetched"),
            }
        };
        load.await
    }

    /// Goes on by itself: whoever waits for it may give up.
    fn load(&self) -> Load {
        let kept = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            let fetching = tokio::time::timeout(LOAD_WITHIN, kept.source.provide_credentials());
            let fetched =
                fetching.await.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(LOAD_WITHIN)));
            match &fetched {
                Ok(credentials) => {
                    kept.state.lock().unwrap_or_else(PoisonError::into_inner).current =
                        Some(credentials.clone());
                }
                Err(error) => tracing::warn!(error = reason(error), "AWS credentials could not be fetched"),
            }
            fetched
        });
        // A task that is gone went down with its runtime.
        let ended = task.map(|ended| ended.unwrap_or_else(|gone| Err(CredentialsError::unhandled(gone))));
        ended.map(|fetched| fetched.map_err(Arc::new)).boxed().shared()
    }
}

#[cfg(test)]
mod tests;
