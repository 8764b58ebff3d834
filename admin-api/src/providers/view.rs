//! Providers, and what was found out about them, as answers show them.

use catalog::{
    CheckReport, CredentialRef, Failure, Health, History, Provider, ProviderStatus, StoredProvider,
    TestReport, Versioned,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{AdapterConfig, Model, kind_name, models_of};
use crate::moment::Moment;

/// A provider.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Provider)]
pub(crate) struct ProviderView {
    /// Null for one that is given.
    #[schema(required, pattern = "^prv_[0-9a-z]{16}$", example = "prv_0123456789abcdef")]
    id: Option<String>,
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", example = "vendor-eu")]
    pub(crate) slug: String,
    name: String,
    #[serde(rename = "type")]
    #[schema(pattern = "^(proxy|local|spawn-cli)$", example = "proxy")]
    pub(crate) kind: &'static str,
    description: String,
    pub(crate) enabled: bool,
    /// Lower comes first where several providers have a model.
    rank: u32,
    models: Vec<Model>,
    adapter_config: AdapterConfig,
    credentials: CredentialsView,
    /// `store`, or `given` on the command line, in a file or by the surroundings: that one is changed there.
    #[schema(pattern = "^(store|given)$", example = "store")]
    pub(crate) origin: &'static str,
    /// Null for one that is given, as are the following three.
    #[schema(required)]
    created_by: Option<String>,
    #[schema(required)]
    created_at: Option<Moment>,
    #[schema(required)]
    updated_at: Option<Moment>,
    /// What its `ETag` has.
    #[schema(required)]
    version: Option<u64>,
    pub(crate) health: HealthView,
    #[schema(required)]
    last_test: Option<TestView>,
    /// What may not be meant so.
    warnings: Vec<String>,
}

/// What there is to know of a provider's credentials; never the credentials.
#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProviderCredentials)]
struct CredentialsView {
    /// Absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    api_key: Option<CredentialView>,
}

/// A credential that there is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProviderCredential)]
struct CredentialView {
    /// Always true.
    set: bool,
    /// Where it is: sealed in the store, or where the reference says; `given` to the program when it was started.
    #[schema(pattern = "^(sealed|env|file|given)$", example = "sealed")]
    source: &'static str,
    /// Of one that is not in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "env:OPENAI_API_KEY")]
    reference: Option<String>,
    /// 1 for the first, one more for each that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    version: Option<u32>,
    /// Tells one sealed credential from another.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[0-9a-f]{8}$", example = "1a2b3c4d")]
    fingerprint: Option<String>,
    /// The master key that it is sealed under.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sealed_under: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    set_at: Option<Moment>,
    /// The one before, while it may still be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    previous: Option<PreviousView>,
}

/// A credential that was rotated out.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PreviousCredential)]
struct PreviousView {
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[0-9a-f]{8}$", example = "5e6f7a8b")]
    fingerprint: Option<String>,
    /// From then on it is not used any more.
    until: Moment,
}

/// How a provider stands, as background checks found.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Health)]
pub(crate) struct HealthView {
    #[schema(pattern = "^(unknown|healthy|degraded|down)$", example = "healthy")]
    pub(crate) state: &'static str,
    /// When it came into this state.
    #[schema(required)]
    since: Option<Moment>,
    #[schema(required)]
    checked_at: Option<Moment>,
    /// Of the last check, while it failed.
    #[schema(required)]
    failure: Option<FailureView>,
}

/// Why something did not work, and what to do about it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Failure)]
pub(crate) struct FailureView {
    /// `auth`, `rate_limited`, `overloaded`, `timeout`, `invalid_request`, `not_found`, `content_filter`, `unavailable`,
    /// `internal`, or `unusable` where the provider cannot be called at all.
    #[schema(example = "auth")]
    class: String,
    message: String,
    advice: String,
    /// The HTTP status of the upstream's answer, if there was one.
    #[schema(required)]
    status: Option<u16>,
}

/// What came of a test: a chat of a few tokens.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TestReport)]
pub(crate) struct TestView {
    ok: bool,
    at: Moment,
    /// Empty if there is none that could be tested.
    model: String,
    stream: bool,
    timing: TimingView,
    #[schema(required)]
    usage: Option<TestUsageView>,
    /// What the model said, cut after 200 characters.
    #[schema(required)]
    answer: Option<String>,
    #[schema(required)]
    failure: Option<FailureView>,
}

/// When each stage was reached, in milliseconds since the start; null if it was not, or cannot be told from the next.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TestTiming)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to the members' names")]
struct TimingView {
    /// The host's name was looked up.
    #[schema(required)]
    resolved_ms: Option<u64>,
    /// Connected, TLS included.
    #[schema(required)]
    connected_ms: Option<u64>,
    /// The answer's head came.
    #[schema(required)]
    first_byte_ms: Option<u64>,
    /// The first content came; of streams only.
    #[schema(required)]
    first_token_ms: Option<u64>,
    end_ms: u64,
}

/// What a test cost.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TestUsage)]
struct TestUsageView {
    prompt_tokens: u64,
    completion_tokens: u64,
    /// Whether the upstream told nothing, so that it was estimated.
    estimated: bool,
}

/// Whether a provider can be reached and takes its credential. Costs no tokens.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CheckReport)]
pub(crate) struct CheckView {
    ok: bool,
    at: Moment,
    duration_ms: u64,
    /// How many models it has.
    #[schema(required)]
    models: Option<usize>,
    #[schema(required)]
    failure: Option<FailureView>,
}

/// What there is besides the record.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) health: Option<Health>,
    pub(crate) status: ProviderStatus,
    pub(crate) warnings: Vec<String>,
}

impl ProviderView {
    pub(crate) fn stored(stored: &Versioned<StoredProvider>, found: Found, now_ms: u64) -> Self {
        let StoredProvider { id, provider, history } = &stored.value;
        Self {
            id: Some(id.to_string()),
            origin: "store",
            created_by: Some(history.created_by.clone()),
            created_at: Some(Moment(history.created_at_ms)),
            updated_at: Some(Moment(history.updated_at_ms)),
            version: Some(stored.version),
            credentials: CredentialsView::of(&provider.credential, Some(history), now_ms),
            ..Self::given(provider, found)
        }
    }

    pub(crate) fn given(provider: &Provider, found: Found) -> Self {
        Self {
            id: None,
            slug: provider.slug.to_string(),
            name: provider.name.clone(),
            kind: kind_name(provider.kind()),
            description: provider.description.clone(),
            enabled: provider.enabled,
            rank: provider.rank,
            models: models_of(provider),
            adapter_config: AdapterConfig::of(provider),
            credentials: CredentialsView::of(&provider.credential, None, 0),
            origin: "given",
            created_by: None,
            created_at: None,
            updated_at: None,
            version: None,
            health: found.health.or(found.status.health).unwrap_or_default().into(),
            last_test: found.status.last_test.map(TestView::from),
            warnings: found.warnings,
        }
    }
}

impl CredentialsView {
    fn of(credential: &CredentialRef, history: Option<&History>, now_ms: u64) -> Self {
        let source = match credential {
            CredentialRef::None => return Self::default(),
            CredentialRef::Env(_) => "env",
            CredentialRef::File(_) => "file",
            CredentialRef::Sealed(_) => "sealed",
            CredentialRef::Inline(_) => "given",
        };
        let reference = match credential {
            CredentialRef::Env(name) => Some(format!("env:{name}")),
            CredentialRef::File(path) => Some(format!("file:{path}")),
            CredentialRef::Sealed(_) | CredentialRef::None | CredentialRef::Inline(_) => None,
        };
        let sealed_under = match credential {
            CredentialRef::Sealed(sealed) => Some(sealed.key_id().to_string()),
            _ => None,
        };
        let previous = history.and_then(|history| history.previous.as_ref());
        let previous = previous.filter(|previous| previous.until_ms > now_ms).map(|previous| PreviousView {
            version: previous.version,
            fingerprint: previous.fingerprint.clone(),
            until: Moment(previous.until_ms),
        });
        let api_key = CredentialView {
            set: true,
            source,
            reference,
            version: history.map(|history| history.credential_version),
            fingerprint: history.and_then(|history| history.credential_fingerprint.clone()),
            sealed_under,
            set_at: history.and_then(|history| history.credential_set_at_ms).map(Moment),
            previous,
        };
        Self { api_key: Some(api_key) }
    }
}

impl From<Health> for HealthView {
    fn from(health: Health) -> Self {
        Self {
            state: health.state.as_str(),
            since: health.since_ms.map(Moment),
            checked_at: health.checked_at_ms.map(Moment),
            failure: health.failure.map(FailureView::from),
        }
    }
}

impl From<Failure> for FailureView {
    fn from(failure: Failure) -> Self {
        let Failure { class, message, advice, status } = failure;
        Self { class, message, advice, status }
    }
}

impl From<TestReport> for TestView {
    fn from(report: TestReport) -> Self {
        let timing = TimingView {
            resolved_ms: report.timing.resolved_ms,
            connected_ms: report.timing.connected_ms,
            first_byte_ms: report.timing.first_byte_ms,
            first_token_ms: report.timing.first_token_ms,
            end_ms: report.timing.end_ms,
        };
        let usage = report.usage.map(|usage| TestUsageView {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            estimated: usage.estimated,
        });
        Self {
            ok: report.ok,
            at: Moment(report.at_ms),
            model: report.model,
            stream: report.stream,
            timing,
            usage,
            answer: report.answer,
            failure: report.failure.map(FailureView::from),
        }
    }
}

impl From<CheckReport> for CheckView {
    fn from(report: CheckReport) -> Self {
        let (models, failure) = match report.outcome {
            Ok(models) => (Some(models), None),
            Err(failure) => (None, Some(failure.into())),
        };
        let (at, duration_ms) = (Moment(report.at_ms), report.duration_ms);
        Self { ok: failure.is_none(), at, duration_ms, models, failure }
    }
}
