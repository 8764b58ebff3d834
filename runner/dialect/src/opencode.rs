//! `opencode run --format json`: one JSON object a line, whole parts instead of deltas. As of opencode 1.18.
//!
//! A step is one call to the vendor: `step_start`, then `text`, `reasoning` and `tool_use` with a `part`, then
//! `step_finish` with its tokens and reason. `error` has the vendor's status. The exit code says whether it was fatal.

use runner_api::{FinishReason, RunUsage};
use serde_json::Value;

use crate::answer::{Answer, Manners};
use crate::failure::Failure;
use crate::one_shot::{JsonLines, Objects, OneShot, head_says, succeeded};
use crate::prompt::{Images, Input, Limit};
use crate::{Action, Dialect, Exit, Settings};

#[derive(Default)]
struct Opencode {
    /// A step began and has not finished.
    in_step: bool,
    /// The step's answer broke off and was asked for again: its text may come again.
    again: bool,
    reason: Option<FinishReason>,
    failure: Option<Failure>,
}

pub(crate) fn dialect(settings: &Settings) -> impl Dialect + use<> {
    let input =
        Input { system: settings.system, images: Images::Refused, commands: &['/'], limit: Limit::None };
    OneShot::new(input, settings.tools, Manners::default(), JsonLines::new(Opencode::default()))
}

impl Objects for Opencode {
    fn object(&mut self, object: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        let part = &object["part"];
        let text = |path: &str| part.pointer(path).and_then(Value::as_str).unwrap_or_default();
        match object["type"].as_str().unwrap_or_default() {
            "step_start" => {
                self.again = self.in_step && answer.has_text();
                answer.begin_anew();
                self.in_step = true;
            }
            "text" if self.again => answer.text_anew(text("/text"), out),
            "text" => {
                answer.next_text(out);
                answer.text(text("/text"), out);
            }
            "reasoning" => {
                answer.next_reasoning();
                answer.reasoning(text("/text"), out);
            }
            "tool_use" => {
                let arguments = part.pointer("/state/input").map(Value::to_string).unwrap_or_default();
                answer.tool(text("/callID"), text("/tool"), arguments, out);
                if text("/state/status") == "error" {
                    answer.tool_failed(out);
                }
            }
            "step_finish" => {
                self.in_step = false;
                self.reason = Some(reason(text("/reason")));
                answer.next_text(out);
                answer.set_usage(sum(answer.usage(), &part["tokens"]));
            }
            "error" => self.failure = Some(failure(&object["error"])),
            _ => {}
        }
    }

    /// What a tool printed.
    fn can_lose(&self, head: &[u8]) -> bool {
        head_says(head, "type", "tool_use")
    }

    fn end(&mut self, exit: Option<&Exit>, answer: &mut Answer) {
        match (self.failure.take(), self.reason) {
            // It calls a filtered answer an error, after it printed it.
            (Some(_), Some(FinishReason::ContentFilter)) => answer.finish(self.reason),
            (Some(failure), _) => answer.fail(failure),
            (None, Some(reason)) if succeeded(exit) => answer.finish(Some(reason)),
            (None, _) => {}
        }
    }
}

fn reason(reason: &str) -> FinishReason {
    match reason {
        "stop" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "content-filter" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}

/// opencode counts what came from the cache and what was reasoned apart; `total` has all.
fn sum(so_far: RunUsage, tokens: &Value) -> RunUsage {
    let count = |path: &str| tokens.pointer(path).and_then(Value::as_u64);
    let add = |before: Option<u64>, count: Option<u64>| match (before, count) {
        (Some(before), Some(count)) => Some(before.saturating_add(count)),
        (before, count) => before.or(count),
    };
    let (cached, written) = (count("/cache/read"), count("/cache/write"));
    let input = add(add(count("/input"), cached), written);
    let output = match (count("/total"), input) {
        (Some(total), Some(input)) if total >= input => Some(total - input),
        _ => count("/output"),
    };
    RunUsage {
        input_tokens: add(so_far.input_tokens, input),
        output_tokens: add(so_far.output_tokens, output),
        cached_input_tokens: add(so_far.cached_input_tokens, cached),
        reasoning_tokens: add(so_far.reasoning_tokens, count("/reasoning")),
    }
}

fn failure(error: &Value) -> Failure {
    let data = &error["data"];
    let name = error["name"].as_str().unwrap_or("unknown error");
    let message = data["message"].as_str().unwrap_or(name);
    let status = data["statusCode"].as_u64().and_then(|status| u16::try_from(status).ok());
    let seconds = data.pointer("/responseHeaders/retry-after").and_then(Value::as_str);
    let retry_after_ms = seconds.and_then(|seconds| seconds.parse::<u64>().ok()?.checked_mul(1000));
    Failure::of_vendor(message, status).with_retry_after_ms(retry_after_ms)
}
