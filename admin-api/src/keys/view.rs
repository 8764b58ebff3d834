//! How API keys are shown.

use catalog::ApiKeyRecord;
use serde::Serialize;
use utoipa::ToSchema;

use crate::moment::Moment;

/// An API key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKey)]
pub(crate) struct Key {
    /// Public: it is between `dgw_` and the next underscore of the key.
    #[schema(pattern = "^[0-9A-Za-z]{12}$", example = "4fGh8kLm2pQr")]
    pub(crate) id: String,
    pub(crate) label: String,
    /// Whom to ask about it; empty if nobody is named.
    pub(crate) owner: String,
    created_at: Moment,
    #[schema(required)]
    expires_at: Option<Moment>,
    #[schema(required)]
    revoked_at: Option<Moment>,
    /// To within a minute or so.
    #[schema(required)]
    last_used_at: Option<Moment>,
    /// Public model names; null for every model.
    #[schema(required)]
    allowed_models: Option<Vec<String>>,
    limits: Limits,
    /// Until then the secret before the last rotation is accepted; null if there is none.
    #[schema(required)]
    previous_secret_until: Option<Moment>,
    pub(crate) state: KeyState,
    /// The number of its `ETag`.
    #[schema(minimum = 1)]
    version: u64,
}

/// An API key with its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyWithSecret {
    #[serde(flatten)]
    pub(crate) record: Key,
    /// The whole key, as clients send it. It cannot be had again.
    #[schema(pattern = "^dgw_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}$")]
    pub(crate) key: String,
}

/// Null means unlimited. Windows are full minutes, days and calendar months of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Limits {
    #[schema(required)]
    requests_per_minute: Option<u32>,
    #[schema(required)]
    concurrent_requests: Option<u32>,
    /// Tokens of prompts and completions together.
    #[schema(required)]
    tokens_per_minute: Option<u64>,
    #[schema(required)]
    tokens_per_day: Option<u64>,
    #[schema(required)]
    tokens_per_month: Option<u64>,
}

/// Whether a key is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeyState {
    Active,
    Expired,
    /// For good; whether it would have expired by now does not matter.
    Revoked,
}

impl KeyState {
    pub(crate) fn of(record: &ApiKeyRecord, now_ms: u64) -> Self {
        if record.revoked_at_ms.is_some() {
            Self::Revoked
        } else if record.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            Self::Expired
        } else {
            Self::Active
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "active" => Some(Self::Active),
            "expired" => Some(Self::Expired),
            "revoked" => Some(Self::Revoked),
            _ => None,
        }
    }
}

impl Key {
    pub(crate) fn new(record: &ApiKeyRecord, version: u64, last_used_ms: Option<u64>, now_ms: u64) -> Self {
        let limits = record.limits;
        let previous = record.previous.filter(|previous| previous.until_ms > now_ms);
        Self {
            id: record.id.to_string(),
            label: record.label.clone(),
            owner: record.owner.clone(),
            created_at: Moment(record.created_at_ms),
            expires_at: record.expires_at_ms.map(Moment),
            revoked_at: record.revoked_at_ms.map(Moment),
            last_used_at: last_used_ms.map(Moment),
            allowed_models: record.allowed_models.clone(),
            limits: Limits {
                requests_per_minute: limits.requests_per_minute,
                concurrent_requests: limits.concurrent_requests,
                tokens_per_minute: limits.tokens_per_minute,
                tokens_per_day: limits.tokens_per_day,
                tokens_per_month: limits.tokens_per_month,
            },
            previous_secret_until: previous.map(|previous| Moment(previous.until_ms)),
            state: KeyState::of(record, now_ms),
            version,
        }
    }
}
