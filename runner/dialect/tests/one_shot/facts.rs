//! What must be so whatever the golden files say.

use cli_dialect::{Action, Dialect, Exit, Kind, Limit, Observed, Settings, SystemPrompt, ToolsAs};
use runner_api::{ErrorClass, FinishReason, Part, RunEvent, RunUsage};

use crate::recording::{Recording, begin, dialect, events, recording, recordings, request, settings, text};

const HELLO: &str = "Hello from the mock model.";

fn last(events: &[RunEvent]) -> &RunEvent {
    events.last().unwrap()
}

fn class(events: &[RunEvent]) -> Option<ErrorClass> {
    match last(events) {
        RunEvent::Error { class, .. } => Some(*class),
        _ => None,
    }
}

fn reason(events: &[RunEvent]) -> Option<FinishReason> {
    match last(events) {
        RunEvent::Finished { reason } => Some(*reason),
        _ => None,
    }
}

/// The recordings of CLIs that say in a protocol how they fared, with their dialects.
fn spoken() -> impl Iterator<Item = (Recording, Kind)> {
    recordings().flat_map(|recording| {
        let kinds = recording.kinds();
        let spoken = move |kind: &Kind| !matches!(kind, Kind::Text | Kind::Jsonl);
        kinds.into_iter().filter(spoken).map(move |kind| (recording.clone(), kind))
    })
}

fn case(recording: &Recording) -> &str {
    let (_, case) = recording.name.split_once('/').unwrap();
    case.split('.').next().unwrap()
}

#[test]
fn there_is_one_last_event_and_nothing_after_it() {
    for recording in recordings() {
        for kind in recording.kinds() {
            for observed in [Observed::default(), recording.observed()] {
                let events = recording.run(kind, &observed);
                let lasts = events.iter().filter(|event| event.is_last()).count();
                assert_eq!((lasts, last(&events).is_last()), (1, true), "{}", recording.name);
            }
        }
    }
}

#[test]
fn what_the_vendor_refused_has_its_class_whether_or_not_the_cli_tells() {
    let mut seen = 0;
    for (recording, kind) in spoken() {
        let expected = match case(&recording) {
            "e401" => ErrorClass::Auth,
            "e404" => ErrorClass::NotFound,
            "e429" => ErrorClass::RateLimited,
            "e500" => ErrorClass::Unavailable,
            "e503" | "e529" => ErrorClass::Overloaded,
            _ => continue,
        };
        let watched = class(&recording.run(kind, &recording.observed())).unwrap();
        let alone = class(&recording.run(kind, &Observed::default())).unwrap();
        let name = &recording.name;
        // What Codex prints for a 500 says "high demand".
        let expected_watched = if name.starts_with("codex/e500") { ErrorClass::Overloaded } else { expected };
        assert_eq!(watched, expected_watched, "{name}");
        // Nothing but the time says that a CLI would have gone on asking.
        if recording.exit().limit.is_none() {
            assert_eq!(alone, expected_watched, "{name} alone");
        }
        assert_eq!(text(&recording.run(kind, &recording.observed())), "", "{name}");
        seen += 1;
    }
    assert!(seen >= 40, "only {seen}");
}

#[test]
fn a_bad_key_is_the_operators_fault_with_every_status() {
    // Gemini's API answers 400.
    let gemini = recording("gemini/e400.stream-json").run(Kind::Gemini, &Observed::default());
    assert_eq!(class(&gemini), Some(ErrorClass::Auth));
    for (recording, kind) in spoken() {
        if recording.name.contains(".noauth") && recording.exit().code != Some(0) {
            let events = recording.run(kind, &Observed::default());
            assert_eq!(class(&events), Some(ErrorClass::Auth), "{}", recording.name);
        }
    }
}

#[test]
fn an_answer_cut_by_its_limit_is_no_error() {
    for (recording, kind) in spoken() {
        if case(&recording) == "maxtok" {
            let events = recording.run(kind, &recording.observed());
            assert_eq!(reason(&events), Some(FinishReason::Length), "{}", recording.name);
            assert_eq!(text(&events), HELLO, "{}", recording.name);
        }
    }
    // These two tell it themselves.
    for (name, kind) in [("claude/maxtok.stream-json", Kind::Claude), ("codex/maxtok.json", Kind::Codex)] {
        let events = recording(name).run(kind, &Observed::default());
        assert_eq!((reason(&events), text(&events).as_str()), (Some(FinishReason::Length), HELLO));
    }
}

#[test]
fn a_refused_answer_is_filtered() {
    for (recording, kind) in spoken() {
        if case(&recording) == "refusal" {
            let events = recording.run(kind, &recording.observed());
            assert_eq!(reason(&events), Some(FinishReason::ContentFilter), "{}", recording.name);
            assert_eq!(text(&events), HELLO, "{}", recording.name);
        }
    }
    let alone = recording("claude/refusal.stream-json").run(Kind::Claude, &Observed::default());
    assert_eq!(reason(&alone), Some(FinishReason::ContentFilter));
}

#[test]
fn a_broken_stream_is_an_error_and_its_text_comes_once() {
    let mut seen = 0;
    for (recording, kind) in spoken() {
        if !matches!(case(&recording), "middrop" | "midfail") {
            continue;
        }
        for observed in [Observed::default(), recording.observed()] {
            let events = recording.run(kind, &observed);
            let name = &recording.name;
            // Claude Code asks again without streaming, and has the whole.
            if name.starts_with("claude/") && !name.ends_with("nofallback") {
                assert_eq!(
                    (reason(&events), text(&events).as_str()),
                    (Some(FinishReason::Stop), HELLO),
                    "{name}"
                );
            } else {
                assert!(
                    matches!(class(&events), Some(ErrorClass::Unavailable | ErrorClass::Overloaded)),
                    "{name}"
                );
                assert!(matches!(text(&events).as_str(), "" | "Hello from"), "{name}: {}", text(&events));
            }
            seen += 1;
        }
    }
    assert!(seen >= 20, "only {seen}");
}

#[test]
fn plain_answers_are_whole() {
    for (recording, kind) in spoken() {
        let expected = match case(&recording) {
            "simple" | "reasoning" if recording.exit().code == Some(0) => HELLO,
            "unicode" => {
                "Line one: héllo wörld\nLine two: 日本語 🎉👩\u{200d}👩\u{200d}👧\n\n```rust\nfn main() { println!(\"hi\\n\"); \
                 }\n```\n- tab\there, quote \" backslash \\ <tag> & amp\nred? sep\ndata: not an event\n\n[DONE]\nLast \
                 line, no newline"
            }
            "u2028" if kind != Kind::Gemini => "before \u{2028} after",
            _ => continue,
        };
        // The prompt is cut there, which is why longer ones are refused.
        if recording.name.starts_with("gemini/") && recording.name.ends_with("stdin9000000") {
            continue;
        }
        let events = recording.run(kind, &recording.observed());
        if !recording.name.contains(".refused") {
            assert_eq!(text(&events), expected, "{}", recording.name);
        }
    }
}

#[test]
fn tools_are_told_with_their_arguments_and_never_in_a_notice() {
    let mut seen = 0;
    for (recording, kind) in spoken().filter(|(recording, _)| case(recording) == "tool") {
        let events = recording.run(kind, &recording.observed());
        let called = events.iter().any(|event| {
            matches!(event, RunEvent::ToolCall { name, arguments, .. }
                if !name.is_empty() && arguments.contains("echo tool-ran-ok"))
        });
        assert!(called, "{}", recording.name);
        let told = |event: &RunEvent| matches!(event, RunEvent::Notice { message } if message.contains("tool-ran-ok"));
        assert!(!events.iter().any(told), "{}", recording.name);
        assert_eq!(text(&events), format!("I will run it.\n\n{HELLO}"), "{}", recording.name);
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn tools_are_reasoning_where_the_operator_wants() {
    let recording = recording("claude/tool.stream-json");
    let mut dialect =
        cli_dialect::dialect(Kind::Claude, &Settings { tools: ToolsAs::Reasoning, ..settings() });
    let mut out = begin(dialect.as_mut());
    dialect.stdout(&recording.stdout, &mut out);
    dialect.end(None, &Observed::default(), &mut out);
    let expected = "Bash {\"command\":\"echo tool-ran-ok\",\"description\":\"print a marker\"}".to_owned();
    assert!(events(&out).contains(&RunEvent::Reasoning { text: expected }));
}

fn begun(kind: Kind) -> Box<dyn Dialect> {
    let mut dialect = dialect(kind);
    dialect.begin(&request("say hi"), &mut Vec::new()).unwrap();
    dialect
}

/// Feeds lines to a dialect, and ends it with exit code 0.
fn run(kind: Kind, lines: &[&str], observed: &Observed) -> Vec<RunEvent> {
    let mut dialect = begun(kind);
    let mut out = Vec::new();
    for line in lines {
        dialect.stdout(format!("{line}\n").as_bytes(), &mut out);
    }
    dialect.end(Some(&Exit { code: Some(0), limit: None }), observed, &mut out);
    events(&out)
}

fn seen_whole(calls: u32) -> Observed {
    Observed { calls, status: Some(200), finish: Some(FinishReason::Stop), ..Observed::default() }
}

fn gemini_says(text: &str) -> String {
    format!(r#"{{"type":"message","role":"assistant","content":"{text}","delta":true}}"#)
}

const GEMINI_SUCCESS: &str = r#"{"type":"result","status":"success","stats":{}}"#;

#[test]
fn gemini_may_repeat_the_beginning_of_a_broken_stream() {
    let pieces = ["Hello", " from", "Hello from", " the", " model"].map(gemini_says);
    let mut lines: Vec<&str> = pieces.iter().map(String::as_str).collect();
    lines.push(GEMINI_SUCCESS);
    // Nothing was interrupted: it is the model that repeats itself.
    let events = run(Kind::Gemini, &lines, &seen_whole(1));
    assert_eq!(text(&events), "Hello fromHello from the model");
    // One was.
    let observed = Observed { interrupted: 1, ..seen_whole(2) };
    let events = run(Kind::Gemini, &lines, &observed);
    assert_eq!((text(&events).as_str(), reason(&events)), ("Hello from the model", Some(FinishReason::Stop)));
    // It began differently the second time: nobody can take back what was said.
    let pieces = ["Hello", "Hi there"].map(gemini_says);
    let events = run(Kind::Gemini, &[&pieces[0], &pieces[1], GEMINI_SUCCESS], &observed);
    assert_eq!(class(&events), Some(ErrorClass::Unavailable));
}

#[test]
fn gemini_answers_stream_though_they_repeat_themselves() {
    let mut dialect = begun(Kind::Gemini);
    let mut out = Vec::new();
    for piece in ["The cat. ", "The c", "ow. ", "The dog."] {
        dialect.stdout(format!("{}\n", gemini_says(piece)).as_bytes(), &mut out);
    }
    assert_eq!(text(&events(&out)), "The cat. The cow. The dog.");
}

#[test]
fn gemini_says_nothing_where_its_vendor_filtered_all() {
    let lines = [
        r#"{"type":"error","severity":"error","message":"The model returned an empty response"}"#,
        r#"{"type":"result","status":"error","stats":{}}"#,
    ];
    let filtered = Observed { finish: Some(FinishReason::ContentFilter), ..seen_whole(1) };
    assert_eq!(reason(&run(Kind::Gemini, &lines, &filtered)), Some(FinishReason::ContentFilter));
    assert_eq!(class(&run(Kind::Gemini, &lines, &seen_whole(1))), Some(ErrorClass::Unavailable));
}

#[test]
fn gemini_tells_a_status_by_its_exit_code() {
    let mut dialect = begun(Kind::Gemini);
    let mut out = Vec::new();
    dialect.stdout(b"{\"type\":\"result\",\"status\":\"error\",\"stats\":{}}\n", &mut out);
    dialect.end(Some(&Exit { code: Some(173), limit: None }), &Observed::default(), &mut out);
    assert!(matches!(
        last(&events(&out)),
        RunEvent::Error { class: ErrorClass::RateLimited, status: Some(429), .. }
    ));
}

#[test]
fn the_prompt_that_gemini_repeats_may_be_longer_than_a_line_may_be() {
    let echo = format!(r#"{{"type":"message","role":"user","content":"{}"}}"#, "x".repeat(5 << 20));
    let said = gemini_says("Hi.");
    let events = run(Kind::Gemini, &[&echo, &said, GEMINI_SUCCESS], &Observed::default());
    assert_eq!((text(&events).as_str(), reason(&events)), ("Hi.", Some(FinishReason::Stop)));
    // Not so what may be part of the answer.
    let events =
        run(Kind::Gemini, &[&echo.replace("user", "assistant"), GEMINI_SUCCESS], &Observed::default());
    assert_eq!(class(&events), Some(ErrorClass::Internal));
}

fn qwen_says(text: &str) -> [String; 2] {
    [
        format!(
            r#"{{"type":"stream_event","event":{{"type":"message_start","message":{{"id":"m"}}}}}}
{{"type":"stream_event","event":{{"type":"content_block_delta","delta":{{"type":"text_delta","text":"{text}"}}}}}}"#
        ),
        r#"{"type":"result","subtype":"success","is_error":false,"usage":{"input_tokens":0,"output_tokens":0}}"#
            .to_owned(),
    ]
}

#[test]
fn qwen_may_speak_of_errors() {
    let [said, result] = qwen_says("It printed [API Error: 401 no key]");
    let lines = [said.as_str(), result.as_str()];
    let events = run(Kind::Qwen, &lines, &seen_whole(1));
    assert_eq!((text(&events).as_str(), class(&events)), ("It printed [API Error: 401 no key]", None));
    let events = run(Kind::Qwen, &lines, &Observed::default());
    assert_eq!((text(&events).as_str(), class(&events)), ("It printed ", Some(ErrorClass::Auth)));
    let [said, result] = qwen_says("It printed [API Error: 401 no key] and stopped. [API");
    let events = run(Kind::Qwen, &[&said, &result], &Observed::default());
    assert_eq!(text(&events), "It printed [API Error: 401 no key] and stopped. [API");
}

#[test]
fn a_success_that_the_vendor_refused_is_none() {
    let refused = Observed { calls: 1, status: Some(401), ..Observed::default() };
    let [said, result] = qwen_says("Something went wrong.");
    assert_eq!(class(&run(Kind::Qwen, &[&said, &result], &refused)), Some(ErrorClass::Auth));
    assert_eq!(class(&run(Kind::Text, &["Something went wrong."], &refused)), Some(ErrorClass::Auth));
    // An honest CLI with an answer may have asked for something else besides.
    let success = r#"{"type":"result","is_error":false,"result":"Hi.","stop_reason":"end_turn"}"#;
    let events = run(Kind::Claude, &[success], &refused);
    assert_eq!((text(&events).as_str(), reason(&events)), ("Hi.", Some(FinishReason::Stop)));
    let broken = Observed { broken: true, ..seen_whole(1) };
    let broken = Observed { finish: None, ..broken };
    assert_eq!(class(&run(Kind::Text, &["Half an ans"], &broken)), Some(ErrorClass::Unavailable));
}

#[test]
fn claude_that_began_differently_again_has_no_answer() {
    let start = r#"{"type":"stream_event","event":{"type":"message_start","message":{"id":"a"}}}"#;
    let delta = r#"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"Paris is"}}}"#;
    let whole = |id: &str, text: &str| {
        format!(
            r#"{{"type":"assistant","message":{{"id":"{id}","content":[{{"type":"text","text":"{text}"}}]}}}}"#
        )
    };
    let success = r#"{"type":"result","is_error":false,"stop_reason":"end_turn"}"#;
    let end = |whole: &str| run(Kind::Claude, &[start, delta, whole, success], &Observed::default());
    assert_eq!(class(&end(&whole("b", "The capital is Paris."))), Some(ErrorClass::Unavailable));
    let same = end(&whole("b", "Paris is the capital."));
    assert_eq!((text(&same).as_str(), reason(&same)), ("Paris is the capital.", Some(FinishReason::Stop)));
    // What comes after it, when a tool was called in it, is a message of its own.
    let tool = whole("b", "Paris is x")
        .replace(r#"{"type":"text"#, r#"{"type":"tool_use","id":"t","name":"n","input":{}},{"type":"text"#);
    let user = r#"{"type":"user","message":{"content":[]}}"#;
    let (next, more) = (start.replace(r#""a""#, r#""c""#), delta.replace("Paris is", "More."));
    let lines = [start, delta, &whole("b", "Paris is it."), &tool, user, &next, &more, success];
    let events = run(Kind::Claude, &lines, &Observed::default());
    assert_eq!(text(&events), "Paris is it.\n\nParis is x\n\nMore.");
    // Streamed again: its pieces wait for the whole.
    let again = delta.replace("Paris is", "Paris");
    let lines = [start, delta, start, &again, &whole("a", "Paris is it."), success];
    assert_eq!(text(&run(Kind::Claude, &lines, &Observed::default())), "Paris is it.");
}

#[test]
fn what_agents_of_claude_say_is_not_the_answer() {
    let line = r#"{"type":"assistant","parent_tool_use_id":"t","message":{"id":"a","content":[{"type":"text","text":"no"}]}}"#;
    let success = r#"{"type":"result","is_error":false,"result":"yes"}"#;
    assert_eq!(text(&run(Kind::Claude, &[line, success], &Observed::default())), "yes");
}

#[test]
fn opencode_that_asks_again_says_nothing_twice() {
    let start = r#"{"type":"step_start","part":{}}"#;
    let says = |text: &str| format!(r#"{{"type":"text","part":{{"text":"{text}"}}}}"#);
    let finish = r#"{"type":"step_finish","part":{"reason":"stop","tokens":{"input":1,"output":2}}}"#;
    let (half, whole) = (says("Half"), says("Half and more"));
    let events = run(Kind::Opencode, &[start, &half, start, &whole, finish], &Observed::default());
    assert_eq!((text(&events).as_str(), reason(&events)), ("Half and more", Some(FinishReason::Stop)));
    let events = run(Kind::Opencode, &[start, &whole, start, &says("Else"), finish], &Observed::default());
    assert_eq!(class(&events), Some(ErrorClass::Unavailable));
}

#[test]
fn tokens_of_the_cache_and_of_reasoning_are_counted_as_the_vendor_does() {
    let usage = |kind: Kind, line: &str| {
        run(kind, &[line], &Observed::default()).into_iter().find_map(|event| match event {
            RunEvent::Usage(usage) => Some(usage),
            _ => None,
        })
    };
    let counts = |input, output, cached, reasoning| {
        Some(RunUsage {
            input_tokens: Some(input),
            output_tokens: Some(output),
            cached_input_tokens: Some(cached),
            reasoning_tokens: reasoning,
        })
    };
    let claude = r#"{"type":"result","usage":{"input_tokens":1,"cache_creation_input_tokens":20,"cache_read_input_tokens":300,"output_tokens":4}}"#;
    assert_eq!(usage(Kind::Claude, claude), counts(321, 4, 300, None));
    assert_eq!(usage(Kind::Qwen, claude), counts(1, 4, 300, None));
    let gemini = r#"{"type":"result","status":"success","stats":{"total_tokens":100,"input_tokens":10,"output_tokens":20,"cached":5}}"#;
    assert_eq!(usage(Kind::Gemini, gemini), counts(10, 90, 5, None));
    let opencode = r#"{"type":"step_finish","part":{"tokens":{"total":100,"input":1,"output":2,"reasoning":60,"cache":{"write":3,"read":30}}}}"#;
    assert_eq!(usage(Kind::Opencode, opencode), counts(34, 66, 30, Some(60)));
    let codex = r#"{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":1,"output_tokens":3,"reasoning_output_tokens":2}}"#;
    assert_eq!(usage(Kind::Codex, codex), counts(1, 3, 1, Some(2)));
}

#[test]
fn what_was_seen_of_usage_wins_field_by_field() {
    let seen = RunUsage { output_tokens: Some(70), reasoning_tokens: Some(9), ..RunUsage::default() };
    let observed = Observed { usage: Some(seen), ..seen_whole(1) };
    let events = run(
        Kind::Codex,
        &[
            r#"{"type":"turn.completed","usage":{"input_tokens":1,"output_tokens":3,"cached_input_tokens":2}}"#,
        ],
        &observed,
    );
    let usage = RunUsage {
        input_tokens: Some(1),
        output_tokens: Some(70),
        cached_input_tokens: Some(2),
        reasoning_tokens: Some(9),
    };
    assert!(events.contains(&RunEvent::Usage(usage)));
}

#[test]
fn limits_of_the_sandbox_end_a_run() {
    let refused = Observed { calls: 1, status: Some(429), ..Observed::default() };
    for (limit, class_alone, class_refused) in [
        (Limit::Memory, ErrorClass::Internal, ErrorClass::Internal),
        (Limit::Output, ErrorClass::Internal, ErrorClass::Internal),
        // It spent its time on asking again.
        (Limit::WallTime, ErrorClass::Timeout, ErrorClass::RateLimited),
        (Limit::IdleTime, ErrorClass::Timeout, ErrorClass::RateLimited),
    ] {
        for (observed, expected) in [(&Observed::default(), class_alone), (&refused, class_refused)] {
            for kind in crate::recording::KINDS {
                let mut out = Vec::new();
                begun(kind).end(Some(&Exit { code: Some(137), limit: Some(limit) }), observed, &mut out);
                assert_eq!(class(&events(&out)), Some(expected), "{kind:?} {limit:?}");
            }
        }
    }
}

#[test]
fn a_cancelled_run_says_so() {
    for kind in crate::recording::KINDS {
        let mut dialect = begun(kind);
        let mut out = Vec::new();
        dialect.cancel(&mut out);
        dialect.end(Some(&Exit { code: Some(143), limit: None }), &Observed::default(), &mut out);
        assert_eq!(class(&events(&out)), Some(ErrorClass::Cancelled));
    }
}

#[test]
fn secrets_and_terminal_sequences_stay_out_of_messages() {
    for kind in crate::recording::KINDS {
        let mut dialect = begun(kind);
        let mut out = Vec::new();
        dialect.stderr(
            b"\x1b[31mfatal: refused sk-ant-api03-abcdefghij\x1b[0m\nError: key AIzaSyA1234567 \xff\n",
            &mut out,
        );
        dialect.end(Some(&Exit { code: Some(1), limit: None }), &Observed::default(), &mut out);
        let shown = format!("{:?}", events(&out));
        assert!(
            !shown.contains("sk-ant") && !shown.contains("AIza") && !shown.contains("\\u{1b}"),
            "{shown}"
        );
        assert!(shown.contains("fatal: refused [redacted]"), "{shown}");
    }
}

#[test]
fn a_long_answer_comes_in_events_far_below_a_frame() {
    let long = "é".repeat(1 << 20);
    let line = format!(r#"{{"type":"item.completed","item":{{"type":"agent_message","text":"{long}"}}}}"#);
    let events = run(Kind::Codex, &[&line, r#"{"type":"turn.completed"}"#], &Observed::default());
    assert_eq!(text(&events), long);
    for event in &events {
        let mut frame = Vec::new();
        runner_api::frame::encode(event, &mut frame);
        assert!(frame.len() < runner_api::frame::MAX_FRAME_BYTES / 8);
    }
}

#[test]
fn jsonl_needs_its_finish_where_the_operator_says_where() {
    let text_only = r#"{"part":{"text":"Hi."}}"#;
    assert_eq!(class(&run(Kind::Jsonl, &[text_only], &Observed::default())), Some(ErrorClass::Internal));
    let finish = r#"{"part":{"reason":"length"}}"#;
    let told = run(Kind::Jsonl, &[text_only, finish], &Observed::default());
    assert_eq!((text(&told).as_str(), reason(&told)), ("Hi.", Some(FinishReason::Length)));
    let mut paths = settings();
    paths.jsonl.as_mut().unwrap().finish = None;
    let mut dialect = cli_dialect::dialect(Kind::Jsonl, &paths);
    dialect.begin(&request("hi"), &mut Vec::new()).unwrap();
    let mut out = Vec::new();
    dialect.stdout(text_only.as_bytes(), &mut out);
    dialect.end(Some(&Exit { code: Some(0), limit: None }), &Observed::default(), &mut out);
    assert_eq!(reason(&events(&out)), Some(FinishReason::Stop));
}

#[test]
fn prompts_that_a_cli_would_cut_are_refused_before_it_starts() {
    for (kind, limit) in [(Kind::Gemini, 8 << 20), (Kind::Qwen, 8 << 20), (Kind::Codex, 1 << 20)] {
        let mut out = Vec::new();
        let error = dialect(kind).begin(&request(&"x".repeat(limit + 1)), &mut out).unwrap_err();
        assert_eq!((error.param.as_str(), out.len()), ("messages", 0));
        dialect(kind).begin(&request(&"x".repeat(limit)), &mut out).unwrap();
    }
}

#[test]
fn gemini_takes_images_as_files_and_the_others_none() {
    let mut asked = request("What is this?");
    let image = Part::Image { media_type: "image/png".to_owned(), data: "aGk=".to_owned() };
    asked.messages[0].parts.push(image);
    for kind in crate::recording::KINDS {
        let dialect = dialect(kind);
        assert_eq!(kind.takes_images(), kind == Kind::Gemini);
        if kind.takes_images() {
            let files = dialect.files(&asked).unwrap();
            assert_eq!((files[0].name.as_str(), files[0].bytes.as_slice()), ("image-1.png", &b"hi"[..]));
            let mut out = Vec::new();
            crate::recording::dialect(kind).begin(&asked, &mut out).unwrap();
            let Action::Write(prompt) = &out[0] else { panic!("{out:?}") };
            assert!(String::from_utf8_lossy(prompt).contains("\n@image-1.png\n"));
        } else {
            assert_eq!(dialect.files(&asked).unwrap_err().param, "messages[0].parts[1]");
        }
    }
}

#[test]
fn a_system_prompt_is_a_file_where_the_operator_wants() {
    let mut asked = request("say hi");
    asked.system = Some("Be brief.".to_owned());
    for kind in crate::recording::KINDS {
        let file = Settings { system: SystemPrompt::File, ..settings() };
        let files = cli_dialect::dialect(kind, &file).files(&asked).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!((files[0].name.as_str(), files[0].bytes.as_slice()), ("system.md", &b"Be brief."[..]));
        assert_eq!(dialect(kind).files(&asked).unwrap(), []);
    }
}
