//! Providers and their models: raw (as written) → checked.

mod check;
mod credential;
mod fields;
mod raw;
mod slug;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{SealedSecret, Secret};

pub use slug::{ProviderSlug, ProviderSlugError};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// Another OpenAI-compatible gateway or vendor.
    Proxy,
    /// An OpenAI-compatible server on this machine or network (Ollama, LM Studio, llama.cpp, vLLM).
    Local,
    /// A CLI that runners run.
    SpawnCli,
}

/// A provider after validation; immutable.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    pub slug: ProviderSlug,
    pub name: String,
    pub description: String,
    pub enabled: bool,
    /// Lower comes first where several providers serve a model.
    pub rank: u32,
    pub models: Vec<Model>,
    pub adapter: Adapter,
    /// Of proxy and local providers; the vendor's key of a CLI is in the file of its runners' operator.
    pub credential: CredentialRef,
}

impl Provider {
    pub fn kind(&self) -> ProviderKind {
        match self.adapter {
            Adapter::Proxy(_) => ProviderKind::Proxy,
            Adapter::Local(_) => ProviderKind::Local,
            Adapter::SpawnCli(_) => ProviderKind::SpawnCli,
        }
    }
}

/// How a provider is called, by its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Adapter {
    Proxy(HttpAdapterConfig),
    Local(HttpAdapterConfig),
    SpawnCli(SpawnCliConfig),
}

impl Adapter {
    /// The configuration of an upstream that speaks OpenAI's API.
    pub fn http(&self) -> Option<&HttpAdapterConfig> {
        match self {
            Self::Proxy(config) | Self::Local(config) => Some(config),
            Self::SpawnCli(_) => None,
        }
    }

    /// Where it leads, for people: a base URL, or `cli:NAME`.
    pub fn address(&self) -> String {
        match self {
            Self::Proxy(config) | Self::Local(config) => config.base_url.clone(),
            Self::SpawnCli(config) => format!("cli:{}", config.cli),
        }
    }

    /// Whether models are asked of the upstream instead of listed.
    pub fn discovers_models(&self) -> bool {
        self.http().is_some_and(|config| config.discover_models)
    }
}

/// Of proxy and local providers.
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

/// Of spawn-cli providers. What runs is the runners' operator's choice: a provider can only name a CLI of theirs, and
/// values for the parameters that it declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnCliConfig {
    /// As the file of the runners' operator calls it.
    pub cli: String,
    /// The parameter whose value is [`Model::upstream_id`]; `None` if the CLI has none.
    pub model_parameter: Option<String>,
    /// Values for further parameters, the same for every request.
    pub parameters: BTreeMap<String, String>,
    /// `total_ms` also bounds the run on its node; what shows that a node lives counts as a byte.
    pub timeouts: TimeoutsMs,
}

/// How long an upstream may take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutsMs {
    pub connect_ms: u32,
    /// From the request's last byte to the answer's first.
    pub first_byte_ms: u32,
    /// Between two bytes of an answer.
    pub idle_ms: u32,
    /// The whole call; never less than `first_byte_ms`.
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
    /// Sealed under a master key, for one record of a store: see [`StoredProvider`](crate::StoredProvider).
    Sealed(SealedSecret),
    /// Given on the command line or found in the environment; never stored.
    Inline(Secret),
}

/// How the names of the gateway's own variables begin: its secrets, its store's, and AWS's. They are no upstream's
/// business, whoever wrote the provider.
const OWN_VARIABLES: [&str; 2] = ["DYAD_", "AWS_"];

impl CredentialRef {
    /// Why a credential must not be read from there; whatever the case of the name, since Spin's variables have none.
    pub fn refusal(&self) -> Option<&'static str> {
        let Self::Env(name) = self else { return None };
        let begins = |own: &&str| name.get(..own.len()).is_some_and(|start| start.eq_ignore_ascii_case(own));
        OWN_VARIABLES.iter().any(begins).then_some(
            "must not name a variable that begins with DYAD_ or AWS_: those are the gateway's own; give the upstream's key another name",
        )
    }
}

/// A provider as written (TOML, JSON, a stored item): anything at all, so that every violation is found at once.
///
/// Built from a `serde_json::Value`, or by any serde format. What [`Provider::check`] accepts:
///
/// ```text
/// name             1 to 100 characters
/// slug?            [a-z0-9][a-z0-9-]{0,62}; made from the name if absent
/// type             "proxy" | "local" | "spawn-cli"
/// description?     up to 1,000 characters
/// enabled?         true if absent
/// rank?            lower comes first; 100 if absent
/// timeouts?        {connect_ms?, first_byte_ms?, idle_ms?, total_ms?}, each 1 ms to 1 day
/// models?          up to 5,000 of {id, upstream_id?, max_tokens?, context_window?, capabilities?, created?, owned_by?},
///                  where capabilities is {chat?, embeddings?, reasoning?, images?} and ids are unique
///
/// proxy and local:
/// base_url         http or https, without user, query and fragment; a proxy over http only on loopback and private
///                  addresses; a pasted /chat/completions is cut off
/// credential?      "env:NAME" | "file:PATH" | a sealed one; NAME does not begin with DYAD_ or AWS_
/// discover_models? true if absent and no models are listed
/// forward_headers? up to 32 lower-case names; none that carry credentials or belong to the connection
///
/// spawn-cli, which must list its models:
/// cli              the name of a CLI in the runners' own file: [a-z0-9][a-z0-9._-]{0,62}
/// model_parameter? the parameter that gets a model's upstream_id: [a-z][a-z0-9_]{0,31}; "model" if absent, "" for a CLI
///                  that has none
/// parameters?      up to 32 further parameters, each with a value of 1 to 256 bytes that does not begin with -
/// ```
///
/// `null` counts as absent. Unknown keys are violations.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct RawProvider(Value);

impl From<Value> for RawProvider {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

/// The provider's credential was given inline, and inline credentials are never written anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a provider with an inline credential is not stored: refer to the credential as env:NAME or file:PATH"
)]
pub struct InlineCredentialError;
