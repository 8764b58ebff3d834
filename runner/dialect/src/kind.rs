//! The dialects by name, and what an operator may set about them.

use crate::{
    Dialect, acp, claude, claude_session, codex, codex_app_server, gemini, jsonl, llm, opencode, qwen, text,
};

/// What a CLI is made to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// stdin to stdout, nothing else.
    Text,
    /// `claude -p --output-format stream-json --include-partial-messages`
    Claude,
    /// `gemini -o stream-json`
    Gemini,
    /// `codex exec --json`
    Codex,
    /// `opencode run --format json`
    Opencode,
    /// `qwen -o stream-json --include-partial-messages`
    Qwen,
    /// `llm -u`
    Llm,
    /// Any CLI that prints lines of JSON: [`Settings::jsonl`] says what is where.
    Jsonl,
    /// `claude -p --input-format stream-json --output-format stream-json`
    ClaudeStreamJson,
    /// `codex app-server`
    CodexAppServer,
    /// The Agent Client Protocol: `gemini --acp`, `qwen --acp`
    Acp,
}

impl Kind {
    /// Whether requests to such a CLI may have images.
    pub fn takes_images(self) -> bool {
        match self {
            Self::Gemini | Self::ClaudeStreamJson | Self::CodexAppServer | Self::Acp => true,
            Self::Text
            | Self::Claude
            | Self::Codex
            | Self::Opencode
            | Self::Qwen
            | Self::Llm
            | Self::Jsonl => false,
        }
    }
}

/// What an operator may set about a dialect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub tools: ToolsAs,
    pub system: SystemPrompt,
    /// For [`Kind::Jsonl`] only.
    pub jsonl: Option<JsonlPaths>,
}

/// As what the tools that a CLI runs in its sandbox are told, besides [`runner_api::RunEvent::ToolCall`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolsAs {
    #[default]
    Notice,
    Reasoning,
}

/// How a one-shot CLI gets the system prompt. Session protocols have their own way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SystemPrompt {
    /// At the head of the prompt.
    #[default]
    Inline,
    /// As `system.md` in the workspace, where the argv or the environment of the CLI's entry names it.
    File,
}

/// Where a line of JSON has what, as JSON Pointers (RFC 6901). A line without any of them is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonlPaths {
    /// A piece of the answer.
    pub text: String,
    pub reasoning: Option<String>,
    /// A later count replaces an earlier one.
    pub input_tokens: Option<String>,
    pub output_tokens: Option<String>,
    /// An error's message: the line ends the run as failed.
    pub error: Option<String>,
    /// `stop`, `length` or `content_filter`; anything else counts as `stop`.
    pub finish: Option<String>,
}

/// A dialect for one process.
pub fn dialect(kind: Kind, settings: &Settings) -> Box<dyn Dialect> {
    match kind {
        Kind::Text => Box::new(text::dialect(settings)),
        Kind::Claude => Box::new(claude::dialect(settings)),
        Kind::Gemini => Box::new(gemini::dialect(settings)),
        Kind::Codex => Box::new(codex::dialect(settings)),
        Kind::Opencode => Box::new(opencode::dialect(settings)),
        Kind::Qwen => Box::new(qwen::dialect(settings)),
        Kind::Llm => Box::new(llm::dialect(settings)),
        Kind::Jsonl => Box::new(jsonl::dialect(settings)),
        Kind::ClaudeStreamJson => Box::new(claude_session::dialect(settings)),
        Kind::CodexAppServer => Box::new(codex_app_server::dialect(settings)),
        Kind::Acp => Box::new(acp::dialect(settings)),
    }
}
