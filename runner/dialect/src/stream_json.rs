//! The output of Claude Code's `--output-format stream-json`, which qwen-code has taken over: one JSON object a line.
//! As of claude 2.1 and qwen 0.15.
//!
//! - `stream_event` wraps the events of Anthropic's Messages API: the deltas, the stop reason, the usage.
//! - `assistant` has a block of the same message whole; or all of it, when the stream broke and the CLI asked again
//!   without streaming (then under another message id); or, with the model `<synthetic>`, an error as text.
//! - `user` has the results of tools; `system`/`api_retry` tells of retries.
//! - `result` is the last word: the usage of all calls, and `is_error`. Its `subtype` is "success" on errors too.
//!
//! What has a `parent_tool_use_id` belongs to an agent that the model called, not to the answer.

use runner_api::{ErrorClass, FinishReason, RunUsage};
use serde_json::Value;

use crate::Action;
use crate::answer::Answer;
use crate::failure::Failure;
use crate::one_shot::head_says;

/// What differs between the CLIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Claude,
    /// A message's parts have ids of their own, and tokens of the cache count as input.
    Qwen,
}

#[derive(Debug)]
pub(crate) struct StreamJson {
    flavour: Flavour,
    /// The id of the message that streams, or came last.
    message: String,
    stream: Stream,
    /// Usage of the messages that have ended, and of the present one.
    ended: RunUsage,
    present: RunUsage,
    /// What the CLI gives up for, if nothing better comes.
    failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// No message streams.
    Idle,
    Open,
    /// The message before it broke off, and part of it was told: its text waits for the whole.
    Again,
    /// The message broke off, and came whole under another id.
    Replaced,
}

impl StreamJson {
    pub(crate) fn new(flavour: Flavour) -> Self {
        Self {
            flavour,
            message: String::new(),
            stream: Stream::Idle,
            ended: RunUsage::default(),
            present: RunUsage::default(),
            failure: None,
        }
    }

    pub(crate) fn object(&mut self, object: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        if object["parent_tool_use_id"].is_string() {
            return;
        }
        match object["type"].as_str().unwrap_or_default() {
            "stream_event" => self.event(&object["event"], answer, out),
            "assistant" if object.pointer("/message/model").is_some_and(|model| model == "<synthetic>") => {
                self.failure = Some(synthetic(object));
            }
            "assistant" => self.assistant(&object["message"], answer, out),
            "user" => {
                for block in blocks(&object["message"]) {
                    if block["type"] == "tool_result" && block["is_error"] == true {
                        answer.tool_failed(out);
                    }
                }
            }
            "system" if object["subtype"] == "api_retry" => {
                let failure = retried(object);
                answer.notice(&format!("the CLI asks again: {}", failure.message()), out);
                self.failure = Some(failure);
            }
            "result" => self.result(object, answer, out),
            _ => {}
        }
    }

    /// What a tool printed, or what the CLI tells of itself.
    pub(crate) fn can_lose(head: &[u8]) -> bool {
        head_says(head, "type", "user") || head_says(head, "type", "system")
    }

    /// The process is gone without a `result`.
    pub(crate) fn end(&mut self, answer: &mut Answer) {
        if let Some(failure) = self.failure.take() {
            answer.fail(failure);
        }
    }

    fn event(&mut self, event: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
        match text("/type") {
            "message_start" => {
                if matches!(self.stream, Stream::Open | Stream::Again) && answer.has_text() {
                    self.stream = Stream::Again;
                    answer.begin_anew();
                } else {
                    self.next_message(answer, out);
                    self.stream = Stream::Open;
                }
                text("/message/id").clone_into(&mut self.message);
                self.failure = None;
                self.present = self.usage(&event["message"]["usage"]);
            }
            "content_block_delta" if self.stream == Stream::Open => {
                answer.text(text("/delta/text"), out);
                answer.reasoning(text("/delta/thinking"), out);
            }
            "message_delta" => {
                let told = self.usage(&event["usage"]);
                self.present.output_tokens = told.output_tokens.or(self.present.output_tokens);
                // The CLI would go on and ask for the rest, several times, and then call it all an error.
                if let reason @ Some(FinishReason::Length | FinishReason::ContentFilter) =
                    reason(&event["delta"]["stop_reason"])
                {
                    answer.set_usage(sum(self.ended, self.present));
                    answer.finish(reason);
                }
            }
            "message_stop" => self.stream = Stream::Idle,
            _ => {}
        }
    }

    fn assistant(&mut self, message: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        let id = message["id"].as_str().unwrap_or_default();
        let other = self.flavour == Flavour::Claude && id != self.message;
        match self.stream {
            Stream::Open if other => {
                self.stream = Stream::Replaced;
                answer.begin_anew();
            }
            Stream::Idle | Stream::Replaced if other => {
                self.next_message(answer, out);
                self.stream = Stream::Idle;
            }
            _ => {}
        }
        if other {
            id.clone_into(&mut self.message);
            self.present = self.usage(&message["usage"]);
        }
        let anew = matches!(self.stream, Stream::Again | Stream::Replaced);
        for block in blocks(message) {
            let text = |name: &str| block[name].as_str().unwrap_or_default();
            match text("type") {
                "text" if anew => answer.text_anew(text("text"), out),
                "text" => answer.whole_text(text("text"), out),
                // Of a message that comes anew, reasoning may already have been told.
                "thinking" if !anew => answer.whole_reasoning(text("thinking"), out),
                "tool_use" | "server_tool_use" | "mcp_tool_use" => {
                    answer.tool(text("id"), text("name"), block["input"].to_string(), out);
                }
                _ => {}
            }
        }
    }

    /// The present message has ended, and another one comes.
    fn next_message(&mut self, answer: &mut Answer, out: &mut Vec<Action>) {
        answer.next_text(out);
        answer.next_reasoning();
        self.ended = sum(self.ended, std::mem::take(&mut self.present));
    }

    fn result(&mut self, result: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        let told = self.usage(&result["usage"]);
        let nothing = told.input_tokens.unwrap_or(0) == 0 && told.output_tokens.unwrap_or(0) == 0;
        let usage = if nothing { sum(self.ended, self.present) } else { told };
        if usage != RunUsage::default() {
            answer.set_usage(usage);
        }
        let text = result["result"].as_str().unwrap_or_default();
        let reason = reason(&result["stop_reason"]);
        if result["is_error"] != true {
            if !answer.has_said() {
                answer.text(text, out);
            }
            answer.finish(reason);
            return;
        }
        if reason == Some(FinishReason::ContentFilter) {
            answer.finish(reason);
            return;
        }
        let error = result.pointer("/error/message").and_then(Value::as_str).unwrap_or(text);
        let error = if error.is_empty() { result["subtype"].as_str().unwrap_or("error") } else { error };
        let class = self.failure.take().and_then(|failure| failure.class());
        answer.fail(Failure::of_vendor(error, status(&result["api_error_status"])).with_class(class));
    }

    fn usage(&self, usage: &Value) -> RunUsage {
        let count = |name: &str| usage[name].as_u64();
        let cached = count("cache_read_input_tokens");
        let input = match self.flavour {
            Flavour::Claude => add(add(count("input_tokens"), cached), count("cache_creation_input_tokens")),
            Flavour::Qwen => count("input_tokens"),
        };
        RunUsage {
            input_tokens: input,
            output_tokens: count("output_tokens"),
            cached_input_tokens: cached,
            reasoning_tokens: None,
        }
    }
}

fn blocks(message: &Value) -> impl Iterator<Item = &Value> {
    message["content"].as_array().into_iter().flatten()
}

fn reason(reason: &Value) -> Option<FinishReason> {
    match reason.as_str()? {
        "max_tokens" | "model_context_window_exceeded" => Some(FinishReason::Length),
        "refusal" => Some(FinishReason::ContentFilter),
        _ => Some(FinishReason::Stop),
    }
}

fn status(status: &Value) -> Option<u16> {
    status.as_u64().and_then(|status| u16::try_from(status).ok())
}

/// An error that stands where the model's message would.
fn synthetic(object: &Value) -> Failure {
    let text: String = blocks(&object["message"]).filter_map(|block| block["text"].as_str()).collect();
    Failure::of_vendor(text, None).with_class(class(&object["error"]))
}

fn retried(object: &Value) -> Failure {
    let status = status(&object["error_status"]);
    let error = object["error"].as_str().unwrap_or("unknown error");
    let message = match status {
        Some(status) => format!("{error}, status {status}"),
        None => error.to_owned(),
    };
    Failure::of_vendor(message, status).with_class(class(&object["error"]))
}

/// Claude Code's names of errors; None for those that say nothing of whose fault it is.
fn class(error: &Value) -> Option<ErrorClass> {
    match error.as_str()? {
        "authentication_failed" | "oauth_org_not_allowed" => Some(ErrorClass::Auth),
        "billing_error" => Some(ErrorClass::QuotaExhausted),
        "rate_limit" => Some(ErrorClass::RateLimited),
        "overloaded" => Some(ErrorClass::Overloaded),
        "model_not_found" => Some(ErrorClass::NotFound),
        "invalid_request" => Some(ErrorClass::InvalidRequest),
        _ => None,
    }
}

fn add(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

fn sum(one: RunUsage, other: RunUsage) -> RunUsage {
    RunUsage {
        input_tokens: add(one.input_tokens, other.input_tokens),
        output_tokens: add(one.output_tokens, other.output_tokens),
        cached_input_tokens: add(one.cached_input_tokens, other.cached_input_tokens),
        reasoning_tokens: add(one.reasoning_tokens, other.reasoning_tokens),
    }
}
