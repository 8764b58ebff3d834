//! Canonical events → what the client gets: chunks of a stream, or one completion.

use std::collections::BTreeMap;
use std::io::Write as _;

use bytes::Bytes;
use openai_wire::{FinishReason, Usage};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::ChatEvent;

/// What all chunks of an answer share.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub id: String,
    pub created: u64,
    /// The public model name as a JSON string, quotes included.
    pub model: Bytes,
}

#[derive(Serialize, Default)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ToolCall<'a>; 1]>,
}

#[derive(Serialize)]
struct ToolCall<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

/// One chunk as JSON. `first`: the choice's first delta, which carries the role. Start and usage events have no chunk
/// of their own.
pub(crate) fn chunk(head: &Head, event: &ChatEvent, first: bool) -> Option<Vec<u8>> {
    let role = first.then_some("assistant");
    let (choice, delta, reason, logprobs) = match event {
        ChatEvent::Text { choice, text, logprobs } => {
            (*choice, Delta { role, content: Some(text), ..Delta::default() }, None, logprobs.as_deref())
        }
        ChatEvent::Reasoning { choice, text } => {
            (*choice, Delta { role, reasoning_content: Some(text), ..Delta::default() }, None, None)
        }
        ChatEvent::ToolCallStart { choice, call, id, name } => {
            let call = ToolCall {
                index: *call,
                id: Some(id),
                kind: Some("function"),
                function: Function { name: Some(name), arguments: "" },
            };
            (*choice, Delta { role, tool_calls: Some([call]), ..Delta::default() }, None, None)
        }
        ChatEvent::ToolCallArguments { choice, call, fragment } => {
            let call = ToolCall {
                index: *call,
                id: None,
                kind: None,
                function: Function { name: None, arguments: fragment },
            };
            (*choice, Delta { role, tool_calls: Some([call]), ..Delta::default() }, None, None)
        }
        ChatEvent::Finish { choice, reason } => {
            (*choice, Delta { role, content: first.then_some(""), ..Delta::default() }, Some(*reason), None)
        }
        ChatEvent::Start { .. } | ChatEvent::Usage(_) => return None,
    };
    let mut json = open_chunk(head);
    json.extend_from_slice(b",\"choices\":[{\"index\":");
    write_json(&mut json, &choice);
    json.extend_from_slice(b",\"delta\":");
    write_json(&mut json, &delta);
    if let Some(logprobs) = logprobs {
        json.extend_from_slice(b",\"logprobs\":");
        json.extend_from_slice(logprobs.get().as_bytes());
    }
    json.extend_from_slice(b",\"finish_reason\":");
    write_json(&mut json, &reason.map(FinishReason::as_str));
    json.extend_from_slice(b"}]}");
    Some(json)
}

/// The last chunk for a client that asked for `include_usage`; `usage` is a JSON object.
pub(crate) fn usage_chunk(head: &Head, usage: &[u8]) -> Vec<u8> {
    let mut json = open_chunk(head);
    json.extend_from_slice(b",\"choices\":[],\"usage\":");
    json.extend_from_slice(usage);
    json.push(b'}');
    json
}

fn open_chunk(head: &Head) -> Vec<u8> {
    open(head, "chat.completion.chunk")
}

fn open(head: &Head, object: &str) -> Vec<u8> {
    let mut json = Vec::with_capacity(256);
    json.extend_from_slice(b"{\"id\":");
    write_json(&mut json, &head.id);
    write!(json, ",\"object\":\"{object}\",\"created\":{},\"model\":", head.created)
        .expect("a vector takes everything");
    json.extend_from_slice(&head.model);
    json
}

fn write_json(json: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(json, value)
        .expect("these types have string keys only, and a vector takes everything");
}

pub(crate) fn usage_json(usage: &Usage) -> Vec<u8> {
    let mut json = Vec::with_capacity(80);
    write_json(&mut json, usage);
    json
}

/// Folds events into one completion.
#[derive(Default)]
pub(crate) struct Fold {
    choices: BTreeMap<u32, FoldedChoice>,
}

#[derive(Default)]
struct FoldedChoice {
    content: Option<String>,
    reasoning: Option<String>,
    calls: Vec<FoldedCall>,
    logprobs: Option<Box<RawValue>>,
    reason: Option<FinishReason>,
}

struct FoldedCall {
    id: String,
    name: String,
    arguments: String,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WholeCall<'a>>,
}

#[derive(Serialize)]
struct WholeCall<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Option<&'a RawValue>,
    finish_reason: &'static str,
}

impl Fold {
    pub(crate) fn add(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Text { choice, text, logprobs } => {
                let choice = self.choices.entry(choice).or_default();
                choice.content.get_or_insert_default().push_str(&text);
                choice.logprobs = choice.logprobs.take().or(logprobs);
            }
            ChatEvent::Reasoning { choice, text } => {
                self.choices.entry(choice).or_default().reasoning.get_or_insert_default().push_str(&text);
            }
            ChatEvent::ToolCallStart { choice, id, name, .. } => {
                let call = FoldedCall { id, name, arguments: String::new() };
                self.choices.entry(choice).or_default().calls.push(call);
            }
            ChatEvent::ToolCallArguments { choice, call, fragment } => {
                if let Some(call) = self.choices.entry(choice).or_default().calls.get_mut(call as usize) {
                    call.arguments.push_str(&fragment);
                }
            }
            ChatEvent::Finish { choice, reason } => {
                self.choices.entry(choice).or_default().reason.get_or_insert(reason);
            }
            ChatEvent::Start { .. } | ChatEvent::Usage(_) => {}
        }
    }

    /// `None` while a choice has not finished, or where there is none.
    pub(crate) fn completion(&self, head: &Head, usage: &[u8]) -> Option<Vec<u8>> {
        let mut choices = Vec::with_capacity(self.choices.len());
        for (&index, choice) in &self.choices {
            let calls: Vec<_> = choice
                .calls
                .iter()
                .map(|call| WholeCall {
                    id: &call.id,
                    kind: "function",
                    function: Function { name: Some(&call.name), arguments: &call.arguments },
                })
                .collect();
            // Without a tool call, text is never null: clients index into it.
            let content = choice.content.as_deref().or(calls.is_empty().then_some(""));
            choices.push(Choice {
                index,
                message: Message {
                    role: "assistant",
                    content,
                    reasoning_content: choice.reasoning.as_deref(),
                    tool_calls: calls,
                },
                logprobs: choice.logprobs.as_deref(),
                finish_reason: choice.reason?.as_str(),
            });
        }
        if choices.is_empty() {
            return None;
        }
        let mut json = open(head, "chat.completion");
        json.extend_from_slice(b",\"choices\":");
        write_json(&mut json, &choices);
        json.extend_from_slice(b",\"usage\":");
        json.extend_from_slice(usage);
        json.push(b'}');
        Some(json)
    }
}
