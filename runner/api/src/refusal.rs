//! A request that does not become a run.

use serde::{Deserialize, Serialize};

/// The body of every answer that is not 2xx: `{"error": {"code", "message", "param"?}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: RefusalCode,
    pub message: String,
    /// The member of the request that is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// Also told, in whole seconds, by the header `retry-after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    error: T,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// 400: the request is not one, or a parameter's value is not allowed.
    InvalidRequest,
    /// 400: another major version of this protocol.
    Version,
    /// 403: the certificate's identity is not on the list.
    Forbidden,
    /// 404: no such CLI, no such run, no such path.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 409: the run id was seen before.
    Replayed,
    /// 408: the request's body did not come in time.
    SlowRequest,
    /// 413.
    TooLarge,
    /// 429: the queue is full, or the memory for requests is.
    Saturated,
    /// 503: the node finishes what runs and takes nothing new.
    Draining,
    /// 503: no sandbox could be made.
    Unavailable,
    /// 504: the deadline passed before the run began.
    Timeout,
    /// 500.
    #[serde(other)]
    Internal,
}

impl RefusalCode {
    /// For metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Version => "version",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Replayed => "replayed",
            Self::SlowRequest => "slow_request",
            Self::TooLarge => "too_large",
            Self::Saturated => "saturated",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }

    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::Version => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Replayed => 409,
            Self::SlowRequest => 408,
            Self::TooLarge => 413,
            Self::Saturated => 429,
            Self::Draining | Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::Internal => 500,
        }
    }
}

impl Refusal {
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None, retry_after_ms: None }
    }

    #[must_use]
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    #[must_use]
    pub fn retry_after_ms(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&Envelope { error: self }).expect("strings and numbers are always JSON")
    }

    /// `None` if the body is not a refusal.
    pub fn from_json(body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Envelope<Self>>(body).ok().map(|envelope| envelope.error)
    }
}
