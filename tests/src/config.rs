//! The configuration file of a host, as the suites write it.

use serde::Serialize;
use serde_json::{Value, json};

/// The upstream credential of every configured provider; no answer and no log may show it.
pub const UPSTREAM_CREDENTIAL: &str = "sk-upstream-5b1f9c0e-never-to-be-shown";
/// The variable in which the hosts find it: one that `spin.toml` hands to the component.
pub const UPSTREAM_CREDENTIAL_VARIABLE: &str = "OPENAI_API_KEY";

/// Short, so that tests need not wait long for one.
pub const KEEPALIVE_MS: u64 = 300;

/// A host's configuration; members are documented with the gateway's own.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    pub keepalive_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_idle_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_total_timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors_origins: Option<Vec<String>>,
    /// Fake upstreams are on this machine, where proxies of a table may not lead by themselves.
    pub private_upstream_hosts: Vec<String>,
    pub provider: Vec<Provider>,
}

impl Config {
    /// With these providers, and [`KEEPALIVE_MS`].
    pub fn new(provider: impl IntoIterator<Item = Provider>) -> Self {
        Self {
            keepalive_ms: KEEPALIVE_MS,
            max_body_bytes: None,
            body_idle_timeout_ms: None,
            body_total_timeout_ms: None,
            cors_origins: None,
            private_upstream_hosts: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
            provider: provider.into_iter().collect(),
        }
    }

    /// The same without providers.
    #[must_use]
    pub fn settings(&self) -> Self {
        Self { provider: Vec::new(), ..self.clone() }
    }

    /// The configuration as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration of plain members is TOML")
    }
}

/// One provider.
#[derive(Clone, Debug, Serialize)]
pub struct Provider {
    name: String,
    slug: String,
    #[serde(rename = "type")]
    kind: &'static str,
    base_url: String,
    rank: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    pub timeouts: Timeouts,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<Value>,
}

/// Time limits of a provider's upstream.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timeouts {
    pub connect_ms: u64,
    pub first_byte_ms: u64,
    pub idle_ms: u64,
    pub total_ms: u64,
}

impl Default for Timeouts {
    /// Short enough for a test to see each pass, long enough for a loaded machine.
    fn default() -> Self {
        Self { connect_ms: 1_000, first_byte_ms: 2_000, idle_ms: 1_500, total_ms: 20_000 }
    }
}

impl Provider {
    /// A proxy provider with the suites' upstream credential.
    pub fn proxy(slug: &str, base_url: &str) -> Self {
        Self {
            name: format!("Provider {slug}"),
            slug: slug.to_owned(),
            kind: "proxy",
            base_url: base_url.to_owned(),
            rank: 0,
            credential: Some(format!("env:{UPSTREAM_CREDENTIAL_VARIABLE}")),
            timeouts: Timeouts::default(),
            models: Vec::new(),
        }
    }

    /// A local provider, without a credential.
    pub fn local(slug: &str, base_url: &str) -> Self {
        Self { kind: "local", credential: None, ..Self::proxy(slug, base_url) }
    }

    /// Serves the upstream's model `upstream_id` as `id`.
    #[must_use]
    pub fn model(mut self, id: &str, upstream_id: &str) -> Self {
        self.models.push(json!({"id": id, "upstream_id": upstream_id}));
        self
    }

    /// Serves a model that cannot embed.
    #[must_use]
    pub fn chat_only_model(mut self, id: &str, upstream_id: &str) -> Self {
        self.models
            .push(json!({"id": id, "upstream_id": upstream_id, "capabilities": {"embeddings": false}}));
        self
    }

    /// Tried after providers of a lower rank.
    #[must_use]
    pub fn rank(mut self, rank: u32) -> Self {
        self.rank = rank;
        self
    }

    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
}
