//! One answer of a model, as its bytes pass.

use runner_api::{FinishReason, RunUsage};

use super::format;
use super::sse::EventData;
use crate::egress::api::AnswerFormat;

/// Longest answer in one piece that is read.
const MAX_JSON_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Answer {
    format: AnswerFormat,
    status: u16,
    body: Body,
    outcome: Outcome,
}

#[derive(Debug)]
enum Body {
    Events(EventData),
    Json(Vec<u8>),
    /// Longer than anybody reads.
    TooLong,
}

/// What is known of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) usage: Option<RunUsage>,
    pub(super) finish: Option<FinishReason>,
    pub(super) error: Option<VendorError>,
    /// The vendor has said that this is all.
    pub(super) complete: bool,
    /// It ended before that.
    pub(super) broken: bool,
}

/// An error in the vendor's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct VendorError {
    /// Of an error within a stream, which began as 200: the status that it stands for.
    pub(super) status: Option<u16>,
    pub(super) message: Option<String>,
    pub(super) retry_after_ms: Option<u64>,
}

impl Answer {
    pub(super) fn new(format: AnswerFormat, status: u16, content_type: &str) -> Self {
        let is_stream = content_type.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
        let body = if is_stream { Body::Events(EventData::default()) } else { Body::Json(Vec::new()) };
        Self { format, status, body, outcome: Outcome::default() }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        match &mut self.body {
            Body::Events(events) => {
                events.push(bytes, |data| format::read(self.format, data, &mut self.outcome));
            }
            Body::Json(held) if held.len() + bytes.len() > MAX_JSON_BYTES => self.body = Body::TooLong,
            Body::Json(held) => held.extend_from_slice(bytes),
            Body::TooLong => {}
        }
    }

    /// The body has ended as HTTP has it.
    pub(super) fn end(self) -> Outcome {
        let Self { format, status, body, mut outcome } = self;
        match body {
            Body::Events(events) => {
                events.end(|data| format::read(format, data, &mut outcome));
                outcome.complete |= status >= 400;
            }
            Body::Json(held) if status < 400 => {
                format::read(format, &held, &mut outcome);
                // One that says nothing of its finish is still whole.
                outcome.complete |= serde_json::from_slice::<serde::de::IgnoredAny>(&held).is_ok();
            }
            Body::Json(held) => {
                outcome.error = Some(format::read_error(&held));
                outcome.complete = true;
            }
            Body::TooLong => outcome.complete = true,
        }
        outcome.broken = !outcome.complete;
        outcome
    }

    /// What is kept until it can be read.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.body {
            Body::Events(events) => events.held_bytes(),
            Body::Json(held) => held.len(),
            Body::TooLong => 0,
        }
    }

    /// What is known before the end.
    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}
