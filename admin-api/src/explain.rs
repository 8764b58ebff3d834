//! `POST /admin/explain`: what would become of a request, without asking anybody.

use std::sync::Arc;

use axum::extract::State;
use catalog::{
    ApiKeyId, ApiKeyLimits, ApiKeyRecord, ExplainedError, ExplainedLimit, ExplainedTarget, Explanation,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::answer::Answer;
use crate::body::Body;
use crate::error::AdminError;
use crate::members::{Details, Members, kind};
use crate::query::Query;
use crate::service::Admin;

/// What is to be explained.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of what is read below")]
pub(crate) struct ExplainRequest {
    /// The body of a chat completion, as a client sends it.
    #[schema(example = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}))]
    request: Map<String, Value>,
    /// The API key that it would be sent with; one without limits, for every model, if not given.
    #[schema(pattern = "^[0-9A-Za-z]{12}$")]
    key_id: Option<String>,
}

/// What the gateway would do.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Explanation)]
pub(crate) struct ShownExplanation {
    /// Null if the request is none that the gateway takes.
    #[schema(required)]
    model: Option<String>,
    stream: bool,
    /// The error that the client would get; null if the request would be let through.
    #[schema(required)]
    refused: Option<ShownRefusal>,
    /// Of the key; those that it does not have are not here.
    limits: Vec<ShownLimit>,
    /// What would be set aside for the prompt.
    estimated_prompt_tokens: u64,
    /// What would be set aside for the answer.
    estimated_completion_tokens: u64,
    /// In the order in which they would be asked.
    targets: Vec<ShownTarget>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ExplainedRefusal)]
pub(crate) struct ShownRefusal {
    status: u16,
    code: String,
    message: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ExplainedLimit)]
pub(crate) struct ShownLimit {
    /// As the limits of an API key are called.
    #[schema(example = "requestsPerMinute")]
    name: String,
    limit: u64,
    /// As far as this instance knows.
    #[schema(required)]
    remaining: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExplainedTarget)]
pub(crate) struct ShownTarget {
    /// The provider's slug.
    provider: String,
    #[serde(rename = "type")]
    #[schema(pattern = "^(proxy|local|spawn-cli)$", example = "proxy")]
    kind: String,
    /// What the upstream calls the model.
    upstream_model: String,
    /// Where the request would go: a URL, or `cli:NAME`.
    address: String,
    /// Members of the request that would be changed, and how.
    rewritten: Vec<String>,
    /// Why it would be passed over; null if it would be asked.
    #[schema(required)]
    passed_over: Option<String>,
}

/// Explain a request
///
/// The whole decision about a chat completion: what the key says to it, which targets it would go to in which order, and
/// what would be rewritten. Nobody is called, and nothing counted.
#[utoipa::path(
    post, path = "/admin/explain", tag = "operation",
    request_body = ExplainRequest,
    responses((status = 200, body = ShownExplanation)),
)]
pub(crate) async fn explain(
    State(admin): State<Arc<Admin>>,
    query: Query,
    Body(body): Body,
) -> Result<Answer, AdminError> {
    query.finish()?;
    let (request, key_id) = read(&body)?;
    let key = match key_id {
        None => unlimited(admin.now_ms()),
        Some(id) => {
            let unknown = || AdminError::invalid("/keyId", "there is no such API key");
            let id = ApiKeyId::parse(id).map_err(|_| unknown())?;
            admin.parts.store.find_key(&id).await?.ok_or_else(unknown)?.value
        }
    };
    let explanation = admin.parts.engine.explain(request.to_string().as_bytes(), &key).await;
    Answer::ok(&ShownExplanation::from(explanation))
}

fn read(body: &Value) -> Result<(&Value, Option<&str>), AdminError> {
    let mut details = Details::default();
    let mut read = (None, None);
    if let Some(mut members) = Members::of(body, String::new(), &mut details) {
        read.0 = members.value("request");
        match read.0 {
            Some(Value::Object(_)) => {}
            None => members.require("request", &mut details),
            Some(other) => {
                details
                    .add("/request", format!("must be the body of a chat completion, not {}", kind(other)));
            }
        }
        read.1 = members.string("keyId", &mut details);
        members.refuse_unknown(&mut details);
    }
    details.or(())?;
    Ok((read.0.unwrap_or(&Value::Null), read.1))
}

/// A key that refuses nothing.
fn unlimited(now_ms: u64) -> ApiKeyRecord {
    ApiKeyRecord {
        id: ApiKeyId::parse("000000000000").expect("12 digits are an id"),
        hash: [0; 32],
        label: "explain".to_owned(),
        created_at_ms: now_ms,
        expires_at_ms: None,
        revoked_at_ms: None,
        owner: String::new(),
        previous: None,
        allowed_models: None,
        limits: ApiKeyLimits::default(),
    }
}

impl From<Explanation> for ShownExplanation {
    fn from(explanation: Explanation) -> Self {
        let refusal = |ExplainedError { status, code, message }| ShownRefusal { status, code, message };
        let limit = |ExplainedLimit { name, limit, remaining }| ShownLimit {
            name: crate::members::camel_case(&name),
            limit,
            remaining,
        };
        let target = |target: ExplainedTarget| ShownTarget {
            provider: target.provider.to_string(),
            kind: target.kind,
            upstream_model: target.upstream_model,
            address: target.address,
            rewritten: target.rewritten,
            passed_over: target.passed_over,
        };
        Self {
            model: explanation.model,
            stream: explanation.stream,
            refused: explanation.refused.map(refusal),
            limits: explanation.limits.into_iter().map(limit).collect(),
            estimated_prompt_tokens: explanation.estimated_prompt_tokens,
            estimated_completion_tokens: explanation.estimated_completion_tokens,
            targets: explanation.targets.into_iter().map(target).collect(),
        }
    }
}
