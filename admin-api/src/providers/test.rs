//! `POST /admin/providers/{id}/test`: a chat of a few tokens.

use std::sync::Arc;

use axum::extract::State;
use catalog::{Provider, ProviderStatus, SealError, TestReport, TestRequest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::known::{Known, OneOf};
use super::view::{CheckView, TestView};
use super::{check, does_not_open};
use crate::actor::Caller;
use crate::answer::Answer;
use crate::body::OptionalBody;
use crate::credentials::opened;
use crate::error::AdminError;
use crate::members::{Details, Members};
use crate::path::Named;
use crate::query::Query;
use crate::service::Admin;

/// What a test is to do.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of what is read below")]
pub(crate) struct NewTest {
    /// One of the provider's models; the first that can chat if it is not given.
    #[schema(min_length = 1, max_length = 256, example = "gpt-4o")]
    model: Option<String>,
    /// Whether the answer is streamed, which also tells when its first token came.
    #[schema(default = false)]
    stream: Option<bool>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the schema of what the handler answers")]
enum TestOrCheck {
    Test(TestView),
    /// With `dryRun`.
    Check(CheckView),
}

/// Test a provider
///
/// A real chat of a few tokens, which costs as much; what came of it is kept as the provider's `lastTest`. With `dryRun` it
/// is only checked whether the provider can be reached and takes its credential, which costs nothing. A provider need not
/// be enabled. A test that fails is an answer as well.
#[utoipa::path(
    post, path = "/admin/providers/{id}/test", tag = "providers",
    params(super::ProviderParam, super::DryRunParam),
    request_body = Option<NewTest>,
    responses((status = 200, description = "What came of it", body = TestOrCheck)),
)]
pub(crate) async fn test_provider(
    State(admin): State<Arc<Admin>>,
    Named(name): Named,
    Caller(actor): Caller,
    mut query: Query,
    OptionalBody(body): OptionalBody,
) -> Result<Answer, AdminError> {
    let is_dry_run = query.flag("dryRun");
    query.finish()?;
    let known = Known::read(&admin).await?;
    let one = known.find(&name)?;
    let (provider, id) = match one {
        OneOf::Stored(stored) => (opened(&admin, &stored.value).await, Some(&stored.value.id)),
        OneOf::Given(provider) => (Ok(provider.clone()), None),
    };
    let (model, stream) = read(&body, one.provider())?;
    if is_dry_run {
        return Answer::ok(&CheckView::from(check(&admin, provider).await));
    }
    tracing::info!(provider = %one.provider().slug, actor = actor.name, "a provider is tested");
    let report = run(&admin, provider, model, stream).await;
    if let Some(id) = id {
        let status = ProviderStatus { last_test: Some(report.clone()), ..known.status(id) };
        admin.parts.store.put_status(id, &status).await?;
    }
    Answer::ok(&TestView::from(report))
}

/// Tests a provider, if its credential opened.
pub(super) async fn run(
    admin: &Admin,
    provider: Result<Provider, SealError>,
    model: Option<String>,
    stream: bool,
) -> TestReport {
    match provider {
        Ok(provider) => admin.parts.engine.test(TestRequest { provider, model, stream }).await,
        Err(error) => TestReport {
            at_ms: admin.now_ms(),
            model: model.unwrap_or_default(),
            stream,
            failure: Some(does_not_open(&error)),
            ..TestReport::default()
        },
    }
}

fn read(body: &Value, provider: &Provider) -> Result<(Option<String>, bool), AdminError> {
    let mut details = Details::default();
    let Some(mut members) = Members::of(body, String::new(), &mut details) else {
        return Err(AdminError::Invalid(details.0));
    };
    let model = members.string("model", &mut details);
    if let Some(model) = model
        && !provider.models.iter().any(|known| known.id == model)
        // One that was asked of the upstream may be known to it alone.
        && (!provider.adapter.discovers_models() || model.is_empty() || model.chars().count() > 256)
    {
        details.add("/model", "is none of this provider's models");
    }
    let stream = members.boolean("stream", &mut details).unwrap_or(false);
    members.refuse_unknown(&mut details);
    details.or((model.map(str::to_owned), stream))
}
