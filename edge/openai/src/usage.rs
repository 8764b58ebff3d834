//! Token counts.

use serde::{Deserialize, Serialize};

use crate::lenient;

/// `usage` of chat completions and embeddings, in tokens. Read leniently: absent, null or unreadable counts are 0, and
/// a missing total is the sum. Written, the three counts are always there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ReadUsage")]
pub struct Usage {
    pub prompt_tokens: u64,
    /// Reasoning included.
    pub completion_tokens: u64,
    pub total_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_tokens_details: Option<CompletionTokensDetails>,
}

impl Usage {
    pub fn new(prompt_tokens: u64, completion_tokens: u64) -> Self {
        let total_tokens = prompt_tokens.saturating_add(completion_tokens);
        Self { prompt_tokens, completion_tokens, total_tokens, ..Self::default() }
    }
}

/// Parts of `prompt_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTokensDetails {
    #[serde(default, deserialize_with = "lenient::count")]
    pub cached_tokens: u64,
}

/// Parts of `completion_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletionTokensDetails {
    #[serde(default, deserialize_with = "lenient::count")]
    pub reasoning_tokens: u64,
}

#[derive(Deserialize)]
struct ReadUsage {
    #[serde(default, deserialize_with = "lenient::count")]
    prompt_tokens: u64,
    #[serde(default, deserialize_with = "lenient::count")]
    completion_tokens: u64,
    #[serde(default, deserialize_with = "lenient::count")]
    total_tokens: u64,
    #[serde(default, deserialize_with = "lenient::optional")]
    prompt_tokens_details: Option<PromptTokensDetails>,
    #[serde(default, deserialize_with = "lenient::optional")]
    completion_tokens_details: Option<CompletionTokensDetails>,
}

impl From<ReadUsage> for Usage {
    fn from(read: ReadUsage) -> Self {
        let sum = read.prompt_tokens.saturating_add(read.completion_tokens);
        Self {
            prompt_tokens: read.prompt_tokens,
            completion_tokens: read.completion_tokens,
            total_tokens: if read.total_tokens == 0 { sum } else { read.total_tokens },
            prompt_tokens_details: read.prompt_tokens_details,
            completion_tokens_details: read.completion_tokens_details,
        }
    }
}
