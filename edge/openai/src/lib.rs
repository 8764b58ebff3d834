//! OpenAI's wire formats: lenient in, strict out. Nothing here does I/O or reads a clock.
//!
//! - [`sse`]: bytes ↔ server-sent events.
//! - [`request`]: what the bodies of requests say, and rewriting them on the way through.
//! - [`json`]: a cursor that finds its way in JSON without a tree.

pub mod json;
pub mod request;
pub mod sse;
