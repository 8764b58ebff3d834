//! Runners, as this host reaches them: mutual TLS to the nodes of the configuration, which are asked every few seconds
//! what they run and how busy they are, or to those that announce themselves in the store.

mod client;
mod config;
mod identity;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gateway::{CallError, full};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use runner_api::node::MemoryRegistry;
use runner_api::{
    CAPACITY_PATH, CLIS_PATH, Capacity, CliInfo, NodeRecord, Registry, VERSION, VERSION_HEADER, understands,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::embedded::now_ms;
use crate::error_chain::error_chain;

pub(crate) use client::RunnerClient;
pub(crate) use config::check;
pub use config::{RunnerIdentity, RunnerNodes, RunnersConfig};
pub use identity::IdentityError;

/// How often nodes are asked.
const INTERVAL: Duration = Duration::from_secs(3);
/// What a node said counts for so long.
const LIFETIME: Duration = Duration::from_secs(12);
/// One answer of a node, connection included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The nodes of a configuration.
pub struct Runners {
    client: Arc<RunnerClient>,
    /// Those that are asked.
    nodes: Vec<Node>,
    /// What they said.
    registry: Arc<MemoryRegistry>,
    are_in_store: bool,
}

struct Node {
    url: String,
    /// Whether it answered when last asked; nobody knows at first.
    answers: Mutex<Option<bool>>,
}

#[derive(Deserialize)]
struct Clis {
    clis: Vec<CliInfo>,
}

/// Why a node does not count.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Call(CallError),
    /// In TLS 1.3 a client has done its part before it is refused, and sees no more than this.
    #[error("it closed the connection; perhaps it does not accept the certificate in client_cert")]
    Closed,
    #[error("it does not answer in time")]
    TimedOut,
    #[error("it answers with status {0}")]
    Status(StatusCode),
    #[error("what answers is no runner, or one of another version")]
    Version,
    #[error("its answer cannot be read")]
    Body(#[from] axum::Error),
    #[error("its answer is not of the runners' protocol")]
    Form(#[from] serde_json::Error),
}

impl Runners {
    /// Reads the identity; an error names the file and what is wrong with it.
    pub fn new(config: RunnersConfig) -> Result<Self, IdentityError> {
        let client = Arc::new(RunnerClient::new(config.identity)?);
        let node = |url: String| Node { url, answers: Mutex::default() };
        let (urls, are_in_store) = match config.nodes {
            RunnerNodes::Listed(urls) => (urls, false),
            RunnerNodes::InStore => (Vec::new(), true),
        };
        let nodes = urls.into_iter().map(node).collect();
        Ok(Self { client, nodes, registry: Arc::default(), are_in_store })
    }

    pub(crate) fn client(&self) -> Arc<RunnerClient> {
        self.client.clone()
    }

    /// What the listed nodes said of themselves, for [`gateway::GatewayParts`].
    pub fn registry(&self) -> Arc<dyn Registry> {
        self.registry.clone()
    }

    /// Whether the store's registry has the nodes, and not [this one](Self::registry).
    pub fn are_in_store(&self) -> bool {
        self.are_in_store
    }

    /// Asks every node once. Takes no longer than a few seconds.
    pub async fn refresh(&self) {
        let asked = self.nodes.iter().map(|node| self.ask(node));
        futures_util::future::join_all(asked).await;
    }

    /// Asks the nodes and looks for changed certificates every few seconds, for ever.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.client.reload_if_changed();
            self.refresh().await;
        }
    }

    async fn ask(&self, node: &Node) {
        let result = async {
            let Clis { clis } = self.get(node, CLIS_PATH).await?;
            let capacity: Capacity = self.get(node, CAPACITY_PATH).await?;
            Ok::<_, AskError>((clis, capacity))
        }
        .await;
        let answered = result.is_ok();
        let before = node.answers.lock().unwrap_or_else(PoisonError::into_inner).replace(answered);
        match result {
            Ok((clis, capacity)) => {
                if before != Some(true) {
                    tracing::info!(node = node.url, clis = clis.len(), "a runner answers");
                }
                let lifetime_ms = u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX);
                let record = NodeRecord {
                    id: node.url.clone(),
                    url: node.url.clone(),
                    version: VERSION.to_owned(),
                    capacity,
                    clis,
                    expires_unix_ms: now_ms().saturating_add(lifetime_ms),
                };
                // This registry cannot fail.
                let _ = self.registry.announce(&record).await;
            }
            // What it said last holds until it expires: it may only have been too busy to answer.
            Err(error) if before != Some(false) => {
                tracing::warn!(node = node.url, error = %error_chain(&error), "a runner does not answer");
            }
            Err(_) => {}
        }
    }

    async fn get<T: DeserializeOwned>(&self, node: &Node, path: &str) -> Result<T, AskError> {
        let mut request = http::Request::new(full(Bytes::new()));
        *request.method_mut() = Method::GET;
        *request.uri_mut() =
            format!("{}{path}", node.url).parse::<Uri>().expect("the configuration was checked for it");
        *request.version_mut() = http::Version::HTTP_2;
        request.headers_mut().insert(VERSION_HEADER, HeaderValue::from_static(VERSION));
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let answer = async {
            let response = self.client.call(request, ANSWER_TIMEOUT).await.map_err(|error| match error {
                CallError::Closed => AskError::Closed,
                error => AskError::Call(error),
            })?;
            let version = response.headers().get(VERSION_HEADER).and_then(|version| version.to_str().ok());
            if !version.is_some_and(understands) {
                return Err(AskError::Version);
            }
            if response.status() != StatusCode::OK {
                return Err(AskError::Status(response.status()));
            }
            let body = axum::body::Body::new(response.into_body());
            let body = axum::body::to_bytes(body, MAX_ANSWER_BYTES).await?;
            Ok(serde_json::from_slice(&body)?)
        };
        tokio::time::timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| AskError::TimedOut)?
    }
}
