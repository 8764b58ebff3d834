//! `claude -p --input-format stream-json --output-format stream-json --verbose --include-partial-messages`.
//!
//! The process is up once it has answered a control request that changes nothing (`get_settings`): it takes only one
//! system prompt (`initialize`), which comes with the request. A request is then written as
//!
//! - `initialize`, where there is a system prompt; else that of argv counts;
//! - `set_model`, where the request names a model;
//! - `set_max_thinking_tokens` and the setting `effortLevel`, where it names a reasoning effort;
//! - the history: each stretch of the user's messages with `shouldQuery: false`, and after it the assistant's;
//! - the messages to answer.
//!
//! **What was measured** (2.1.197): control requests are taken in order with messages, and need not be waited for. A
//! user's message is queued, an assistant's is not: without waiting for the `result` that each stretch gives, the
//! history arrives with all of the assistant's messages first. `set_model` to another model than argv's adds three
//! texts about a `/model` command to the history; to the same one it adds nothing.
//!
//! A client's tool calls and their results are told as texts ([`Marker`]): the API refuses them where the CLI does not
//! offer those tools. What the CLI asks (permissions, hooks, dialogs) is denied.

use runner_api::{ErrorClass, Message, Part, Role, RunRequest};
use serde_json::{Value, json};

use crate::answer::{Answer, Manners};
use crate::failure::Failure;
use crate::prompt::{Marker, image_extension, part_error};
use crate::rpc::write_line;
use crate::session::{Protocol, Session, not_begun};
use crate::stream_json::{Flavour, StreamJson};
use crate::{Action, Dialect, PromptError, Settings};

const BOOT: &str = "boot";
const INITIALIZE: &str = "initialize";
const SET_MODEL: &str = "set_model";
const EFFORT: &str = "effort";
const THINKING: &str = "thinking";
const INTERRUPT: &str = "interrupt";

#[derive(Debug)]
struct ClaudeSession {
    output: StreamJson,
    /// What is to be written once the CLI has taken what came before, the next one last. Each but the final one, which
    /// asks for the answer, gives a `result` of its own.
    steps: Vec<Vec<Value>>,
}

pub(crate) fn dialect(settings: &Settings) -> impl Dialect + use<> {
    let claude = ClaudeSession { output: StreamJson::new(Flavour::Claude), steps: Vec::new() };
    Session::new(settings, Manners::default(), claude)
}

impl Protocol for ClaudeSession {
    fn boot(&mut self, out: &mut Vec<Action>) {
        write_line(&control(BOOT, json!({"subtype": "get_settings"})), out);
    }

    fn begin(&mut self, request: &RunRequest, out: &mut Vec<Action>) -> Result<(), PromptError> {
        let mut steps = turns(request)?;
        if let Some(first) = steps.first_mut() {
            first.splice(0..0, controls(request));
        }
        steps.reverse();
        self.steps = steps;
        self.write_step(out);
        Ok(())
    }

    fn message(&mut self, message: Value, answer: &mut Answer, out: &mut Vec<Action>) {
        match message["type"].as_str() {
            Some("control_response") => controlled(&message["response"], answer, out),
            Some("control_request") => {
                deny(&message, out);
                let subtype = message["request"]["subtype"].as_str().unwrap_or_default();
                answer.notice(&format!("the CLI asked for {subtype}: denied"), out);
            }
            // The history has been taken so far.
            Some("result") if !self.steps.is_empty() && message["is_error"] != true => self.write_step(out),
            _ => self.output.object(&message, answer, out),
        }
    }

    fn can_lose(&self, head: &[u8]) -> bool {
        StreamJson::can_lose(head)
    }

    fn cancel(&mut self, answer: &mut Answer, out: &mut Vec<Action>) {
        if self.steps.is_empty() {
            write_line(&control(INTERRUPT, json!({"subtype": "interrupt"})), out);
        } else {
            self.steps.clear();
            answer.fail(not_begun());
        }
    }

    fn end(&mut self, answer: &mut Answer) {
        self.output.end(answer);
    }
}

impl ClaudeSession {
    fn write_step(&mut self, out: &mut Vec<Action>) {
        for line in self.steps.pop().unwrap_or_default() {
            write_line(&line, out);
        }
    }
}

/// The CLI took a request of ours, or did not.
fn controlled(response: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
    let id = response["request_id"].as_str().unwrap_or_default();
    if response["subtype"] != "error" {
        if id == BOOT {
            out.push(Action::Ready);
        }
        return;
    }
    let message = response["error"].as_str().unwrap_or("the CLI refused a request");
    match id {
        // The answer can do without, and an interrupt may come after its end.
        EFFORT | THINKING | INTERRUPT => answer.notice(message, out),
        SET_MODEL => answer.fail(Failure::of_class(ErrorClass::NotFound, message)),
        _ => answer.fail(Failure::of_cli(message)),
    }
}

fn control(id: &str, request: Value) -> Value {
    let mut message = json!({"type": "control_request", "request_id": id});
    message["request"] = request;
    message
}

/// What is set before the first message.
fn controls(request: &RunRequest) -> Vec<Value> {
    let mut controls = Vec::new();
    if let Some(system) = &request.system {
        controls.push(control(INITIALIZE, json!({"subtype": "initialize", "systemPrompt": [system]})));
    }
    if let Some(model) = request.parameters.get("model") {
        controls.push(control(SET_MODEL, json!({"subtype": "set_model", "model": model})));
    }
    if let Some(effort) = request.parameters.get("reasoning_effort") {
        // Models heed the one or the other, and ignore what they do not know.
        let thinking = match effort.as_str() {
            "none" | "minimal" => Some(0),
            "low" => Some(4_096),
            "medium" => Some(12_288),
            "high" => Some(31_999),
            _ => None,
        };
        if let Some(tokens) = thinking {
            let request = json!({"subtype": "set_max_thinking_tokens", "max_thinking_tokens": tokens});
            controls.push(control(THINKING, request));
        }
        if thinking != Some(0) {
            let request = json!({"subtype": "apply_flag_settings", "settings": {"effortLevel": effort}});
            controls.push(control(EFFORT, request));
        }
    }
    controls
}

/// The conversation as lines, in steps of which each but the last ends with a stretch of the user's messages that asks
/// for no answer. The assistant's messages stand at the beginning of the next step.
fn turns(request: &RunRequest) -> Result<Vec<Vec<Value>>, PromptError> {
    let marker = Marker::absent_from(request);
    let mut steps = Vec::new();
    let mut step = Vec::new();
    let mut content = Vec::new();
    for (index, message) in request.messages.iter().enumerate() {
        let blocks = blocks(index, message, marker)?;
        if message.role != Role::Assistant {
            content.extend(blocks);
            continue;
        }
        if !content.is_empty() {
            step.push(user(std::mem::take(&mut content), false));
            steps.push(std::mem::take(&mut step));
        }
        if !blocks.is_empty() {
            step.push(assistant(index, blocks));
        }
    }
    if content.is_empty() {
        return Err(PromptError {
            param: "messages".to_owned(),
            message: "the last ones say nothing".to_owned(),
        });
    }
    step.push(user(content, true));
    steps.push(step);
    Ok(steps)
}

/// The API refuses empty texts: there are none.
fn blocks(index: usize, message: &Message, marker: Marker) -> Result<Vec<Value>, PromptError> {
    let has_tools =
        message.parts.iter().any(|part| matches!(part, Part::ToolCall { .. } | Part::ToolResult { .. }));
    let mut blocks = Vec::new();
    if has_tools {
        blocks.push(json!({"type": "text", "text": marker.turn_text(message)}));
    }
    for (part_index, part) in message.parts.iter().enumerate() {
        match part {
            Part::Text { text } if !has_tools && !text.is_empty() => {
                blocks.push(json!({"type": "text", "text": text}));
            }
            Part::Image { media_type, data } => {
                image_extension(message.role, media_type)
                    .map_err(|error| part_error(index, part_index, error))?;
                let source = json!({"type": "base64", "media_type": media_type, "data": data});
                blocks.push(json!({"type": "image", "source": source}));
            }
            _ => {}
        }
    }
    Ok(blocks)
}

fn user(content: Vec<Value>, asks: bool) -> Value {
    let mut line = json!({"type": "user", "message": {"role": "user"}});
    line["message"]["content"] = content.into();
    if !asks {
        line["shouldQuery"] = false.into();
    }
    line
}

fn assistant(index: usize, content: Vec<Value>) -> Value {
    let mut line = json!({
        "type": "assistant",
        // The CLI wants one, unlike all others of the session.
        "uuid": format!("00000000-0000-4000-8000-{index:012x}"),
        "session_id": "",
        "parent_tool_use_id": null,
        "message": {
            "id": format!("msg_{index}"),
            "type": "message",
            "role": "assistant",
            "model": "history",
            "stop_reason": "end_turn",
            "stop_sequence": null,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        },
    });
    line["message"]["content"] = content.into();
    line
}

/// Every question gets an answer, so that nothing waits; the answer is no.
fn deny(message: &Value, out: &mut Vec<Action>) {
    let id = &message["request_id"];
    let response = if message["request"]["subtype"] == "can_use_tool" {
        let response = json!({"behavior": "deny", "message": "not allowed here"});
        json!({"subtype": "success", "request_id": id, "response": response})
    } else {
        json!({"subtype": "error", "request_id": id, "error": "not supported"})
    };
    write_line(&json!({"type": "control_response", "response": response}), out);
}
