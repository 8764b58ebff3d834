//! What AI CLIs read and print: a run request in, run events out.
//!
//! A [`Dialect`] is a state machine for one process. Its owner tells it what happened and does what it says; it does
//! no I/O and knows no clock, and its actions do not depend on how the process's output was cut.
//!
//! One-shot CLIs and session protocols have the same interface: [`Dialect::boot`] ends with [`Action::Ready`] once
//! the process may wait for its request (at once, for a CLI that reads its prompt from stdin), [`Dialect::begin`] gives
//! it the request, and exactly one event that [is the last](RunEvent::is_last) comes out, at the latest from
//! [`Dialect::end`].

mod acp;
mod answer;
mod claude;
mod claude_session;
mod codex;
mod codex_app_server;
mod failure;
mod gemini;
mod hold;
mod jsonl;
pub mod kind;
mod lines;
mod llm;
mod one_shot;
mod opencode;
mod plain;
pub mod prompt;
mod qwen;
mod rpc;
mod session;
mod stderr;
mod stream_json;
mod text;

pub use kind::{JsonlPaths, Kind, Settings, SystemPrompt, ToolsAs, dialect};
use runner_api::{FinishReason, RunEvent, RunRequest, RunUsage};

/// What the owner of the process is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write to the process's stdin.
    Write(Vec<u8>),
    /// Close stdin, after what was written.
    CloseStdin,
    /// The process waits for its request.
    Ready,
    /// Tell the edge.
    Event(RunEvent),
}

/// A file that must lie in the workspace before the process starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceFile {
    /// A plain name, chosen by the dialect, never by a request.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// How the process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// 0 to 255; 128 + N for a process that signal N ended. None if nobody knows.
    pub code: Option<i32>,
    /// A limit of the sandbox that ended it.
    pub limit: Option<Limit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Memory,
    Output,
    WallTime,
    IdleTime,
}

/// What the sandbox's egress endpoint saw of the vendor: some CLIs hide or misreport it. Empty where a CLI has no
/// egress or said nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Calls to the vendor's model API.
    pub calls: u32,
    /// Those before the last whose answer began and never came to its finish: as the CLI asked again, it may have
    /// printed the beginning twice.
    pub interrupted: u32,
    /// The status of the last of them.
    pub status: Option<u16>,
    /// The vendor's error message, if the last of them failed.
    pub message: Option<String>,
    pub retry_after_ms: Option<u64>,
    /// Summed over the calls that succeeded.
    pub usage: Option<RunUsage>,
    /// Of the last of them.
    pub finish: Option<FinishReason>,
    /// The last answer ended early, or the vendor could not be reached.
    pub broken: bool,
}

/// What a request asks of a CLI that it cannot take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{param}: {message}")]
pub struct PromptError {
    /// Such as `messages[3].parts[0]`.
    pub param: String,
    pub message: String,
}

pub trait Dialect: Send {
    /// Files that the request needs before the process starts. Only asked of a CLI that is started for this request.
    fn files(&self, request: &RunRequest) -> Result<Vec<WorkspaceFile>, PromptError>;

    /// The process has started.
    fn boot(&mut self, out: &mut Vec<Action>);

    /// Gives the process its request: once, and not before it was [`Action::Ready`]. After an error nothing was written.
    fn begin(&mut self, request: &RunRequest, out: &mut Vec<Action>) -> Result<(), PromptError>;

    /// The process wrote to stdout.
    fn stdout(&mut self, bytes: &[u8], out: &mut Vec<Action>);

    /// The process wrote to stderr.
    fn stderr(&mut self, bytes: &[u8], out: &mut Vec<Action>);

    /// Asks the process, by its protocol, to stop what it does. Nothing where the protocol has no word for it.
    fn cancel(&mut self, out: &mut Vec<Action>);

    /// The answer is complete as far as the CLI says, or the process is gone (`exit`). Called once; whatever is
    /// still to be said comes out, the last event among it unless it came before.
    fn end(&mut self, exit: Option<&Exit>, observed: &Observed, out: &mut Vec<Action>);

    /// Whether the CLI has said that this answer is complete, though its process lives on: time to call `end`.
    fn is_complete(&self) -> bool;
}
