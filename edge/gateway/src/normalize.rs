//! Upstream chunks and completions, in whatever dialect of OpenAI's they come → canonical events.

use std::fmt;

use openai_wire::{ChatChunk, ChatCompletion, FinishReason, ToolCallDelta};

use crate::event::ChatEvent;

/// Calls that one answer may make.
const MAX_CALLS: usize = 512;
/// Arguments of one call that are held back before more are dropped.
const MAX_HELD_BYTES: usize = 64 * 1024;

/// What ids are made of where an upstream gives none: differs between any two answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed {
    /// Random, per instance of the gateway.
    pub instance: u64,
    pub count: u64,
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:08x}", self.instance, self.count)
    }
}

/// Keeps what must be remembered between the chunks of one answer.
#[derive(Debug, Default)]
pub(crate) struct Normalizer {
    calls: Vec<Call>,
    /// Choices that refused: however the upstream calls their end, it is a content filter's.
    refused: Vec<u32>,
    started: bool,
}

#[derive(Debug)]
struct Call {
    choice: u32,
    /// Among the choice's calls that have a name, in the order in which the names came.
    index: u32,
    upstream_index: Option<u64>,
    upstream_id: Option<String>,
    /// Empty until it has come and been sent.
    name: String,
    arguments_sent: bool,
    /// Arguments that came before the name, or an empty object that may turn out to be only a placeholder.
    pending: String,
}

impl Normalizer {
    /// Whether the finish needs this path too, however regular it looks.
    pub(crate) fn changes_finish(&self) -> bool {
        !self.calls.is_empty() || !self.refused.is_empty()
    }

    /// `seed` makes ids for calls that have none; it differs between answers.
    pub(crate) fn chunk(&mut self, chunk: ChatChunk, seed: Seed, events: &mut Vec<ChatEvent>) {
        if !self.started {
            self.started = true;
            events.push(ChatEvent::Start { id: chunk.id, created: chunk.created });
        }
        for choice in chunk.choices {
            let index = choice.index;
            // Some put a whole message where a delta belongs.
            let delta = choice.delta.or(choice.message).unwrap_or_default();
            if let Some(text) = delta.reasoning_content.or(delta.reasoning).filter(|t| !t.is_empty()) {
                events.push(ChatEvent::Reasoning { choice: index, text });
            }
            if let Some(text) = delta.content.filter(|t| !t.is_empty()) {
                events.push(ChatEvent::Text { choice: index, text, logprobs: choice.logprobs });
            }
            if let Some(text) = delta.refusal.filter(|t| !t.is_empty()) {
                if !self.refused.contains(&index) {
                    self.refused.push(index);
                }
                events.push(ChatEvent::Text { choice: index, text, logprobs: None });
            }
            let legacy = delta.function_call.map(ToolCallDelta::from_legacy);
            for call in delta.tool_calls.into_iter().chain(legacy) {
                self.call(index, call, seed, events);
            }
            if let Some(reason) = choice.finish_reason.as_deref().filter(|r| !r.is_empty()) {
                self.finish(index, FinishReason::from_upstream(reason), events);
            }
        }
        if let Some(usage) = chunk.usage {
            events.push(ChatEvent::Usage(usage));
        }
    }

    /// A whole answer, as the events it would have been streamed as.
    pub(crate) fn completion(completion: ChatCompletion, seed: Seed, events: &mut Vec<ChatEvent>) {
        Self::default().chunk(completion, seed, events);
    }

    fn call(&mut self, choice: u32, delta: ToolCallDelta, seed: Seed, events: &mut Vec<ChatEvent>) {
        let id = delta.id.filter(|id| !id.is_empty());
        let name = delta.function.name.filter(|name| !name.is_empty());
        let arguments = delta.function.arguments.unwrap_or_default();
        let known = self.find(choice, delta.index, id.as_deref()).filter(|&at| {
            // Without an id, another name is another call, and so is the same one whose arguments begin anew.
            let call = &self.calls[at];
            let begins_anew = |name: &String| {
                !call.name.is_empty()
                    && (call.name != *name || call.arguments_sent && arguments.starts_with('{'))
            };
            id.is_some() || !name.as_ref().is_some_and(begins_anew)
        });
        let Some(at) = known.or_else(|| self.begin(choice, delta.index)) else { return };
        if self.calls[at].upstream_id.is_none() && self.calls[at].name.is_empty() {
            self.calls[at].upstream_id = id;
        }
        let total = self.calls.len();
        // Some give all calls the same id; clients answer calls by it.
        let taken = |id: &String| {
            self.calls[..at].iter().any(|c| c.choice == choice && c.upstream_id.as_ref() == Some(id))
        };
        let named = self.calls.iter().filter(|c| c.choice == choice && !c.name.is_empty()).count();
        let own_id = self.calls[at].upstream_id.clone().filter(|id| !taken(id));
        let call = &mut self.calls[at];
        if let Some(name) = name
            && call.name.is_empty()
        {
            call.name.clone_from(&name);
            call.index = u32::try_from(named).unwrap_or(u32::MAX);
            let id = own_id.unwrap_or_else(|| format!("call_{seed}_{total}"));
            events.push(ChatEvent::ToolCallStart { choice, call: call.index, id, name });
        }
        // What is held back is bounded: an upstream that never gives the name does not fill the memory.
        if call.pending.len() <= MAX_HELD_BYTES {
            call.pending.push_str(&arguments);
        }
        // "{}" is held: some send it first and the real arguments after.
        if !call.name.is_empty() && !call.pending.is_empty() && call.pending.trim() != "{}" {
            let mut fragment = std::mem::take(&mut call.pending);
            if !call.arguments_sent
                && let Some(real) = fragment.strip_prefix("{}")
                && !real.trim().is_empty()
            {
                fragment.drain(..fragment.len() - real.len());
            }
            call.arguments_sent = true;
            events.push(ChatEvent::ToolCallArguments { choice, call: call.index, fragment });
        }
    }

    /// Upstreams tell calls apart by index, by id, by both, or not at all.
    fn find(&self, choice: u32, index: Option<u64>, id: Option<&str>) -> Option<usize> {
        self.calls.iter().rposition(|call| {
            let same_id = || call.upstream_id.as_deref() == id;
            call.choice == choice
                && match (index, id) {
                    // The same index under another id is another call.
                    (Some(_), Some(_)) => {
                        call.upstream_index == index && (call.upstream_id.is_none() || same_id())
                    }
                    (Some(_), None) => call.upstream_index == index,
                    (None, Some(_)) => same_id(),
                    (None, None) => true,
                }
        })
    }

    fn begin(&mut self, choice: u32, upstream_index: Option<u64>) -> Option<usize> {
        if self.calls.len() == MAX_CALLS {
            return None;
        }
        self.calls.push(Call {
            choice,
            index: 0,
            upstream_index,
            upstream_id: None,
            name: String::new(),
            arguments_sent: false,
            pending: String::new(),
        });
        Some(self.calls.len() - 1)
    }

    fn finish(&mut self, choice: u32, reason: FinishReason, events: &mut Vec<ChatEvent>) {
        let mut called = false;
        for call in self.calls.iter_mut().filter(|c| c.choice == choice && !c.name.is_empty()) {
            called = true;
            if !call.arguments_sent {
                call.arguments_sent = true;
                events.push(ChatEvent::ToolCallArguments {
                    choice,
                    call: call.index,
                    fragment: "{}".to_owned(),
                });
            }
        }
        let reason = match reason {
            _ if self.refused.contains(&choice) => FinishReason::ContentFilter,
            FinishReason::Stop | FinishReason::FunctionCall if called => FinishReason::ToolCalls,
            reason => reason,
        };
        events.push(ChatEvent::Finish { choice, reason });
    }
}
