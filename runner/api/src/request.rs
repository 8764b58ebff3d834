//! What a run is asked to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub const MAX_ID_LENGTH: usize = 64;
pub const MAX_CALLER_LENGTH: usize = 128;

/// One run of one CLI of the runner's own file.
///
/// The edge picks a CLI and values for its declared parameters; it cannot name anything else. The conversation goes to
/// the CLI over stdin or its protocol, never into argv.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// 1 to 64 of `A-Z a-z 0-9 _ -`, chosen by the edge, random. Accepted once: a runner
    /// refuses the id of a run that goes on, and those of the last hour, as far as they are among its latest 100,000.
    /// It remembers none across a restart.
    pub id: String,
    pub cli: String,
    /// Values for the parameters that the CLI's entry declares.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// On whose behalf, for fairness between callers: an API key's id. At most 128 bytes.
    pub caller: String,
    /// How long the run may take from its arrival, waiting included. The CLI's own limit may be shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Instructions that stand above the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The conversation, oldest first. The last message is the one to answer.
    pub messages: Vec<Message>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    pub parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    User,
    Assistant,
    /// What a tool of the client answered.
    Tool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    Text {
        text: String,
    },
    Image {
        /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
        media_type: String,
        /// Base64, standard alphabet, padded.
        data: String,
    },
    /// A tool of the client that the assistant called earlier in the conversation.
    ToolCall {
        id: String,
        name: String,
        arguments: String,
    },
    /// What that call gave.
    ToolResult {
        id: String,
        text: String,
    },
}

impl RunRequest {
    /// Checks what needs no knowledge of the runner's file.
    pub fn check(&self) -> Result<(), RequestError> {
        let fault = |param: &str, message: &str| {
            Err(RequestError { param: param.to_owned(), message: message.to_owned() })
        };
        if !is_run_id(&self.id) {
            return fault("id", "must be 1 to 64 of A-Z, a-z, 0-9, '_' and '-'");
        }
        if self.caller.is_empty() || self.caller.len() > MAX_CALLER_LENGTH {
            return fault("caller", "must have 1 to 128 bytes");
        }
        if self.timeout_ms == Some(0) {
            return fault("timeout_ms", "must be more than 0");
        }
        match self.messages.last() {
            None => fault("messages", "must not be empty"),
            Some(Message { role: Role::Assistant, .. }) => {
                fault("messages", "must not end with the assistant's own message")
            }
            Some(_) => Ok(()),
        }
    }
}

/// What is wrong with a request, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{param} {message}")]
pub struct RequestError {
    pub param: String,
    pub message: String,
}

pub fn is_run_id(id: &str) -> bool {
    (1..=MAX_ID_LENGTH).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}
