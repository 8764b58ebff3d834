use http::HeaderMap;
use proptest::prelude::*;
use runner_api::{FinishReason, RunUsage};

use super::*;

/// An answer in these pieces, and whether its connection then fails.
fn observe(format: AnswerFormat, status: u16, content_type: &str, pieces: &[&[u8]], fails: bool) -> Observed {
    let observation = Arc::new(Observation::default());
    let mut call = observation.begin(format, Some(Secret::new("sk-vendor")));
    call.answered(status, &headers(&[("content-type", content_type)]));
    for piece in pieces {
        call.push(piece);
    }
    if fails {
        call.break_off();
    } else {
        call.end();
    }
    observation.observed()
}

fn headers(headers: &[(&'static str, &str)]) -> HeaderMap {
    headers
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

/// The same in every cut.
fn stream(format: AnswerFormat, text: &str) -> Observed {
    let bytes = text.as_bytes();
    let whole = observe(format, 200, "text/event-stream; charset=utf-8", &[bytes], false);
    for cut in 0..=bytes.len() {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(observe(format, 200, "text/event-stream", &[a, b], false), whole, "cut at {cut}");
    }
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(observe(format, 200, "Text/Event-Stream", &single, false), whole);
    whole
}

fn json(format: AnswerFormat, status: u16, text: &str) -> Observed {
    let single: Vec<_> = text.as_bytes().chunks(1).collect();
    observe(format, status, "application/json", &single, false)
}

fn usage(
    input: u64,
    output: u64,
    cached: impl Into<Option<u64>>,
    reasoning: impl Into<Option<u64>>,
) -> RunUsage {
    RunUsage {
        input_tokens: Some(input),
        output_tokens: Some(output),
        cached_input_tokens: cached.into(),
        reasoning_tokens: reasoning.into(),
    }
}

fn answered(usage: RunUsage, finish: FinishReason) -> Observed {
    Observed { calls: 1, status: Some(200), usage: Some(usage), finish: Some(finish), ..Observed::default() }
}

const MESSAGES: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":3,\"cache_read_input_tokens\":100,\"output_tokens\":1},\"stop_reason\":null}}\n\n",
    "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"message_stop \\\"stop_reason\\\":\\\"refusal\\\"\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":12}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

const GENERATE_CONTENT: &str = concat!(
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hel\"}]},\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":25,\"candidatesTokenCount\":1}}\r\n\r\n",
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"lo\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":25,\"cachedContentTokenCount\":5,\"candidatesTokenCount\":2,\"thoughtsTokenCount\":7,\"totalTokenCount\":34}}\r\n\r\n",
);

const RESPONSES: &str = concat!(
    "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"status\":\"in_progress\",\"usage\":null}}\n\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n",
    "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"status\":\"completed\",\"error\":null,\"incomplete_details\":null,\"output\":[],\"usage\":{\"input_tokens\":25,\"input_tokens_details\":{\"cached_tokens\":5},\"output_tokens\":12,\"output_tokens_details\":{\"reasoning_tokens\":4},\"total_tokens\":37}}}\n\n",
);

const CHAT: &str = concat!(
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}],\"usage\":null}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":25,\"completion_tokens\":12,\"prompt_tokens_details\":{\"cached_tokens\":5}}}\n\n",
    "data: [DONE]\n\n",
);

const STREAMS: [(AnswerFormat, &str); 4] = [
    (AnswerFormat::Messages, MESSAGES),
    (AnswerFormat::GenerateContent, GENERATE_CONTENT),
    (AnswerFormat::Responses, RESPONSES),
    (AnswerFormat::ChatCompletions, CHAT),
];

#[test]
fn streams_tell_usage_and_finish() {
    let expected = [
        answered(usage(128, 12, 100, None), FinishReason::Length),
        answered(usage(25, 9, 5, 7), FinishReason::Stop),
        answered(usage(25, 12, 5, 4), FinishReason::Stop),
        answered(usage(25, 12, 5, None), FinishReason::Length),
    ];
    for ((format, text), expected) in STREAMS.into_iter().zip(expected) {
        assert_eq!(stream(format, text), expected, "{format:?}");
    }
}

#[test]
fn whole_answers_tell_the_same() {
    for (format, text, expected) in [
        (
            AnswerFormat::Messages,
            r#"{"type":"message","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":25,"output_tokens":12}}"#,
            answered(usage(25, 12, None, None), FinishReason::Stop),
        ),
        (
            AnswerFormat::GenerateContent,
            r#"{"candidates":[{"finishReason":"SAFETY"}],"usageMetadata":{"promptTokenCount":25,"candidatesTokenCount":0}}"#,
            answered(usage(25, 0, None, None), FinishReason::ContentFilter),
        ),
        (
            AnswerFormat::GenerateContent,
            "[{\"candidates\":[{}]}\n,\r\n{\"candidates\":[{\"finishReason\":\"MAX_TOKENS\"}],\"usageMetadata\":{\"promptTokenCount\":1,\"toolUsePromptTokenCount\":2,\"candidatesTokenCount\":3}}]",
            answered(usage(3, 3, None, None), FinishReason::Length),
        ),
        (
            AnswerFormat::Responses,
            r#"{"id":"r","object":"response","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"error":null,"usage":{"input_tokens":25,"output_tokens":12}}"#,
            answered(usage(25, 12, None, None), FinishReason::Length),
        ),
        (
            AnswerFormat::ChatCompletions,
            r#"{"object":"chat.completion","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":25,"completion_tokens":12}}"#,
            answered(usage(25, 12, None, None), FinishReason::Stop),
        ),
    ] {
        assert_eq!(json(format, 200, text), expected, "{text}");
    }
}

#[test]
fn refusals_are_known_by_each_vendors_word() {
    for (format, text) in [
        (
            AnswerFormat::Messages,
            "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"refusal\"}}\n\ndata: {\"type\":\"message_stop\"}\n\n",
        ),
        (
            AnswerFormat::GenerateContent,
            "data: {\"promptFeedback\":{\"blockReason\":\"PROHIBITED_CONTENT\"}}\n\n",
        ),
        (
            AnswerFormat::Responses,
            "data: {\"type\":\"response.incomplete\",\"response\":{\"status\":\"incomplete\",\"incomplete_details\":{\"reason\":\"content_filter\"}}}\n\n",
        ),
        (
            AnswerFormat::Responses,
            "data: {\"type\":\"response.refusal.done\",\"refusal\":\"No.\"}\n\ndata: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\"}}\n\n",
        ),
        (AnswerFormat::ChatCompletions, "data: {\"choices\":[{\"finish_reason\":\"content_filter\"}]}\n\n"),
    ] {
        let observed = stream(format, text);
        assert_eq!(observed.finish, Some(FinishReason::ContentFilter), "{text}");
        assert!(!observed.broken, "{text}");
    }
}

#[test]
fn a_stream_that_ends_early_is_broken_and_its_usage_does_not_count() {
    for (format, text) in STREAMS {
        let end = text
            .rfind("\"finish")
            .or(text.rfind("event: message_stop"))
            .or(text.rfind("event: response.comp"));
        let early = &text[..end.unwrap()];
        for fails in [false, true] {
            let observed = observe(format, 200, "text/event-stream", &[early.as_bytes()], fails);
            assert!(observed.broken, "{format:?}: {observed:?}");
            assert_eq!((observed.usage, observed.status), (None, Some(200)), "{format:?}");
        }
        // Once the vendor has said that this is all, it does not matter how its connection ends.
        let observed = observe(format, 200, "text/event-stream", &[text.as_bytes()], true);
        assert!(!observed.broken && observed.usage.is_some(), "{format:?}");
    }
}

#[test]
fn errors_within_a_stream_have_the_status_that_they_stand_for() {
    for (format, text, status, message) in [
        (
            AnswerFormat::Messages,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n",
            529,
            "Overloaded",
        ),
        (
            AnswerFormat::GenerateContent,
            "data: {\"error\":{\"code\":503,\"message\":\"later\",\"status\":\"UNAVAILABLE\"}}\n\n",
            503,
            "later",
        ),
        (
            AnswerFormat::Responses,
            "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"slower\"}}}\n\n",
            429,
            "slower",
        ),
        (
            AnswerFormat::Responses,
            "data: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"oops\",\"param\":null}\n\n",
            500,
            "oops",
        ),
        (
            AnswerFormat::ChatCompletions,
            "data: {\"error\":{\"message\":\"no money\",\"type\":\"insufficient_quota\",\"code\":null}}\n\n",
            402,
            "no money",
        ),
    ] {
        let observed = stream(format, text);
        let expected = Observed {
            calls: 1,
            status: Some(status),
            message: Some(message.to_owned()),
            ..Observed::default()
        };
        assert_eq!(observed, expected, "{text}");
    }
}

#[test]
fn an_error_after_the_finish_still_counts() {
    let late = format!("{CHAT}data: {{\"error\":{{\"message\":\"oops\",\"code\":\"server_error\"}}}}\n\n");
    let observed = stream(AnswerFormat::ChatCompletions, &late);
    assert_eq!((observed.status, observed.usage), (Some(500), None));
}

#[test]
fn error_answers_keep_their_status_and_say_why() {
    for (text, message, retry_after_ms) in [
        (
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"too fast"}}"#,
            Some("too fast"),
            None,
        ),
        (
            r#"{"error":{"code":429,"message":"too fast","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.Help","links":[]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.074824224s"}]}}"#,
            Some("too fast"),
            Some(34_074),
        ),
        (r#"[{"error":{"code":429,"message":"too fast","details":null}}]"#, Some("too fast"), None),
        (
            r#"{"error":{"message":"the key sk-vendor is slow","code":"rate_limit_exceeded"}}"#,
            Some("the key *** is slow"),
            None,
        ),
        (r#"{"error":"too fast"}"#, Some("too fast"), None),
        ("<html>Too Many Requests</html>", None, None),
        ("", None, None),
    ] {
        let expected = Observed {
            calls: 1,
            status: Some(429),
            message: message.map(str::to_owned),
            retry_after_ms,
            ..Observed::default()
        };
        assert_eq!(json(AnswerFormat::Messages, 429, text), expected, "{text}");
    }
}

#[test]
fn the_header_says_better_when_to_come_again() {
    for (name, value, expected) in [
        ("retry-after", "7", Some(7000)),
        ("retry-after-ms", "250", Some(250)),
        ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("retry-after", "-1", None),
        ("x-other", "7", None),
    ] {
        let observation = Arc::new(Observation::default());
        let mut call = observation.begin(AnswerFormat::GenerateContent, None);
        call.answered(429, &headers(&[(name, value)]));
        assert_eq!(observation.observed().retry_after_ms, expected, "{name}: {value}");
        call.push(br#"{"error":{"message":"m","details":[{"retryDelay":"9s"}]}}"#);
        call.end();
        assert_eq!(observation.observed().retry_after_ms, expected.or(Some(9000)), "{name}: {value}");
    }
}

#[test]
fn an_answer_of_another_kind_is_broken_and_a_compressed_one_unread() {
    assert!(json(AnswerFormat::Messages, 200, "<html>").broken);
    assert!(json(AnswerFormat::Messages, 200, "").broken);
    let observation = Arc::new(Observation::default());
    let mut call = observation.begin(AnswerFormat::Messages, None);
    call.answered(200, &headers(&[("content-encoding", "gzip")]));
    call.push(b"\x1f\x8b");
    call.end();
    assert_eq!(observation.observed(), Observed { calls: 1, status: Some(200), ..Observed::default() });
}

#[test]
fn usage_is_summed_and_the_rest_is_the_last_calls() {
    let observation = Arc::new(Observation::default());
    let run = |status: u16, content_type: &str, text: &str| {
        let mut call = observation.begin(AnswerFormat::Messages, None);
        call.answered(status, &headers(&[("content-type", content_type)]));
        call.push(text.as_bytes());
        call.end();
    };
    run(200, "text/event-stream", MESSAGES);
    run(529, "application/json", r#"{"error":{"type":"overloaded_error","message":"later"}}"#);
    let failed = observation.observed();
    assert_eq!((failed.calls, failed.status, failed.finish), (2, Some(529), None));
    assert_eq!(failed.message.as_deref(), Some("later"));
    assert_eq!(failed.usage, Some(usage(128, 12, 100, None)));
    run(200, "text/event-stream", MESSAGES);
    let last = observation.observed();
    assert_eq!(last, Observed { calls: 3, ..answered(usage(256, 24, 200, None), FinishReason::Length) });
}

#[test]
fn an_answer_that_began_and_was_asked_for_again_was_interrupted() {
    let observation = Arc::new(Observation::default());
    let run = |status: u16, text: &str| {
        let mut call = observation.begin(AnswerFormat::Messages, None);
        call.answered(status, &headers(&[("content-type", "text/event-stream")]));
        call.push(text.as_bytes());
        call.break_off();
        observation.observed().interrupted
    };
    let (half, _) = MESSAGES.split_at(MESSAGES.find("event: message_delta").unwrap());
    assert_eq!(run(200, half), 0, "nobody has asked again");
    let failed = format!(
        "{half}event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"overloaded_error\"}}}}\n\n"
    );
    assert_eq!(run(200, &failed), 1);
    assert_eq!(run(529, ""), 2);
    assert_eq!(run(200, MESSAGES), 2, "a refusal is no answer that began");
    assert_eq!(run(200, MESSAGES), 2);
}

#[test]
fn of_calls_at_the_same_time_the_one_that_began_last_counts() {
    let observation = Arc::new(Observation::default());
    let mut first = observation.begin(AnswerFormat::Messages, None);
    let mut second = observation.begin(AnswerFormat::Messages, None);
    let stream = headers(&[("content-type", "text/event-stream")]);
    second.answered(200, &stream);
    second.push(MESSAGES.as_bytes());
    second.end();
    first.answered(500, &headers(&[]));
    first.break_off();
    assert_eq!(
        observation.observed(),
        Observed { calls: 2, ..answered(usage(128, 12, 100, None), FinishReason::Length) }
    );
}

#[test]
fn what_the_last_event_says_is_known_before_the_end() {
    for (format, text) in STREAMS {
        let observation = Arc::new(Observation::default());
        let mut call = observation.begin(format, None);
        call.answered(200, &headers(&[("content-type", "text/event-stream")]));
        call.push(text.as_bytes());
        let before = observation.observed();
        assert!(before.usage.is_some() && before.finish.is_some(), "{format:?}: {before:?}");
        call.end();
        drop(call);
        assert_eq!(observation.observed(), before, "{format:?}: and is counted once");
    }
}

#[test]
fn a_client_that_leaves_breaks_nothing() {
    for (text, finish) in [(&MESSAGES[..400], None), (MESSAGES, Some(FinishReason::Length))] {
        let observation = Arc::new(Observation::default());
        let mut call = observation.begin(AnswerFormat::Messages, None);
        call.answered(200, &headers(&[("content-type", "text/event-stream")]));
        call.push(text.as_bytes());
        drop(call);
        let observed = observation.observed();
        assert_eq!((observed.finish, observed.broken), (finish, false));
        assert_eq!(observed.usage.is_some(), finish.is_some());
    }
}

#[test]
fn a_message_is_cut_between_characters() {
    let text = format!(r#"{{"error":{{"message":"{}"}}}}"#, "é".repeat(5000));
    let message = json(AnswerFormat::Responses, 400, &text).message.unwrap();
    assert_eq!(message, "é".repeat(MAX_MESSAGE_CHARS));
}

fn any_format() -> impl Strategy<Value = AnswerFormat> {
    prop::sample::select(STREAMS.map(|(format, _)| format).to_vec())
}

/// Mostly what vendors send, with parts of it broken.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(
            STREAMS.iter().flat_map(|(_, text)| text.split_inclusive('\n')).collect::<Vec<_>>()
        )
        .prop_map(|line| line.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..20),
        prop::sample::select(vec![
            "\n",
            "\r\n",
            "data:",
            "data: {",
            "}\n\n",
            "[DONE]",
            "{\"error\":",
            "null",
            "[]"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn whatever_comes_means_the_same_however_it_is_cut(
        format in any_format(),
        is_stream: bool,
        status in prop::sample::select(vec![200_u16, 400, 429, 500]),
        body in any_body(),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        fails: bool,
    ) {
        let content_type = if is_stream { "text/event-stream" } else { "application/json" };
        let whole = observe(format, status, content_type, &[&body], fails);
        let mut at: Vec<_> = cuts.drain(..).map(|cut| cut.index(body.len() + 1)).collect();
        at.extend([0, body.len()]);
        at.sort_unstable();
        let pieces: Vec<_> = at.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
        prop_assert_eq!(observe(format, status, content_type, &pieces, fails), whole);
    }
}

#[test]
fn what_all_answers_hold_together_is_bounded() {
    let observation = Arc::new(Observation::default());
    let part = " ".repeat(3 << 20);
    let rest = r#"{"type":"message","stop_reason":"end_turn"}"#;
    for content_type in ["application/json", "text/event-stream"] {
        let begin = || {
            let mut call = observation.begin(AnswerFormat::Messages, None);
            call.answered(200, &headers(&[("content-type", content_type)]));
            if content_type == "text/event-stream" {
                call.push(b"data:");
            }
            call.push(part.as_bytes());
            call
        };
        let end = |mut call: Call| {
            call.push(rest.as_bytes());
            call.end();
            observation.observed()
        };
        let (first, second) = (begin(), begin());
        let third = end(begin());
        assert_eq!((third.finish, third.broken), (None, false), "unread");
        drop(first);
        let fourth = end(begin());
        assert_eq!((fourth.finish, fourth.broken), (Some(FinishReason::Stop), false), "there is room again");
        drop(second);
        assert_eq!(observation.lock().held_bytes, 0);
    }
}
