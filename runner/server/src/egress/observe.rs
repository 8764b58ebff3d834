//! What a sandbox's calls of models came to, read from the answers as they pass.
//!
//! An [`Answer`] is sans-IO: bytes in, an [`Outcome`] out, the same however the bytes are cut. A [`Call`] brings it
//! into what the endpoint has [`Observed`].

mod answer;
mod format;
mod sse;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cli_dialect::Observed;
use http::HeaderMap;
use runner_api::RunUsage;

use super::Secret;
use super::api::AnswerFormat;
use answer::{Answer, Outcome};

/// Characters of an error message that are kept.
const MAX_MESSAGE_CHARS: usize = 2000;
/// What the answers of one endpoint keep, all together, until it can be read; each alone keeps no more than that.
const MAX_HELD_BYTES: usize = 8 << 20;

/// What one endpoint has seen.
#[derive(Debug, Default)]
pub(super) struct Observation(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// But for its usage.
    last: Observed,
    /// Whether an answer of the last call has begun to come.
    answering: bool,
    /// Of the calls that are over.
    usage: Option<RunUsage>,
    /// Of those whose answers are complete, but have not come to their end: a CLI may read the last event, and exit,
    /// before the end comes.
    passing: BTreeMap<u32, RunUsage>,
    /// The sum of what all calls hold.
    held_bytes: usize,
}

impl Observation {
    pub(super) fn observed(&self) -> Observed {
        let seen = self.lock();
        let usage = seen.usage.iter().chain(seen.passing.values()).copied().reduce(sum);
        Observed { usage, ..seen.last.clone() }
    }

    /// A call of a model begins: it is the last one from now on.
    pub(super) fn begin(self: &Arc<Self>, format: AnswerFormat, credential: Option<Secret>) -> Call {
        let mut seen = self.lock();
        let number = seen.last.calls.saturating_add(1);
        let cut = std::mem::take(&mut seen.answering) && seen.last.finish.is_none();
        let interrupted = seen.last.interrupted.saturating_add(u32::from(cut));
        seen.last = Observed { calls: number, interrupted, ..Observed::default() };
        Call {
            number,
            observation: Arc::clone(self),
            format,
            credential,
            state: State::Waiting,
            held_bytes: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call of a model. If it is dropped before its answer has ended, the sandbox went away: no fault of the vendor's.
#[derive(Debug)]
pub(super) struct Call {
    number: u32,
    observation: Arc<Observation>,
    format: AnswerFormat,
    /// Never to be part of a message.
    credential: Option<Secret>,
    state: State,
    held_bytes: usize,
}

#[derive(Debug)]
enum State {
    Waiting,
    /// Something that is not read, or no longer.
    Unread,
    Answer(Box<Answer>),
    Ended,
}

impl Call {
    /// The vendor did not answer.
    pub(super) fn failed(mut self, status: Option<u16>, message: &str) {
        self.state = State::Ended;
        self.change(|last| {
            last.status = status;
            last.message = Some(message.to_owned());
            last.broken = status.is_none();
        });
    }

    /// The head of the answer.
    pub(super) fn answered(&mut self, status: u16, headers: &HeaderMap) {
        self.change(|last| {
            last.status = Some(status);
            last.retry_after_ms = retry_after_ms(headers);
        });
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // It was asked not to.
        let is_encoded = !matches!(header("content-encoding"), "" | "identity");
        self.state = if is_encoded {
            State::Unread
        } else {
            State::Answer(Box::new(Answer::new(self.format, status, header("content-type"))))
        };
        let mut seen = self.observation.lock();
        if seen.last.calls == self.number {
            seen.answering = status < 400 && matches!(self.state, State::Answer(_));
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let State::Answer(answer) = &mut self.state else { return };
        answer.push(bytes);
        let held_bytes = answer.held_bytes();
        if answer.outcome().complete {
            let outcome = answer.outcome().clone();
            self.note(&outcome);
        }
        if !self.hold(held_bytes) {
            self.state = State::Unread;
        }
    }

    /// Whether the endpoint's allowance lets this call hold so much. If not, it holds nothing any more.
    fn hold(&mut self, bytes: usize) -> bool {
        if bytes == self.held_bytes {
            return true;
        }
        let mut seen = self.observation.lock();
        let others = seen.held_bytes - self.held_bytes;
        let has_room = others + bytes <= MAX_HELD_BYTES;
        self.held_bytes = if has_room { bytes } else { 0 };
        seen.held_bytes = others + self.held_bytes;
        if !has_room && seen.last.calls == self.number {
            // Whether it is cut will not be known.
            seen.answering = false;
        }
        has_room
    }

    /// The body came to its end.
    pub(super) fn end(&mut self) {
        if let State::Answer(answer) = std::mem::replace(&mut self.state, State::Ended) {
            self.note(&answer.end());
        }
    }

    /// The connection to the vendor failed, or nothing came for too long.
    pub(super) fn break_off(&mut self) {
        let outcome = match std::mem::replace(&mut self.state, State::Ended) {
            State::Answer(answer) => answer.outcome().clone(),
            State::Ended => return,
            State::Waiting | State::Unread => Outcome::default(),
        };
        // What comes after the end marker means nothing.
        self.note(&Outcome { broken: !outcome.complete, ..outcome });
    }

    fn note(&self, outcome: &Outcome) {
        let succeeded = outcome.complete && outcome.error.is_none();
        match outcome.usage.filter(|_| succeeded) {
            Some(usage) => self.observation.lock().passing.insert(self.number, usage),
            None => self.observation.lock().passing.remove(&self.number),
        };
        self.change(|last| {
            last.finish = outcome.finish;
            last.broken = outcome.broken;
            if let Some(error) = &outcome.error {
                last.status = error.status.or(last.status);
                last.retry_after_ms = last.retry_after_ms.or(error.retry_after_ms);
                last.message = error.message.as_deref().map(|message| self.presentable(message));
            }
        });
    }

    /// Changes what is known of the last call, if this is it.
    fn change(&self, change: impl FnOnce(&mut Observed)) {
        let mut seen = self.observation.lock();
        if seen.last.calls == self.number {
            change(&mut seen.last);
        }
    }

    fn presentable(&self, message: &str) -> String {
        let redacted;
        let message = match &self.credential {
            // A vendor may say which key it refuses.
            Some(credential) => {
                redacted = message.replace(credential.expose(), "***");
                &redacted
            }
            None => message,
        };
        message.chars().take(MAX_MESSAGE_CHARS).collect()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut seen = self.observation.lock();
        seen.held_bytes -= self.held_bytes;
        if let Some(usage) = seen.passing.remove(&self.number) {
            seen.usage = Some(seen.usage.map_or(usage, |before| sum(before, usage)));
        }
    }
}

/// In seconds (RFC 9110, section 10.2.3), or in milliseconds as OpenAI and Anthropic also say it. Dates are not read:
/// no vendor sends one.
fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    number("retry-after-ms").or_else(|| number("retry-after").map(|seconds| seconds.saturating_mul(1000)))
}

fn sum(a: RunUsage, b: RunUsage) -> RunUsage {
    let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    };
    RunUsage {
        input_tokens: sum(a.input_tokens, b.input_tokens),
        output_tokens: sum(a.output_tokens, b.output_tokens),
        cached_input_tokens: sum(a.cached_input_tokens, b.cached_input_tokens),
        reasoning_tokens: sum(a.reasoning_tokens, b.reasoning_tokens),
    }
}

#[cfg(test)]
mod tests;
