//! What may be said of an API key, and every mistake in it.

use catalog::{ApiKeyId, ApiKeyLimits, ApiKeyRecord, Violation};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, Schema, SchemaType, Type};

use super::{DEFAULT_GRACE_SECONDS, MAX_GRACE_SECONDS};
use crate::error::AdminError;
use crate::members::{Details, Members, camel_case, kind};
use crate::moment::Moment;
use crate::schemas;

/// An API key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of what is read below")]
pub(crate) struct NewKey {
    #[schema(schema_with = label)]
    label: String,
    #[schema(schema_with = owner)]
    owner: Option<String>,
    /// In the future; null for a key that does not expire.
    expires_at: Option<Moment>,
    #[schema(schema_with = allowed_models)]
    allowed_models: Option<Vec<String>>,
    limits: Option<NewLimits>,
}

/// What is to be changed of an API key.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of what is read below")]
pub(crate) struct KeyPatch {
    #[schema(schema_with = label)]
    label: Option<String>,
    #[schema(schema_with = owner)]
    owner: Option<String>,
    /// In the future; null for a key that does not expire.
    expires_at: Option<Moment>,
    #[schema(schema_with = allowed_models)]
    allowed_models: Option<Vec<String>>,
    limits: Option<NewLimits>,
}

/// Null, or left out, means unlimited. Windows are full minutes, days and calendar months of UTC.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of what is read below")]
pub(crate) struct NewLimits {
    #[schema(minimum = 1, maximum = 4_294_967_295_u64, example = 60)]
    requests_per_minute: Option<u64>,
    #[schema(minimum = 1, maximum = 4_294_967_295_u64, example = 4)]
    concurrent_requests: Option<u64>,
    /// Tokens of prompts and completions together.
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64, example = 100_000)]
    tokens_per_minute: Option<u64>,
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    tokens_per_day: Option<u64>,
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    tokens_per_month: Option<u64>,
}

/// How an API key is rotated.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of what is read below")]
pub(crate) struct Rotation {
    /// For how long the old secret is accepted.
    #[schema(minimum = 0, maximum = 604_800, default = 3_600)]
    grace_seconds: Option<u64>,
}

fn label() -> Schema {
    schemas::text(1..=100)
        .description(Some("What the key is for, for people"))
        .examples(["Ada's laptop"])
        .into()
}

fn owner() -> Schema {
    let owner =
        schemas::text(0..=100).description(Some("Whom to ask about it")).examples(["ada@example.com"]);
    schemas::nullable(owner).into()
}

fn allowed_models() -> Schema {
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(schemas::text(1..=256))
        .max_items(Some(ApiKeyRecord::MAX_ALLOWED_MODELS))
        .description(Some("Public model names; null for every model"))
        .examples([json!(["gpt-4o-mini"])])
        .into()
}

/// Reads what [`NewKey`] describes. Of the record, only what is described there counts; the rest is whoever makes or
/// changes a key's to fill in. An expiry must be later than `earliest_ms`.
pub(super) fn read(body: &Value, earliest_ms: u64) -> Result<ApiKeyRecord, AdminError> {
    let mut details = Details::default();
    let Some(mut members) = Members::of(body, String::new(), &mut details) else {
        return Err(AdminError::Invalid(details.0));
    };
    if members.value("label").is_none() {
        members.require("label", &mut details);
    }
    let record = ApiKeyRecord {
        label: members.string("label", &mut details).unwrap_or("-").to_owned(),
        owner: members.string("owner", &mut details).unwrap_or_default().to_owned(),
        expires_at_ms: members.moment("expiresAt", &mut details).map(|at| at.0),
        allowed_models: members.list("allowedModels", &mut details).map(|list| models(list, &mut details)),
        limits: members
            .object("limits", &mut details)
            .map(|limits| read_limits(limits, &mut details))
            .unwrap_or_default(),
        // Filled in by whoever asks.
        id: ApiKeyId::parse("000000000000").expect("12 digits are an id"),
        hash: [0; 32],
        created_at_ms: earliest_ms,
        revoked_at_ms: None,
        previous: None,
    };
    members.refuse_unknown(&mut details);
    if let Err(violations) = record.check() {
        for violation in violations.0 {
            let (pointer, message) = on_the_wire(violation);
            // A value of the wrong type has been noted, and what stands for it must not be noted again.
            if !details.0.iter().any(|noted| noted.pointer == pointer) {
                details.add(pointer, message);
            }
        }
    }
    details.or(record)
}

fn read_limits(mut members: Members<'_>, details: &mut Details) -> ApiKeyLimits {
    let mut small = |members: &mut Members<'_>, name| {
        let number = members.number(name, 1..=u64::from(u32::MAX), details);
        number.and_then(|number| u32::try_from(number).ok())
    };
    let requests_per_minute = small(&mut members, "requestsPerMinute");
    let concurrent_requests = small(&mut members, "concurrentRequests");
    let mut tokens = |name| members.number(name, 1..=ApiKeyLimits::MAX_TOKENS, details);
    let limits = ApiKeyLimits {
        requests_per_minute,
        concurrent_requests,
        tokens_per_minute: tokens("tokensPerMinute"),
        tokens_per_day: tokens("tokensPerDay"),
        tokens_per_month: tokens("tokensPerMonth"),
    };
    members.refuse_unknown(details);
    limits
}

fn models(list: &[Value], details: &mut Details) -> Vec<String> {
    if list.len() > ApiKeyRecord::MAX_ALLOWED_MODELS {
        // Noted by the catalog's check, once.
        return vec![String::new(); list.len()];
    }
    let read = list.iter().enumerate().map(|(index, model)| {
        let name = model.as_str();
        if name.is_none() {
            details.add(format!("/allowedModels/{index}"), format!("must be a string, not {}", kind(model)));
        }
        name.unwrap_or("-").to_owned()
    });
    read.collect()
}

/// The catalog's names are those of the store.
fn on_the_wire(violation: Violation) -> (String, String) {
    if violation.path == "expires_at_ms" {
        return ("/expiresAt".to_owned(), "must be in the future; to end a key now, revoke it".to_owned());
    }
    let path = camel_case(&violation.path).replace(['.', '['], "/").replace(']', "");
    (format!("/{path}"), violation.message)
}

/// A record as [`read`] takes it.
pub(super) fn written(record: &ApiKeyRecord) -> Value {
    let limits = record.limits;
    json!({
        "label": record.label,
        "owner": record.owner,
        "expiresAt": record.expires_at_ms.map(Moment),
        "allowedModels": record.allowed_models,
        "limits": {
            "requestsPerMinute": limits.requests_per_minute,
            "concurrentRequests": limits.concurrent_requests,
            "tokensPerMinute": limits.tokens_per_minute,
            "tokensPerDay": limits.tokens_per_day,
            "tokensPerMonth": limits.tokens_per_month,
        },
    })
}

pub(super) fn read_grace_seconds(body: &Value) -> Result<u64, AdminError> {
    let mut details = Details::default();
    let mut seconds = None;
    if let Some(mut members) = Members::of(body, String::new(), &mut details) {
        seconds = members.number("graceSeconds", 0..=MAX_GRACE_SECONDS, &mut details);
        members.refuse_unknown(&mut details);
    }
    details.or(seconds.unwrap_or(DEFAULT_GRACE_SECONDS))
}
