//! Limits with several instances on one store, and with a store that fails.

use catalog::ApiKeyLimits;
use gateway::OnStoreFailure;
use http::StatusCode;
use serde_json::json;

use crate::support::{
    Answer, Feed, Mood, Read, Reply, Setup, TestGateway, completion, ending, millis, secs, setup, text_chunk,
};

fn requests(limit: u32) -> ApiKeyLimits {
    ApiKeyLimits { requests_per_minute: Some(limit), ..ApiKeyLimits::default() }
}

fn concurrent(limit: u32) -> ApiKeyLimits {
    ApiKeyLimits { concurrent_requests: Some(limit), ..ApiKeyLimits::default() }
}

fn with(limits: ApiKeyLimits) -> Setup {
    setup().provider("alpha", &json!({})).limits(limits)
}

fn ask(test: &TestGateway) -> StatusCode {
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    let answer = test.chat(&json!({}));
    let status = answer.status;
    drop(answer);
    test.host.run_spawned();
    status
}

/// How many requests come through until one is refused.
fn admitted(test: &TestGateway) -> usize {
    std::iter::from_fn(|| (ask(test) == StatusCode::OK).then_some(())).take(10_000).count()
}

fn open_stream(test: &TestGateway) -> (Answer, Feed) {
    let feed = Feed::default();
    feed.push(text_chunk("x"));
    test.host.reply("alpha", Reply::feed(&feed));
    (test.stream(), feed)
}

#[test]
fn instances_share_a_minute() {
    let one = with(requests(100)).build();
    let two = one.another(1, 0, None);
    let mut sum = 0;
    for _ in 0..30 {
        assert_eq!((ask(&one), ask(&two)), (StatusCode::OK, StatusCode::OK));
        sum += 2;
    }
    sum += admitted(&one) + admitted(&two);
    assert_eq!(sum, 100);
}

#[test]
fn a_busy_instance_asks_seldom() {
    let test = with(requests(6_000)).build();
    let mut calls = Vec::new();
    for _ in 0..3 {
        for _ in 0..600 {
            for _ in 0..9 {
                assert_eq!(ask(&test), StatusCode::OK);
            }
            test.advance(millis(100));
        }
        calls.push(test.store.limit_calls().len());
    }
    // 5,400 requests in each: the first minute begins from nothing, the others know what is usual.
    assert!(calls[0] < 130 && calls[1] < 40 && calls[2] < 40, "{calls:?}");
}

/// What the store crate's documentation reckons with.
#[test]
fn a_lone_request_asks_once_and_gives_back_once() {
    let lone = |limits, expected: &[&str]| {
        let test = with(limits).build();
        for _ in 0..3 {
            assert_eq!(ask(&test), StatusCode::OK);
            for _ in 0..3 {
                test.advance(secs(2));
            }
            let calls = test.store.limit_calls();
            let names: Vec<_> =
                calls.iter().map(|call| call.trim_end_matches(|c: char| c != ' ').trim_end()).collect();
            assert_eq!(names, expected, "{calls:?}");
        }
    };
    let none = ApiKeyLimits::default();
    lone(requests(1_000), &["take"]);
    lone(ApiKeyLimits { tokens_per_minute: Some(100_000), ..none }, &["take", "give back"]);
    lone(ApiKeyLimits { tokens_per_month: Some(100_000), ..none }, &["take", "give back"]);
    lone(concurrent(10), &["hold", "hold"]);
}

#[test]
fn a_burst_shares_its_calls() {
    let test = with(requests(1_000)).build();
    assert_eq!(ask(&test), StatusCode::OK);
    test.store.limit_calls();
    test.store.is(Mood::Slow);
    let mut burst: Vec<_> = (0..50)
        .map(|_| {
            test.host.reply("alpha", Reply::json(200, &completion("ok")));
            let mut request = test.start_chat(&json!({}));
            request.must_wait();
            request
        })
        .collect();
    // The first has its answer, and the next asks for all that wait.
    test.store.go();
    assert!(burst.remove(0).step().is_some());
    for _ in 0..10 {
        test.host.advance(millis(50));
        burst.retain_mut(|request| request.step().is_none());
        test.store.go();
        burst.retain_mut(|request| request.step().is_none());
    }
    assert!(burst.is_empty(), "{} still wait", burst.len());
    assert_eq!(test.store.limit_calls(), ["take 1+0", "take 1+48"]);
}

#[test]
fn what_is_not_needed_is_given_back() {
    let one = with(requests(100)).build();
    let two = one.another(1, 0, None);
    for _ in 0..40 {
        assert_eq!(ask(&one), StatusCode::OK);
    }
    one.store.limit_calls();
    one.advance(millis(1_900));
    assert_eq!(ask(&one), StatusCode::OK);
    one.advance(millis(100));
    assert!(one.store.limit_calls().iter().all(|call| !call.starts_with("give")), "still in use");
    one.advance(secs(2));
    let calls = one.store.limit_calls();
    assert!(calls.iter().any(|call| call.starts_with("give back")), "{calls:?}");
    assert_eq!(admitted(&two), 59);
    one.advance(secs(15));
    assert_eq!(one.host.run_spawned(), 0, "nothing is left to watch");
}

#[test]
fn windows_are_those_of_the_stores_clock() {
    let one = with(requests(10)).build();
    let late = one.another(1, -300_000, None);
    assert_eq!(admitted(&one), 10);
    // It counts in a window of its own as long as it does not know better.
    assert_eq!(ask(&late), StatusCode::OK);
    one.store.is_ahead_by_ms(300_000);
    let refused = late.chat(&json!({}));
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.header("retry-after"), Some("59"));
    late.advance(secs(60));
    assert_eq!(admitted(&late), 10);
}

#[test]
fn a_changed_limit_holds_for_what_is_not_granted_yet() {
    let test = with(requests(100)).build();
    for _ in 0..20 {
        assert_eq!(ask(&test), StatusCode::OK);
    }
    test.set_limits(requests(10));
    test.advance(secs(11));
    assert_eq!(ask(&test), StatusCode::TOO_MANY_REQUESTS);
    test.set_limits(requests(25));
    test.advance(secs(11));
    assert_eq!(admitted(&test), 5);
    test.set_limits(ApiKeyLimits::default());
    test.advance(secs(11));
    assert_eq!(ask(&test), StatusCode::OK);
}

#[test]
fn instances_share_slots() {
    let one = with(concurrent(3)).build();
    let two = one.another(1, 0, None);
    let open = [open_stream(&one), open_stream(&one), open_stream(&two)];
    assert_eq!(open.each_ref().map(|(answer, _)| answer.status.as_u16()), [200; 3]);
    assert_eq!((ask(&one), ask(&two)), (StatusCode::TOO_MANY_REQUESTS, StatusCode::TOO_MANY_REQUESTS));
    // A slot is kept for the next request of the same instance, and then goes back.
    let [first, _second, _third] = open;
    drop(first);
    assert_eq!(ask(&two), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask(&one), StatusCode::OK);
    one.advance(secs(2));
    one.advance(secs(2));
    assert_eq!(ask(&two), StatusCode::OK);
}

#[test]
fn slots_of_an_instance_that_vanished_are_free_after_half_a_minute() {
    let one = with(concurrent(2)).build();
    let two = one.another(1, 0, None);
    let gone = [open_stream(&one), open_stream(&one)];
    // Nothing of it runs any more, not even what would tidy up.
    std::mem::forget(gone);
    two.host.advance(secs(29));
    assert_eq!(ask(&two), StatusCode::TOO_MANY_REQUESTS);
    two.host.advance(secs(1));
    assert_eq!(ask(&two), StatusCode::OK);
}

#[test]
fn a_request_that_takes_long_keeps_its_slot() {
    let one = with(concurrent(1)).build();
    let two = one.another(1, 0, None);
    let (mut answer, feed) = open_stream(&one);
    answer.body.available();
    one.store.limit_calls();
    for _ in 0..60 {
        one.host.advance(secs(5));
        feed.push(text_chunk("y"));
        answer.body.available();
        assert_eq!(ask(&two), StatusCode::TOO_MANY_REQUESTS);
    }
    let renewals = one.store.limit_calls().iter().filter(|call| *call == "hold 1").count();
    assert_eq!(renewals, 30 + 60, "every ten seconds, and what the other asks");
    feed.push(ending());
    answer.body.rest();
    drop(answer);
    one.host.run_spawned();
    one.advance(secs(2));
    one.advance(secs(2));
    assert_eq!(ask(&two), StatusCode::OK);
}

/// A body that takes long to come, and an upstream that takes long to answer.
#[test]
fn a_slot_is_kept_before_the_answer_too() {
    let one = with(concurrent(1)).settings(|s| s.body_idle_timeout = secs(600)).build();
    let two = one.another(1, 0, None);
    let body = Feed::default();
    let mut request = one.request(http::Method::POST, "/v1/chat/completions", "");
    *request.body_mut() = body.body();
    let mut sending = one.start(request);
    sending.must_wait();
    for _ in 0..12 {
        one.host.advance(secs(5));
        sending.must_wait();
        assert_eq!(ask(&two), StatusCode::TOO_MANY_REQUESTS);
    }
    let gate = crate::support::Gate::default();
    one.host.reply("alpha", Reply::Later(gate.clone()));
    body.push(json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).to_string());
    body.end();
    sending.must_wait();
    for _ in 0..12 {
        one.host.advance(secs(5));
        sending.must_wait();
        assert_eq!(ask(&two), StatusCode::TOO_MANY_REQUESTS);
    }
    gate.open(Reply::json(200, &completion("ok")));
    assert_eq!(sending.finish().status, StatusCode::OK);
}

fn failing(limits: ApiKeyLimits, on_failure: OnStoreFailure) -> TestGateway {
    let test = with(limits).settings(|s| s.limits_on_store_failure = on_failure).build();
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    test
}

#[test]
fn with_the_store_down_an_open_instance_counts_on_its_own() {
    let test = failing(requests(100), OnStoreFailure::FailOpen);
    for _ in 0..20 {
        assert_eq!(ask(&test), StatusCode::OK);
    }
    test.store.is(Mood::Down);
    assert_eq!(admitted(&test), 80, "all of the limit, and no more");
    // Back again: what was let through is charged, so that others know.
    test.store.is(Mood::Well);
    let other = test.another(1, 0, None);
    assert_eq!(ask(&other), StatusCode::OK, "nobody has told it yet");
    test.advance(secs(3));
    assert_eq!(ask(&test), StatusCode::TOO_MANY_REQUESTS);
    test.advance(secs(3));
    let calls = test.store.limit_calls();
    assert!(calls.iter().any(|call| call.starts_with("charge")), "{calls:?}");
    other.advance(secs(1));
    assert_eq!(ask(&other), StatusCode::TOO_MANY_REQUESTS);
}

#[test]
fn with_the_store_down_a_closed_instance_spends_what_it_has() {
    let test = failing(requests(1_000), OnStoreFailure::FailClosed);
    for _ in 0..200 {
        assert_eq!(ask(&test), StatusCode::OK);
    }
    test.store.is(Mood::Down);
    let spent = admitted(&test);
    assert!((1..=20).contains(&spent), "{spent}");
    let refused = test.chat(&json!({}));
    assert_eq!(refused.header("retry-after"), Some("3"));
    assert_eq!(refused.error_line(), "503 server_error limits_unavailable");
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    // Without a restart: tried again in the background.
    test.store.is(Mood::Well);
    assert_eq!(ask(&test), StatusCode::SERVICE_UNAVAILABLE);
    test.advance(secs(3));
    assert_eq!(ask(&test), StatusCode::SERVICE_UNAVAILABLE);
    test.host.run_spawned();
    assert_eq!(ask(&test), StatusCode::OK);
}

#[test]
fn slots_without_a_store() {
    let open = failing(concurrent(2), OnStoreFailure::FailOpen);
    open.store.is(Mood::Down);
    let streams = [open_stream(&open), open_stream(&open)];
    assert_eq!(streams.each_ref().map(|(answer, _)| answer.status.as_u16()), [200; 2]);
    assert_eq!(ask(&open), StatusCode::TOO_MANY_REQUESTS);
    drop(streams);
    assert_eq!(ask(&open), StatusCode::OK);

    let closed = failing(concurrent(2), OnStoreFailure::FailClosed);
    closed.store.is(Mood::Down);
    assert_eq!(ask(&closed), StatusCode::SERVICE_UNAVAILABLE);
    closed.store.is(Mood::Well);
    closed.advance(secs(3));
    assert_eq!(ask(&closed), StatusCode::SERVICE_UNAVAILABLE);
    closed.host.run_spawned();
    assert_eq!(ask(&closed), StatusCode::OK);
}

#[test]
fn a_store_that_hangs_is_waited_for_once() {
    let test = failing(requests(10), OnStoreFailure::FailOpen);
    test.store.is(Mood::Hangs);
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    let mut first = test.start_chat(&json!({}));
    first.must_wait();
    test.host.advance(millis(999));
    first.must_wait();
    test.host.advance(millis(1));
    assert_eq!(first.finish().status, StatusCode::OK);
    // Nobody else waits, and one of them tries it again, in the background.
    for _ in 0..3 {
        assert_eq!(ask(&test), StatusCode::OK);
        test.host.advance(secs(3));
    }
    let takes = test.store.limit_calls().into_iter().filter(|call| call.starts_with("take")).count();
    assert!(takes <= 3, "{takes}");
}

/// Whoever asked may be gone before the answer.
#[test]
fn a_client_that_leaves_while_the_store_is_asked_holds_nobody_up() {
    let test = with(ApiKeyLimits { concurrent_requests: Some(5), ..requests(10) }).build();
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    for _ in 0..2 {
        test.store.is(Mood::Hangs);
        let mut gone = test.start_chat(&json!({}));
        gone.must_wait();
        drop(gone);
        test.store.is(Mood::Well);
        assert_eq!(ask(&test), StatusCode::OK);
    }
}

#[test]
fn a_stream_goes_on_while_the_store_is_down() {
    let test = failing(concurrent(1), OnStoreFailure::FailClosed);
    let (mut answer, feed) = open_stream(&test);
    test.store.is(Mood::Down);
    for _ in 0..20 {
        answer.body.available();
        test.advance(secs(5));
    }
    test.store.is(Mood::Well);
    feed.push(text_chunk("y"));
    assert!(matches!(answer.body.next(), Read::Bytes(_)));
    feed.push(ending());
    assert!(answer.body.rest().contains("[DONE]"));
}
