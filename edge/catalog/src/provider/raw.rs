//! A provider as it is stored and listed.

use serde_json::{Map, Value, json};

use super::{Adapter, InlineCredentialError, Model, Provider, TimeoutsMs};
use crate::StoreError;

impl Provider {
    /// The form of [`RawProvider`](crate::RawProvider), to store and to list: checking it gives
    /// this provider again.
    pub fn to_raw(&self) -> Result<Value, InlineCredentialError> {
        let credential = self.credential.to_text()?;
        let mut raw = Map::new();
        raw.insert("name".to_owned(), json!(self.name));
        raw.insert("slug".to_owned(), json!(self.slug));
        raw.insert("type".to_owned(), json!(self.kind()));
        raw.insert("description".to_owned(), json!(self.description));
        raw.insert("enabled".to_owned(), json!(self.enabled));
        raw.insert("rank".to_owned(), json!(self.rank));
        match &self.adapter {
            Adapter::Proxy(config) | Adapter::Local(config) => {
                raw.insert("base_url".to_owned(), json!(config.base_url));
                insert_some(&mut raw, "credential", credential);
                raw.insert("discover_models".to_owned(), json!(config.discover_models));
                raw.insert("forward_headers".to_owned(), json!(config.forward_headers));
                raw.insert("timeouts".to_owned(), timeouts(&config.timeouts));
            }
            Adapter::SpawnCli(config) => {
                raw.insert("cli".to_owned(), json!(config.cli));
                let parameter = config.model_parameter.as_deref().unwrap_or_default();
                raw.insert("model_parameter".to_owned(), json!(parameter));
                raw.insert("parameters".to_owned(), json!(config.parameters));
                raw.insert("timeouts".to_owned(), timeouts(&config.timeouts));
            }
        }
        raw.insert("models".to_owned(), self.models.iter().map(model).collect());
        Ok(Value::Object(raw))
    }

    /// `DynamoDB` keeps items of up to 400 KB, names and key included.
    pub const MAX_STORED_BYTES: usize = 390_000;

    /// The text that a store keeps, once it is certain that reading it gives this provider again: the members are
    /// public, so it may have been made without [`Provider::check`]. Fails as [`StoreError::Refused`].
    pub fn to_stored(&self) -> Result<String, StoreError> {
        let raw = self.to_raw().map_err(|error| StoreError::Refused { reason: error.to_string() })?;
        let stored = raw.to_string();
        if stored.len() > Self::MAX_STORED_BYTES {
            let reason = format!(
                "the provider has {} bytes; at most {} are kept",
                stored.len(),
                Self::MAX_STORED_BYTES
            );
            return Err(StoreError::Refused { reason });
        }
        match Self::check(&raw.into()) {
            Ok(read) if read == *self => Ok(stored),
            Ok(_) => {
                Err(StoreError::Refused { reason: "the provider is not in its checked form".to_owned() })
            }
            Err(violations) => Err(StoreError::Refused { reason: violations.to_string() }),
        }
    }
}

fn timeouts(timeouts: &TimeoutsMs) -> Value {
    json!({
        "connect_ms": timeouts.connect_ms,
        "first_byte_ms": timeouts.first_byte_ms,
        "idle_ms": timeouts.idle_ms,
        "total_ms": timeouts.total_ms,
    })
}

/// What is unknown or as by default is left out: a provider can have thousands of models.
fn model(model: &Model) -> Value {
    let mut raw = Map::new();
    raw.insert("id".to_owned(), json!(model.id));
    insert_some(&mut raw, "upstream_id", Some(model.upstream_id.as_str()).filter(|id| *id != model.id));
    insert_some(&mut raw, "max_tokens", model.max_tokens);
    insert_some(&mut raw, "context_window", model.context_window);
    let mut capabilities = Map::new();
    insert_some(&mut capabilities, "chat", model.capabilities.chat);
    insert_some(&mut capabilities, "embeddings", model.capabilities.embeddings);
    insert_some(&mut capabilities, "reasoning", model.capabilities.reasoning);
    insert_some(&mut capabilities, "images", model.capabilities.images);
    if !capabilities.is_empty() {
        raw.insert("capabilities".to_owned(), Value::Object(capabilities));
    }
    insert_some(&mut raw, "created", Some(model.created).filter(|created| *created > 0));
    insert_some(&mut raw, "owned_by", model.owned_by.as_deref());
    Value::Object(raw)
}

fn insert_some(raw: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        raw.insert(name.to_owned(), value.into());
    }
}
