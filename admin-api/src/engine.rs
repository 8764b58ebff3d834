//! What the API needs of a running gateway.

use bytes::Bytes;
use catalog::{
    ApiKeyRecord, BoxFuture, CheckReport, CredentialRef, Explanation, Health, Provider, ProviderSlug,
    TestReport, TestRequest,
};

/// A gateway that runs in the same process. It need not serve anybody: it is asked what it would do, and does it.
pub trait Engine: Send + Sync + 'static {
    /// Providers that are not in the store: from the command line, a file or the surroundings. A stored one of the same
    /// slug hides one of these.
    fn given(&self) -> Vec<Provider>;

    /// Why this host cannot read what a stored provider refers to as `env:NAME` or `file:PATH`, without the credential;
    /// `None` if it can, or if the reference is neither.
    fn unreadable(&self, reference: &CredentialRef) -> Option<String>;

    /// A chat of a few tokens, which costs as much. Answers within 60 seconds.
    fn test(&self, test: TestRequest) -> BoxFuture<'_, TestReport>;

    /// Whether the provider can be reached and takes its credential; costs no tokens. Answers within 30 seconds. As
    /// [`TestRequest::provider`], it need not be stored.
    fn check<'a>(&'a self, provider: &'a Provider) -> BoxFuture<'a, CheckReport>;

    /// What the background checks of this process found.
    fn health(&self) -> Vec<(ProviderSlug, Health)>;

    /// What would become of a chat request (the body as a client sends it) of this key. Calls nobody.
    fn explain<'a>(&'a self, body: &'a [u8], key: &'a ApiKeyRecord) -> BoxFuture<'a, Explanation>;

    /// The nodes that announce themselves. `Err` says why they are not known.
    fn runners(&self) -> BoxFuture<'_, Result<Vec<RunnerInfo>, String>>;

    /// Lets a node take no more runs and finish those that it has. `Err` says why it does not.
    fn drain_runner<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// `GET` of a URL that whoever runs this process has written, such as that of a JWKS: at most `max_bytes`, within ten
    /// seconds, without redirects.
    fn fetch<'a>(&'a self, url: &'a str, max_bytes: usize) -> BoxFuture<'a, Result<Bytes, FetchError>>;

    /// Milliseconds since the Unix epoch.
    fn unix_ms(&self) -> u64;
}

/// A node, as it announced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerInfo {
    pub id: String,
    pub url: String,
    pub version: String,
    /// Runs at once.
    pub slots: u32,
    pub running: u32,
    pub queued: u32,
    /// Sandboxes that wait ready.
    pub parked: u32,
    pub draining: bool,
    /// Whether runs are sent there now.
    pub up: bool,
    pub clis: Vec<String>,
}

/// The URL could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);
