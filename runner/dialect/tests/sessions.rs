//! Recorded sessions of real CLIs, played to their dialects.
//!
//! A recording (`testdata/sessions/CLI/CASE.jsonl`) holds what its client wrote (`in`) and what the CLI said (`out`). The
//! CLI's part is played to the dialect; what the dialect does, in order, is the golden (`CASE.golden`), however the
//! CLI's bytes were cut. Ids in answers are put right: the dialect numbers its calls in its own way.
//!
//! With `UPDATE_TRANSCRIPTS=1` the goldens are written anew; read the difference before committing it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cli_dialect::{Action, Dialect, Exit, Kind, Limit, Observed, Settings, dialect};
use proptest::prelude::*;
use runner_api::{ErrorClass, FinishReason, Message, Part, Role, RunEvent, RunRequest, RunUsage};
use serde_json::{Value, json};

/// A line of a recording.
struct Line {
    from_cli: bool,
    message: Value,
}

struct Recording {
    kind: Kind,
    /// Of the golden.
    golden: PathBuf,
    lines: Vec<Line>,
}

impl Recording {
    /// `session`: which of the recording's threads or sessions, from 0.
    fn load(kind: Kind, name: &str, session: usize) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/sessions");
        let text = std::fs::read_to_string(folder.join(format!("{name}.jsonl"))).unwrap();
        let mut opened = 0;
        let lines = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let message = serde_json::from_str(line["line"].as_str().unwrap()).unwrap();
            Line { from_cli: line["dir"] == "out", message }
        });
        let lines = lines
            .filter(|line| {
                let opens =
                    ["thread/start", "session/new"].iter().any(|method| line.message["method"] == *method);
                opened += usize::from(opens && !line.from_cli);
                // What comes before the first belongs to all.
                opened == 0 || opened == session + 1
            })
            .collect();
        let suffix = if session == 0 { String::new() } else { format!(".{session}") };
        Self { kind, golden: folder.join(format!("{name}{suffix}.golden")), lines }
    }

    /// The request that the recording's client had in mind.
    fn request(&self) -> RunRequest {
        let mut request = RunRequest {
            id: "run".to_owned(),
            cli: "cli".to_owned(),
            parameters: BTreeMap::new(),
            caller: "caller".to_owned(),
            timeout_ms: None,
            system: None,
            messages: Vec::new(),
        };
        let mut say = |role, text: &Value| {
            let parts = vec![Part::Text { text: text.as_str().unwrap().to_owned() }];
            request.messages.push(Message { role, parts });
        };
        for line in self.lines.iter().filter(|line| !line.from_cli) {
            let message = &line.message;
            let params = &message["params"];
            match method(message).as_str() {
                "thread/inject_items" => {
                    for item in params["items"].as_array().unwrap() {
                        let role = if item["role"] == "assistant" { Role::Assistant } else { Role::User };
                        say(role, &item["content"][0]["text"]);
                    }
                }
                "turn/start" => say(Role::User, &params["input"][0]["text"]),
                "session/prompt" => say(Role::User, &params["prompt"][0]["text"]),
                "user" | "assistant" => {
                    let role = if message["type"] == "user" { Role::User } else { Role::Assistant };
                    say(role, &message["message"]["content"][0]["text"]);
                }
                _ => continue,
            }
            // Recordings may have more turns; a run has one.
            if matches!(method(message).as_str(), "turn/start" | "session/prompt")
                || message["type"] == "user" && message["shouldQuery"].is_null()
            {
                break;
            }
        }
        let start = self.lines.iter().find(|line| method(&line.message) == "thread/start");
        if let Some(start) = start {
            let params = &start.message["params"];
            request.system = params["baseInstructions"].as_str().map(str::to_owned);
            let model = params["model"].as_str().unwrap().to_owned();
            request.parameters.insert("model".to_owned(), model);
        }
        request
    }

    /// Plays the CLI's part, in pieces of at most `piece` bytes.
    fn play(&self, piece: usize, observed: &Observed) -> Vec<Action> {
        let mut player = Player::boot(self.kind);
        let request = self.request();
        let mut begun = false;
        if self.kind == Kind::ClaudeStreamJson {
            player.say(&claude_is_up(), piece);
        }
        // The recording's id of a call → its method.
        let mut calls = BTreeMap::new();
        for line in &self.lines {
            if player.dialect.is_complete() {
                break;
            }
            let mut message = line.message.clone();
            if line.from_cli {
                if message["method"].is_null() && !message["id"].is_null() {
                    let method: &String = &calls[&message["id"].to_string()];
                    let Some(id) = player.id_of(method) else { continue };
                    message["id"] = id;
                }
                player.say(&message, piece);
                if !begun && player.done.contains(&Action::Ready) {
                    begun = true;
                    player.act(|dialect, out| dialect.begin(&request, out).unwrap());
                }
            } else {
                calls.insert(message["id"].to_string(), method(&message));
                if !begun && self.kind == Kind::ClaudeStreamJson {
                    begun = true;
                    player.act(|dialect, out| dialect.begin(&request, out).unwrap());
                }
                if ["turn/interrupt", "session/cancel", "interrupt"].contains(&method(&message).as_str()) {
                    player.act(|dialect, out| dialect.cancel(out));
                }
            }
        }
        player.act(|dialect, out| dialect.end(None, observed, out));
        player.done
    }

    /// Compares with the golden, and with the recording's client.
    fn check(&self) {
        let observed = Observed::default();
        let done = self.play(usize::MAX, &observed);
        for piece in [1, 2, 7, 64, 4096] {
            assert_eq!(self.play(piece, &observed), done, "{}: in pieces of {piece}", self.golden.display());
        }
        one_last_event(&done);
        self.compare_writes(&done);
        let text = render(&done);
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            std::fs::write(&self.golden, text).unwrap();
        } else {
            let golden = std::fs::read_to_string(&self.golden).unwrap_or_default();
            assert_eq!(text, golden, "{}", self.golden.display());
        }
    }

    /// Every message of ours of which the recording's client wrote one too has the same shape, where both have a member.
    fn compare_writes(&self, done: &[Action]) {
        for ours in done.iter().filter_map(written) {
            for ours in ours {
                let theirs = self.lines.iter().filter(|line| !line.from_cli).map(|line| &line.message);
                if let Some(theirs) = theirs.into_iter().find(|theirs| method(theirs) == method(&ours)) {
                    same_shape(&ours, theirs, &method(&ours));
                }
            }
        }
    }
}

struct Player {
    dialect: Box<dyn Dialect>,
    done: Vec<Action>,
}

impl Player {
    fn boot(kind: Kind) -> Self {
        let mut player = Self { dialect: dialect(kind, &Settings::default()), done: Vec::new() };
        player.act(|dialect, out| dialect.boot(out));
        player
    }

    fn act(&mut self, act: impl FnOnce(&mut dyn Dialect, &mut Vec<Action>)) {
        act(&mut *self.dialect, &mut self.done);
    }

    fn say(&mut self, message: &Value, piece: usize) {
        for bytes in format!("{message}\n").as_bytes().chunks(piece) {
            self.act(|dialect, out| dialect.stdout(bytes, out));
        }
    }

    /// The id that the dialect gave its call.
    fn id_of(&self, name: &str) -> Option<Value> {
        let mut writes = self.done.iter().filter_map(written).flatten();
        Some(writes.find(|message| method(message) == name)?["id"].clone())
    }
}

/// What a message asks for: a method, or what Claude has instead of one.
fn method(message: &Value) -> String {
    let names = ["/method", "/request/subtype", "/type"];
    let name = names.iter().find_map(|path| message.pointer(path)?.as_str());
    name.unwrap_or_default().to_owned()
}

/// The lines that were written at once.
fn written(action: &Action) -> Option<Vec<Value>> {
    let Action::Write(bytes) = action else { return None };
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.ends_with('\n') && !text.contains(['\u{2028}', '\u{2029}', '\r']));
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn same_shape(ours: &Value, theirs: &Value, at: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (name, ours) in ours {
                if let Some(theirs) = theirs.get(name) {
                    same_shape(ours, theirs, &format!("{at}.{name}"));
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            for (ours, theirs) in ours.iter().zip(theirs) {
                same_shape(ours, theirs, &format!("{at}[]"));
            }
        }
        _ => assert_eq!(
            std::mem::discriminant(ours),
            std::mem::discriminant(theirs),
            "{at}: we write {ours}, the recording's client {theirs}"
        ),
    }
}

/// One action a line.
fn render(done: &[Action]) -> String {
    let mut out = String::new();
    for action in done {
        match action {
            Action::Write(_) => {
                for line in written(action).unwrap() {
                    writeln!(out, "write {line}").unwrap();
                }
            }
            Action::CloseStdin => writeln!(out, "close stdin").unwrap(),
            Action::Ready => writeln!(out, "ready").unwrap(),
            Action::Event(event) => writeln!(out, "event {}", serde_json::to_string(event).unwrap()).unwrap(),
        }
    }
    out
}

fn events(done: &[Action]) -> Vec<&RunEvent> {
    let events = done.iter().filter_map(|action| match action {
        Action::Event(event) => Some(event),
        _ => None,
    });
    events.collect()
}

fn one_last_event(done: &[Action]) {
    let events = events(done);
    let last = events.iter().filter(|event| event.is_last()).count();
    assert_eq!(last, 1, "{events:?}");
    assert!(events.last().unwrap().is_last(), "{events:?}");
}

#[test]
fn claude() {
    for name in [
        "stream-json-input",
        "stream-json-input.tool",
        "stream-json-input.e401",
        "stream-json-input.e429",
        "stream-json-input.e500",
        "history-replay",
        "interrupt",
    ] {
        Recording::load(Kind::ClaudeStreamJson, &format!("claude/{name}"), 0).check();
    }
}

#[test]
fn codex() {
    for (name, session) in [
        ("app-server", 0),
        ("app-server", 1),
        ("app-server.reasoning", 0),
        ("app-server.tool", 0),
        ("app-server.e401", 0),
        ("app-server.e429", 0),
        ("app-server.e500", 0),
        ("app-server.slow.cancel", 0),
    ] {
        Recording::load(Kind::CodexAppServer, &format!("codex/{name}"), session).check();
    }
}

#[test]
fn acp() {
    for cli in ["gemini", "qwen", "opencode"] {
        for (name, session) in [
            ("acp", 0),
            ("acp", 1),
            ("acp.reasoning", 0),
            ("acp.tool", 0),
            ("acp.e401", 0),
            ("acp.e404", 0),
            ("acp.e429", 0),
            ("acp.slow.cancel", 0),
        ] {
            Recording::load(Kind::Acp, &format!("{cli}/{name}"), session).check();
        }
    }
}

fn claude_is_up() -> Value {
    let response = json!({"subtype": "success", "request_id": "boot", "response": {}});
    json!({"type": "control_response", "response": response})
}

const KINDS: [Kind; 3] = [Kind::ClaudeStreamJson, Kind::CodexAppServer, Kind::Acp];

fn text(text: &str) -> Part {
    Part::Text { text: text.to_owned() }
}

fn request(parameters: &[(&str, &str)], messages: Vec<Message>) -> RunRequest {
    let parameters = parameters.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    RunRequest {
        id: "run".to_owned(),
        cli: "cli".to_owned(),
        parameters: parameters.collect(),
        caller: "caller".to_owned(),
        timeout_ms: None,
        system: None,
        messages,
    }
}

fn hello() -> RunRequest {
    request(&[], vec![Message { role: Role::User, parts: vec![text("hello")] }])
}

/// A process that is up, and what it said to get there.
fn up(kind: Kind) -> Player {
    let mut player = Player::boot(kind);
    match kind {
        Kind::ClaudeStreamJson => player.say(&claude_is_up(), usize::MAX),
        Kind::CodexAppServer => player.say(&json!({"id": 1, "result": {}}), usize::MAX),
        _ => {
            player.say(&json!({"id": 1, "result": {"agentInfo": {"name": "agent"}}}), usize::MAX);
            let models = json!({"currentModelId": "$x|one", "availableModels": [
                {"modelId": "$x|one", "name": "one"}, {"modelId": "$x|two", "name": "two"}]});
            player.say(&json!({"id": 2, "result": {"sessionId": "s", "models": models}}), usize::MAX);
        }
    }
    assert!(player.done.contains(&Action::Ready), "{kind:?}");
    player.done.clear();
    player
}

/// Given a request, and taken so far that the model has the question.
fn asked(kind: Kind, request: &RunRequest) -> Player {
    let mut player = up(kind);
    player.act(|dialect, out| dialect.begin(request, out).unwrap());
    if kind == Kind::CodexAppServer {
        player.say(&json!({"id": 2, "result": {"thread": {"id": "t"}}}), usize::MAX);
        player.say(&json!({"id": 4, "result": {"turn": {"id": "u"}}}), usize::MAX);
    }
    player
}

fn ended(mut player: Player, exit: Option<&Exit>, observed: &Observed) -> Vec<Action> {
    player.act(|dialect, out| dialect.end(exit, observed, out));
    one_last_event(&player.done);
    player.done
}

fn last(done: &[Action]) -> &RunEvent {
    events(done).last().unwrap()
}

fn error_of(event: &RunEvent) -> (ErrorClass, Option<u16>) {
    match event {
        RunEvent::Error { class, status, .. } => (*class, *status),
        event => panic!("{event:?}"),
    }
}

fn writes(player: &Player) -> Vec<Value> {
    player.done.iter().filter_map(written).flatten().collect()
}

/// Gemini and Qwen were killed while they asked their vendor again and again.
#[test]
fn what_the_vendor_said_is_told_of_a_cli_that_is_silent() {
    let observed = Observed {
        calls: 5,
        status: Some(429),
        message: Some("Rate limit exceeded".to_owned()),
        retry_after_ms: Some(1000),
        ..Observed::default()
    };
    for cli in ["gemini", "qwen"] {
        let done = Recording::load(Kind::Acp, &format!("{cli}/acp.e429"), 0).play(64, &observed);
        let expected = RunEvent::Error {
            class: ErrorClass::RateLimited,
            message: "Rate limit exceeded".to_owned(),
            status: Some(429),
            retry_after_ms: Some(1000),
        };
        assert_eq!(last(&done), &expected);
    }
}

#[test]
fn usage_and_finish_are_the_vendors_where_they_were_seen() {
    let usage = RunUsage { input_tokens: Some(1), output_tokens: Some(99), ..RunUsage::default() };
    let observed = Observed {
        calls: 1,
        status: Some(200),
        usage: Some(usage),
        finish: Some(FinishReason::Length),
        ..Observed::default()
    };
    for (kind, name) in [(Kind::CodexAppServer, "codex/app-server"), (Kind::Acp, "gemini/acp")] {
        let done = Recording::load(kind, name, 0).play(64, &observed);
        assert_eq!(last(&done), &RunEvent::Finished { reason: FinishReason::Length });
        let told = events(&done).into_iter().find_map(|event| match event {
            RunEvent::Usage(usage) => Some(*usage),
            _ => None,
        });
        assert_eq!(told.unwrap().output_tokens, Some(99));
    }
}

/// As Gemini does after a stream that broke, or was blocked.
#[test]
fn an_answer_that_counts_nothing_is_none() {
    for (finish, expected) in [(None, false), (Some(FinishReason::ContentFilter), true)] {
        let mut player = Player::boot(Kind::Acp);
        player.say(&json!({"id": 1, "result": {"agentInfo": {"name": "gemini-cli"}}}), usize::MAX);
        player.say(&json!({"id": 2, "result": {"sessionId": "s"}}), usize::MAX);
        player.act(|dialect, out| dialect.begin(&hello(), out).unwrap());
        let count = json!({"quota": {"token_count": {"input_tokens": 0, "output_tokens": 0}}});
        player.say(&json!({"id": 4, "result": {"stopReason": "end_turn", "_meta": count}}), usize::MAX);
        let observed = Observed { calls: 1, status: Some(200), finish, ..Observed::default() };
        let done = ended(player, None, &observed);
        assert_eq!(matches!(last(&done), RunEvent::Finished { .. }), expected, "{done:?}");
    }
}

/// Gemini does not ask its vendor then, and Codex asks about a summary.
#[test]
fn a_conversation_that_the_model_cannot_hold_is_refused() {
    let mut gemini = Player::boot(Kind::Acp);
    gemini.say(&json!({"id": 1, "result": {"agentInfo": {"name": "gemini-cli"}}}), usize::MAX);
    gemini.say(&json!({"id": 2, "result": {"sessionId": "s"}}), usize::MAX);
    gemini.act(|dialect, out| dialect.begin(&hello(), out).unwrap());
    let count = json!({"quota": {"token_count": {"input_tokens": 0, "output_tokens": 0}}});
    gemini.say(&json!({"id": 4, "result": {"stopReason": "max_tokens", "_meta": count}}), usize::MAX);

    let mut codex = asked(Kind::CodexAppServer, &hello());
    let item = json!({"type": "contextCompaction", "id": "c"});
    codex.say(&json!({"method": "item/started", "params": {"threadId": "t", "item": item}}), usize::MAX);

    for player in [gemini, codex] {
        assert!(player.dialect.is_complete());
        let observed = Observed { calls: 1, status: Some(200), ..Observed::default() };
        assert_eq!(error_of(last(&ended(player, None, &observed))), (ErrorClass::InvalidRequest, None));
    }
}

#[test]
fn every_question_is_answered_with_no() {
    let permission = json!({"options": [{"optionId": "yes", "kind": "allow_once"}, {"optionId": "no", "kind": "reject_once"}]});
    let rejected = json!({"outcome": {"outcome": "selected", "optionId": "no"}});
    let missing =
        |method: &str| json!({"code": -32601, "message": "Method not found", "data": {"method": method}});
    let cases = [
        (Kind::Acp, "session/request_permission", permission, Ok(rejected)),
        (
            Kind::Acp,
            "session/request_permission",
            json!({}),
            Ok(json!({"outcome": {"outcome": "cancelled"}})),
        ),
        (Kind::Acp, "fs/read_text_file", json!({"path": "/etc/passwd"}), Err(missing("fs/read_text_file"))),
        (Kind::Acp, "terminal/create", json!({"command": "sh"}), Err(missing("terminal/create"))),
        (
            Kind::CodexAppServer,
            "item/commandExecution/requestApproval",
            json!({}),
            Ok(json!({"decision": "decline"})),
        ),
        (
            Kind::CodexAppServer,
            "item/fileChange/requestApproval",
            json!({}),
            Ok(json!({"decision": "decline"})),
        ),
        (Kind::CodexAppServer, "item/tool/requestUserInput", json!({}), Ok(json!({"answers": {}}))),
        (Kind::CodexAppServer, "some/newThing", json!({}), Err(missing("some/newThing"))),
    ];
    for (kind, method, params, expected) in cases {
        let mut player = asked(kind, &hello());
        player.done.clear();
        player.say(&json!({"jsonrpc": "2.0", "id": "q", "method": method, "params": params}), usize::MAX);
        let mut answer = json!({"jsonrpc": "2.0", "id": "q"});
        match expected {
            Ok(result) => answer["result"] = result,
            Err(error) => answer["error"] = error,
        }
        assert_eq!(writes(&player), [answer]);
        assert!(!player.dialect.is_complete());
    }
    for (subtype, expected) in [
        (
            "can_use_tool",
            json!({"subtype": "success", "request_id": "q", "response":
            {"behavior": "deny", "message": "not allowed here"}}),
        ),
        ("hook_callback", json!({"subtype": "error", "request_id": "q", "error": "not supported"})),
    ] {
        let mut player = asked(Kind::ClaudeStreamJson, &hello());
        player.done.clear();
        let question = json!({"type": "control_request", "request_id": "q", "request": {"subtype": subtype}});
        player.say(&question, usize::MAX);
        assert_eq!(writes(&player), [json!({"type": "control_response", "response": expected})]);
    }
}

#[test]
fn parameters_are_set_by_the_protocol() {
    let set = |kind, model, effort| {
        let parameters = [("model", model), ("reasoning_effort", effort)];
        let messages = vec![Message { role: Role::User, parts: vec![text("hello")] }];
        writes(&asked(kind, &request(&parameters, messages)))
    };
    let codex = set(Kind::CodexAppServer, "m", "low");
    assert_eq!(codex[0]["params"]["model"], "m");
    assert_eq!(codex[2]["params"]["effort"], "low");

    // The model that is set is not set again, and an agent's own id is found by the name.
    assert_eq!(method(&set(Kind::Acp, "one", "low")[0]), "session/prompt");
    let two = set(Kind::Acp, "two", "low");
    assert_eq!(two.len(), 1, "the prompt waits for the model");
    assert_eq!(two[0]["params"], json!({"sessionId": "s", "modelId": "$x|two"}));

    let claude = |effort| {
        let requests = set(Kind::ClaudeStreamJson, "m", effort);
        let requests: Vec<Value> = requests.iter().map(|line| line["request"].clone()).collect();
        requests.into_iter().filter(|request| !request.is_null()).collect::<Vec<Value>>()
    };
    let model = json!({"subtype": "set_model", "model": "m"});
    let thinking = |tokens: u32| json!({"subtype": "set_max_thinking_tokens", "max_thinking_tokens": tokens});
    let effort =
        |effort: &str| json!({"subtype": "apply_flag_settings", "settings": {"effortLevel": effort}});
    assert_eq!(claude("low"), [model.clone(), thinking(4096), effort("low")]);
    assert_eq!(claude("none"), [model.clone(), thinking(0)]);
    assert_eq!(claude("xhigh"), [model, effort("xhigh")]);
}

/// Claude takes a message of the assistant at once, but one of the user when it comes to it.
#[test]
fn claudes_history_is_written_step_by_step() {
    let said = |role, words: &str| Message { role, parts: vec![text(words)] };
    let messages = vec![
        said(Role::User, "u1"),
        said(Role::User, "u2"),
        said(Role::Assistant, "a1"),
        said(Role::Assistant, "a2"),
        Message {
            role: Role::Tool,
            parts: vec![Part::ToolResult { id: "1".to_owned(), text: "r".to_owned() }],
        },
        said(Role::Assistant, "a3"),
        said(Role::User, "u3"),
    ];
    let mut player = asked(Kind::ClaudeStreamJson, &request(&[], messages));
    let mut steps = Vec::new();
    for _ in 0..3 {
        let step = writes(&player).into_iter().map(|line| {
            let texts = line["message"]["content"].as_array().unwrap().iter();
            let texts: Vec<&str> = texts.map(|block| block["text"].as_str().unwrap()).collect();
            format!("{}{}: {}", line["type"].as_str().unwrap(), line["shouldQuery"], texts.join("|"))
        });
        steps.push(step.collect::<Vec<String>>());
        player.done.clear();
        player.say(
            &json!({"type": "result", "subtype": "success", "is_error": false, "num_turns": 0}),
            usize::MAX,
        );
    }
    let result = "[turn-0 tool result]\n{\"id\":\"1\"}\nr\n";
    let expected = [
        vec!["userfalse: u1|u2".to_owned()],
        vec!["assistantnull: a1".to_owned(), "assistantnull: a2".to_owned(), format!("userfalse: {result}")],
        vec!["assistantnull: a3".to_owned(), "usernull: u3".to_owned()],
    ];
    assert_eq!(steps, expected);
    assert!(player.dialect.is_complete(), "the fourth result is the answer's");
}

#[test]
fn what_cannot_be_taken_is_named_and_nothing_is_written() {
    let image = |media_type: &str| Part::Image { media_type: media_type.to_owned(), data: "AQID".to_owned() };
    for kind in KINDS {
        let messages = vec![Message { role: Role::User, parts: vec![text("a"), image("image/tiff")] }];
        let mut player = up(kind);
        let error = player.dialect.begin(&request(&[], messages), &mut player.done).unwrap_err();
        assert_eq!(error.param, "messages[0].parts[1]", "{kind:?}");
        assert_eq!(player.done, []);
    }
    let mut player = up(Kind::ClaudeStreamJson);
    let silent = request(&[], vec![Message { role: Role::User, parts: vec![text("")] }]);
    assert_eq!(player.dialect.begin(&silent, &mut player.done).unwrap_err().param, "messages");
}

#[test]
fn images_go_natively() {
    let image = Part::Image { media_type: "image/png".to_owned(), data: "AQID".to_owned() };
    let request = request(&[], vec![Message { role: Role::User, parts: vec![text("a"), image, text("b")] }]);
    let claude = writes(&asked(Kind::ClaudeStreamJson, &request));
    let source = json!({"type": "base64", "media_type": "image/png", "data": "AQID"});
    let content = json!([{"type": "text", "text": "a"}, {"type": "image", "source": source}, {"type": "text", "text": "b"}]);
    assert_eq!(claude[0]["message"]["content"], content);
    let codex = writes(&asked(Kind::CodexAppServer, &request));
    let content = json!([{"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "data:image/png;base64,AQID"}, {"type": "input_text", "text": "b"}]);
    assert_eq!(codex[1]["params"]["items"][0]["content"], content);
    let acp = writes(&asked(Kind::Acp, &request));
    assert_eq!(
        acp[0]["params"]["prompt"][1],
        json!({"type": "image", "mimeType": "image/png", "data": "AQID"})
    );
}

#[test]
fn separators_of_lines_are_escaped() {
    let odd = "a\u{2028}b\u{2029}c\nd\u{85}";
    for kind in KINDS {
        let messages = vec![Message { role: Role::User, parts: vec![text(odd)] }];
        // `written` looks for them.
        let all = writes(&asked(kind, &request(&[], messages)));
        assert!(all.iter().any(|line| line.to_string().contains(&serde_json::to_string(odd).unwrap())));
    }
}

#[test]
fn a_run_that_is_cancelled_says_so() {
    for kind in KINDS {
        // Before the CLI was asked anything: at once.
        let messages = ["u", "a", "u"].map(|words| {
            let role = if words == "a" { Role::Assistant } else { Role::User };
            Message { role, parts: vec![text(words)] }
        });
        let mut early = up(kind);
        early.act(|dialect, out| {
            dialect.begin(&request(&[("model", "two")], messages.to_vec()), out).unwrap();
        });
        early.act(|dialect, out| dialect.cancel(out));
        assert!(early.dialect.is_complete(), "{kind:?}");
        assert_eq!(error_of(last(&ended(early, None, &Observed::default()))).0, ErrorClass::Cancelled);

        // Killed before it confirmed.
        let mut late = asked(kind, &hello());
        late.done.clear();
        late.act(|dialect, out| dialect.cancel(out));
        assert_eq!(writes(&late).len(), 1, "{kind:?}");
        let exit = Exit { code: Some(137), limit: None };
        assert_eq!(error_of(last(&ended(late, Some(&exit), &Observed::default()))).0, ErrorClass::Cancelled);
    }
}

#[test]
fn a_process_that_goes_early_is_an_error() {
    for kind in KINDS {
        for (exit, class) in [
            (Exit { code: Some(1), limit: None }, ErrorClass::Internal),
            (Exit { code: None, limit: Some(Limit::Memory) }, ErrorClass::Internal),
            (Exit { code: None, limit: Some(Limit::IdleTime) }, ErrorClass::Timeout),
        ] {
            let mut player = asked(kind, &hello());
            player.act(|dialect, out| dialect.stderr(b"it hurts", out));
            assert_eq!(error_of(last(&ended(player, Some(&exit), &Observed::default()))).0, class);
        }
    }
}

#[test]
fn a_handshake_that_fails_is_told() {
    let refused = json!({"id": 1, "error": {"code": -32600, "message": "no"}});
    for (kind, message, class) in [
        (Kind::CodexAppServer, refused.clone(), ErrorClass::Internal),
        (Kind::Acp, refused, ErrorClass::Internal),
        (Kind::Acp, json!({"id": 1, "error": {"code": -32000, "message": "login"}}), ErrorClass::Auth),
        (
            Kind::ClaudeStreamJson,
            json!({"type": "control_response", "response":
                {"subtype": "error", "request_id": "boot", "error": "no"}}),
            ErrorClass::Internal,
        ),
    ] {
        let mut player = Player::boot(kind);
        player.say(&message, usize::MAX);
        assert!(player.dialect.is_complete(), "{kind:?}");
        assert_eq!(error_of(last(&ended(player, None, &Observed::default()))).0, class);
    }
}

/// A few words of each protocol, right and wrong.
fn any_words() -> impl Strategy<Value = Vec<u8>> {
    let ids =
        prop_oneof![Just(json!(1)), Just(json!(2)), Just(json!(4)), Just(json!("x")), Just(Value::Null)];
    let values = prop_oneof![
        Just(json!({"thread": {"id": "t"}, "turn": {"id": "u", "status": "completed"}, "sessionId": "s"})),
        Just(json!({"stopReason": "end_turn", "threadId": "t", "delta": "x", "itemId": "i"})),
        Just(json!({"update": {"sessionUpdate": "agent_message_chunk", "content": {"text": "x"}}})),
        Just(json!([1])),
        Just(Value::Null),
    ];
    let methods = prop_oneof![
        Just("session/update"),
        Just("turn/completed"),
        Just("item/agentMessage/delta"),
        Just("session/request_permission"),
    ];
    let rpc = (ids, values, methods, 0..4_u8).prop_map(|(id, value, method, form)| match form {
        0 => json!({"id": id, "result": value}),
        1 => json!({"id": id, "error": value}),
        2 => json!({"id": id, "method": method, "params": value}),
        _ => json!({"method": method, "params": value}),
    });
    let claude = prop_oneof![
        Just(claude_is_up()),
        Just(json!({"type": "result", "is_error": false, "result": "x", "stop_reason": "end_turn"})),
        Just(
            json!({"type": "assistant", "message": {"id": "m", "content": [{"type": "text", "text": "xy"}]}})
        ),
        Just(json!({"type": "stream_event", "event":
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}}})),
    ];
    prop_oneof![
        4 => rpc.prop_map(|message| format!("{message}\n").into_bytes()),
        4 => claude.prop_map(|message| format!("{message}\n").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    /// Whatever a process says: no panic, one last event, nothing told before the request, and the same however the
    /// bytes were cut.
    #[test]
    fn nothing_that_a_process_says_breaks_a_dialect(
        kind in prop::sample::select(KINDS.to_vec()),
        before in prop::collection::vec(any_words(), 0..4),
        after in prop::collection::vec(any_words(), 0..12),
        piece in 1_usize..50,
        cancels in any::<bool>(),
    ) {
        let play = |piece: usize| {
            let mut player = Player::boot(kind);
            for bytes in before.concat().chunks(piece) {
                player.act(|dialect, out| dialect.stdout(bytes, out));
            }
            assert_eq!(events(&player.done), Vec::<&RunEvent>::new());
            player.act(|dialect, out| dialect.begin(&hello(), out).unwrap());
            for bytes in after.concat().chunks(piece) {
                player.act(|dialect, out| dialect.stdout(bytes, out));
            }
            if cancels {
                player.act(|dialect, out| dialect.cancel(out));
            }
            let exit = Exit { code: Some(0), limit: None };
            ended(player, Some(&exit), &Observed::default())
        };
        prop_assert_eq!(play(piece), play(usize::MAX));
    }
}

#[test]
fn a_message_without_end_takes_no_memory_and_fails_the_run() {
    for kind in KINDS {
        let mut player = asked(kind, &hello());
        let flood = vec![b'x'; 1 << 20];
        for _ in 0..8 {
            player.act(|dialect, out| dialect.stdout(&flood, out));
        }
        player.act(|dialect, out| dialect.stdout(b"\n", out));
        assert!(player.dialect.is_complete(), "{kind:?}");
        assert_eq!(error_of(last(&ended(player, None, &Observed::default()))).0, ErrorClass::Internal);
    }
}
