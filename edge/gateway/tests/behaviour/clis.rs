//! Models that are CLIs, on nodes that say what the test wrote: answers, failures, silence, clients that leave.

use gateway::CallError;
use runner_api::frame::KEEP_ALIVE;
use runner_api::{ErrorClass, FinishReason, RunEvent, RunUsage};
use serde_json::{Value, json};

use crate::support::{DONE, Feed, Gate, Log, Read, Reply, TestGateway, node, run_lines, secs, setup};

/// The provider `alpha` with one node, `n1`.
fn one() -> TestGateway {
    with_timeouts(&json!({}))
}

fn with_timeouts(timeouts: &Value) -> TestGateway {
    let test = setup().cli("alpha", &json!({"timeouts": timeouts})).build();
    test.announce(&node("n1", |_| ()));
    test
}

fn started() -> RunEvent {
    RunEvent::Started { waited_ms: 0, warm: true }
}

fn text(text: &str) -> RunEvent {
    RunEvent::Text { text: text.to_owned() }
}

fn finished() -> RunEvent {
    RunEvent::Finished { reason: FinishReason::Stop }
}

fn used(input: u64, output: u64) -> RunEvent {
    RunEvent::Usage(RunUsage {
        input_tokens: Some(input),
        output_tokens: Some(output),
        ..RunUsage::default()
    })
}

/// The data of all events of a stream; panics unless it ends with `[DONE]`.
fn chunks(stream: &str) -> Vec<Value> {
    let body = stream.strip_suffix(DONE).unwrap_or_else(|| panic!("no end: {stream}"));
    let data = body.split("\n\n").filter_map(|frame| frame.strip_prefix("data: "));
    data.map(|json| serde_json::from_str(json).unwrap()).collect()
}

/// Members of the delta, joined over all chunks.
fn joined(chunks: &[Value], member: &str) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][member].as_str()).collect()
}

fn error_event(stream: &str) -> Value {
    let last = stream.trim_end().rsplit("\n\n").next().unwrap();
    serde_json::from_str::<Value>(last.strip_prefix("data: ").unwrap()).unwrap()["error"].clone()
}

/// Everything that a run may say.
fn whole_run() -> Vec<RunEvent> {
    vec![
        started(),
        RunEvent::Reasoning { text: "hm, ".into() },
        RunEvent::Reasoning { text: String::new() },
        RunEvent::ToolCall { id: "1".into(), name: "shell".into(), arguments: "{\"a\":1}".into() },
        RunEvent::Notice { message: "noticed".into() },
        text("Hél\u{2028}"),
        used(1, 1),
        text("lo 👩\u{200d}👩"),
        RunEvent::Usage(RunUsage {
            input_tokens: Some(50),
            output_tokens: Some(7),
            cached_input_tokens: Some(40),
            reasoning_tokens: Some(3),
        }),
        finished(),
    ]
}

#[test]
fn a_run_is_streamed_as_chunks() {
    let test = one();
    test.host.reply("n1", Reply::run(&whole_run()));
    let answer = test.chat(&json!({"stream": true, "stream_options": {"include_usage": true}}));
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("text/event-stream")));
    let stream = answer.text();
    let chunks = chunks(&stream);
    assert_eq!(joined(&chunks, "role"), "assistant");
    assert_eq!(joined(&chunks, "reasoning_content"), "hm, ");
    assert_eq!(joined(&chunks, "content"), "Hél\u{2028}lo 👩\u{200d}👩");
    let id = chunks[0]["id"].as_str().unwrap();
    assert!(id.starts_with("chatcmpl-") && chunks.iter().all(|chunk| chunk["id"] == id), "{stream}");
    assert!(chunks.iter().all(|c| c["model"] == "m" && c["object"] == "chat.completion.chunk"), "{stream}");
    let [.., finish, usage] = &chunks[..] else { panic!("{stream}") };
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    let expected = json!({
        "prompt_tokens": 50, "completion_tokens": 7, "total_tokens": 57,
        "prompt_tokens_details": {"cached_tokens": 40}, "completion_tokens_details": {"reasoning_tokens": 3},
    });
    assert_eq!((&usage["usage"], &usage["choices"]), (&expected, &json!([])));
    for hidden in ["shell", "noticed", "tool_calls", "x-usage-estimated"] {
        assert!(!stream.contains(hidden), "{hidden}: {stream}");
    }
}

#[test]
fn a_run_is_folded_into_a_completion() {
    let test = one();
    test.host.reply("n1", Reply::run(&whole_run()));
    let answer = test.chat(&json!({}));
    assert_eq!(answer.header("x-usage-estimated"), None);
    let json = answer.json();
    assert_eq!(json["object"], "chat.completion");
    assert_eq!(json["model"], "m");
    let message = json!({
        "role": "assistant", "content": "Hél\u{2028}lo 👩\u{200d}👩", "reasoning_content": "hm, ",
    });
    assert_eq!(json["choices"][0]["message"], message);
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
    assert_eq!(json["usage"]["total_tokens"], 57);
}

#[test]
fn the_end_has_a_reason() {
    for (reason, word) in [
        (FinishReason::Stop, "stop"),
        (FinishReason::Length, "length"),
        (FinishReason::ContentFilter, "content_filter"),
        (FinishReason::Other, "stop"),
    ] {
        for stream in [true, false] {
            let test = one();
            test.host.reply("n1", Reply::run(&[started(), text("a"), RunEvent::Finished { reason }]));
            let body = test.chat(&json!({"stream": stream})).text();
            assert!(body.contains(&format!("\"finish_reason\":\"{word}\"")), "{body}");
        }
    }
}

#[test]
fn usage_that_nobody_tells_is_estimated() {
    let half = RunEvent::Usage(RunUsage { output_tokens: Some(1_000), ..RunUsage::default() });
    for unsaid in [vec![], vec![half], vec![used(0, 0)]] {
        for stream in [true, false] {
            let test = one();
            let events = [vec![started(), text("One two three.")], unsaid.clone(), vec![finished()]].concat();
            test.host.reply("n1", Reply::run(&events));
            let answer = test.chat(&json!({"stream": stream}));
            let header = answer.header("x-usage-estimated").map(str::to_owned);
            let body = answer.text();
            if stream {
                assert!(body.contains(": x-usage-estimated: true\n\n"), "{body}");
            } else {
                assert_eq!(header.as_deref(), Some("true"));
            }
            assert!(body.contains("\"completion_tokens\":4"), "{body}");
        }
    }
}

#[test]
fn the_answer_does_not_depend_on_how_its_bytes_are_cut() {
    let mut wire = Vec::new();
    for event in whole_run() {
        wire.extend(run_lines(&[event]));
        wire.extend_from_slice(KEEP_ALIVE);
    }
    let answer = |pieces: Vec<Vec<u8>>, stream: bool| {
        let test = one();
        let feed = Feed::default();
        for piece in pieces {
            feed.push(piece);
        }
        feed.end();
        test.host.reply("n1", Reply::run_feed(&feed));
        test.chat(&json!({"stream": stream})).text()
    };
    for stream in [true, false] {
        let whole = answer(vec![wire.clone()], stream);
        for at in 1..wire.len() {
            assert_eq!(answer(vec![wire[..at].to_vec(), wire[at..].to_vec()], stream), whole, "cut at {at}");
        }
        assert_eq!(answer(wire.iter().map(|byte| vec![*byte]).collect(), stream), whole);
    }
}

/// Whether it ends properly or breaks: an answer that is not whole never looks whole.
#[test]
fn a_run_that_is_cut_off_anywhere_is_an_error() {
    let events = [started(), text("abc"), used(5, 2), finished()];
    let wire = run_lines(&events);
    let content_at = run_lines(&events[..2]).len();
    for breaks in [true, false] {
        let end = |feed: &Feed| if breaks { feed.cut() } else { feed.end() };
        for at in 0..wire.len() {
            let test = one();
            let feed = Feed::default();
            feed.push(wire[..at].to_vec());
            end(&feed);
            test.host.reply("n1", Reply::run_feed(&feed));
            let answer = test.stream();
            if at < content_at {
                assert_eq!(answer.error_line(), "502 server_error upstream_unavailable", "cut at {at}");
            } else {
                let stream = answer.text();
                assert!(stream.contains("\"content\":\"abc\"") && !stream.contains("[DONE]"), "{stream}");
                assert!(!stream.contains("\"finish_reason\":\"stop\""), "{stream}");
                assert_eq!(error_event(&stream)["code"], "upstream_unavailable", "cut at {at}");
            }
            let feed = Feed::default();
            feed.push(wire[..at].to_vec());
            end(&feed);
            test.host.reply("n1", Reply::run_feed(&feed));
            let whole = test.chat(&json!({}));
            assert_eq!(whole.error_line(), "502 server_error upstream_unavailable", "cut at {at}");
        }
    }
}

#[test]
fn what_comes_behind_the_last_event_is_nothing() {
    let test = one();
    let feed = Feed::default();
    feed.push(run_lines(&[
        started(),
        text("a"),
        finished(),
        text("b"),
        RunEvent::error(ErrorClass::Internal, "late"),
    ]));
    feed.push("nonsense\n");
    feed.end();
    test.host.reply("n1", Reply::run_feed(&feed));
    let stream = test.stream().text();
    assert_eq!(joined(&chunks(&stream), "content"), "a");
}

#[test]
fn failures_have_the_class_that_the_run_says() {
    let cases = [
        (ErrorClass::Auth, None, "403 upstream_error upstream_auth_failed", None),
        (ErrorClass::RateLimited, None, "429 rate_limit_error rate_limit_exceeded", Some("5")),
        (ErrorClass::RateLimited, Some(1_200), "429 rate_limit_error rate_limit_exceeded", Some("2")),
        (ErrorClass::RateLimited, Some(3_600_000), "403 insufficient_quota insufficient_quota", None),
        (ErrorClass::QuotaExhausted, Some(9_000), "403 insufficient_quota insufficient_quota", None),
        (ErrorClass::Overloaded, Some(9_000), "503 server_error upstream_overloaded", Some("9")),
        (ErrorClass::Timeout, None, "504 server_error upstream_timeout", None),
        (ErrorClass::InvalidRequest, None, "400 invalid_request_error invalid_request", None),
        (ErrorClass::NotFound, None, "404 invalid_request_error model_not_found", None),
        (ErrorClass::ContentFilter, None, "400 invalid_request_error content_filter", None),
        (ErrorClass::Unavailable, None, "502 server_error upstream_unavailable", None),
        (ErrorClass::Cancelled, None, "502 server_error upstream_unavailable", None),
        (ErrorClass::Internal, None, "502 server_error upstream_error", None),
    ];
    for (class, retry_after_ms, line, retry_after) in cases {
        let message = "said of /srv/claude\u{1b}[0m".to_owned();
        let error = RunEvent::Error { class, message, status: Some(418), retry_after_ms };
        for stream in [true, false] {
            let test = one();
            test.host.reply("n1", Reply::run(&[started(), error.clone()]));
            let answer = test.chat(&json!({"stream": stream}));
            assert_eq!(answer.header("retry-after"), retry_after, "{class:?}");
            assert_eq!(answer.error_line(), line, "{class:?}");
        }
        // Only what is the caller's own fault is told in the words of others; the rest is for our log.
        let test = one();
        let log = Log::start();
        test.host.reply("n1", Reply::run(&[started(), text("a"), error]));
        let stream = test.stream().text();
        let event = error_event(&stream);
        assert_eq!(event["code"].as_str(), line.split(' ').nth(2), "{stream}");
        let message = event["message"].as_str().unwrap();
        let told = matches!(class, ErrorClass::InvalidRequest | ErrorClass::ContentFilter);
        assert_eq!(message == "said of /srv/claude[0m", told, "{class:?}: {message}");
        assert!(!stream.contains("[DONE]"), "{stream}");
        let run = test.host.last_call().json()["id"].as_str().unwrap().to_owned();
        let is_logged = log.all().iter().any(|line| line.contains(&run) && line.contains("said of"));
        assert_eq!(is_logged, !told, "{class:?}: {:?}", log.all());
    }
}

#[test]
fn what_is_no_run_event_is_an_error() {
    for line in ["nonsense\n", "{}\n", "{\"type\":\"text\"}\n"] {
        let test = one();
        let feed = Feed::default();
        feed.push(line);
        test.host.reply("n1", Reply::run_feed(&feed));
        assert_eq!(test.stream().error_line(), "502 server_error upstream_unavailable", "{line}");
        assert!(feed.is_dropped());
    }
    // A newer runner may say more.
    let test = one();
    let feed = Feed::default();
    feed.push("{\"type\":\"applause\"}\n");
    feed.push(run_lines(&[text("a"), finished()]));
    test.host.reply("n1", Reply::run_feed(&feed));
    assert_eq!(joined(&chunks(&test.stream().text()), "content"), "a");
}

#[test]
fn a_run_that_comes_to_nothing_is_no_answer() {
    for stream in [true, false] {
        let test = one();
        test.announce(&node("n2", |_| ()));
        for n in ["n1", "n2"] {
            test.host.reply(n, Reply::run(&[started(), text(""), finished()]));
        }
        let answer = test.chat(&json!({"stream": stream}));
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (502, Some("application/json")));
        let error = answer.json()["error"].clone();
        assert_eq!(error["code"], "upstream_error");
        assert_eq!(error["message"], "The CLI ended without an answer.");
        assert_eq!(test.host.calls().len(), 1, "it is not repeated elsewhere");
    }
}

#[test]
fn a_client_that_leaves_ends_the_run() {
    // While its node has not answered, before the first content, and after it.
    let test = one();
    let gate = Gate::default();
    test.host.reply("n1", Reply::Later(gate.clone()));
    let mut answer = test.start_chat(&json!({"stream": true}));
    answer.must_wait();
    drop(answer);
    assert!(gate.is_given_up());

    for stream in [true, false] {
        let test = one();
        let feed = Feed::default();
        feed.push(run_lines(&[started()]));
        test.host.reply("n1", Reply::run_feed(&feed));
        let mut answer = test.start_chat(&json!({"stream": stream}));
        answer.must_wait();
        drop(answer);
        assert!(feed.is_dropped());
    }

    let log = Log::start();
    let test = one();
    let feed = Feed::default();
    feed.push(run_lines(&[started(), text("a")]));
    test.host.reply("n1", Reply::run_feed(&feed));
    let mut answer = test.stream();
    assert!(answer.body.available().contains("\"a\""));
    drop(answer);
    assert!(feed.is_dropped());
    let [line] = &log.settled()[..] else { panic!("{:?}", log.settled()) };
    assert!(line.contains("outcome=\"client_gone\"") && line.contains("provider=\"alpha\""), "{line}");
}

#[test]
fn text_goes_out_as_it_comes() {
    let test = one();
    let feed = Feed::default();
    test.host.reply("n1", Reply::run_feed(&feed));
    let mut answer = test.start_chat(&json!({"stream": true}));
    feed.push(run_lines(&[started()]));
    answer.must_wait();
    feed.push(run_lines(&[text("a")]));
    let mut answer = answer.finish();
    assert!(answer.body.available().contains("\"content\":\"a\""));
    feed.push(run_lines(&[text("b")]));
    assert!(answer.body.available().contains("\"content\":\"b\""));
    assert_eq!(answer.body.next(), Read::Waits);
    feed.push(run_lines(&[finished()]));
    feed.end();
    assert!(answer.body.rest().ends_with(DONE));
}

#[test]
fn a_silent_node_is_given_up_and_a_living_one_is_not() {
    let test = with_timeouts(&json!({"first_byte_ms": 10_000, "idle_ms": 20_000}));
    let gate = Gate::default();
    test.host.reply("n1", Reply::Later(gate.clone()));
    let mut answer = test.start_chat(&json!({"stream": true}));
    answer.must_wait();
    test.advance(secs(10));
    assert_eq!(answer.finish().error_line(), "504 server_error upstream_timeout");
    assert!(gate.is_given_up());

    let feed = Feed::default();
    feed.push(run_lines(&[started(), text("a")]));
    test.host.reply("n1", Reply::run_feed(&feed));
    let mut answer = test.stream();
    answer.body.available();
    for _ in 0..5 {
        test.advance(secs(15));
        feed.push(KEEP_ALIVE);
        assert_eq!(answer.body.available(), ": keep-alive\n\n");
    }
    test.advance(secs(20));
    let rest = answer.body.rest();
    assert_eq!(error_event(&rest)["code"], "upstream_timeout", "{rest}");
    assert!(feed.is_dropped());
}

#[test]
fn a_connection_that_went_stale_is_made_anew() {
    let test = one();
    test.host.reply("n1", Reply::Fail(CallError::Closed));
    test.host.reply("n1", Reply::run(&[started(), text("a"), finished()]));
    assert_eq!(test.stream().status, 200);
    let ids: Vec<_> = test.host.calls().iter().map(|call| call.json()["id"].clone()).collect();
    assert!(ids.len() == 2 && ids[0] != ids[1], "a run id is used once: {ids:?}");
}

#[test]
fn models_of_clis_are_listed_and_make_no_embeddings() {
    let test = one();
    assert_eq!(test.listed(), ["m"]);
    let shown = test.get("/v1/models/alpha%2Fm").json();
    assert_eq!((&shown["id"], &shown["owned_by"]), (&json!("alpha/m"), &json!("alpha")));
    let body = json!({"model": "m", "input": "a"}).to_string();
    let answer = test.send(test.request(http::Method::POST, "/v1/embeddings", body));
    assert_eq!(answer.error_line(), "400 invalid_request_error model_cannot_embed");
    assert!(test.host.calls().is_empty());
}
