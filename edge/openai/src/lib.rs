//! OpenAI's wire formats: lenient in, strict out. Nothing here does I/O or reads a clock.
//!
//! - [`sse`]: bytes ↔ server-sent events.
//! - [`json`]: a cursor that finds its way in JSON without a tree.

pub mod json;
pub mod sse;
