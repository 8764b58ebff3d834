//! A provider as requests and answers write it: the members, their bounds and what they are for, as the API's document
//! shows them.
//!
//! Bodies are not read with these types, since serde stops at the first mistake: `parse.rs` finds all of them. A test
//! holds both to each other.

use std::collections::BTreeMap;

use catalog::{Adapter, Capabilities, Provider, ProviderKind, TimeoutsMs};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::schema::{
    AdditionalProperties, Array, ArrayBuilder, Object, ObjectBuilder, SchemaType, Type,
};

/// The only value of `type` that the schema has.
macro_rules! kind {
    ($name:ident, $value:literal) => {
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
            /// What people call it.
            #[schema(min_length = 1, max_length = 100, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$", examples("Vendor (EU)"))]
            pub(crate) name: String,
            /// Names it in URLs, logs and metrics; cannot be changed. Made from the name if it is not given.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", examples("vendor-eu"))]
            pub(crate) slug: Option<String>,
            /// For people.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(max_length = 1_000, default = "", pattern = r"^([^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?)?$")]
            pub(crate) description: Option<String>,
            /// Whether it serves. One that does not gets no more requests; those under way finish.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(default = true)]
            pub(crate) enabled: Option<bool>,
            /// Where several providers have a model, lower comes first. Of two enabled ones with the same model one must
            /// come first.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(minimum = 0, maximum = 4_294_967_295_u32, default = 100)]
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
        pub(crate) adapter_config: ProxyConfig,
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
        pub(crate) adapter_config: LocalConfig,
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
    #[schema(max_length = 100)]
    pub(crate) name: Option<String>,
    #[schema(max_length = 1_000)]
    pub(crate) description: Option<String>,
    pub(crate) enabled: Option<bool>,
    #[schema(minimum = 0, maximum = 4_294_967_295_u32)]
    pub(crate) rank: Option<u32>,
    /// As in the provider's schema; any member may be left out.
    #[schema(value_type = Option<Object>)]
    pub(crate) adapter_config: Option<serde_json::Value>,
    pub(crate) credentials: Option<Credentials>,
    #[schema(max_items = 5_000)]
    pub(crate) models: Option<Vec<Model>>,
}

/// How a proxy is called.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ProxyConfig {
    /// As a client would paste it, without user, query and fragment; https, but on hosts that the deployment allows by
    /// name.
    #[schema(format = "uri", max_length = 2_048, examples("https://api.openai.com/v1"))]
    pub(crate) base_url: String,
    /// Whether models are asked of the upstream (`GET /models`) instead of listed; true if none are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) discover_models: Option<bool>,
    /// Further request headers of clients that are passed on, in lower case; none that carry credentials or belong to the
    /// connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = forward_headers_schema)]
    pub(crate) forward_headers: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeouts: Option<Timeouts>,
}

/// How a server on this machine or network is called.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LocalConfig {
    /// As a client would paste it, without user, query and fragment.
    #[schema(format = "uri", max_length = 2_048, examples("http://127.0.0.1:11434/v1"))]
    pub(crate) base_url: String,
    /// Whether models are asked of the upstream (`GET /models`) instead of listed; true if none are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) discover_models: Option<bool>,
    /// Further request headers of clients that are passed on, in lower case; none that carry credentials or belong to the
    /// connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = forward_headers_schema)]
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
    #[schema(schema_with = parameters_schema)]
    pub(crate) parameters: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeouts: Option<Timeouts>,
}

/// How long an upstream may take, in milliseconds.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// Until it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000, default = 5_000)]
    pub(crate) connect_ms: Option<u32>,
    /// From the request's last byte to the answer's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000, default = 300_000)]
    pub(crate) first_byte_ms: Option<u32>,
    /// Between two bytes of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000, default = 120_000)]
    pub(crate) idle_ms: Option<u32>,
    /// The whole call; not less than `firstByteMs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000, default = 3_600_000)]
    pub(crate) total_ms: Option<u32>,
}

/// A model that clients may ask for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Model {
    /// What clients call it.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$",
        examples("gpt-4o")
    )]
    pub(crate) dyad_model_id: String,
    /// What the upstream calls it; the same if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$",
        examples("gpt-4o-2024-11-20")
    )]
    pub(crate) adapter_model_id: Option<String>,
    /// Longest answer, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 4_294_967_295_u32)]
    pub(crate) max_tokens: Option<u32>,
    /// Prompt and answer together, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 4_294_967_295_u32)]
    pub(crate) context_window: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<ModelCapabilities>,
    /// Unix seconds, for `created` of the model list; 0: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 9_007_199_254_740_992_u64)]
    pub(crate) created: Option<u64>,
    /// For `owned_by` of the model list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
    )]
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
    /// The upstream's API key, which is sealed before it is stored; or where the gateway finds it: `env:NAME` for an
    /// environment variable, `file:PATH` for a file. `null`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        format = "password",
        write_only,
        min_length = 1,
        max_length = 8_192,
        pattern = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00-\x1f\x7f-\x9f]+|[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)$",
        examples("env:OPENAI_API_KEY")
    )]
    pub(crate) api_key: Option<String>,
}

/// How a provider is called, as answers show it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum AdapterConfig {
    Proxy(ProxyConfig),
    Local(LocalConfig),
    SpawnCli(SpawnCliConfig),
}

fn text_schema() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

fn forward_headers_schema() -> Array {
    ArrayBuilder::new()
        .description(Some(
            "Further request headers of clients that are passed on, in lower case; none that carry credentials or belong to the connection.",
        ))
        .items(text_schema().min_length(Some(1)).pattern(Some("^[!#$%&'*+.^_`|~0-9a-z-]+$")))
        .max_items(Some(32))
        .unique_items(true)
        .examples([json!(["x-title"])])
        .build()
}

fn parameters_schema() -> Object {
    let value = text_schema()
        .min_length(Some(1))
        .max_length(Some(256))
        .pattern(Some(r"^[^-\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"));
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Object))
        .description(Some("Values for further parameters of the CLI, the same for every request."))
        .property_names(Some(text_schema().pattern(Some("^[a-z][a-z0-9_]{0,31}$"))))
        .additional_properties(Some(AdditionalProperties::RefOr(value.build().into())))
        .max_properties(Some(32))
        .examples([json!({"effort": "low"})])
        .build()
}

impl ProviderInput {
    /// What would be written to get this provider; nothing of its credential.
    pub(crate) fn of(provider: &Provider) -> Self {
        let name = provider.name.clone();
        let slug = Some(provider.slug.to_string());
        let description = Some(provider.description.clone());
        let (enabled, rank) = (Some(provider.enabled), Some(provider.rank));
        let models = models_of(provider);
        match AdapterConfig::of(provider) {
            AdapterConfig::Proxy(adapter_config) => Self::Proxy(ProxyProvider {
                name,
                slug,
                description,
                enabled,
                rank,
                kind: ProxyType::Only,
                adapter_config,
                credentials: None,
                models: Some(models),
            }),
            AdapterConfig::Local(adapter_config) => Self::Local(LocalProvider {
                name,
                slug,
                description,
                enabled,
                rank,
                kind: LocalType::Only,
                adapter_config,
                credentials: None,
                models: Some(models),
            }),
            AdapterConfig::SpawnCli(adapter_config) => Self::SpawnCli(SpawnCliProvider {
                name,
                slug,
                description,
                enabled,
                rank,
                kind: SpawnCliType::Only,
                adapter_config,
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
            Adapter::Proxy(config) => Self::Proxy(ProxyConfig {
                base_url: config.base_url.clone(),
                discover_models: Some(config.discover_models),
                forward_headers: Some(config.forward_headers.clone()),
                timeouts: Some(config.timeouts.into()),
            }),
            Adapter::Local(config) => Self::Local(LocalConfig {
                base_url: config.base_url.clone(),
                discover_models: Some(config.discover_models),
                forward_headers: Some(config.forward_headers.clone()),
                timeouts: Some(config.timeouts.into()),
            }),
            Adapter::SpawnCli(config) => Self::SpawnCli(SpawnCliConfig {
                cli: config.cli.clone(),
                model_parameter: Some(config.model_parameter.clone().unwrap_or_default()),
                parameters: Some(config.parameters.clone()),
                timeouts: Some(config.timeouts.into()),
            }),
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
