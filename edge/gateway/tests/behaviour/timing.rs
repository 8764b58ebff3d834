//! Silence, timeouts, breaks and clients that leave, by the clock of the test.

use gateway::CallError;
use http::StatusCode;
use serde_json::json;

use crate::support::{
    Feed, Gate, Log, Read, Reply, TestGateway, chunk, completion, ending, secs, setup, text_chunk,
};

const KEEP_ALIVE: &str = ": keep-alive\n\n";

/// One provider that waits 40 s for the first byte, 50 s for the next and 200 s in all.
fn patient() -> TestGateway {
    let timeouts = json!({"first_byte_ms": 40_000, "idle_ms": 50_000, "total_ms": 200_000});
    setup().provider("alpha", &json!({"timeouts": timeouts})).build()
}

/// The `error.code` of the event that ends a stream.
fn error_event(text: &str) -> String {
    let event = text.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
    let json: serde_json::Value = serde_json::from_str(event).unwrap_or_else(|_| panic!("{text}"));
    assert!(json["error"]["message"].is_string(), "{text}");
    json["error"]["code"].as_str().unwrap().to_owned()
}

#[test]
fn a_silent_upstream_is_covered_by_comments() {
    let test = patient();
    let feed = Feed::default();
    feed.push(text_chunk("a"));
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.stream();
    assert!(answer.body.available().contains("\"a\""));
    for _ in 0..2 {
        test.advance(secs(14));
        assert_eq!(answer.body.next(), Read::Waits);
        test.advance(secs(1));
        assert_eq!(answer.body.available(), KEEP_ALIVE);
    }
    // A byte for the client begins the fifteen seconds anew.
    test.advance(secs(10));
    feed.push(text_chunk("b"));
    assert!(answer.body.available().contains("\"b\""));
    test.advance(secs(14));
    assert_eq!(answer.body.next(), Read::Waits);
    test.advance(secs(1));
    assert_eq!(answer.body.available(), KEEP_ALIVE);
    feed.push(ending());
    assert!(answer.body.rest().ends_with("data: [DONE]\n\n"));
}

#[test]
fn a_comment_never_falls_into_an_event() {
    let test = patient();
    let feed = Feed::default();
    let frame = text_chunk("whole");
    let (head, tail) = frame.split_at(40);
    feed.push(text_chunk("a"));
    feed.push(head.to_owned());
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.stream();
    answer.body.available();
    test.advance(secs(15));
    assert_eq!(answer.body.available(), KEEP_ALIVE);
    feed.push(tail.to_owned());
    assert_eq!(answer.body.available(), frame.replace("up-m", "m"));
}

#[test]
fn an_upstream_that_does_not_begin_is_given_up() {
    let test = setup().provider("alpha", &json!({"timeouts": {"first_byte_ms": 10_000}})).build();
    // Neither a head nor a byte of the body; whether streamed or not.
    for (stream, with_head) in [(true, false), (true, true), (false, false)] {
        let (gate, feed) = (Gate::default(), Feed::default());
        test.host.reply("alpha", if with_head { Reply::feed(&feed) } else { Reply::Later(gate.clone()) });
        let mut answer = test.start_chat(&json!({"stream": stream}));
        answer.must_wait();
        test.advance(secs(9));
        answer.must_wait();
        test.advance(secs(1));
        assert_eq!(answer.finish().error_line(), "504 server_error upstream_timeout");
        assert!(if with_head { feed.is_dropped() } else { gate.is_given_up() });
    }
}

#[test]
fn the_first_byte_is_waited_for_once_over_head_and_body() {
    let test = setup().provider("alpha", &json!({"timeouts": {"first_byte_ms": 10_000}})).build();
    let (gate, feed) = (Gate::default(), Feed::default());
    test.host.reply("alpha", Reply::Later(gate.clone()));
    let mut answer = test.start_chat(&json!({"stream": true}));
    answer.must_wait();
    test.advance(secs(6));
    gate.open(Reply::feed(&feed));
    answer.must_wait();
    test.advance(secs(4));
    assert_eq!(answer.finish().error_line(), "504 server_error upstream_timeout");
}

#[test]
fn an_upstream_that_stops_is_given_up() {
    let test = patient();
    let feed = Feed::default();
    feed.push(text_chunk("a"));
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.stream();
    answer.body.available();
    for _ in 0..3 {
        test.advance(secs(15));
        assert_eq!(answer.body.available(), KEEP_ALIVE);
    }
    // A comment of the upstream's own is a sign of life, though nothing for the client.
    feed.push(": busy\n\n");
    assert_eq!(answer.body.available(), "");
    for _ in 0..3 {
        test.advance(secs(15));
        assert_eq!(answer.body.available(), KEEP_ALIVE);
    }
    test.advance(secs(5));
    assert_eq!(error_event(&answer.body.rest()), "upstream_timeout");
    assert!(feed.is_dropped());
}

#[test]
fn an_endless_answer_is_given_up() {
    let test = patient();
    let feed = Feed::default();
    feed.push(text_chunk("a"));
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.stream();
    for _ in 0..20 {
        answer.body.available();
        test.advance(secs(10));
        feed.push(text_chunk("a"));
    }
    // What had come in time is still handed on.
    let rest = answer.body.rest();
    let (in_time, error) = rest.split_once("\n\n").unwrap();
    assert!(in_time.contains("\"a\""), "{rest}");
    assert_eq!(error_event(error), "upstream_timeout");
    assert!(feed.is_dropped());
}

#[test]
fn an_answer_in_one_piece_has_the_same_timeouts() {
    let test = patient();
    let feed = Feed::default();
    let whole = completion("a").to_string();
    test.host.reply("alpha", Reply::feed(&feed).with_header("content-type", "application/json"));
    let mut answer = test.start_chat(&json!({}));
    answer.must_wait();
    for part in [&whole[..9], &whole[9..20]] {
        test.advance(secs(39));
        feed.push(part.to_owned());
        answer.must_wait();
    }
    test.advance(secs(49));
    answer.must_wait();
    test.advance(secs(1));
    assert_eq!(answer.finish().error_line(), "504 server_error upstream_timeout");
    assert!(feed.is_dropped());
}

/// A streamed answer whose upstream has not sent its head after fifteen seconds.
fn opened_early(test: &TestGateway, slug: &str) -> (Gate, crate::support::Answer) {
    let gate = Gate::default();
    test.host.reply(slug, Reply::Later(gate.clone()));
    let mut answer = test.start_chat(&json!({"stream": true}));
    answer.must_wait();
    test.advance(secs(14));
    answer.must_wait();
    test.advance(secs(1));
    let mut answer = answer.finish();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.body.available(), "");
    test.advance(secs(15));
    assert_eq!(answer.body.available(), KEEP_ALIVE);
    (gate, answer)
}

#[test]
fn a_slow_upstream_may_still_succeed_after_the_status_is_out() {
    let test = patient();
    let (gate, mut answer) = opened_early(&test, "alpha");
    gate.open(Reply::sse([text_chunk("late"), ending()]));
    let text = answer.body.rest();
    assert!(text.contains("\"late\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[test]
fn a_failure_after_the_status_is_out_is_an_event() {
    let test = patient();
    let log = Log::start();
    for (reply, code) in [
        (Reply::json(401, &json!({"error": {"message": "no"}})), "upstream_auth_failed"),
        (Reply::json(400, &json!({"error": {"message": "bad", "code": "too_long"}})), "too_long"),
        (Reply::Fail(CallError::Connect), "upstream_unavailable"),
        (Reply::sse([""]), "upstream_unavailable"),
    ] {
        let (gate, mut answer) = opened_early(&test, "alpha");
        gate.open(reply);
        assert_eq!(error_event(&answer.body.rest()), code);
    }
    assert_eq!(log.settled().len(), 4);
    let (gate, mut answer) = opened_early(&test, "alpha");
    test.advance(secs(10));
    assert_eq!(error_event(&answer.body.rest()), "upstream_timeout");
    assert!(gate.is_given_up());
}

#[test]
fn another_target_may_take_over_after_the_status_is_out() {
    let test = setup().provider("alpha", &json!({"rank": 1})).provider("beta", &json!({"rank": 2})).build();
    let log = Log::start();
    let (gate, mut answer) = opened_early(&test, "alpha");
    let feed = Feed::default();
    test.host.reply("beta", Reply::feed(&feed));
    gate.open(Reply::json(500, &json!({})));
    assert_eq!(answer.body.available(), "");
    test.advance(secs(15));
    assert_eq!(answer.body.available(), KEEP_ALIVE);
    feed.push(text_chunk("from beta"));
    feed.push(ending());
    let text = answer.body.rest();
    assert!(text.contains("from beta") && text.ends_with("data: [DONE]\n\n"), "{text}");
    drop(answer);
    assert_eq!(log.settled().len(), 1);
    assert!(log.settled()[0].contains("provider=\"beta\""), "{:?}", log.settled());
}

#[test]
fn a_role_alone_does_not_commit() {
    let test = setup().provider("alpha", &json!({"rank": 1})).provider("beta", &json!({"rank": 2})).build();
    let feed = Feed::default();
    feed.push(chunk(&json!({"role": "assistant", "content": ""}), None));
    test.host.reply("alpha", Reply::feed(&feed));
    test.host.reply("beta", Reply::sse([text_chunk("from beta"), ending()]));
    let mut answer = test.start_chat(&json!({"stream": true}));
    answer.must_wait();
    feed.cut();
    let text = answer.finish().text();
    assert_eq!(text.matches("\"role\"").count(), 1, "{text}");
    assert!(text.contains("from beta"), "{text}");
}

#[test]
fn a_client_that_leaves_takes_the_upstream_with_it() {
    let test = patient();
    let log = Log::start();
    // In the middle of the stream.
    let feed = Feed::default();
    feed.push(text_chunk("a"));
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.stream();
    answer.body.available();
    assert!(!feed.is_dropped());
    drop(answer);
    assert!(feed.is_dropped());
    // Before the upstream has answered, status out or not.
    let gate = Gate::default();
    test.host.reply("alpha", Reply::Later(gate.clone()));
    let mut waiting = test.start_chat(&json!({"stream": true}));
    waiting.must_wait();
    drop(waiting);
    assert!(gate.is_given_up());
    let (gate, answer) = opened_early(&test, "alpha");
    drop(answer);
    assert!(gate.is_given_up());
    // While an answer in one piece is awaited.
    let feed = Feed::default();
    test.host.reply("alpha", Reply::feed(&feed).with_header("content-type", "application/json"));
    let mut waiting = test.start_chat(&json!({}));
    waiting.must_wait();
    drop(waiting);
    assert!(feed.is_dropped());
    test.host.run_spawned();
    test.advance(secs(15));
    assert_eq!(test.host.run_spawned(), 0, "nothing goes on in the background once their usage is written");
    let settled = log.settled();
    assert_eq!(settled.len(), 4);
    assert!(settled.iter().all(|line| line.contains("outcome=\"client_gone\"")), "{settled:?}");
}

#[test]
fn a_request_is_settled_once_with_what_it_was() {
    let test = patient();
    let log = Log::start();
    let feed = Feed::default();
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.start_chat(&json!({"stream": true}));
    answer.must_wait();
    test.advance(secs(3));
    feed.push(text_chunk("a"));
    let mut answer = answer.finish();
    answer.body.available();
    test.advance(secs(4));
    feed.push(ending());
    answer.body.rest();
    assert!(log.settled().is_empty());
    drop(answer);
    let settled = log.settled();
    assert_eq!(settled.len(), 1);
    for part in [
        "outcome=\"ok\"",
        "model=\"m\"",
        "provider=\"alpha\"",
        "stream=true",
        "duration_ms=7000",
        "ttft_ms=3000",
        "prompt_tokens=5",
        "completion_tokens=2",
        "usage_estimated=false",
    ] {
        assert!(settled[0].contains(part), "{part}: {settled:?}");
    }
}

#[test]
fn a_broken_connection_is_a_failure_only_before_the_finish() {
    let test = patient();
    let feed = Feed::default();
    feed.push(text_chunk("a"));
    feed.push(": more to come\n\n");
    feed.cut();
    test.host.reply("alpha", Reply::feed(&feed));
    let text = test.stream().text();
    let (_, error) = text.split_once("\n\n").unwrap();
    assert_eq!(error_event(error), "upstream_unavailable");

    let feed = Feed::default();
    feed.push(text_chunk("a"));
    feed.push(chunk(&json!({}), Some("stop")));
    feed.cut();
    test.host.reply("alpha", Reply::feed(&feed));
    assert!(test.stream().text().ends_with("data: [DONE]\n\n"));
}

#[test]
fn the_upstream_of_a_finished_answer_is_read_out_for_a_moment() {
    for (trailing, ends) in [("", false), (": bye\n\n", true)] {
        let test = patient();
        let feed = Feed::default();
        feed.push(text_chunk("a"));
        feed.push(ending());
        test.host.reply("alpha", Reply::feed(&feed));
        let mut answer = test.stream();
        answer.body.rest();
        assert!(!feed.is_dropped());
        feed.push(trailing);
        if ends {
            feed.end();
            assert_eq!(test.host.run_spawned(), 0);
        } else {
            assert_eq!(test.host.run_spawned(), 1);
            test.advance(secs(1));
        }
        assert!(feed.is_dropped(), "so that its connection can be used again, or is closed");
    }
}

#[test]
fn a_client_that_does_not_read_holds_the_upstream_back() {
    let test = patient();
    let feed = Feed::default();
    let frame = text_chunk(&"x".repeat(4_000));
    for _ in 0..100 {
        feed.push(frame.clone());
    }
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.stream();
    assert!(feed.read() < 10_000, "{}", feed.read());
    answer.body.next();
    assert!(feed.read() < 40_000, "{}", feed.read());
}

#[test]
fn a_frame_beyond_the_limit_ends_the_stream() {
    let test =
        setup().provider("alpha", &json!({})).settings(|settings| settings.max_frame_bytes = 1_000).build();
    let feed = Feed::default();
    feed.push(text_chunk("a"));
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.stream();
    answer.body.available();
    feed.push("data: ");
    for _ in 0..9 {
        feed.push("x".repeat(100));
        assert_eq!(answer.body.next(), Read::Waits);
    }
    feed.push("x".repeat(200));
    assert_eq!(error_event(&answer.body.rest()), "upstream_unavailable");
    assert!(feed.is_dropped());
}

#[test]
fn an_answer_beyond_the_limit_is_refused() {
    let test = setup()
        .provider("alpha", &json!({}))
        .settings(|settings| settings.max_response_bytes = 1_000)
        .build();
    let feed = Feed::default();
    test.host.reply("alpha", Reply::feed(&feed).with_header("content-type", "application/json"));
    feed.push(vec![b' '; 900]);
    feed.push(vec![b' '; 101]);
    feed.push(vec![b' '; 900]);
    assert_eq!(test.chat(&json!({})).error_line(), "502 server_error upstream_unavailable");
    assert!(feed.is_dropped());
    assert!(feed.read() <= 1_001);
}
