//! A provider as requests and answers write it: the members, their bounds and what they are for, as the API's document
//! shows them.
//!
//! Bodies are not read with these types, since serde stops at the first mistake: `parse.rs` finds all of them. A test
//! holds both to each other.

use std::collections::BTreeMap;

use catalog::{Adapter, Capabilities, Provider, ProviderKind, TimeoutsMs};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schema;

/// The only value of `type` that the schema has.
macro_rules! kind {
    ($name:ident, $value:tt) => {
        #[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
        pub(crate) enum $name {
            #[serde(rename = $value)]
            Only,
        }
    };
}

kind!(ProxyType, "proxy");
kind!(LocalType, "local");
kind!(SpawnCliType, "spawn-cli");

/// The members that all types have, and `$more` of one type.
macro_rules! provider_input {
    ($(#[$documentation:meta])* $name:ident { $($more:tt)* }) => {
        $(#[$documentation])*
        #[derive(Debug, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(crate) struct $name {
            #[schema(schema_with = schema::name)]
            pub(crate) name: String,
            /// Names it in URLs, logs and metrics; cannot be changed. Made from the name if it is not given.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", examples("vendor-eu"))]
            pub(crate) slug: Option<String>,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(schema_with = schema::description)]
            pub(crate) description: Option<String>,
            /// Whether it serves. One that does not gets no more requests; those under way finish.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(default = true)]
            pub(crate) enabled: Option<bool>,
            /// Where several providers have a model, lower comes first. Of two enabled ones with the same model one must
            /// come first.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(value_type = Option<u64>, minimum = 0, maximum = 4_294_967_295_u64, default = 100)]
            pub(crate) rank: Option<u32>,
            $($more)*
        }
    };
}

provider_input! {
    /// Another gateway or vendor that speaks OpenAI's API.
    ProxyProvider {
        #[serde(rename = "type")]
        pub(crate) kind: ProxyType,
        pub(crate) adapter_config: HttpConfig,
        /// Not given: they stay as they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        pub(crate) credentials: Option<Credentials>,
        /// Those that clients may ask for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(max_items = 5_000)]
        pub(crate) models: Option<Vec<Model>>,
    }
}

provider_input! {
    /// A server on this machine or network that speaks OpenAI's API: Ollama, LM Studio, llama.cpp, vLLM.
    LocalProvider {
        #[serde(rename = "type")]
        pub(crate) kind: LocalType,
        pub(crate) adapter_config: HttpConfig,
        /// Not given: they stay as they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        pub(crate) credentials: Option<Credentials>,
        /// Those that clients may ask for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(max_items = 5_000)]
        pub(crate) models: Option<Vec<Model>>,
    }
}

provider_input! {
    /// A CLI that runners run. Its vendor's key is in the file of the runners' operator.
    SpawnCliProvider {
        #[serde(rename = "type")]
        pub(crate) kind: SpawnCliType,
        pub(crate) adapter_config: SpawnCliConfig,
        /// Those that clients may ask for.
        #[schema(min_items = 1, max_items = 5_000)]
        pub(crate) models: Vec<Model>,
    }
}

/// A provider, as it is written. What it may have depends on its type.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(discriminator(property_name = "type", mapping(
    ("proxy" = "#/components/schemas/ProxyProvider"),
    ("local" = "#/components/schemas/LocalProvider"),
    ("spawn-cli" = "#/components/schemas/SpawnCliProvider")
)))]
pub(crate) enum ProviderInput {
    Proxy(ProxyProvider),
    Local(LocalProvider),
    SpawnCli(SpawnCliProvider),
}

/// A change of a provider, as a merge patch (RFC 7396): members that are given replace those that there are, `null` takes
/// one away (its default holds then), lists are replaced as a whole.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ProviderPatch {
    #[schema(schema_with = schema::name)]
    pub(crate) name: Option<String>,
    /// May be repeated, as may `type`; neither can be changed.
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,62}$")]
    pub(crate) slug: Option<String>,
    #[serde(rename = "type")]
    #[schema(nullable = false, pattern = "^(proxy|local|spawn-cli)$")]
    pub(crate) kind: Option<String>,
    #[schema(schema_with = schema::description)]
    pub(crate) description: Option<String>,
    pub(crate) enabled: Option<bool>,
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 4_294_967_295_u64)]
    pub(crate) rank: Option<u32>,
    /// As in the provider's schema; any member may be left out.
    #[schema(value_type = Option<Object>)]
    pub(crate) adapter_config: Option<serde_json::Value>,
    #[schema(nullable = false)]
    pub(crate) credentials: Option<Credentials>,
    #[schema(max_items = 5_000)]
    pub(crate) models: Option<Vec<Model>>,
}

/// How an upstream that speaks OpenAI's API is called.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HttpConfig {
    /// As a client would paste it, without user, query and fragment. A proxy is on the internet and reached over https, but
    /// where the deployment allows its host by name.
    #[schema(
        format = "uri",
        max_length = 2_048,
        examples("https://api.openai.com/v1", "http://127.0.0.1:11434/v1")
    )]
    pub(crate) base_url: String,
    /// Whether models are asked of the upstream (`GET /models`) instead of listed; true if none are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) discover_models: Option<bool>,
    /// Further request headers of clients that are passed on, in lower case; none that carry credentials or belong to the
    /// connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::forward_headers)]
    pub(crate) forward_headers: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeouts: Option<Timeouts>,
}

/// Which CLI runs, and how.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SpawnCliConfig {
    /// As the file of the runners' operator calls it.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", examples("claude"))]
    pub(crate) cli: String,
    /// The CLI's parameter that gets `adapterModelId`; empty for a CLI that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^([a-z][a-z0-9_]{0,31})?$", default = "model")]
    pub(crate) model_parameter: Option<String>,
    /// Values for further parameters of the CLI, the same for every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::parameters)]
    pub(crate) parameters: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeouts: Option<Timeouts>,
}

/// How long an upstream may take, in milliseconds.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to the members' names")]
pub(crate) struct Timeouts {
    /// Until it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 86_400_000, default = 5_000)]
    pub(crate) connect_ms: Option<u32>,
    /// From the request's last byte to the answer's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 86_400_000, default = 300_000)]
    pub(crate) first_byte_ms: Option<u32>,
    /// Between two bytes of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 86_400_000, default = 120_000)]
    pub(crate) idle_ms: Option<u32>,
    /// The whole call; not less than `firstByteMs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 86_400_000, default = 3_600_000)]
    pub(crate) total_ms: Option<u32>,
}

/// A model that clients may ask for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Model {
    #[schema(schema_with = schema::dyad_model_id)]
    pub(crate) dyad_model_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::adapter_model_id)]
    pub(crate) adapter_model_id: Option<String>,
    /// Longest answer, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    pub(crate) max_tokens: Option<u32>,
    /// Prompt and answer together, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4_294_967_295_u64)]
    pub(crate) context_window: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<ModelCapabilities>,
    /// Unix seconds, for `created` of the model list; 0: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 9_007_199_254_740_992_u64)]
    pub(crate) created: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::owned_by)]
    pub(crate) owned_by: Option<String>,
}

/// What a model can do. What is not said is unknown, so it is tried.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ModelCapabilities {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) chat: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) embeddings: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) images: Option<bool>,
}

/// What an upstream wants to see. Never shown again.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Credentials {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::api_key_or_null)]
    pub(crate) api_key: Option<String>,
}

/// How a provider is called, as answers show it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum AdapterConfig {
    Http(HttpConfig),
    SpawnCli(SpawnCliConfig),
}

impl ProviderInput {
    /// What would be written to get this provider; nothing of its credential.
    pub(crate) fn of(provider: &Provider) -> Self {
        let name = provider.name.clone();
        let slug = Some(provider.slug.to_string());
        let description = Some(provider.description.clone());
        let (enabled, rank) = (Some(provider.enabled), Some(provider.rank));
        let models = models_of(provider);
        match &provider.adapter {
            Adapter::Proxy(config) => Self::Proxy(ProxyProvider {
                name,
                slug,
                description,
                enabled,
                rank,
                kind: ProxyType::Only,
                adapter_config: config.into(),
                credentials: None,
                models: Some(models),
            }),
            Adapter::Local(config) => Self::Local(LocalProvider {
                name,
                slug,
                description,
                enabled,
                rank,
                kind: LocalType::Only,
                adapter_config: config.into(),
                credentials: None,
                models: Some(models),
            }),
            Adapter::SpawnCli(config) => Self::SpawnCli(SpawnCliProvider {
                name,
                slug,
                description,
                enabled,
                rank,
                kind: SpawnCliType::Only,
                adapter_config: config.into(),
                models,
            }),
        }
    }
}

/// What a provider's `type` is called.
pub(crate) fn kind_name(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Proxy => "proxy",
        ProviderKind::Local => "local",
        ProviderKind::SpawnCli => "spawn-cli",
    }
}

pub(crate) fn models_of(provider: &Provider) -> Vec<Model> {
    provider.models.iter().map(Model::from).collect()
}

impl AdapterConfig {
    pub(crate) fn of(provider: &Provider) -> Self {
        match &provider.adapter {
            Adapter::Proxy(config) | Adapter::Local(config) => Self::Http(config.into()),
            Adapter::SpawnCli(config) => Self::SpawnCli(config.into()),
        }
    }
}

impl From<&catalog::HttpAdapterConfig> for HttpConfig {
    fn from(config: &catalog::HttpAdapterConfig) -> Self {
        Self {
            base_url: config.base_url.clone(),
            discover_models: Some(config.discover_models),
            forward_headers: Some(config.forward_headers.clone()),
            timeouts: Some(config.timeouts.into()),
        }
    }
}

impl From<&catalog::SpawnCliConfig> for SpawnCliConfig {
    fn from(config: &catalog::SpawnCliConfig) -> Self {
        Self {
            cli: config.cli.clone(),
            model_parameter: Some(config.model_parameter.clone().unwrap_or_default()),
            parameters: Some(config.parameters.clone()),
            timeouts: Some(config.timeouts.into()),
        }
    }
}

impl From<TimeoutsMs> for Timeouts {
    fn from(timeouts: TimeoutsMs) -> Self {
        Self {
            connect_ms: Some(timeouts.connect_ms),
            first_byte_ms: Some(timeouts.first_byte_ms),
            idle_ms: Some(timeouts.idle_ms),
            total_ms: Some(timeouts.total_ms),
        }
    }
}

impl From<&catalog::Model> for Model {
    fn from(model: &catalog::Model) -> Self {
        let Capabilities { chat, embeddings, reasoning, images } = model.capabilities;
        let capabilities = ModelCapabilities { chat, embeddings, reasoning, images };
        let says_something = model.capabilities != Capabilities::default();
        Self {
            dyad_model_id: model.id.clone(),
            adapter_model_id: Some(model.upstream_id.clone()),
            max_tokens: model.max_tokens,
            context_window: model.context_window,
            capabilities: says_something.then_some(capabilities),
            created: Some(model.created).filter(|created| *created > 0),
            owned_by: model.owned_by.clone(),
        }
    }
}
