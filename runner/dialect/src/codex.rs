//! `codex exec --json`: one JSON object a line, whole items instead of deltas. As of codex 0.169.
//!
//! `item.started` and `item.completed` carry an `item` of a `type`: `agent_message`, `reasoning`, `error` (a warning),
//! or a tool. `turn.completed` has the usage, `turn.failed` the error. A top-level `error` repeats `turn.failed`, or
//! tells of a retry (`Reconnecting... 1/5 (…)`).

use runner_api::{FinishReason, RunUsage};
use serde_json::Value;

use crate::answer::{Answer, Manners};
use crate::failure::Failure;
use crate::one_shot::{JsonLines, Objects, OneShot, head_says};
use crate::prompt::{Images, Input, Limit};
use crate::{Action, Dialect, Exit, Settings};

/// codex refuses a longer prompt.
const MAX_PROMPT_CHARS: usize = 1_048_576;

#[derive(Default)]
struct Codex {
    /// The id of the tool that was told last: told when it starts, or else when it completes.
    tool: String,
    /// What the last top-level error said.
    error: Option<String>,
}

pub(crate) fn dialect(settings: &Settings) -> impl Dialect + use<> {
    let input = Input {
        system: settings.system,
        images: Images::Refused,
        commands: &['/'],
        limit: Limit::Chars(MAX_PROMPT_CHARS),
    };
    OneShot::new(input, settings.tools, Manners::default(), JsonLines::new(Codex::default()))
}

impl Objects for Codex {
    fn object(&mut self, object: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        match text("/type") {
            "item.started" => self.item(&object["item"], false, answer, out),
            "item.completed" => self.item(&object["item"], true, answer, out),
            "turn.completed" => {
                answer.set_usage(usage(&object["usage"]));
                answer.finish(None);
            }
            "turn.failed" => fail(text("/error/message"), answer),
            "error" if text("/message").starts_with("Reconnecting") => answer.notice(text("/message"), out),
            "error" => self.error = Some(text("/message").to_owned()),
            _ => {}
        }
    }

    /// What a command printed.
    fn can_lose(&self, head: &[u8]) -> bool {
        head_says(head, "type", "command_execution")
    }

    fn end(&mut self, _exit: Option<&Exit>, answer: &mut Answer) {
        if let Some(error) = &self.error {
            fail(error, answer);
        }
    }
}

impl Codex {
    fn item(&mut self, item: &Value, completed: bool, answer: &mut Answer, out: &mut Vec<Action>) {
        let text = |name: &str| item[name].as_str().unwrap_or_default();
        match (text("type"), completed) {
            ("agent_message", true) => {
                answer.next_text(out);
                answer.text(text("text"), out);
            }
            ("reasoning", true) => {
                answer.next_reasoning();
                answer.reasoning(text("text"), out);
            }
            ("error", true) => answer.notice(text("message"), out),
            ("agent_message" | "reasoning" | "error" | "todo_list" | "", _) => {}
            (kind, _) => {
                if self.tool != text("id") {
                    text("id").clone_into(&mut self.tool);
                    answer.tool(text("id"), kind, arguments(item), out);
                }
                if completed && text("status") == "failed" {
                    answer.tool_failed(out);
                }
            }
        }
    }
}

/// What a tool's item says of what is asked of the tool.
fn arguments(item: &Value) -> String {
    let asked = ["command", "server", "tool", "arguments", "query", "changes"];
    let members = asked.into_iter().filter_map(|name| Some((name.to_owned(), item.get(name)?.clone())));
    Value::Object(members.collect()).to_string()
}

fn fail(message: &str, answer: &mut Answer) {
    match message.strip_prefix("Incomplete response returned, reason: ") {
        Some("max_output_tokens") => answer.finish(Some(FinishReason::Length)),
        Some("content_filter") => answer.finish(Some(FinishReason::ContentFilter)),
        _ => answer.fail(Failure::of_vendor(message, None)),
    }
}

fn usage(usage: &Value) -> RunUsage {
    RunUsage {
        input_tokens: usage["input_tokens"].as_u64(),
        output_tokens: usage["output_tokens"].as_u64(),
        cached_input_tokens: usage["cached_input_tokens"].as_u64(),
        reasoning_tokens: usage["reasoning_output_tokens"].as_u64(),
    }
}
