//! Bodies of requests: one pass finds what is wrong with them and what the gateway needs to know, and they go on to the
//! upstream as the bytes that the client sent but for a few replaced ranges.
//!
//! Lenient in: unknown members are left alone, and a member that is `null` counts as absent. What is refused is what no
//! upstream could make sense of, with a message that names the member.

mod chat;
mod embeddings;
mod members;
mod splice;

pub use self::{
    chat::{ChatScan, MaxTokensField, MediaKind, MediaPart, Rewrite},
    embeddings::{EmbeddingsScan, EncodingFormat},
};
use crate::json::JsonError;

/// Why a request body is refused: becomes a 400 in OpenAI's error shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// For the client. Names the member and what it must be; quotes nothing of the body but names of members.
    pub message: String,
    /// The member, as `temperature` or `messages[2].role`; none where the body as a whole is wrong.
    pub param: Option<String>,
    /// `missing_required_parameter`, `invalid_type` or `invalid_value`, which OpenAI uses as well.
    pub code: Option<&'static str>,
}

impl RequestError {
    /// `param` is of the wrong JSON type; `expected` is a noun phrase.
    pub(crate) fn invalid_type(param: impl Into<String>, expected: &str) -> Self {
        Self::about(param.into(), &format!("must be {expected}"), "invalid_type")
    }

    /// `param` has a value that is not allowed; `rule` completes a sentence that begins with the member's name.
    pub(crate) fn invalid_value(param: impl Into<String>, rule: &str) -> Self {
        Self::about(param.into(), rule, "invalid_value")
    }

    pub(crate) fn missing(param: impl Into<String>) -> Self {
        Self::about(param.into(), "is required", "missing_required_parameter")
    }

    fn about(param: String, rule: &str, code: &'static str) -> Self {
        Self { message: format!("{param} {rule}"), param: Some(param), code: Some(code) }
    }

    fn not_json(error: &JsonError, body: &[u8]) -> Self {
        let (line, column) = error.line_and_column(body);
        let message =
            format!("the request body is not valid JSON: {} at line {line} column {column}", error.message);
        Self { message, param: None, code: None }
    }
}

/// Failure inside a scan.
#[derive(Debug)]
enum Fault {
    Json(JsonError),
    Request(RequestError),
}

impl Fault {
    fn into_request_error(self, body: &[u8]) -> RequestError {
        match self {
            Self::Json(error) => RequestError::not_json(&error, body),
            Self::Request(error) => error,
        }
    }
}

impl From<JsonError> for Fault {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

impl From<RequestError> for Fault {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

type Scan<T> = Result<T, Fault>;

#[cfg(test)]
mod tests;
