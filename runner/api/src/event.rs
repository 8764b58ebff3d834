//! What a run says while it goes on.

use serde::{Deserialize, Serialize};

/// One event of a run.
///
/// On the wire `{"type": "...", ...}`. Unknown members are ignored; an unknown type is [`RunEvent::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunEvent {
    /// The CLI has the request. Always the first event.
    Started {
        /// Milliseconds from the request's arrival at the runner.
        waited_ms: u64,
        /// Whether its sandbox had been waiting for a request; the CLI in it had been booted, if it can be.
        warm: bool,
    },
    /// A piece of the answer. Pieces are never repeated.
    Text { text: String },
    /// A piece of what the model says to itself.
    Reasoning { text: String },
    /// A tool that the CLI itself runs inside its sandbox. Nothing that a client could answer.
    ToolCall {
        #[serde(default)]
        id: String,
        name: String,
        /// A JSON text, if the CLI tells.
        #[serde(default)]
        arguments: String,
    },
    /// The run's usage so far; a later one replaces an earlier one.
    Usage(RunUsage),
    /// Something an operator may want to know: in logs and traces, never part of an answer.
    Notice { message: String },
    /// The run failed. The last event.
    Error {
        class: ErrorClass,
        /// For the client where the class says that it is the caller's fault; for logs otherwise. Never a secret.
        message: String,
        /// The HTTP status that the vendor answered, where one is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// The answer is complete. The last event.
    Finished { reason: FinishReason },
    /// An event of a newer minor version: to be passed over.
    #[serde(other, skip_serializing)]
    Unknown,
}

impl RunEvent {
    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Error { .. })
    }

    pub fn error(class: ErrorClass, message: impl Into<String>) -> Self {
        Self::Error { class, message: message.into(), status: None, retry_after_ms: None }
    }
}

/// Tokens, as the vendor counts them. A count that nobody told is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunUsage {
    /// All of the prompt, cached parts included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// All that was written, reasoning included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Of `input_tokens`, those read from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input_tokens: Option<u64>,
    /// Of `output_tokens`, those of reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_tokens: Option<u64>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    Stop,
    /// A limit of tokens.
    Length,
    /// The vendor's or the model's refusal.
    ContentFilter,
    #[serde(other)]
    Other,
}

/// Whose fault a failure is, and whether somebody else may do better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The vendor refused the operator's credential.
    Auth,
    RateLimited,
    /// A quota is used up for hours, or until somebody pays.
    QuotaExhausted,
    Overloaded,
    Timeout,
    /// The request itself was refused: another node would refuse it too.
    InvalidRequest,
    /// The vendor does not know the model.
    NotFound,
    ContentFilter,
    /// The vendor, the engine or the node could not be reached, or the run was cut off.
    Unavailable,
    /// Someone ended the run: the client, the operator, a drain.
    Cancelled,
    /// The CLI crashed, broke its protocol or a limit of its sandbox.
    #[serde(other)]
    Internal,
}

impl ErrorClass {
    /// For metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::RateLimited => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::InvalidRequest => "invalid_request",
            Self::NotFound => "not_found",
            Self::ContentFilter => "content_filter",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// What an HTTP status of a vendor means, where nothing more is known.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Auth,
            402 => Self::QuotaExhausted,
            404 => Self::NotFound,
            408 | 504 => Self::Timeout,
            429 => Self::RateLimited,
            503 | 529 => Self::Overloaded,
            400..=499 => Self::InvalidRequest,
            _ => Self::Unavailable,
        }
    }
}
