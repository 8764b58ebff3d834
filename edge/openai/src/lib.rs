//! OpenAI's wire formats: lenient in, strict out. Nothing here does I/O or reads a clock.
//!
//! - [`sse`]: bytes ↔ server-sent events.

pub mod sse;
