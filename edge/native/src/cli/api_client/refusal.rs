//! What the API refuses, and how commands say so.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::cli::Failure;
use crate::cli::values::plain;

/// Why a request was not answered as wished.
pub(crate) enum ApiError {
    Refused(Box<Refusal>),
    /// There was no answer, or none that can be understood. For people.
    Failed(String),
}

/// An error of the API.
pub(crate) struct Refusal {
    pub status: StatusCode,
    /// Such as `not_found`.
    pub code: String,
    pub message: String,
    /// What is wrong with the request: JSON pointer and message.
    pub violations: Vec<(String, String)>,
    /// All of the answer: some errors bring more.
    pub body: Value,
    request_id: Option<String>,
}

impl Refusal {
    /// `None` if the API does not answer like this.
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, content: &[u8]) -> Option<Box<Self>> {
        let body: Value = serde_json::from_slice(content).ok()?;
        let error = body.get("error")?;
        let text = |value: &Value| value.as_str().map(plain);
        let violation = |detail: &Value| Some((text(&detail["pointer"])?, text(&detail["message"])?));
        let details = error["details"].as_array().map(Vec::as_slice).unwrap_or_default();
        Some(Box::new(Self {
            status,
            code: text(&error["code"]).unwrap_or_default(),
            message: text(&error["message"])?,
            violations: details.iter().filter_map(violation).collect(),
            request_id: headers.get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned),
            body,
        }))
    }
}

impl ApiError {
    /// The error in other words, if it has this code.
    pub(crate) fn say(self, code: &str, message: impl FnOnce() -> String) -> Failure {
        match self {
            Self::Refused(refusal) if refusal.code == code => Failure::Failed(message()),
            error => error.into(),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let refusal = match error {
            ApiError::Failed(line) => return Self::Failed(line),
            ApiError::Refused(refusal) => *refusal,
        };
        if !refusal.violations.is_empty() {
            let line = |(pointer, message): &(String, String)| match pointer.as_str() {
                "" => message.clone(),
                pointer => format!("{pointer}: {message}"),
            };
            return Self::Usage(refusal.violations.iter().map(line).collect());
        }
        let message = refusal.message;
        match refusal.status {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                Self::Usage(vec![message])
            }
            StatusCode::UNAUTHORIZED => Self::Failed(format!(
                "{message}; DYAD_ADMIN_TOKEN must have an administrator's token of this gateway ('dyad-gateway admin token' prints one where it runs)"
            )),
            status if status.is_server_error() => match refusal.request_id {
                Some(id) => Self::Failed(format!("{message} (request {id})")),
                None => Self::Failed(message),
            },
            _ => Self::Failed(message),
        }
    }
}
