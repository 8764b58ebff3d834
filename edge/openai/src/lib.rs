//! OpenAI's wire formats: lenient in, strict out. Nothing here does I/O or reads a clock.
//!
//! Two ways through: the short one scans bytes and lets them pass ([`request`], [`response`]); the other reads typed
//! values and writes them anew.
//!
//! - [`sse`]: bytes ↔ server-sent events.
//! - [`request`]: what the bodies of requests say, and rewriting them on the way through.
//! - [`response`]: what chunks and completions say, and whether they may pass through.
//! - [`json`]: a cursor that finds its way in JSON without a tree.

pub mod json;
mod lenient;
pub mod request;
pub mod response;
pub mod sse;
mod types;
mod usage;

pub use types::{
    ChatChunk, ChatCompletion, Choice, Delta, ErrorBody, FinishReason, FunctionDelta, ParseError,
    ToolCallDelta, UpstreamErrorBody, UpstreamModel, UpstreamModels,
};
pub use usage::{CompletionTokensDetails, PromptTokensDetails, Usage};
