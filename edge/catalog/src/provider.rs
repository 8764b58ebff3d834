//! Providers and their models: raw (as written) → checked.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProviderSlug(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// Another OpenAI-compatible gateway or vendor.
    Proxy,
    /// An OpenAI-compatible server on this machine or network (Ollama, LM Studio, llama.cpp, vLLM).
    Local,
}

/// A provider after validation; immutable.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    pub slug: ProviderSlug,
    pub name: String,
    pub kind: ProviderKind,
    pub description: String,
    pub enabled: bool,
    /// Lower comes first where several providers serve a model.
    pub rank: u32,
    pub models: Vec<Model>,
    pub adapter: HttpAdapterConfig,
    pub credential: CredentialRef,
}

/// `adapterConfig` of proxy and local providers.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpAdapterConfig {
    /// As a client would paste it, without trailing slash: `https://api.openai.com/v1`.
    pub base_url: String,
    /// Whether models are asked of the upstream (`GET /models`) instead of listed.
    pub discover_models: bool,
    /// Further request headers of clients that are passed on (lower case), besides the built-in list.
    pub forward_headers: Vec<String>,
    pub timeouts: TimeoutsMs,
}

/// How long an upstream may take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutsMs {
    pub connect_ms: u32,
    pub first_byte_ms: u32,
    pub idle_ms: u32,
    pub total_ms: u32,
}

impl Default for TimeoutsMs {
    fn default() -> Self {
        Self { connect_ms: 5_000, first_byte_ms: 300_000, idle_ms: 120_000, total_ms: 3_600_000 }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The public name.
    pub id: String,
    /// What the upstream calls it.
    pub upstream_id: String,
    pub max_tokens: Option<u32>,
    pub context_window: Option<u32>,
    pub capabilities: Capabilities,
    /// Unix seconds, for `created` of the model list; 0 if unknown.
    pub created: u64,
    pub owned_by: Option<String>,
}

/// `None`: unknown, so it is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub chat: Option<bool>,
    pub embeddings: Option<bool>,
    pub reasoning: Option<bool>,
    pub images: Option<bool>,
}

/// Where the upstream credential comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialRef {
    None,
    /// `env:NAME`
    Env(String),
    /// `file:PATH`
    File(String),
    /// Given on the command line or found in the environment; never stored.
    Inline(Secret),
}

/// One violated rule: where (a JSON path such as `models[2].id`) and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub path: String,
    pub message: String,
}

/// All of them, in the order of the input; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

/// A provider as written (TOML, JSON, a stored item). Everything optional, so that all violations are found at once.
#[derive(Clone, Debug, Default)]
pub struct RawProvider {}

#[derive(Clone, Debug, Default)]
pub struct RawModel {}
