//! An upstream's bytes → steps of an answer, given to the relay one by one. Sans-IO; how the bytes are cut does not
//! matter.

use bytes::{Bytes, BytesMut};
use openai_wire::sse::{self, SseDecoder, SseEvent};
use runner_api::frame::Decoder;

use crate::error::UpstreamFailure;
use crate::event::ChatEvent;
use crate::relay::{ChunkRelay, Summary};
use crate::routes::Upstream;
use crate::run_events::{chat_event, frame_failure};

pub(crate) enum Reader {
    /// OpenAI's stream of chunks.
    Sse(SseDecoder),
    /// A runner's events of one run.
    Run { decoder: Decoder, run: String },
}

pub(crate) enum Step {
    /// There may be more.
    Taken,
    /// More bytes are needed.
    Starved,
    /// What comes behind it is no part of the answer.
    Ended(Result<Summary, UpstreamFailure>),
}

impl Reader {
    pub(crate) fn push(&mut self, data: Bytes) {
        match self {
            Self::Sse(decoder) => decoder.push(data),
            Self::Run { decoder, .. } => decoder.push(&data),
        }
    }

    pub(crate) fn step(&mut self, relay: &mut ChunkRelay, out: &mut BytesMut, upstream: &Upstream) -> Step {
        match self {
            Self::Sse(decoder) => match decoder.next_event() {
                Some(event) => chunk(event, relay, out, upstream),
                None => Step::Starved,
            },
            Self::Run { decoder, run } => match decoder.next_event() {
                Ok(Some(event)) => match chat_event(event, run) {
                    Ok(Some(event)) => run_event(&event, relay, out, upstream),
                    Ok(None) => Step::Taken,
                    Err(failure) => Step::Ended(Err(failure)),
                },
                Ok(None) => Step::Starved,
                Err(error) => Step::Ended(Err(frame_failure(&error))),
            },
        }
    }

    /// The bytes have ended. A chunk may lack the blank line behind it; a run event that is not whole was cut off.
    pub(crate) fn finish(&mut self, relay: &mut ChunkRelay, out: &mut BytesMut, upstream: &Upstream) -> Step {
        match self {
            Self::Sse(decoder) => match decoder.finish() {
                Some(event) => chunk(event, relay, out, upstream),
                None => Step::Starved,
            },
            Self::Run { .. } => Step::Starved,
        }
    }
}

fn chunk<E>(
    event: Result<SseEvent, E>,
    relay: &mut ChunkRelay,
    out: &mut BytesMut,
    upstream: &Upstream,
) -> Step {
    let Ok(SseEvent { data, .. }) = event else {
        let message = "The upstream sent a stream event beyond the size limit.";
        return Step::Ended(Err(UpstreamFailure::unavailable(message)));
    };
    if data.is_empty() {
        return Step::Taken;
    }
    if data.trim_ascii() == sse::DONE {
        return Step::Ended(relay.end(out).map_err(|error| error.into_failure(upstream)));
    }
    match relay.data(&data, out) {
        Ok(()) => Step::Taken,
        Err(error) => Step::Ended(Err(error.into_failure(upstream))),
    }
}

fn run_event(event: &ChatEvent, relay: &mut ChunkRelay, out: &mut BytesMut, upstream: &Upstream) -> Step {
    relay.event(event, out);
    match event {
        ChatEvent::Finish { .. } => Step::Ended(relay.end(out).map_err(|error| error.into_failure(upstream))),
        _ => Step::Taken,
    }
}
