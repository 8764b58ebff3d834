//! What a gateway found out about a provider, for administrators.

use serde::{Deserialize, Serialize};

use crate::{Provider, ProviderSlug, StoreError};

/// How a provider stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Nothing has been found out yet.
    #[default]
    Unknown,
    Healthy,
    /// The last check failed, and those before did not; or some of what it needs is missing.
    Degraded,
    /// Several checks in a row failed.
    Down,
}

impl HealthState {
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Healthy, Self::Degraded, Self::Down];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub state: HealthState,
    /// When it came into this state; `None` while it is unknown.
    pub since_ms: Option<u64>,
    pub checked_at_ms: Option<u64>,
    /// Of the last check, while it failed.
    pub failure: Option<Failure>,
}

/// Why something did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One of the gateway's failure classes: `auth`, `rate_limited`, `quota_exhausted`, `overloaded`, `timeout`,
    /// `invalid_request`, `not_found`, `content_filter`, `unusable` (this gateway does not call it at all),
    /// `unavailable`, `internal`.
    pub class: String,
    /// For people; without any credential.
    pub message: String,
    /// What to do about it.
    pub advice: String,
    /// Of the upstream's answer, if there was one.
    pub status: Option<u16>,
}

/// What a test is to do.
#[derive(Clone, Debug)]
pub struct TestRequest {
    /// Not necessarily stored: a change is tested before it is made. A credential that was given is
    /// [`CredentialRef::Inline`](crate::CredentialRef::Inline).
    pub provider: Provider,
    /// A public id of its models; the first that can chat if not given.
    pub model: Option<String>,
    pub stream: bool,
}

/// What came of a test: a chat of a few tokens. Durations are milliseconds since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReport {
    pub ok: bool,
    pub at_ms: u64,
    /// The public id; empty if there is none to test.
    pub model: String,
    pub stream: bool,
    pub timing: TestTiming,
    pub usage: Option<TestUsage>,
    /// What the model said, cut after 200 characters.
    pub answer: Option<String>,
    pub failure: Option<Failure>,
}

/// When each stage was reached, in milliseconds since the start; `None` if it was not, or the host cannot tell it apart
/// from the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestTiming {
    /// The host's name was looked up.
    pub resolved_ms: Option<u64>,
    /// Connected, TLS included.
    pub connected_ms: Option<u64>,
    /// The answer's head came.
    pub first_byte_ms: Option<u64>,
    /// The first content came; of streams only.
    pub first_token_ms: Option<u64>,
    pub end_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestUsage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub estimated: bool,
}

/// Whether a provider can be reached and takes its credential; costs no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    pub at_ms: u64,
    pub duration_ms: u64,
    /// The number of models it has.
    pub outcome: Result<usize, Failure>,
}

/// What the gateway would do with a chat request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// `None` if the request is not one.
    pub model: Option<String>,
    pub stream: bool,
    /// What the key says to it: `None` if it may; otherwise the error that the client would get.
    pub refused: Option<ExplainedError>,
    /// The limits of the key, and what is left of each as far as this instance knows.
    pub limits: Vec<ExplainedLimit>,
    /// What would be set aside: tokens of the prompt and of the answer.
    pub estimated_prompt_tokens: u64,
    pub estimated_completion_tokens: u64,
    /// In the order in which they would be asked.
    pub targets: Vec<ExplainedTarget>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedError {
    pub status: u16,
    pub code: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedLimit {
    /// `requests_per_minute`, …, as in [`ApiKeyLimits`](crate::ApiKeyLimits).
    pub name: String,
    pub limit: u64,
    pub remaining: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedTarget {
    pub provider: ProviderSlug,
    /// `proxy`, `local` or `spawn-cli`.
    pub kind: String,
    /// What the upstream calls the model.
    pub upstream_model: String,
    /// Where the request would go: a URL, or `cli:NAME`.
    pub address: String,
    /// Members of the request that would be changed, and how: `model: gpt-4o → gpt-4o-2024`.
    pub rewritten: Vec<String>,
    /// Why it would be passed over, if it would.
    pub passed_over: Option<String>,
}

/// What is kept of a provider's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_test: Option<TestReport>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

impl ProviderStatus {
    /// Longest texts of a status together, in bytes.
    const MAX_STORED_BYTES: usize = 64 * 1024;

    /// The texts that a store keeps, of the last test and of the health, where they are there. Fails as
    /// [`StoreError::Refused`].
    pub fn to_stored(&self) -> Result<(Option<String>, Option<String>), StoreError> {
        let refused = |reason: String| StoreError::Refused { reason };
        let failed = |error: serde_json::Error| refused(error.to_string());
        let last_test = self.last_test.as_ref().map(serde_json::to_string).transpose().map_err(failed)?;
        let health = self.health.as_ref().map(serde_json::to_string).transpose().map_err(failed)?;
        let bytes: usize = [&last_test, &health].into_iter().flatten().map(String::len).sum();
        if bytes > Self::MAX_STORED_BYTES {
            let most = Self::MAX_STORED_BYTES;
            return Err(refused(format!("the status has {bytes} bytes; at most {most} are kept")));
        }
        Ok((last_test, health))
    }
}
