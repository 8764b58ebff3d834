//! `codex app-server`: JSON-RPC over lines.
//!
//! The process is up once it has answered `initialize`. A request becomes one ephemeral thread (`thread/start`, with
//! the system prompt as `baseInstructions`), the whole conversation as Responses API items (`thread/inject_items`) and
//! a turn without further input (`turn/start`): so the limit of 1,048,576 characters, which holds for a turn's input,
//! does not hold for the conversation. Codex itself drops results without a call and adds results to calls without one.
//! A conversation that is longer than the model's context it would replace by a summary; that is an error instead.
//!
//! What it asks meanwhile (approvals, questions) is declined. `sandbox`, `modelProvider` and the working directory are
//! the operator's, by argv.
//!
//! Source: `codex app-server generate-json-schema` of 0.169, and the recordings in `testdata/sessions`.

use runner_api::{ErrorClass, Message, Part, Role, RunRequest, RunUsage};
use serde_json::{Value, json};

use crate::answer::{Answer, Manners};
use crate::failure::Failure;
use crate::one_shot::head_says;
use crate::prompt::{image_extension, part_error};
use crate::rpc::{self, Incoming};
use crate::session::{Protocol, Session, not_begun};
use crate::{Action, Dialect, PromptError, Settings};

const INITIALIZE: u64 = 1;
const THREAD_START: u64 = 2;
const INJECT_ITEMS: u64 = 3;
const TURN_START: u64 = 4;
const TURN_INTERRUPT: u64 = 5;

#[derive(Debug, Default)]
struct CodexAppServer {
    /// The item whose text is under way.
    item: String,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Booting,
    Ready,
    /// Waits for the thread.
    Starting {
        items: Vec<Value>,
        effort: Option<String>,
    },
    /// The turn is asked for; its id comes with the answer.
    Running {
        thread: String,
        turn: Option<String>,
    },
}

pub(crate) fn dialect(settings: &Settings) -> impl Dialect + use<> {
    Session::new(settings, Manners::default(), CodexAppServer::default())
}

impl Protocol for CodexAppServer {
    fn boot(&mut self, out: &mut Vec<Action>) {
        let client =
            json!({"name": "dyad_runner", "title": "Dyad runner", "version": env!("CARGO_PKG_VERSION")});
        rpc::call(INITIALIZE, "initialize", json!({ "clientInfo": client }), out);
    }

    fn begin(&mut self, request: &RunRequest, out: &mut Vec<Action>) -> Result<(), PromptError> {
        let items = items(request)?;
        let effort = request.parameters.get("reasoning_effort").cloned();
        let mut params = json!({"ephemeral": true, "approvalPolicy": "never"});
        if let Some(system) = &request.system {
            params["baseInstructions"] = system.as_str().into();
        }
        if let Some(model) = request.parameters.get("model") {
            params["model"] = model.as_str().into();
        }
        rpc::call(THREAD_START, "thread/start", params, out);
        self.state = State::Starting { items, effort };
        Ok(())
    }

    fn message(&mut self, message: Value, answer: &mut Answer, out: &mut Vec<Action>) {
        match rpc::parse(message) {
            Some(Incoming::Answer { id, result: Ok(result) }) => self.answered(id, &result, answer, out),
            // An interrupt may come after the turn's end.
            Some(Incoming::Answer { id, result: Err(error) }) if id != TURN_INTERRUPT => {
                answer.fail(Failure::of_cli(error["message"].as_str().unwrap_or("codex refused a call")));
            }
            Some(Incoming::Call { id, method, .. }) => {
                decline(&id, &method, out);
                answer.notice(&format!("the CLI asked for {method}: declined"), out);
            }
            Some(Incoming::Notification { method, params }) => self.told(&method, &params, answer, out),
            _ => {}
        }
    }

    /// What a tool printed, and messages whose pieces came before.
    fn can_lose(&self, head: &[u8]) -> bool {
        head_says(head, "method", "item/started") || head_says(head, "method", "item/completed")
    }

    fn cancel(&mut self, answer: &mut Answer, out: &mut Vec<Action>) {
        match &self.state {
            State::Running { thread, turn: Some(turn) } => {
                let params = json!({"threadId": thread, "turnId": turn});
                rpc::call(TURN_INTERRUPT, "turn/interrupt", params, out);
            }
            _ => answer.fail(not_begun()),
        }
    }
}

impl CodexAppServer {
    fn answered(&mut self, id: u64, result: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        match (id, &mut self.state) {
            (INITIALIZE, State::Booting) => {
                rpc::notify("initialized", Value::Null, out);
                self.state = State::Ready;
                out.push(Action::Ready);
            }
            (THREAD_START, State::Starting { items, effort }) => {
                let Some(thread) = result["thread"]["id"].as_str() else {
                    return answer.fail(Failure::of_cli("thread/start gave no thread"));
                };
                let thread = thread.to_owned();
                let mut params = json!({ "threadId": thread });
                params["items"] = std::mem::take(items).into();
                rpc::call(INJECT_ITEMS, "thread/inject_items", params, out);
                let mut params = json!({"threadId": thread, "input": []});
                if let Some(effort) = effort.take() {
                    params["effort"] = effort.into();
                }
                rpc::call(TURN_START, "turn/start", params, out);
                self.state = State::Running { thread, turn: None };
            }
            (TURN_START, State::Running { turn, .. }) => {
                *turn = result["turn"]["id"].as_str().map(str::to_owned);
            }
            _ => {}
        }
    }

    fn told(&mut self, method: &str, params: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        let State::Running { thread, .. } = &self.state else { return };
        // Threads of Codex's own making are none of ours.
        if params["threadId"].as_str().is_some_and(|id| id != thread) {
            return;
        }
        let delta = || params["delta"].as_str().unwrap_or_default();
        match method {
            "item/agentMessage/delta" => {
                self.enter(&params["itemId"], answer, out);
                answer.text(delta(), out);
            }
            "item/reasoning/summaryTextDelta" | "item/reasoning/textDelta" => {
                self.enter(&params["itemId"], answer, out);
                answer.reasoning(delta(), out);
            }
            "item/reasoning/summaryPartAdded" => answer.next_reasoning(),
            "item/started" => item_started(&params["item"], answer, out),
            "item/completed" => self.item_completed(&params["item"], answer, out),
            "thread/tokenUsage/updated" => answer.set_usage(usage(&params["tokenUsage"]["total"])),
            "error" if params["willRetry"] == true => {
                answer.notice(params["error"]["message"].as_str().unwrap_or_default(), out);
            }
            "warning" | "guardianWarning" | "configWarning" | "deprecationNotice" => {
                let message = params["message"].as_str().or(params["summary"].as_str());
                answer.notice(message.unwrap_or_default(), out);
            }
            "model/rerouted" => answer.notice("the vendor answers with another model", out),
            "turn/completed" => turn_completed(&params["turn"], answer),
            _ => {}
        }
    }

    /// Text of another item is another message.
    fn enter(&mut self, item: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        let item = item.as_str().unwrap_or_default();
        if self.item != item {
            item.clone_into(&mut self.item);
            answer.next_text(out);
            answer.next_reasoning();
        }
    }

    fn item_completed(&mut self, item: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        match item["type"].as_str() {
            Some("agentMessage") => {
                self.enter(&item["id"], answer, out);
                let text = item["text"].as_str().unwrap_or_default();
                answer.whole_text(text, out);
            }
            // Its parts were told one by one, or not at all.
            Some("reasoning") if item["id"].as_str() != Some(&self.item) => {
                for part in item["summary"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    answer.next_reasoning();
                    answer.reasoning(part, out);
                }
                self.enter(&item["id"], answer, out);
            }
            _ if item["status"] == "failed" || item["status"] == "declined" => answer.tool_failed(out),
            _ => {}
        }
    }
}

fn item_started(item: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
    let text = |member: &str| item[member].as_str().unwrap_or_default();
    let (name, arguments) = match text("type") {
        "commandExecution" => ("shell", json!({"command": item["command"], "cwd": item["cwd"]})),
        "fileChange" => ("apply_patch", json!({"changes": item["changes"]})),
        "mcpToolCall" | "dynamicToolCall" => (text("tool"), item["arguments"].clone()),
        "webSearch" => ("web_search", json!({"query": item["query"]})),
        // It would answer a summary of the conversation, and not say so.
        "contextCompaction" if !answer.has_said() => {
            return answer.fail(Failure::of_class(
                ErrorClass::InvalidRequest,
                "the conversation is longer than the model's context",
            ));
        }
        _ => return,
    };
    answer.tool(text("id"), name, arguments.to_string(), out);
}

fn turn_completed(turn: &Value, answer: &mut Answer) {
    match turn["status"].as_str() {
        Some("completed") => answer.finish(None),
        Some("failed") => answer.fail(failure(&turn["error"])),
        Some("interrupted") => {
            answer.fail(Failure::of_class(ErrorClass::Cancelled, "the turn was interrupted"));
        }
        _ => answer.fail(Failure::of_cli("a turn completed without a status")),
    }
}

/// The conversation as items of the Responses API.
fn items(request: &RunRequest) -> Result<Vec<Value>, PromptError> {
    let mut items = Vec::new();
    for (index, message) in request.messages.iter().enumerate() {
        let mut content = Vec::new();
        for (part_index, part) in message.parts.iter().enumerate() {
            let item = match part {
                Part::Text { text } => {
                    content.push(json!({"type": text_type(message), "text": text}));
                    continue;
                }
                Part::Image { media_type, data } => {
                    image_extension(message.role, media_type)
                        .map_err(|error| part_error(index, part_index, error))?;
                    let url = format!("data:{media_type};base64,{data}");
                    content.push(json!({"type": "input_image", "image_url": url}));
                    continue;
                }
                Part::ToolCall { id, name, arguments } => {
                    json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments})
                }
                Part::ToolResult { id, text } => {
                    json!({"type": "function_call_output", "call_id": id, "output": text})
                }
            };
            push_message(message, &mut content, &mut items);
            items.push(item);
        }
        push_message(message, &mut content, &mut items);
    }
    Ok(items)
}

fn push_message(message: &Message, content: &mut Vec<Value>, items: &mut Vec<Value>) {
    if !content.is_empty() {
        let role = if message.role == Role::Assistant { "assistant" } else { "user" };
        items.push(json!({"type": "message", "role": role, "content": std::mem::take(content)}));
    }
}

fn text_type(message: &Message) -> &'static str {
    if message.role == Role::Assistant { "output_text" } else { "input_text" }
}

/// Every question gets an answer, so that nothing waits; the answer is no.
fn decline(id: &Value, method: &str, out: &mut Vec<Action>) {
    let result = match method {
        "item/commandExecution/requestApproval" | "item/fileChange/requestApproval" => {
            json!({"decision": "decline"})
        }
        "item/tool/requestUserInput" => json!({"answers": {}}),
        "item/tool/call" => json!({"contentItems": [], "success": false}),
        "item/permissions/requestApproval" => json!({"permissions": {}}),
        "mcpServer/elicitation/request" => json!({"action": "decline"}),
        "applyPatchApproval" | "execCommandApproval" => {
            json!({"decision": {"denied": {"rejection": "not allowed here"}}})
        }
        _ => return rpc::refuse(id, method, out),
    };
    rpc::answer(id, &result, out);
}

fn usage(total: &Value) -> RunUsage {
    RunUsage {
        input_tokens: total["inputTokens"].as_u64(),
        output_tokens: total["outputTokens"].as_u64(),
        cached_input_tokens: total["cachedInputTokens"].as_u64(),
        reasoning_tokens: total["reasoningOutputTokens"].as_u64(),
    }
}

/// `codexErrorInfo` is a word, or an object of one word with the vendor's status, if there was one.
fn failure(error: &Value) -> Failure {
    let info = &error["codexErrorInfo"];
    let status = info.as_object().and_then(|info| info.values().next());
    let status = status.and_then(|detail| detail["httpStatusCode"].as_u64());
    let message = error["message"].as_str().unwrap_or("the turn failed");
    let class = match info.as_str() {
        Some("contextWindowExceeded" | "badRequest") => ErrorClass::InvalidRequest,
        Some("usageLimitExceeded" | "sessionBudgetExceeded") => ErrorClass::QuotaExhausted,
        Some("rateLimitExceeded") => ErrorClass::RateLimited,
        Some("serverOverloaded" | "flexUnavailable" | "policyCapacityUnavailable") => ErrorClass::Overloaded,
        Some("modelNotFound") => ErrorClass::NotFound,
        Some("unauthorized") => ErrorClass::Auth,
        Some("cyberPolicy" | "misalignmentPolicyViolation") => ErrorClass::ContentFilter,
        Some("sandboxError" | "tooManyDenials" | "threadRollbackFailed") => ErrorClass::Internal,
        // The vendor's failure or its connection's, or a word of a newer version.
        _ => return Failure::of_vendor(message, status.and_then(|status| u16::try_from(status).ok())),
    };
    Failure::of_class(class, message)
}
