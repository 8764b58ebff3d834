//! What goes over the wire, written out, and read back however it is cut.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::FutureExt as _;
use runner_api::frame::{Decoder, FrameError, KEEP_ALIVE, MAX_FRAME_BYTES, encode};
use runner_api::node::MemoryRegistry;
use runner_api::{
    Capacity, ErrorClass, FinishReason, Message, NodeRecord, Part, Refusal, RefusalCode, Registry as _, Role,
    RunEvent, RunRequest, RunUsage, understands,
};

fn events() -> Vec<(RunEvent, &'static str)> {
    let text = |text: &str| RunEvent::Text { text: text.to_owned() };
    vec![
        (RunEvent::Started { waited_ms: 3, warm: true }, r#"{"type":"started","waited_ms":3,"warm":true}"#),
        (RunEvent::Reasoning { text: "hm".into() }, r#"{"type":"reasoning","text":"hm"}"#),
        (
            RunEvent::ToolCall { id: "1".into(), name: "shell".into(), arguments: "{}".into() },
            r#"{"type":"tool_call","id":"1","name":"shell","arguments":"{}"}"#,
        ),
        (
            text("line\nbreak \u{2028} 👩\u{200d}👩"),
            "{\"type\":\"text\",\"text\":\"line\\nbreak \u{2028} 👩\u{200d}👩\"}",
        ),
        (RunEvent::Notice { message: "n".into() }, r#"{"type":"notice","message":"n"}"#),
        (
            RunEvent::Usage(RunUsage {
                input_tokens: Some(5),
                output_tokens: Some(0),
                ..RunUsage::default()
            }),
            r#"{"type":"usage","input_tokens":5,"output_tokens":0}"#,
        ),
        (
            RunEvent::Error {
                class: ErrorClass::RateLimited,
                message: "slow down".into(),
                status: Some(429),
                retry_after_ms: Some(1500),
            },
            r#"{"type":"error","class":"rate_limited","message":"slow down","status":429,"retry_after_ms":1500}"#,
        ),
        (RunEvent::Finished { reason: FinishReason::Length }, r#"{"type":"finished","reason":"length"}"#),
    ]
}

fn decode_all(decoder: &mut Decoder) -> Vec<RunEvent> {
    std::iter::from_fn(|| decoder.next_event().unwrap()).collect()
}

#[test]
fn events_are_written_as_documented() {
    for (event, line) in events() {
        let mut out = Vec::new();
        encode(&event, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{line}\n"));
    }
}

#[test]
fn events_are_read_however_they_are_cut() {
    let mut wire = Vec::new();
    let mut wanted = Vec::new();
    for (event, _) in events() {
        encode(&event, &mut wire);
        wire.extend_from_slice(KEEP_ALIVE);
        wanted.push(event);
    }
    for at in 0..=wire.len() {
        let mut decoder = Decoder::default();
        decoder.push(&wire[..at]);
        let mut read = decode_all(&mut decoder);
        decoder.push(&wire[at..]);
        read.extend(decode_all(&mut decoder));
        assert_eq!(read, wanted, "cut at {at}");
    }
    let mut decoder = Decoder::default();
    let mut read = Vec::new();
    for byte in &wire {
        decoder.push(std::slice::from_ref(byte));
        read.extend(decode_all(&mut decoder));
    }
    assert_eq!(read, wanted);
}

#[test]
fn a_newer_minor_version_is_understood() {
    let mut decoder = Decoder::default();
    decoder.push(
        b"{\"type\":\"applause\",\"loud\":true}\n{\"type\":\"text\",\"text\":\"a\",\"language\":\"en\"}\n",
    );
    decoder.push(b"{\"type\":\"error\",\"class\":\"bored\",\"message\":\"m\"}\n{\"type\":\"finished\",\"reason\":\"tired\"}\n");
    let read = decode_all(&mut decoder);
    assert_eq!(
        read,
        [
            RunEvent::Text { text: "a".into() },
            RunEvent::error(ErrorClass::Internal, "m"),
            RunEvent::Finished { reason: FinishReason::Other },
        ]
    );
    assert!(understands("1.7") && understands("1.0"));
    assert!(!understands("2.0") && !understands("1") && !understands("") && !understands("10.0"));
}

#[test]
fn what_is_no_event_is_an_error() {
    for line in
        ["[]\n", "{}\n", "text\n", "{\"type\":\"text\"}\n", "{\"type\":\"text\",\"text\":1}\n", "\u{fffd}\n"]
    {
        let mut decoder = Decoder::default();
        decoder.push(line.as_bytes());
        assert!(matches!(decoder.next_event(), Err(FrameError::Malformed(_))), "{line}");
    }
}

#[test]
fn a_line_has_a_limit_whether_it_ends_or_not() {
    let mut endless = Decoder::default();
    endless.push(&vec![b' '; MAX_FRAME_BYTES]);
    assert!(endless.next_event().unwrap().is_none());
    endless.push(b"  ");
    assert!(matches!(endless.next_event(), Err(FrameError::TooLong)));

    let mut ended = Decoder::default();
    ended.push(&vec![b' '; MAX_FRAME_BYTES + 1]);
    ended.push(b"\n");
    assert!(matches!(ended.next_event(), Err(FrameError::TooLong)));
}

fn request() -> RunRequest {
    RunRequest {
        id: "run-1_A".into(),
        cli: "echo".into(),
        parameters: [("model".to_owned(), "m".to_owned())].into(),
        caller: "key".into(),
        timeout_ms: None,
        system: Some("be brief".into()),
        messages: vec![Message {
            role: Role::User,
            parts: vec![
                Part::Text { text: "hi".into() },
                Part::Image { media_type: "image/png".into(), data: "AA==".into() },
            ],
        }],
    }
}

#[test]
fn requests_are_written_as_documented() {
    let json = serde_json::to_string(&request()).unwrap();
    assert_eq!(
        json,
        r#"{"id":"run-1_A","cli":"echo","parameters":{"model":"m"},"caller":"key","system":"be brief","messages":[{"role":"user","parts":[{"type":"text","text":"hi"},{"type":"image","media_type":"image/png","data":"AA=="}]}]}"#
    );
    assert_eq!(serde_json::from_str::<RunRequest>(&json).unwrap(), request());
    let newer = json.replacen('{', r#"{"priority":9,"#, 1);
    assert_eq!(serde_json::from_str::<RunRequest>(&newer).unwrap(), request());
}

#[test]
fn a_wrong_request_is_told_where() {
    let param = |change: fn(&mut RunRequest)| {
        let mut request = request();
        change(&mut request);
        request.check().unwrap_err().param
    };
    assert_eq!(request().check(), Ok(()));
    assert_eq!(param(|request| request.id.clear()), "id");
    assert_eq!(param(|request| request.id = "a/b".into()), "id");
    assert_eq!(param(|request| request.id = "a".repeat(65)), "id");
    assert_eq!(param(|request| request.caller.clear()), "caller");
    assert_eq!(param(|request| request.caller = "a".repeat(129)), "caller");
    assert_eq!(param(|request| request.timeout_ms = Some(0)), "timeout_ms");
    assert_eq!(param(|request| request.messages.clear()), "messages");
    assert_eq!(param(|request| request.messages[0].role = Role::Assistant), "messages");
}

#[test]
fn refusals_come_back_as_they_were() {
    let refusal = Refusal::new(RefusalCode::Saturated, "the queue is full").at("caller").retry_after_ms(2500);
    let json = refusal.to_json();
    assert_eq!(
        std::str::from_utf8(&json).unwrap(),
        r#"{"error":{"code":"saturated","message":"the queue is full","param":"caller","retry_after_ms":2500}}"#
    );
    assert_eq!(Refusal::from_json(&json), Some(refusal));
    let newer = Refusal::from_json(br#"{"error":{"code":"full_moon","message":"m"}}"#).unwrap();
    assert_eq!(newer.code, RefusalCode::Internal);
    assert_eq!(Refusal::from_json(b"<html>"), None);
}

#[test]
fn a_vendors_status_has_a_class() {
    let classes = [
        (400, ErrorClass::InvalidRequest),
        (401, ErrorClass::Auth),
        (402, ErrorClass::QuotaExhausted),
        (403, ErrorClass::Auth),
        (404, ErrorClass::NotFound),
        (408, ErrorClass::Timeout),
        (422, ErrorClass::InvalidRequest),
        (429, ErrorClass::RateLimited),
        (500, ErrorClass::Unavailable),
        (503, ErrorClass::Overloaded),
        (504, ErrorClass::Timeout),
        (529, ErrorClass::Overloaded),
    ];
    for (status, class) in classes {
        assert_eq!(ErrorClass::of_status(status), class, "{status}");
    }
}

#[test]
fn the_memory_registry_keeps_the_last_word() {
    let node = |running| NodeRecord {
        id: "n".into(),
        url: "https://localhost:1".into(),
        version: "0".into(),
        capacity: Capacity { running, ..Capacity::default() },
        clis: Vec::new(),
        expires_unix_ms: 1,
    };
    let registry = MemoryRegistry::default();
    registry.announce(&node(1)).now_or_never().unwrap().unwrap();
    registry.announce(&node(2)).now_or_never().unwrap().unwrap();
    assert_eq!(registry.nodes().now_or_never().unwrap().unwrap().nodes, [node(2)]);
    registry.withdraw("n").now_or_never().unwrap().unwrap();
    registry.withdraw("n").now_or_never().unwrap().unwrap();
    assert_eq!(registry.nodes().now_or_never().unwrap().unwrap().nodes, []);
}

#[test]
fn a_nodes_url_is_an_https_origin() {
    for url in [
        "https://runner-1.example.com:7443",
        "https://localhost",
        "https://10.0.0.1:1",
        "https://[::1]:7443",
        "https://[::1]",
    ] {
        assert!(runner_api::is_node_url(url), "{url}");
    }
    for url in [
        "",
        "https://",
        "http://localhost",
        "HTTPS://localhost",
        "https://localhost/",
        "https://localhost/path",
        "https://localhost?x",
        "https://localhost#x",
        "https://me@localhost",
        "https://localhost:",
        "https://localhost:0",
        "https://localhost:+1",
        "https://localhost:70000",
        "https://local host",
        "https://[::1",
        "https://[x]:1",
        "https://::1",
        "https://a\r\nb",
    ] {
        assert!(!runner_api::is_node_url(url), "{url:?}");
    }
}
