//! The models that are served, as clients list them.

use catalog::ProviderSlug;
use http::StatusCode;
use serde::Serialize;

use crate::Gateway;
use crate::config::CachedKey;
use crate::error::ApiError;
use crate::host::Body;
use crate::pipeline::json_response;
use crate::routes::Target;

/// A model that is served, with the provider that comes first for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedModel {
    pub id: String,
    pub provider: ProviderSlug,
}

impl Gateway {
    pub fn models(&self) -> Vec<ServedModel> {
        let routes = self.0.config.routes();
        routes
            .all()
            .map(|(id, target)| ServedModel { id: id.to_owned(), provider: target.upstream.slug.clone() })
            .collect()
    }

    pub(crate) fn list_models(&self, key: &CachedKey) -> http::Response<Body> {
        let routes = self.0.config.routes();
        let data: Vec<_> = routes.listed(&key.record).map(|(id, target)| model_object(id, target)).collect();
        json_response(StatusCode::OK, &serde_json::json!({"object": "list", "data": data}))
    }

    pub(crate) fn show_model(&self, id: &str, key: &CachedKey) -> Result<http::Response<Body>, ApiError> {
        let routes = self.0.config.routes();
        let first = routes.resolve(id, &key.record).and_then(<[_]>::first);
        let target = first.ok_or_else(|| ApiError::model_not_found(id))?;
        Ok(json_response(StatusCode::OK, &model_object(id, target)))
    }
}

#[derive(Serialize)]
struct ModelObject<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_window: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
}

fn model_object<'a>(id: &'a str, target: &'a Target) -> ModelObject<'a> {
    let model = &target.model;
    ModelObject {
        id,
        object: "model",
        created: model.created,
        owned_by: model.owned_by.as_deref().unwrap_or(target.upstream.slug.as_str()),
        context_window: model.context_window,
        max_tokens: model.max_tokens,
    }
}
