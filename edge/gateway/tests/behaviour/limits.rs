//! Concurrent requests and requests per minute of a key.

use catalog::{ApiKey, ApiKeyLimits};
use gateway::full;
use http::StatusCode;
use serde_json::json;

use crate::support::{
    Feed, Gate, Log, Read, Reply, TestGateway, completion, ending, secs, setup, text_chunk,
};

fn at_once(max: u32) -> TestGateway {
    setup()
        .provider("alpha", &json!({}))
        .limits(ApiKeyLimits { concurrent_requests: Some(max), ..ApiKeyLimits::default() })
        .build()
}

/// How many requests the key may begin now.
fn free_slots(test: &TestGateway) -> usize {
    let open: Vec<_> = std::iter::from_fn(|| {
        let feed = Feed::default();
        feed.push(text_chunk("x"));
        test.host.reply("alpha", Reply::feed(&feed));
        let answer = test.stream();
        (answer.status == StatusCode::OK).then_some(answer)
    })
    .collect();
    open.len()
}

#[test]
fn a_slot_is_taken_as_long_as_the_streamed_body() {
    let test = at_once(2);
    let feeds = [Feed::default(), Feed::default()];
    let mut open: Vec<_> = feeds
        .iter()
        .map(|feed| {
            feed.push(text_chunk("x"));
            test.host.reply("alpha", Reply::feed(feed));
            test.stream()
        })
        .collect();
    let refused = test.stream();
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.error_line(), "429 rate_limit_error rate_limit_exceeded");

    let log = Log::start();
    drop(open.pop());
    assert!(feeds[1].is_dropped() && !feeds[0].is_dropped());
    assert_eq!(log.settled().len(), 1);
    assert!(log.settled()[0].contains("outcome=\"client_gone\""), "{:?}", log.settled());
    assert_eq!(free_slots(&test), 1);

    // Read to the end and then dropped, a body frees its slot once.
    feeds[0].push(ending());
    let mut answer = open.pop().unwrap();
    answer.body.rest();
    drop(answer);
    assert_eq!(free_slots(&test), 2);
}

#[test]
fn a_slot_is_freed_however_a_request_ends() {
    let test = at_once(1);
    // A body that is not read.
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    let answer = test.chat(&json!({}));
    assert_eq!(test.chat(&json!({})).status, StatusCode::TOO_MANY_REQUESTS);
    drop(answer);
    // Refusals.
    assert_eq!(test.chat(&json!({"model": "unknown"})).status, StatusCode::NOT_FOUND);
    assert_eq!(test.chat(&json!({"messages": 1})).status, StatusCode::BAD_REQUEST);
    // A failed upstream.
    test.host.reply("alpha", Reply::json(500, &json!({})));
    assert_eq!(test.chat(&json!({})).status, StatusCode::BAD_GATEWAY);
    // A client that leaves while its upstream is being asked, or while it sends its body.
    let gate = Gate::default();
    test.host.reply("alpha", Reply::Later(gate.clone()));
    let mut waiting = test.start_chat(&json!({}));
    waiting.must_wait();
    assert_eq!(test.chat(&json!({})).status, StatusCode::TOO_MANY_REQUESTS);
    drop(waiting);
    assert!(gate.is_given_up());
    let mut request = test.request(http::Method::POST, "/v1/chat/completions", "");
    *request.body_mut() = Feed::default().body();
    let mut sending = test.start(request);
    sending.must_wait();
    assert_eq!(test.chat(&json!({})).status, StatusCode::TOO_MANY_REQUESTS);
    drop(sending);
    // A stream that fails.
    test.host.reply("alpha", Reply::sse([text_chunk("x")]));
    assert!(test.stream().text().contains("\"error\""));
    assert_eq!(free_slots(&test), 1);
}

#[test]
fn a_refused_request_settles_nothing_and_sends_nothing() {
    let test = at_once(1);
    let feed = Feed::default();
    feed.push(text_chunk("x"));
    test.host.reply("alpha", Reply::feed(&feed));
    let mut open = test.stream();
    assert!(matches!(open.body.next(), Read::Bytes(_)));
    let log = Log::start();
    assert_eq!(test.stream().status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(test.host.calls().len(), 1);
    assert!(log.settled().is_empty());
    assert!(log.all().iter().any(|line| line.contains("rate_limit_exceeded")), "it is told all the same");
}

#[test]
fn a_minute_has_its_number_of_requests() {
    let test = setup()
        .provider("alpha", &json!({}))
        .limits(ApiKeyLimits { requests_per_minute: Some(2), ..ApiKeyLimits::default() })
        .build();
    test.advance(secs(15));
    let limits = |answer: &crate::support::Answer| {
        ["limit", "remaining", "reset"]
            .map(|name| answer.header(&format!("x-ratelimit-{name}-requests")).unwrap_or("-").to_owned())
            .join(" ")
    };
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    assert_eq!(limits(&test.chat(&json!({}))), "2 1 45s");
    test.host.reply("alpha", Reply::sse([text_chunk("x"), ending()]));
    assert_eq!(limits(&test.stream()), "2 0 45s");
    test.advance(secs(5));
    let refused = test.chat(&json!({}));
    assert_eq!(refused.header("retry-after"), Some("40"));
    assert_eq!(refused.error_line(), "429 rate_limit_error rate_limit_exceeded");
    // Listing models is free.
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    test.advance(secs(40));
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    assert_eq!(limits(&test.chat(&json!({}))), "2 1 1m0s");
}

#[test]
fn a_request_that_finds_no_slot_is_not_counted_against_the_minute() {
    let test = setup()
        .provider("alpha", &json!({}))
        .limits(ApiKeyLimits {
            requests_per_minute: Some(2),
            concurrent_requests: Some(1),
            ..ApiKeyLimits::default()
        })
        .build();
    let feed = Feed::default();
    feed.push(text_chunk("x"));
    test.host.reply("alpha", Reply::feed(&feed));
    let open = test.stream();
    for _ in 0..5 {
        assert_eq!(test.stream().status, StatusCode::TOO_MANY_REQUESTS);
    }
    drop(open);
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    assert_eq!(test.chat(&json!({})).status, StatusCode::OK);
    // And the other way round: one that the minute refuses gives its slot back.
    assert_eq!(test.chat(&json!({})).status, StatusCode::TOO_MANY_REQUESTS);
    test.advance(secs(60));
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    assert_eq!(test.chat(&json!({})).status, StatusCode::OK);
}

#[test]
fn a_key_without_limits_has_none() {
    let test = setup().provider("alpha", &json!({})).build();
    for _ in 0..100 {
        test.host.reply("alpha", Reply::json(200, &completion("ok")));
        let answer = test.chat(&json!({}));
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.header("x-ratelimit-limit-requests").is_none());
    }
}

#[test]
fn limits_come_before_the_body() {
    let test = at_once(1);
    let feed = Feed::default();
    feed.push(text_chunk("x"));
    test.host.reply("alpha", Reply::feed(&feed));
    let _open = test.stream();
    let body = Feed::default();
    let mut request = test.request(http::Method::POST, "/v1/chat/completions", "");
    *request.body_mut() = body.body();
    assert_eq!(test.send(request).status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(body.read(), 0);
    let in_background = test.host.run_spawned();
    // What is known in full and empty needs no draining.
    let mut request = test.request(http::Method::POST, "/v1/chat/completions", "");
    *request.body_mut() = full("");
    test.send(request);
    assert_eq!(test.host.run_spawned(), in_background);
}

#[test]
fn a_record_that_cannot_be_read_for_a_moment_frees_no_slot() {
    let limits = ApiKeyLimits { concurrent_requests: Some(2), ..ApiKeyLimits::default() };
    let test = setup().provider("alpha", &json!({})).limits(limits).build();
    let stream = || {
        let feed = Feed::default();
        feed.push(text_chunk("x"));
        test.host.reply("alpha", Reply::feed(&feed));
        let answer = test.stream();
        test.host.forget_replies();
        (answer, feed)
    };
    let mut open = [stream(), stream()];
    assert!(open.iter().all(|(answer, _)| answer.status == 200));
    let key = ApiKey::parse(&test.key).unwrap();
    test.put_key(&key, |record| record.limits = limits);
    test.store.cannot_read_keys(Some(catalog::LeftOut::new("KEY#x", "schema 2")));
    test.advance(secs(10));
    assert_eq!(test.get("/v1/models").status, 503);
    test.store.cannot_read_keys(None);
    test.put_key(&key, |record| record.limits = limits);
    test.advance(secs(10));
    for (answer, _) in &mut open {
        answer.body.available();
    }
    assert_eq!(test.get("/v1/models").status, 200);
    assert_eq!(stream().0.status, 429, "two are open");
}
