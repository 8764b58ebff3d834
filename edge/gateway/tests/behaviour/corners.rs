//! Corners in which one request, answer or key could get in the way of another.

use std::time::Duration;

use catalog::ApiKeyLimits;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    DONE, Feed, Log, Mood, Reply, TestGateway, chunk, completion, ending, secs, setup, text_chunk,
};

#[test]
fn a_name_that_a_client_made_up_teaches_nothing() {
    let test = setup().provider("alpha", &json!({})).build();
    test.host.reply(
        "alpha",
        Reply::json(
            400,
            &json!({"error": {
                "message": "Unrecognized request argument supplied: stream_options_x",
                "type": "invalid_request_error", "param": "stream_options_x", "code": "unknown_parameter",
            }}),
        ),
    );
    assert_eq!(test.chat(&json!({"stream": true, "stream_options_x": 1})).status, StatusCode::BAD_REQUEST);
    test.host.reply("alpha", Reply::sse([text_chunk("x"), ending()]));
    assert_eq!(test.chat(&json!({"stream": true})).status, StatusCode::OK);
    assert!(!test.host.last_call().json()["stream_options"].is_null(), "others still ask for usage");
}

#[test]
fn what_nobody_asked_for_is_no_answer() {
    let test = setup().provider("alpha", &json!({})).provider("beta", &json!({})).build();
    let unasked = json!({"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
        {"index": 1, "delta": {"role": "assistant", "content": "x"}, "finish_reason": null},
    ]});
    let finish = chunk(&json!({"role": "assistant"}), Some("stop"));
    let stream = [format!("data: {unasked}\n\n"), finish, DONE.to_owned()];
    test.host.reply("alpha", Reply::sse(stream));
    test.host.reply("beta", Reply::sse([text_chunk("from beta"), ending()]));
    assert!(test.chat(&json!({"stream": true})).text().contains("from beta"));
}

#[test]
fn arguments_stay_with_their_call() {
    let calls = |calls: Value| {
        format!("data: {}\n\n", json!({"id": "a", "choices": [{"index": 0, "delta": {"tool_calls": calls}}]}))
    };
    let test = setup().provider("alpha", &json!({})).build();
    // The name of the first call comes after that of the second.
    let body = [
        calls(json!([{"index": 0, "id": "c0", "function": {}}])),
        calls(json!([{"index": 1, "id": "c1", "function": {"name": "f1"}}])),
        calls(json!([{"index": 0, "function": {"name": "f0"}}])),
        calls(json!([{"index": 0, "function": {"arguments": "{\"zero\":0}"}}])),
        calls(json!([{"index": 1, "function": {"arguments": "{\"one\":1}"}}])),
        format!(
            "data: {}\n\n",
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
        ),
        DONE.to_owned(),
    ];
    test.host.reply("alpha", Reply::text(200, "text/event-stream", &body.concat()));
    let answer = test.chat(&json!({})).json();
    let called = answer["choices"][0]["message"]["tool_calls"].as_array().unwrap();
    let said: Vec<_> = called
        .iter()
        .map(|c| (c["function"]["name"].as_str(), c["function"]["arguments"].as_str()))
        .collect();
    assert_eq!(said, [(Some("f1"), Some("{\"one\":1}")), (Some("f0"), Some("{\"zero\":0}"))]);

    // A call without a name is none, and leaves no gap.
    test.host.reply("alpha", Reply::json(200, &json!({"id": "a", "choices": [{"index": 0, "finish_reason": "tool_calls",
        "message": {"role": "assistant", "tool_calls": [
            {"index": 0, "id": "c0", "type": "function", "function": {"arguments": "{\"x\":0}"}},
            {"index": 1, "id": "c1", "type": "function", "function": {"name": "f1", "arguments": "{\"x\":1}"}},
        ]}}]})));
    let answer = test.chat(&json!({})).json();
    assert_eq!(
        answer["choices"][0]["message"]["tool_calls"][0]["function"],
        json!({"name": "f1", "arguments": "{\"x\":1}"})
    );
}

#[test]
fn what_is_held_back_before_the_first_content_is_bounded() {
    let test = setup()
        .provider("alpha", &json!({}))
        .provider("beta", &json!({}))
        .settings(|settings| settings.max_frame_bytes = 64 * 1024)
        .build();
    let empty = chunk(&json!({"role": "assistant", "content": ""}), None);
    // Its content comes, but too late: without the bound it would be served.
    let mut flood = vec![empty.repeat(100); 100];
    flood.extend([text_chunk("from alpha"), ending()]);
    test.host.reply("alpha", Reply::sse(flood));
    test.host.reply("beta", Reply::sse([text_chunk("from beta"), ending()]));
    assert!(test.chat(&json!({"stream": true})).text().contains("from beta"));
}

#[test]
fn requests_that_arrive_together_share_their_key_s_limit() {
    let one = ApiKeyLimits { concurrent_requests: Some(1), ..ApiKeyLimits::default() };
    let test = setup().provider("alpha", &json!({})).limits(one).build();
    test.get("/ready");
    test.store.is(Mood::Slow);
    let mut waiting: Vec<_> = (0..5)
        .map(|_| {
            let feed = Feed::default();
            feed.push(text_chunk("x"));
            test.host.reply("alpha", Reply::feed(&feed));
            test.start_chat(&json!({"stream": true}))
        })
        .collect();
    waiting.iter_mut().for_each(crate::support::Task::must_wait);
    test.store.is(Mood::Well);
    test.store.go();
    let answers: Vec<_> = waiting.iter_mut().filter_map(crate::support::Task::step).collect();
    let served = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!((answers.len(), served), (5, 1));
}

#[test]
fn an_image_is_no_million_tokens_when_usage_fails_to_come_once() {
    let image = format!("data:image/png;base64,{}", "A".repeat(400_000));
    let request = json!({"stream": true, "messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": image}}]},
    ]});
    let test = setup().provider("alpha", &json!({})).build();
    let estimate = |test: &TestGateway| {
        test.host
            .reply("alpha", Reply::sse([text_chunk("x"), chunk(&json!({}), Some("stop")), DONE.to_owned()]));
        let text = test.chat(&request).text();
        let (_, tail) = text.split_once("\"prompt_tokens\":").unwrap();
        tail.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    let before = estimate(&test);
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    assert_eq!(test.chat(&json!({})).status, StatusCode::OK, "with usage");
    for estimated in [before, estimate(&test), estimate(&test)] {
        assert!((400..500).contains(&estimated), "{estimated}");
    }
}

#[test]
fn a_store_that_is_down_is_not_asked_for_each_request() {
    let test = setup().provider("alpha", &json!({})).build();
    assert_eq!(test.listed(), ["m"]);
    test.store.is(Mood::Down);
    test.advance(secs(3));
    let (log, checks) = (Log::start(), test.store.checks());
    for _ in 0..20 {
        assert_eq!(test.get("/v1/models").status, StatusCode::OK);
        test.advance(Duration::from_millis(1));
    }
    assert_eq!(test.store.checks() - checks, 1);
    assert_eq!(log.all().iter().filter(|line| line.contains("what is known serves on")).count(), 1);
}
