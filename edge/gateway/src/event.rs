//! Canonical events: what any upstream says, in one form.

use openai_wire::{FinishReason, Usage};
use serde_json::value::RawValue;

/// One step of an answer. `choice` counts from 0; more than one only where the client asked for `n`.
#[derive(Clone, Debug)]
pub enum ChatEvent {
    /// What the upstream calls this answer.
    Start {
        id: Option<String>,
        created: Option<u64>,
    },
    Text {
        choice: u32,
        text: String,
        logprobs: Option<Box<RawValue>>,
    },
    Reasoning {
        choice: u32,
        text: String,
    },
    /// `call` counts a choice's calls from 0, in order of appearance.
    ToolCallStart {
        choice: u32,
        call: u32,
        id: String,
        name: String,
    },
    /// A piece of the call's arguments, a JSON text.
    ToolCallArguments {
        choice: u32,
        call: u32,
        fragment: String,
    },
    Finish {
        choice: u32,
        reason: FinishReason,
    },
    Usage(Usage),
}

impl ChatEvent {
    /// What the model wrote: text, reasoning, a call's name or arguments.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text { text, .. }
            | Self::Reasoning { text, .. }
            | Self::ToolCallStart { name: text, .. }
            | Self::ToolCallArguments { fragment: text, .. } => Some(text),
            Self::Start { .. } | Self::Finish { .. } | Self::Usage(_) => None,
        }
    }
}
