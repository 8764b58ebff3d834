//! Tokens per minute, day and month: reserved before a request goes to an upstream, settled when it ends.

use catalog::ApiKeyLimits;
use gateway::CallError;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Answer, Feed, Gate, Log, Reply, TestGateway, completion, ending, secs, setup, text_chunk,
};

fn limited(limits: ApiKeyLimits) -> TestGateway {
    setup().provider("alpha", &json!({})).limits(limits).build()
}

fn per_minute(tokens: u64) -> TestGateway {
    limited(ApiKeyLimits { tokens_per_minute: Some(tokens), ..ApiKeyLimits::default() })
}

/// What earlier requests left to be done in the background is done.
fn chat(test: &TestGateway, changes: &Value) -> Answer {
    test.host.run_spawned();
    test.chat(changes)
}

/// `limit remaining reset`
fn tokens(answer: &Answer) -> String {
    ["limit", "remaining", "reset"]
        .map(|name| answer.header(&format!("x-ratelimit-{name}-tokens")).unwrap_or("-").to_owned())
        .join(" ")
}

fn remaining(answer: &Answer) -> u64 {
    answer.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap()
}

/// What is left once everything so far is settled: a request that is refused for its model takes nothing.
fn left(test: &TestGateway) -> u64 {
    remaining(&chat(test, &json!({"model": "unknown"})))
}

fn usage(prompt: u64, completion_tokens: u64) -> Value {
    let mut answer = completion("ok");
    answer["usage"] = json!({
        "prompt_tokens": prompt, "completion_tokens": completion_tokens, "total_tokens": prompt + completion_tokens,
    });
    answer
}

/// What the plainest chat is estimated at: `{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}`.
const PROMPT: u64 = 17;
/// The same with a `max_tokens`.
const LIMITED_PROMPT: u64 = 23;

#[test]
fn what_may_be_used_is_reserved_and_what_was_used_is_settled() {
    let test = per_minute(10_000);
    test.host.reply("alpha", Reply::json(200, &usage(5, 2)));
    let answer = chat(&test, &json!({"max_tokens": 100}));
    assert_eq!(tokens(&answer), format!("10000 {} 1m0s", 10_000 - LIMITED_PROMPT - 100));
    answer.text();
    assert_eq!(left(&test), 10_000 - 7);

    // The longest answer that the client allows, by either name; times its choices; and otherwise what is usual.
    for (changes, completion_tokens) in [
        (json!({"max_completion_tokens": 50, "max_tokens": 70}), 50),
        (json!({"max_tokens": 50, "n": 3}), 150),
        (json!({}), 1_024),
        (json!({"max_tokens": -1}), 1_024),
        (json!({"max_tokens": null}), 1_024),
    ] {
        let before = left(&test);
        let gate = Gate::default();
        test.host.reply("alpha", Reply::Later(gate.clone()));
        let mut waiting = test.start_chat(&changes);
        waiting.must_wait();
        let reserved = before - left(&test);
        // The prompt is a little longer with every member.
        assert!((PROMPT..PROMPT + 30).contains(&(reserved - completion_tokens)), "{changes}: {reserved}");
        gate.open(Reply::json(200, &usage(0, 0)));
        assert_eq!(waiting.finish().status, StatusCode::OK);
    }
}

#[test]
fn a_model_that_says_less_at_most_has_less_reserved() {
    let models = json!({"models": [{"id": "m", "max_tokens": 30}]});
    let limits = ApiKeyLimits { tokens_per_minute: Some(10_000), ..ApiKeyLimits::default() };
    let test = setup().provider("alpha", &models).limits(limits).build();
    for changes in [json!({}), json!({"max_tokens": 99})] {
        test.host.reply("alpha", Reply::json(200, &usage(5, 2)));
        let before = left(&test);
        let reserved = before - remaining(&chat(&test, &changes));
        assert!((PROMPT + 30..LIMITED_PROMPT + 31).contains(&reserved), "{changes}: {reserved}");
    }
}

/// An upstream that says nothing of a longest answer and gives long ones, each of which ends in another minute.
#[test]
fn long_answers_count_in_the_minutes_after() {
    const LIMIT: u64 = 10_000;
    const USED: u64 = 30_005;
    const MINUTES: u64 = 40;
    let test = per_minute(LIMIT);
    let mut used = 0;
    for _ in 0..MINUTES {
        let mut open = Vec::new();
        while open.len() < 20 {
            let gate = Gate::default();
            test.host.reply("alpha", Reply::Later(gate.clone()));
            let mut task = test.start_chat(&json!({}));
            if let Some(answer) = task.step() {
                assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
                test.host.forget_replies();
                break;
            }
            open.push((task, gate));
            test.host.run_spawned();
        }
        test.advance(secs(60));
        for (mut task, gate) in open {
            gate.open(Reply::json(200, &usage(5, USED - 5)));
            assert_eq!(task.step().unwrap().status, StatusCode::OK);
            used += USED;
        }
        test.host.run_spawned();
    }
    // What nine at once, which fit by their reservations, use beyond them.
    let beyond = 9 * USED;
    assert!(used <= MINUTES * LIMIT + beyond && used >= MINUTES * LIMIT / 2, "{used}");
}

#[test]
fn a_model_that_says_more_has_more_reserved() {
    let models = json!({"models": [{"id": "m", "max_tokens": 4_000}]});
    let limits = ApiKeyLimits { tokens_per_minute: Some(10_000), ..ApiKeyLimits::default() };
    let test = setup().provider("alpha", &models).limits(limits).build();
    test.host.reply("alpha", Reply::json(200, &usage(5, 2)));
    let reserved = 10_000 - remaining(&chat(&test, &json!({})));
    assert!((PROMPT + 4_000..LIMITED_PROMPT + 4_001).contains(&reserved), "{reserved}");
}

#[test]
fn too_few_tokens_are_a_429_that_says_when_there_are_more() {
    let test = per_minute(200);
    test.advance(secs(15));
    test.host.reply("alpha", Reply::json(200, &usage(20, 80)));
    chat(&test, &json!({"max_tokens": 100})).text();
    let log = Log::start();
    let refused = chat(&test, &json!({"max_tokens": 100}));
    assert_eq!(
        (refused.header("retry-after"), refused.header("retry-after-ms")),
        (Some("45"), Some("45000"))
    );
    assert_eq!(tokens(&refused), "200 100 45s");
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let error = refused.json()["error"].clone();
    assert_eq!(
        (error["type"].as_str(), error["code"].as_str()),
        (Some("rate_limit_error"), Some("rate_limit_exceeded"))
    );
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("200 tokens per minute") && message.contains("in 45s"), "{message}");
    assert_eq!(test.host.calls().len(), 1, "nothing was sent");
    assert!(log.settled()[0].contains("outcome=\"rate_limit_exceeded\""), "{:?}", log.settled());
    // A smaller one fits.
    test.host.reply("alpha", Reply::json(200, &usage(5, 2)));
    chat(&test, &json!({"max_tokens": 10})).text();
    test.advance(secs(45));
    test.host.reply("alpha", Reply::json(200, &usage(5, 2)));
    assert_eq!(chat(&test, &json!({"max_tokens": 100})).status, StatusCode::OK);
}

#[test]
fn a_spent_window_refuses_before_the_body_is_read() {
    let test = per_minute(100);
    test.host.reply("alpha", Reply::json(200, &usage(90, 10)));
    chat(&test, &json!({})).text();
    // Nobody knows it before somebody was refused.
    assert_eq!(chat(&test, &json!({})).status, StatusCode::TOO_MANY_REQUESTS);
    let body = Feed::default();
    let mut request = test.request(http::Method::POST, "/v1/chat/completions", "");
    *request.body_mut() = body.body();
    assert_eq!(test.send(request).status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(body.read(), 0);
}

#[test]
fn a_used_up_quota_is_not_to_be_tried_again() {
    for (limits, reset) in [
        // START_MS is 2023-11-14T22:14:00Z.
        (ApiKeyLimits { tokens_per_day: Some(100), ..ApiKeyLimits::default() }, "1h46m0s"),
        (ApiKeyLimits { tokens_per_month: Some(100), ..ApiKeyLimits::default() }, "385h46m0s"),
    ] {
        let test = limited(limits);
        test.host.reply("alpha", Reply::json(200, &usage(90, 10)));
        chat(&test, &json!({})).text();
        let refused = chat(&test, &json!({}));
        assert_eq!(tokens(&refused), format!("100 0 {reset}"));
        assert_eq!(refused.error_line(), "403 insufficient_quota insufficient_quota");
        test.advance(secs(106 * 60));
        test.host.reply("alpha", Reply::json(200, &usage(5, 2)));
        let next_day = chat(&test, &json!({})).status;
        assert_eq!(next_day == StatusCode::OK, limits.tokens_per_day.is_some(), "{next_day}");
    }
}

#[test]
fn the_window_with_the_least_left_is_shown() {
    let test = limited(ApiKeyLimits {
        tokens_per_minute: Some(5_000),
        tokens_per_day: Some(6_000),
        tokens_per_month: Some(7_000),
        ..ApiKeyLimits::default()
    });
    test.host.reply("alpha", Reply::json(200, &usage(2_000, 500)));
    let answer = chat(&test, &json!({"max_tokens": 3_000}));
    assert_eq!(tokens(&answer).split(' ').next(), Some("5000"));
    answer.text();
    test.advance(secs(60));
    test.host.reply("alpha", Reply::json(200, &usage(1_000, 1_500)));
    chat(&test, &json!({"max_tokens": 3_000})).text();
    // 2,500 of the minute, 1,000 of the day and 2,000 of the month.
    assert_eq!(tokens(&chat(&test, &json!({"model": "unknown"}))), "6000 1000 1h45m0s");
    let refused = chat(&test, &json!({"max_tokens": 1_000}));
    assert_eq!(refused.error_line(), "403 insufficient_quota insufficient_quota");
    assert_eq!(left(&test), 1_000, "nothing stays reserved in the windows that had room");
}

#[test]
fn what_would_never_fit_is_told_so() {
    let test = per_minute(500);
    let error = chat(&test, &json!({"max_tokens": 600})).json()["error"].clone();
    assert_eq!(error["code"], "request_exceeds_limit");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("600 for the answer") && message.contains("500 per minute"), "{message}");
    let long = json!({"messages": [{"role": "user", "content": "word ".repeat(1_000)}]});
    assert_eq!(chat(&test, &long).error_line(), "400 invalid_request_error request_exceeds_limit");
    // What is usual for an answer is our own guess: it makes way.
    test.host.reply("alpha", Reply::json(200, &usage(5, 2)));
    let answer = chat(&test, &json!({}));
    assert_eq!((answer.status, remaining(&answer)), (StatusCode::OK, 0));
    answer.text();
    assert_eq!(left(&test), 493);
}

#[test]
fn more_than_was_reserved_is_charged() {
    let test = per_minute(1_000);
    test.host.reply("alpha", Reply::json(200, &usage(300, 400)));
    chat(&test, &json!({"max_tokens": 10})).text();
    test.host.run_spawned();
    assert_eq!(left(&test), 300);
    let calls = test.store.limit_calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("charge")).count(), 1, "{calls:?}");
    // Even beyond the limit, for all instances.
    test.host.reply("alpha", Reply::json(200, &usage(300, 400)));
    chat(&test, &json!({"max_tokens": 10})).text();
    test.host.run_spawned();
    assert_eq!(left(&test), 0);
    let other = test.another(1, 0, None);
    assert_eq!(chat(&other, &json!({"max_tokens": 1})).status, StatusCode::TOO_MANY_REQUESTS);
}

#[test]
fn a_stream_that_is_left_has_used_what_came_of_it() {
    let test = per_minute(10_000);
    let feed = Feed::default();
    feed.push(text_chunk("one two three four five six seven eight"));
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = chat(&test, &json!({"stream": true, "max_tokens": 500}));
    assert!(left(&test) < 9_500, "reserved");
    answer.body.available();
    let log = Log::start();
    drop(answer);
    let line = log.settled().remove(0);
    assert!(line.contains("outcome=\"client_gone\"") && line.contains("usage_estimated=true"), "{line}");
    assert!(line.contains("completion_tokens=8 "), "{line}");
    let used = 10_000 - left(&test);
    assert!((30..40).contains(&used), "{used}");
    assert!(line.contains(&format!("prompt_tokens={} ", used - 8)), "{line}");
}

#[test]
fn a_stream_that_breaks_has_used_what_came_of_it() {
    let test = per_minute(10_000);
    test.host.reply("alpha", Reply::sse([text_chunk("one two three four five six seven eight")]));
    let log = Log::start();
    assert!(chat(&test, &json!({"stream": true, "max_tokens": 500})).text().contains("\"error\""));
    assert!(log.settled()[0].contains("completion_tokens=8 "), "{:?}", log.settled());
    let used = 10_000 - left(&test);
    assert!((30..40).contains(&used), "{used}");
}

#[test]
fn a_client_that_leaves_before_the_answer_has_used_the_prompt_at_least() {
    let test = per_minute(10_000);
    // A stream has shown nothing yet.
    let gate = Gate::default();
    test.host.reply("alpha", Reply::Later(gate.clone()));
    let log = Log::start();
    let mut waiting = test.start_chat(&json!({"stream": true, "max_tokens": 500}));
    waiting.must_wait();
    drop(waiting);
    assert!(gate.is_given_up());
    let used = 10_000 - left(&test);
    assert!((PROMPT..LIMITED_PROMPT + 10).contains(&used), "{used}");
    assert!(log.settled()[0].contains(&format!("prompt_tokens={used} ")), "{:?}", log.settled());
    // An answer in one piece may have been as good as done.
    test.host.reply("alpha", Reply::Later(Gate::default()));
    let mut waiting = test.start_chat(&json!({"max_tokens": 500}));
    waiting.must_wait();
    drop(waiting);
    assert!((500 + PROMPT..510 + LIMITED_PROMPT).contains(&(10_000 - used - left(&test))));
}

#[test]
fn what_no_upstream_answers_costs_nothing() {
    let test = per_minute(10_000);
    test.host.reply("alpha", Reply::json(500, &json!({})));
    assert_eq!(chat(&test, &json!({})).status, StatusCode::BAD_GATEWAY);
    assert_eq!(chat(&test, &json!({"messages": 1})).status, StatusCode::BAD_REQUEST);
    assert_eq!(left(&test), 10_000);
}

#[test]
fn embeddings_count_their_input() {
    let test = per_minute(10_000);
    let embeddings =
        json!({"data": [{"embedding": [1.0]}], "usage": {"prompt_tokens": 3, "total_tokens": 3}});
    test.host.reply("alpha", Reply::json(200, &embeddings));
    let body = json!({"model": "m", "input": "Hi"}).to_string();
    let answer = test.send(test.request(http::Method::POST, "/v1/embeddings", body));
    assert!((9_980..10_000).contains(&remaining(&answer)), "{}", remaining(&answer));
    answer.text();
    assert_eq!(left(&test), 9_997);
}

/// What was reserved in a minute that is over is of no interest in the next.
#[test]
fn a_request_may_outlive_its_window() {
    let test = per_minute(1_000);
    let feed = Feed::default();
    feed.push(text_chunk("x"));
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = chat(&test, &json!({"stream": true, "max_tokens": 900}));
    test.advance(secs(60));
    assert_eq!(left(&test), 1_000);
    feed.push(ending());
    answer.body.rest();
    drop(answer);
    assert_eq!(left(&test), 1_000);
    test.host.run_spawned();
    assert!(test.store.limit_calls().iter().all(|call| call.starts_with("take")));
}

/// Whoever can make upstreams fail late would have them work for nothing.
#[test]
fn an_upstream_that_worked_in_vain_costs_the_prompt() {
    let limits = ApiKeyLimits { tokens_per_day: Some(10_000), ..ApiKeyLimits::default() };
    let after = |reply: Reply, code: &str| {
        let test =
            setup().provider("alpha", &json!({"timeouts": {"first_byte_ms": 5_000}})).limits(limits).build();
        test.host.reply("alpha", reply);
        let mut task = test.start_chat(&json!({}));
        let answer = task.step().unwrap_or_else(|| {
            test.host.advance(secs(5));
            task.step().unwrap()
        });
        assert_eq!(answer.error_line(), code);
        10_000 - left(&test)
    };
    let broken = Feed::default();
    broken.push("{");
    broken.cut();
    let broken = Reply::feed(&broken).with_header("content-type", "application/json");
    assert_eq!(after(broken, "502 server_error upstream_unavailable"), PROMPT);
    assert_eq!(after(Reply::Later(Gate::default()), "504 server_error upstream_timeout"), PROMPT);
    let unreachable = Reply::Fail(CallError::Connect);
    assert_eq!(after(unreachable, "502 server_error upstream_unavailable"), 0, "it had no prompt");
}
