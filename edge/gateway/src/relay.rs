//! One upstream stream → one client stream, frame by frame. Sans-IO.
//!
//! A frame that already has the shape clients need takes the short way: its bytes are copied with the model name
//! replaced. Any other is parsed, normalised into events and encoded anew. Both ways may alternate within a stream.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use openai_wire::response::{ChunkScan, ChunkScanner, Shape};
use openai_wire::{ChatChunk, FinishReason, Usage, sse};

use crate::encode::{self, Head};
use crate::error::{FailureClass, UpstreamFailure};
use crate::estimate::TokenCounter;
use crate::event::ChatEvent;
use crate::normalize::{Normalizer, Seed};
use crate::routes::{Adapter, Upstream};

/// What the client asked for, as far as the stream depends on it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The public model name as a JSON string, quotes included.
    pub model: Bytes,
    pub include_usage: bool,
    /// `n`: choices with a higher index are dropped.
    pub choices: u64,
    /// Makes ids where the upstream has none.
    pub seed: Seed,
    /// Unix seconds, for an upstream that does not say when.
    pub created: u64,
}

pub(crate) struct ChunkRelay {
    wanted: Wanted,
    id: String,
    created: Option<u64>,
    normalizer: Normalizer,
    scanner: ChunkScanner,
    /// Choices whose first delta is out, one bit each: no more than 128 can be asked for.
    begun: u128,
    /// Choices that have a finish reason, likewise.
    finished: u128,
    /// The frame with the finish reason, kept back until the usage is known, which belongs on it.
    held: Option<Held>,
    filtered: bool,
    output: bool,
    usage: Option<(Usage, Bytes)>,
    completion: TokenCounter,
    prompt_estimate: u64,
}

/// A frame that is whole but for model name and usage.
struct Held {
    json: Bytes,
    model: Option<Range<usize>>,
    /// The value of `usage`, null or not.
    usage: Option<Range<usize>>,
    close: usize,
}

/// What the stream came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub usage: Usage,
    pub estimated: bool,
}

impl ChunkRelay {
    pub(crate) fn new(wanted: Wanted, prompt_estimate: u64) -> Self {
        Self {
            wanted,
            id: String::new(),
            created: None,
            normalizer: Normalizer::default(),
            scanner: ChunkScanner::new(),
            begun: 0,
            finished: 0,
            held: None,
            filtered: false,
            output: false,
            usage: None,
            completion: TokenCounter::default(),
            prompt_estimate,
        }
    }

    /// Whether content for the client has come: from here on, no other target can take over.
    pub(crate) fn has_output(&self) -> bool {
        self.output
    }

    /// Whether the answer is complete, so that the upstream's end is no failure however it comes.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished != 0 && self.finished == self.begun
    }

    /// Takes the data of one upstream event. `Err` is final.
    pub(crate) fn data(&mut self, data: &Bytes, out: &mut BytesMut) -> Result<(), RelayError> {
        let Ok(scan) = self.scanner.scan(data) else { return Err(RelayError::NotJson) };
        if scan.error {
            return Err(RelayError::ErrorObject(data.clone()));
        }
        let reported = scan.usage.as_ref().filter(|(_, usage)| usage.total_tokens > 0);
        if let (Some((span, usage)), Shape::Conformant) = (reported, scan.shape) {
            // As it is written: it may tell more than the three counts.
            self.usage = Some((*usage, Bytes::copy_from_slice(&data[span.clone()])));
        }
        if scan.choices_empty && scan.shape == Shape::Conformant {
            // Only the usage, or something of the vendor's own that no client knows.
            return Ok(());
        }
        if !self.may_pass(&scan) {
            return self.normalize(data, out);
        }
        for text in &scan.text {
            self.completion.add_json(text.as_bytes());
        }
        if self.held.is_some() && !scan.output && !scan.finished {
            // Nothing, after the finish: the usage is still to be put on that.
            return Ok(());
        }
        self.output |= scan.output;
        self.begun |= 1;
        if self.id.is_empty() {
            // Once per stream: for the frames that are made here.
            let head = ChatChunk::parse(data).map_err(|_| RelayError::NotJson)?;
            self.id = head.id.unwrap_or_default();
            self.created = head.created;
        }
        if let Some(held) = self.held.take() {
            self.send(&held, None, out);
        }
        let model = scan.model.clone();
        if scan.finished {
            self.finished |= 1;
            let usage = scan.usage.as_ref().map(|(span, _)| span).or(scan.usage_null.as_ref()).cloned();
            let held = Held { json: data.clone(), model, usage, close: scan.close };
            match (self.wanted.include_usage, reported) {
                // It comes in a chunk of its own, and only there.
                (true, Some(_)) => self.send(&held, Some(b"null"), out),
                (true, None) | (false, Some(_)) => self.send(&held, None, out),
                (false, None) => self.held = Some(held),
            }
            return Ok(());
        }
        match model {
            Some(model) => {
                sse::encode_data_parts(out, &[&data[..model.start], &self.wanted.model, &data[model.end..]]);
            }
            None => sse::encode_data(out, data),
        }
        Ok(())
    }

    /// The usage of an answer that goes no further: as reported, if it was, or what has come so far.
    pub(crate) fn so_far(&self) -> Summary {
        let reported = self.usage.as_ref().map(|(usage, _)| *usage);
        let counted = || Usage::new(self.prompt_estimate, self.completion.tokens());
        Summary { usage: reported.unwrap_or_else(counted), estimated: reported.is_none() }
    }

    /// The upstream has said `[DONE]`, or has ended.
    pub(crate) fn end(&mut self, out: &mut BytesMut) -> Result<Summary, RelayError> {
        if !self.is_finished() {
            return Err(RelayError::Unfinished);
        }
        let reported = self.usage.take();
        let produced = reported.as_ref().is_some_and(|(usage, _)| usage.completion_tokens > 0);
        // A model may spend its tokens on what it does not show; but nothing at all is no answer.
        if !self.output && !produced && !self.filtered {
            return Err(RelayError::Empty);
        }
        let estimated = reported.is_none();
        let (usage, json) = reported.unwrap_or_else(|| {
            let usage = Usage::new(self.prompt_estimate, self.completion.tokens());
            (usage, encode::usage_json(&usage).into())
        });
        if estimated {
            sse::encode_comment(out, "x-usage-estimated: true");
        }
        if let Some(held) = self.held.take() {
            self.send(&held, Some(&json), out);
        }
        if self.wanted.include_usage {
            sse::encode_data(out, &encode::usage_chunk(&self.head(), &json));
        }
        sse::encode_done(out);
        Ok(Summary { usage, estimated })
    }

    fn may_pass(&self, scan: &ChunkScan<'_>) -> bool {
        scan.shape == Shape::Conformant
            && scan.max_index < self.wanted.choices
            // With several choices, who has begun is kept by the long way only.
            && self.wanted.choices == 1
            && (self.begun == 1 || scan.has_role)
            // The finish of an answer that said nothing: why it says nothing decides whether it is one.
            && !(scan.finished && (self.normalizer.changes_finish() || !(self.output || scan.output)))
    }

    fn normalize(&mut self, data: &Bytes, out: &mut BytesMut) -> Result<(), RelayError> {
        let chunk = ChatChunk::parse(data).map_err(|_| RelayError::NotJson)?;
        let mut events = Vec::new();
        self.normalizer.chunk(chunk, self.wanted.seed, &mut events);
        for event in events {
            self.event(&event, out);
        }
        Ok(())
    }

    /// Takes an event that was made elsewhere: the upstream answered in one piece.
    pub(crate) fn event(&mut self, event: &ChatEvent, out: &mut BytesMut) {
        let choice = match event {
            ChatEvent::Start { id, created } => {
                if self.id.is_empty() {
                    self.id = id.clone().unwrap_or_default();
                    self.created = *created;
                }
                return;
            }
            ChatEvent::Usage(usage) => {
                // What was read from the frame as it is written stays.
                if self.usage.as_ref().is_none_or(|(known, _)| known != usage) {
                    self.usage = Some((*usage, encode::usage_json(usage).into()));
                }
                return;
            }
            ChatEvent::Finish { choice, .. }
            | ChatEvent::Text { choice, .. }
            | ChatEvent::Reasoning { choice, .. }
            | ChatEvent::ToolCallStart { choice, .. }
            | ChatEvent::ToolCallArguments { choice, .. } => *choice,
        };
        // What nobody asked for is no output either.
        if u64::from(choice) >= self.wanted.choices {
            return;
        }
        if let Some(text) = event.text() {
            self.output = true;
            self.completion.add_text(text);
        }
        let bit = 1_u128.checked_shl(choice).unwrap_or(0);
        let first = bit != 0 && self.begun & bit == 0;
        self.begun |= bit;
        let Some(json) = encode::chunk(&self.head(), event, first) else { return };
        if let Some(held) = self.held.take() {
            self.send(&held, None, out);
        }
        if let ChatEvent::Finish { reason, .. } = event {
            self.finished |= bit;
            self.filtered |= *reason == FinishReason::ContentFilter;
            if !self.wanted.include_usage {
                let close = json.len() - 1;
                self.held = Some(Held { json: json.into(), model: None, usage: None, close });
                return;
            }
        }
        sse::encode_data(out, &json);
    }

    fn head(&self) -> Head {
        let id = if self.id.is_empty() { format!("chatcmpl-{}", self.wanted.seed) } else { self.id.clone() };
        Head { id, created: self.created.unwrap_or(self.wanted.created), model: self.wanted.model.clone() }
    }

    fn send(&self, held: &Held, usage: Option<&[u8]>, out: &mut BytesMut) {
        let json = &held.json;
        let mut parts: Vec<&[u8]> = Vec::with_capacity(6);
        let mut edits: Vec<(&Range<usize>, [&[u8]; 2])> = Vec::with_capacity(2);
        let at_close = held.close..held.close;
        if let Some(model) = &held.model {
            edits.push((model, [b"", &self.wanted.model]));
        }
        if let Some(usage) = usage {
            edits.push(match &held.usage {
                Some(span) => (span, [b"", usage]),
                None => (&at_close, [b",\"usage\":", usage]),
            });
        }
        edits.sort_by_key(|(span, _)| span.start);
        let mut at = 0;
        for (span, with) in edits {
            parts.push(&json[at..span.start]);
            parts.extend(with);
            at = span.end;
        }
        parts.push(&json[at..]);
        sse::encode_data_parts(out, &parts);
    }
}

/// Why a stream cannot go on.
#[derive(Debug)]
pub(crate) enum RelayError {
    NotJson,
    /// The upstream sent an error instead of a chunk.
    ErrorObject(Bytes),
    /// It ended without a finish reason.
    Unfinished,
    /// It finished without having said anything.
    Empty,
}

impl RelayError {
    pub(crate) fn into_failure(self, upstream: &Upstream) -> UpstreamFailure {
        match self {
            Self::NotJson => UpstreamFailure::unavailable(
                "The upstream's stream is broken: an event is not a JSON object.",
            ),
            Self::ErrorObject(data) => crate::classify::classify_error_object(&data, upstream),
            Self::Unfinished => {
                UpstreamFailure::unavailable("The upstream's stream ended before the answer was complete.")
            }
            // A run is not repeated on every node because it came to nothing on one.
            Self::Empty if matches!(upstream.adapter, Adapter::SpawnCli(_)) => {
                UpstreamFailure::new(FailureClass::Internal, "The CLI ended without an answer.")
            }
            Self::Empty => UpstreamFailure::unavailable("The upstream answered with nothing at all."),
        }
    }
}
