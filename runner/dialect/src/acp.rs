//! The Agent Client Protocol, version 1: JSON-RPC over lines, as `gemini --acp` and `qwen --acp` speak it.
//!
//! The process is up once it has a session (`initialize`, `session/new`). A request is one `session/prompt`; before it
//! the model is set where the request names another one (`session/set_model`, or the session's option `model`). The
//! protocol has no word for history or a system prompt: they are told in the text ([`crate::prompt`]), with images
//! between texts. What the agent asks meanwhile is denied: permissions, files, terminals.
//!
//! The protocol wants an absolute working directory, which only the sandbox knows; the CLIs take `.`, their own.
//!
//! Source: <https://agentclientprotocol.com>, the two CLIs' own code, and the recordings in `testdata/sessions`.

use runner_api::{ErrorClass, FinishReason, RunRequest, RunUsage};
use serde_json::{Value, json};

use crate::answer::{Answer, Manners, leading_status};
use crate::failure::Failure;
use crate::hold::Suspects;
use crate::prompt::{Images, Input, Limit, Piece};
use crate::rpc::{self, Incoming};
use crate::session::{Protocol, Session, not_begun};
use crate::{Action, Dialect, PromptError, Settings, SystemPrompt};

const INITIALIZE: u64 = 1;
const SESSION_NEW: u64 = 2;
const SET_MODEL: u64 = 3;
const PROMPT: u64 = 4;

const INPUT: Input = Input {
    system: SystemPrompt::Inline,
    images: Images::Native,
    // Gemini takes both for commands, Qwen the first.
    commands: &['/', '$'],
    limit: Limit::None,
};

/// Both CLIs ask again after a stream that broke.
const MANNERS: Manners =
    Manners { suspects: Suspects { repetition: true, error: None }, hides_failures: false };

#[derive(Debug, Default)]
struct Acp {
    agent: Agent,
    /// The message whose pieces come, where the agent tells.
    message: String,
    usage: RunUsage,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Agent {
    Gemini,
    #[default]
    Other,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Booting,
    Ready(AgentSession),
    /// Waits until the model is set.
    SettingModel(AgentSession, Vec<Value>),
    Running {
        session: String,
    },
}

/// What `session/new` gave.
#[derive(Debug)]
struct AgentSession {
    id: String,
    models: Value,
    options: Value,
}

pub(crate) fn dialect(settings: &Settings) -> impl Dialect + use<> {
    Session::new(settings, MANNERS, Acp::default())
}

impl Protocol for Acp {
    fn boot(&mut self, out: &mut Vec<Action>) {
        let capabilities = json!({"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false});
        let params = json!({"protocolVersion": 1, "clientCapabilities": capabilities});
        rpc::call(INITIALIZE, "initialize", params, out);
    }

    fn begin(&mut self, request: &RunRequest, out: &mut Vec<Action>) -> Result<(), PromptError> {
        let pieces = INPUT.render(request)?.pieces;
        let prompt: Vec<Value> = pieces.into_iter().map(block).collect();
        let model = request.parameters.get("model");
        self.state = match std::mem::take(&mut self.state) {
            State::Ready(session) => match model.and_then(|model| session.set_model(model)) {
                Some((method, params)) => {
                    rpc::call(SET_MODEL, method, params, out);
                    State::SettingModel(session, prompt)
                }
                None => ask(session, prompt, out),
            },
            state => state,
        };
        Ok(())
    }

    fn message(&mut self, message: Value, answer: &mut Answer, out: &mut Vec<Action>) {
        match rpc::parse(message) {
            Some(Incoming::Answer { id, result: Ok(result) }) => self.answered(id, &result, answer, out),
            Some(Incoming::Answer { id, result: Err(error) }) => answer.fail(failure(id, &error)),
            Some(Incoming::Call { id, method, params }) => {
                deny(&id, &method, &params, out);
                answer.notice(&format!("the CLI asked for {method}: denied"), out);
            }
            Some(Incoming::Notification { method, params }) if method == "session/update" => {
                self.update(&params["update"], answer, out);
            }
            _ => {}
        }
    }

    /// What a tool printed, or what the CLI tells of itself.
    fn can_lose(&self, head: &[u8]) -> bool {
        ["tool_call", "tool_call_update", "available_commands_update"]
            .iter()
            .any(|update| crate::one_shot::head_says(head, "sessionUpdate", update))
    }

    fn cancel(&mut self, answer: &mut Answer, out: &mut Vec<Action>) {
        match &self.state {
            State::Running { session } => {
                rpc::notify("session/cancel", json!({ "sessionId": session }), out);
            }
            _ => answer.fail(not_begun()),
        }
    }
}

impl Acp {
    fn answered(&mut self, id: u64, result: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        self.state = match (id, std::mem::take(&mut self.state)) {
            (INITIALIZE, State::Booting) => {
                if result["agentInfo"]["name"] == "gemini-cli" {
                    self.agent = Agent::Gemini;
                }
                rpc::call(SESSION_NEW, "session/new", json!({"cwd": ".", "mcpServers": []}), out);
                State::Booting
            }
            (SESSION_NEW, State::Booting) => {
                if let Some(session) = AgentSession::of(result) {
                    out.push(Action::Ready);
                    State::Ready(session)
                } else {
                    answer.fail(Failure::of_cli("session/new gave no session"));
                    State::Booting
                }
            }
            (SET_MODEL, State::SettingModel(session, prompt)) => ask(session, prompt, out),
            (PROMPT, state @ State::Running { .. }) => {
                self.completed(result, answer);
                state
            }
            (_, state) => state,
        };
    }

    fn update(&mut self, update: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        let text = update["content"]["text"].as_str().unwrap_or_default();
        match update["sessionUpdate"].as_str() {
            Some("agent_message_chunk") => {
                self.enter(&update["messageId"], answer, out);
                answer.text(text, out);
                self.add_usage(&update["_meta"]["usage"], answer);
            }
            Some("agent_thought_chunk") => {
                // Each of Gemini's thoughts comes whole; other agents' come in pieces.
                if self.agent == Agent::Gemini {
                    answer.next_reasoning();
                }
                answer.reasoning(text, out);
            }
            Some("tool_call") => tool_call(update, answer, out),
            Some("tool_call_update") if update["status"] == "failed" => answer.tool_failed(out),
            _ => {}
        }
    }

    fn enter(&mut self, message: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
        let Some(message) = message.as_str() else { return };
        if self.message != message {
            message.clone_into(&mut self.message);
            answer.next_text(out);
        }
    }

    fn completed(&mut self, result: &Value, answer: &mut Answer) {
        let count = &result["_meta"]["quota"]["token_count"];
        self.add_usage(&result["usage"], answer);
        self.add_usage(
            &json!({"inputTokens": count["input_tokens"], "outputTokens": count["output_tokens"]}),
            answer,
        );
        let uncounted = self.agent == Agent::Gemini && count["output_tokens"] == 0;
        match result["stopReason"].as_str() {
            // Gemini says so of blocked and broken answers too, and then counts nothing.
            Some("end_turn") if uncounted => {
                answer.fail(Failure::of_vendor("the vendor's answer was blocked or cut off", None));
            }
            // And so of a conversation that it did not even send.
            Some("max_tokens") if uncounted => {
                let message = "the conversation is longer than the model's context";
                answer.fail(Failure::of_class(ErrorClass::InvalidRequest, message));
            }
            Some("end_turn") => answer.finish(None),
            Some("max_tokens") => answer.finish(Some(FinishReason::Length)),
            Some("refusal") => answer.finish(Some(FinishReason::ContentFilter)),
            Some("cancelled") => {
                answer.fail(Failure::of_class(ErrorClass::Cancelled, "the CLI cancelled the prompt"));
            }
            _ => answer.finish(Some(FinishReason::Other)),
        }
    }

    /// Each agent has a place of its own to tell it; Qwen tells it of each call to its vendor.
    fn add_usage(&mut self, usage: &Value, answer: &mut Answer) {
        let add = |sum: &mut Option<u64>, name: &str| {
            if let Some(more) = usage[name].as_u64() {
                *sum = Some(sum.unwrap_or(0).saturating_add(more));
            }
        };
        add(&mut self.usage.input_tokens, "inputTokens");
        add(&mut self.usage.output_tokens, "outputTokens");
        add(&mut self.usage.cached_input_tokens, "cachedReadTokens");
        add(&mut self.usage.reasoning_tokens, "thoughtTokens");
        if self.usage.output_tokens.is_some_and(|tokens| tokens > 0) {
            answer.set_usage(self.usage);
        }
    }
}

impl AgentSession {
    fn of(result: &Value) -> Option<Self> {
        Some(Self {
            id: result["sessionId"].as_str()?.to_owned(),
            models: result["models"].clone(),
            options: result["configOptions"].clone(),
        })
    }

    /// The call that sets the model, unless it is the one that is set.
    fn set_model(&self, model: &str) -> Option<(&'static str, Value)> {
        if self.models.is_null() && !self.options.is_null() {
            let params = json!({"sessionId": self.id, "configId": "model", "value": model});
            return Some(("session/set_config_option", params));
        }
        // Qwen has an id of its own for what everybody else calls the model.
        let known = self.models["availableModels"].as_array().into_iter().flatten();
        let id = known
            .filter(|known| known["modelId"] == model || known["name"] == model)
            .find_map(|known| known["modelId"].as_str())
            .unwrap_or(model);
        let params = json!({"sessionId": self.id, "modelId": id});
        (self.models["currentModelId"] != id).then_some(("session/set_model", params))
    }
}

fn ask(session: AgentSession, prompt: Vec<Value>, out: &mut Vec<Action>) -> State {
    let mut params = json!({"sessionId": session.id});
    params["prompt"] = prompt.into();
    rpc::call(PROMPT, "session/prompt", params, out);
    State::Running { session: session.id }
}

fn block(piece: Piece) -> Value {
    match piece {
        Piece::Text(text) => json!({"type": "text", "text": text}),
        Piece::Image { media_type, data } => json!({"type": "image", "mimeType": media_type, "data": data}),
    }
}

fn tool_call(update: &Value, answer: &mut Answer, out: &mut Vec<Action>) {
    let names = [&update["_meta"]["toolName"], &update["kind"]];
    let name = names.into_iter().find_map(Value::as_str).unwrap_or("other");
    // Gemini tells nothing but a title.
    let arguments = match &update["rawInput"] {
        Value::Null => json!({"title": update["title"]}),
        input => input.clone(),
    };
    let id = update["toolCallId"].as_str().unwrap_or_default();
    answer.tool(id, name, arguments.to_string(), out);
}

/// Every question gets an answer, so that nothing waits; the answer is no.
fn deny(id: &Value, method: &str, params: &Value, out: &mut Vec<Action>) {
    if method != "session/request_permission" {
        return rpc::refuse(id, method, out);
    }
    // Rejecting lets the agent go on without the tool; `cancelled` may end its turn.
    let options = params["options"].as_array().into_iter().flatten();
    let reject = options
        .filter(|option| option["kind"] == "reject_once")
        .find_map(|option| option["optionId"].as_str());
    let outcome = match reject {
        Some(option) => json!({"outcome": "selected", "optionId": option}),
        None => json!({"outcome": "cancelled"}),
    };
    rpc::answer(id, &json!({ "outcome": outcome }), out);
}

/// Gemini's code is the vendor's HTTP status, Qwen's `details` begin with it, and others tell none.
fn failure(call: u64, error: &Value) -> Failure {
    let details = error["data"]["details"].as_str();
    let message = details.or(error["message"].as_str()).unwrap_or("the CLI refused a call");
    match call {
        SET_MODEL => Failure::of_class(ErrorClass::NotFound, message),
        PROMPT => {
            let code = error["code"].as_u64().and_then(|code| u16::try_from(code).ok());
            // 500 is also what Gemini says for want of a status.
            let status = code.filter(|&code| (400..600).contains(&code) && code != 500);
            Failure::of_vendor(message, status.or(details.and_then(leading_status)))
        }
        // The protocol's word for a login that is missing.
        _ if error["code"] == -32000 => Failure::of_class(ErrorClass::Auth, message),
        _ => Failure::of_cli(message),
    }
}
