//! `POST /admin/providers/{id}/credentials`: another credential, tried before it is used.

use std::sync::Arc;

use axum::extract::State;
use catalog::{Action, Provider, ProviderStatus, Secret, Versioned};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::known::Known;
use super::parse::{self, WrittenCredential};
use super::view::{ProviderView, TestView};
use super::{NotStored, schema, store, test};
use crate::answer::Answer;
use crate::body::Body;
use crate::change::{Change, IfMatch, Race};
use crate::credentials::{self, NewCredential, with_credential};
use crate::error::AdminError;
use crate::members::{Details, Members};
use crate::path::Named;
use crate::query::Query;
use crate::service::Admin;

/// A week.
const MAX_OVERLAP_SECONDS: u64 = 7 * 24 * 60 * 60;
const DEFAULT_OVERLAP_SECONDS: u64 = 60 * 60;

/// A credential that takes the place of another.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of what is read below")]
pub(crate) struct CredentialRotation {
    #[schema(schema_with = schema::api_key)]
    api_key: String,
    /// For how long the one before is still used where the upstream refuses the new one.
    #[schema(minimum = 0, maximum = 604_800, default = 3_600)]
    overlap_seconds: Option<u64>,
    /// Whether a chat of a few tokens has to succeed with it first.
    #[schema(default = true)]
    test: Option<bool>,
}

/// What `AdminError::TestFailed` is answered as.
#[derive(Serialize, ToSchema)]
struct FailedRotation {
    /// As of every error; its code is `test_failed`.
    #[schema(value_type = Object)]
    error: Value,
    test: TestView,
}

/// What a request for a rotation says.
struct Rotation {
    credential: WrittenCredential,
    overlap_ms: u64,
    test: bool,
}

/// Rotate a provider's credential
///
/// Without downtime: the new one is tested first, and the one before is kept for an overlap. If the test fails, everything
/// stays as it was, and the answer is 422 with the test's report.
#[utoipa::path(
    post, path = "/admin/providers/{id}/credentials", tag = "providers",
    params(super::ProviderParam, crate::openapi::IfMatchParam),
    request_body = CredentialRotation,
    responses(
        (status = 200, description = "The new one is used", body = ProviderView),
        (status = 422, description = "The new one did not pass its test", body = FailedRotation),
    ),
)]
pub(crate) async fn rotate_credential(
    State(admin): State<Arc<Admin>>,
    Named(name): Named,
    change: Change,
    if_match: IfMatch,
    query: Query,
    Body(body): Body,
) -> Result<Answer, AdminError> {
    query.finish()?;
    let rotation = read(body)?;
    let new = match &rotation.credential {
        WrittenCredential::Reference(reference) => NewCredential::Reference(reference),
        WrittenCredential::Given(secret) => NewCredential::Given(secret),
        WrittenCredential::Unsaid | WrittenCredential::Removed => {
            return Err(AdminError::invalid("/apiKey", "is required"));
        }
    };
    let mut race = Race::new(if_match);
    let mut tested: Option<Provider> = None;
    loop {
        let mut known = Known::read(&admin).await?;
        let Versioned { value: before, version } = known.find_stored(&name)?.clone();
        race.check(version)?;
        if before.provider.adapter.http().is_none() {
            let message = "a spawn-cli provider has no credential: the vendor's key of a CLI is in the file of the runners' operator";
            return Err(AdminError::invalid("", message));
        }
        let provider = with_credential(&before.provider, new);
        // Another attempt tests what somebody else has made of it in between, not the same once more.
        if rotation.test && tested.as_ref() != Some(&provider) {
            let report = test::run(&admin, Ok(provider.clone()), None, false).await;
            if !report.ok {
                return Err(failed(TestView::from(report))?);
            }
            let status = ProviderStatus { last_test: Some(report), ..known.status(&before.id) };
            admin.parts.store.put_status(&before.id, &status).await?;
            known.note_status(&before.id, status);
            tested = Some(provider);
        }
        let mut after = before;
        let until_ms = change.at_ms.saturating_add(rotation.overlap_ms);
        credentials::rotate(&admin, &mut after, new, change.at_ms, until_ms).await?;
        after.history.updated_at_ms = change.at_ms;
        match store(&admin, &known, &change, Action::Rotate, after, version).await {
            Ok(answer) => return Ok(answer),
            Err(NotStored::Refused(error)) => return Err(error),
            Err(NotStored::Store(error)) => race.lost(error)?,
        }
    }
}

fn failed(report: TestView) -> Result<AdminError, AdminError> {
    let test = serde_json::to_value(report).map_err(|error| AdminError::Internal(error.to_string()))?;
    let message = "the new credential did not pass its test, so everything is as it was; see test".to_owned();
    Ok(AdminError::TestFailed { message, test })
}

fn read(mut body: Value) -> Result<Rotation, AdminError> {
    let mut details = Details::default();
    // Taken out, so that there is one copy of it, which is wiped.
    let key = match body.get_mut("apiKey").map(Value::take) {
        Some(Value::String(text)) => Some(Secret::new(text)),
        None | Some(Value::Null) => {
            details.add("/apiKey", "is required");
            None
        }
        Some(_) => {
            details.add("/apiKey", "must be a string: the key itself, \"env:NAME\" or \"file:PATH\"");
            None
        }
    };
    let Some(mut members) = Members::of(&body, String::new(), &mut details) else {
        return Err(AdminError::invalid("", "must be an object"));
    };
    members.value("apiKey");
    let overlap = members.number("overlapSeconds", 0..=MAX_OVERLAP_SECONDS, &mut details);
    let test = members.boolean("test", &mut details).unwrap_or(true);
    members.refuse_unknown(&mut details);
    let credential = key.map(parse::credential).transpose().unwrap_or_else(|message| {
        details.add("/apiKey", message);
        None
    });
    details.or(Rotation {
        credential: credential.unwrap_or(WrittenCredential::Unsaid),
        overlap_ms: overlap.unwrap_or(DEFAULT_OVERLAP_SECONDS) * 1_000,
        test,
    })
}
