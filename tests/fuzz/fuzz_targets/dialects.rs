//! Whatever a CLI prints, its run ends in one last event, no event comes near the limit of a frame, and how the output
//! is cut changes nothing. The first byte of the input says which dialect, the next the length of each piece, the next
//! how the process ended, the next what was seen of the vendor.

#![no_main]

use cli_dialect::{Action, Exit, JsonlPaths, Kind, Observed, Settings};
use libfuzzer_sys::fuzz_target;
use runner_api::{FinishReason, Message, Part, Role, RunEvent, RunRequest};

const KINDS: [Kind; 11] = [
    Kind::Text,
    Kind::Claude,
    Kind::Gemini,
    Kind::Codex,
    Kind::Opencode,
    Kind::Qwen,
    Kind::Llm,
    Kind::Jsonl,
    Kind::ClaudeStreamJson,
    Kind::CodexAppServer,
    Kind::Acp,
];

fn settings() -> Settings {
    let at = |path: &str| Some(path.to_owned());
    let jsonl = JsonlPaths {
        text: "/text".to_owned(),
        reasoning: at("/reasoning"),
        input_tokens: at("/input"),
        output_tokens: at("/output"),
        error: at("/error"),
        finish: at("/finish"),
    };
    Settings { jsonl: Some(jsonl), ..Settings::default() }
}

fn request() -> RunRequest {
    RunRequest {
        id: "run".to_owned(),
        cli: "cli".to_owned(),
        parameters: [].into(),
        caller: "key".to_owned(),
        timeout_ms: None,
        system: None,
        messages: vec![Message { role: Role::User, parts: vec![Part::Text { text: "say hi".to_owned() }] }],
    }
}

fn observed(bits: u8) -> Observed {
    let has = |bit: u8| bits & bit != 0;
    let finish = match bits >> 4 & 3 {
        0 => None,
        1 => Some(FinishReason::Stop),
        2 => Some(FinishReason::Length),
        _ => Some(FinishReason::ContentFilter),
    };
    let status = has(1).then_some(if has(2) { 200 } else { 429 });
    Observed { calls: 2, interrupted: has(4).into(), status, finish, broken: has(8), ..Observed::default() }
}

fn run(kind: Kind, pieces: &[&[u8]], exit: u8, seen: u8) -> Vec<RunEvent> {
    let mut dialect = cli_dialect::dialect(kind, &settings());
    let mut out = Vec::new();
    dialect.boot(&mut out);
    let mut begun = false;
    for piece in pieces {
        // A session says when it is ready.
        if !begun && out.contains(&Action::Ready) {
            begun = true;
            dialect.begin(&request(), &mut out).expect("a request that every CLI takes");
        }
        dialect.stdout(piece, &mut out);
    }
    let exit = (exit != 255).then_some(Exit { code: Some(exit.into()), limit: None });
    dialect.end(exit.as_ref(), &observed(seen), &mut out);
    let events = out.into_iter().filter_map(|action| match action {
        Action::Event(event) => Some(event),
        _ => None,
    });
    events.collect()
}

/// Texts that follow each other as one.
fn merged(events: Vec<RunEvent>) -> Vec<RunEvent> {
    let mut merged: Vec<RunEvent> = Vec::new();
    for event in events {
        match (merged.last_mut(), event) {
            (Some(RunEvent::Text { text }), RunEvent::Text { text: more }) => text.push_str(&more),
            (_, event) => merged.push(event),
        }
    }
    merged
}

fuzz_target!(|input: &[u8]| {
    let [kind, length, exit, seen, stdout @ ..] = input else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let pieces: Vec<&[u8]> = stdout.chunks(usize::from(*length).max(1)).collect();
    let cut = run(kind, &pieces, *exit, *seen);
    assert_eq!(cut.iter().filter(|event| event.is_last()).count(), 1);
    assert!(cut.last().expect("a last event").is_last());
    for event in &cut {
        let mut frame = Vec::new();
        runner_api::frame::encode(event, &mut frame);
        assert!(frame.len() < runner_api::frame::MAX_FRAME_BYTES / 4);
    }
    // A session that gets its request between two messages may have passed one over before.
    if !matches!(kind, Kind::ClaudeStreamJson | Kind::CodexAppServer | Kind::Acp) {
        let whole = run(kind, &[stdout], *exit, *seen);
        match kind {
            Kind::Text | Kind::Llm => assert_eq!(merged(cut), merged(whole)),
            _ => assert_eq!(cut, whole),
        }
    }
});
