//! What an administrator is told when something cannot be done: OpenAI's shape of errors, plus `details` that name every
//! violation at once.

use axum::response::{IntoResponse, Response};
use catalog::StoreError;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::Role;

/// One violated rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Detail {
    /// Where: a JSON pointer (RFC 6901) into the body, or `/NAME` of a query parameter or header. Empty where all of it
    /// is meant.
    pub(crate) pointer: String,
    /// What is wrong and what to do about it.
    pub(crate) message: String,
}

impl Detail {
    pub(crate) fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }
}

/// Why a request was not done. Nothing was changed, except where [`StoreError`] says otherwise of `Unavailable`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AdminError {
    InvalidJson(String),
    /// All violations; never empty.
    Invalid(Vec<Detail>),
    InvalidCursor,
    MissingToken,
    /// Why, without anything of the token.
    InvalidToken(String),
    InsufficientRole {
        needed: Role,
    },
    /// What was not found: `API key "x"`.
    NotFound(String),
    UnknownRoute,
    MethodNotAllowed,
    /// What exists: `a provider with the slug "x"`.
    AlreadyExists(String),
    IdempotencyMismatch,
    /// Others changed it at the same time, again and again.
    Conflict(String),
    /// What cannot be changed, and where it can be.
    ReadOnly(String),
    VersionMismatch {
        /// The version that it has now, if it is known.
        current: Option<u64>,
    },
    TooLarge {
        max_bytes: usize,
    },
    /// The types that are taken.
    UnsupportedMediaType(&'static str),
    /// A new credential did not pass its test; the report.
    TestFailed {
        message: String,
        test: Value,
    },
    /// For the log alone.
    Internal(String),
    /// For the log alone.
    StoreUnavailable(String),
    /// Something else that is needed does not answer; for the administrator.
    Unavailable(String),
}

/// The outcome's code and, for the log alone, its cause.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) code: &'static str,
    pub(crate) cause: Option<String>,
}

/// Why an answer with a status of 500 or more is one, where that is known: what is logged, and not told to whoever asked.
/// For a program that runs the router for the very person whose store it is.
pub fn cause_of_failure(answer: &http::Extensions) -> Option<&str> {
    answer.get::<Logged>()?.cause.as_deref()
}

impl AdminError {
    /// One violation.
    pub(crate) fn invalid(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Detail::new(pointer, message)])
    }

    /// Stable and of low cardinality.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson(_) => "invalid_json",
            Self::Invalid(_) => "invalid_request",
            Self::InvalidCursor => "invalid_cursor",
            Self::MissingToken => "missing_token",
            Self::InvalidToken(_) => "invalid_token",
            Self::InsufficientRole { .. } => "insufficient_role",
            Self::NotFound(_) => "not_found",
            Self::UnknownRoute => "unknown_route",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::AlreadyExists(_) => "already_exists",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::Conflict(_) => "conflict",
            Self::ReadOnly(_) => "read_only",
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::TooLarge { .. } => "too_large",
            Self::UnsupportedMediaType(_) => "unsupported_media_type",
            Self::TestFailed { .. } => "test_failed",
            Self::Internal(_) => "internal",
            Self::StoreUnavailable(_) => "store_unavailable",
            Self::Unavailable(_) => "unavailable",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::InvalidJson(_) | Self::Invalid(_) | Self::InvalidCursor => StatusCode::BAD_REQUEST,
            Self::MissingToken | Self::InvalidToken(_) => StatusCode::UNAUTHORIZED,
            Self::InsufficientRole { .. } => StatusCode::FORBIDDEN,
            Self::NotFound(_) | Self::UnknownRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::AlreadyExists(_) | Self::IdempotencyMismatch | Self::Conflict(_) | Self::ReadOnly(_) => {
                StatusCode::CONFLICT
            }
            Self::VersionMismatch { .. } => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TestFailed { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::StoreUnavailable(_) | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn kind(&self) -> &'static str {
        match self.status() {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::InvalidJson(what) => format!("the body is not JSON: {what}"),
            Self::Invalid(details) => match details.as_slice() {
                [only] if only.pointer.is_empty() => only.message.clone(),
                [only] => format!("{}: {}", only.pointer, only.message),
                all => format!("{} members are wrong; see details", all.len()),
            },
            Self::InvalidCursor => {
                "cursor is none that this list gave: take nextCursor of the page before, with the same filters"
                    .to_owned()
            }
            Self::MissingToken => {
                "no token: send \"Authorization: Bearer TOKEN\" with a token for the administration".to_owned()
            }
            Self::InvalidToken(why) => format!("the token is not accepted: {why}"),
            Self::InsufficientRole { needed } => format!("this needs a token with the role {}", needed.as_str()),
            Self::NotFound(what) => format!("there is no {what}"),
            Self::UnknownRoute => "there is no such route; GET /openapi.json lists them all".to_owned(),
            Self::MethodNotAllowed => "this route does not have this method; see the header Allow".to_owned(),
            Self::AlreadyExists(what) => format!("there is {what} already"),
            Self::IdempotencyMismatch => {
                "this Idempotency-Key was used for another request; take a new one".to_owned()
            }
            Self::Conflict(what) => format!("{what}; read it again and repeat the change"),
            Self::ReadOnly(what) | Self::Unavailable(what) => what.clone(),
            Self::VersionMismatch { current } => {
                let now = current.map(|version| format!(": its ETag is now \"{version}\""));
                format!("it was changed since it was read{}; read it again", now.unwrap_or_default())
            }
            Self::TooLarge { max_bytes } => format!("the body is longer than {max_bytes} bytes"),
            Self::UnsupportedMediaType(taken) => format!("send the body with \"content-type: {taken}\""),
            Self::TestFailed { message, .. } => message.clone(),
            Self::Internal(_) => "an internal error; the log has more under the request id".to_owned(),
            Self::StoreUnavailable(_) => "the store does not answer; try again".to_owned(),
        }
    }

    fn cause(&self) -> Option<String> {
        match self {
            Self::Internal(cause) | Self::StoreUnavailable(cause) => Some(cause.clone()),
            _ => None,
        }
    }

    fn body(&self) -> Value {
        let details: &[Detail] = if let Self::Invalid(details) = self { details } else { &[] };
        // The first pointer in the form that OpenAI's `param` has.
        let param = details.first().filter(|first| !first.pointer.is_empty());
        let param = param.map(|first| first.pointer.trim_start_matches('/').replace('/', "."));
        let mut body = json!({
            "error": {"message": self.message(), "type": self.kind(), "code": self.code(), "param": param},
        });
        if !details.is_empty() {
            body["error"]["details"] = json!(details);
        }
        if let Self::TestFailed { test, .. } = self {
            body["test"] = test.clone();
        }
        body
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), axum::Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self {
            Self::MissingToken => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::InvalidToken(_) => {
                // RFC 6750, section 3.1.
                let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            Self::StoreUnavailable(_) | Self::Unavailable(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::MethodNotAllowed => {
                // The router adds the methods that it has; it needs something to add to.
                headers.remove(ALLOW);
            }
            _ => {}
        }
        response.extensions_mut().insert(Logged { code: self.code(), cause: self.cause() });
        response
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { what } => Self::Conflict(format!("{what} was changed by somebody else")),
            StoreError::Unavailable { .. } => Self::StoreUnavailable(error.to_string()),
            StoreError::Refused { reason } => Self::invalid("", format!("it cannot be stored: {reason}")),
            StoreError::Unreadable(_)
            | StoreError::NotSetUp { .. }
            | StoreError::Denied { .. }
            | StoreError::Broken { .. } => Self::Internal(error.to_string()),
        }
    }
}
