//! Request bodies: too long, too slow, broken, or never read.

use gateway::Body;
use http::{Method, StatusCode};
use serde_json::json;

use crate::support::{Feed, Reply, Task, TestGateway, completion, secs, setup};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;

fn test_gateway() -> TestGateway {
    setup().provider("alpha", &json!({})).settings(|settings| settings.max_body_bytes = 1_000).build()
}

fn post(test: &TestGateway, body: &Feed) -> Task<crate::support::Answer> {
    let mut request: http::Request<Body> = test.request(Method::POST, "/v1/chat/completions", "");
    *request.body_mut() = body.body();
    test.start(request)
}

#[test]
fn a_body_may_come_in_pieces() {
    let test = test_gateway();
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    let body = Feed::default();
    let mut answer = post(&test, &body);
    for byte in CHAT.bytes() {
        answer.must_wait();
        body.push(vec![byte]);
        test.advance(secs(8));
    }
    body.end();
    assert_eq!(answer.finish().status, StatusCode::OK);
    assert_eq!(test.host.last_call().json()["messages"][0]["content"], "Hi");
}

#[test]
fn a_body_over_the_limit_is_refused_whether_its_length_was_told_or_not() {
    let test = test_gateway();
    let padded = |length: usize| format!("{CHAT}{}", " ".repeat(length - CHAT.len()));
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    let fits = test.send(test.request(Method::POST, "/v1/chat/completions", padded(1_000)));
    assert_eq!(fits.status, StatusCode::OK);

    let told = test.send(test.request(Method::POST, "/v1/chat/completions", padded(1_001)));
    assert_eq!(told.error_line(), "413 invalid_request_error request_too_large");
    assert_eq!(test.host.run_spawned(), 0, "the rest is taken at once");

    let body = Feed::default();
    body.push(padded(700));
    body.push("    ".repeat(100));
    let answer = post(&test, &body).finish();
    assert_eq!(answer.error_line(), "413 invalid_request_error request_too_large");
    assert_eq!(test.host.calls().len(), 1);
    // The rest is read and thrown away, so that a client that still sends gets to see the answer.
    assert_eq!(test.host.run_spawned(), 1);
    body.push("    ".repeat(100));
    assert_eq!(test.host.run_spawned(), 1);
    assert_eq!(body.read(), 1_500);
    body.end();
    assert_eq!(test.host.run_spawned(), 0);
    assert!(body.is_dropped());
}

#[test]
fn a_body_that_stands_still_is_given_up() {
    let test = test_gateway();
    let body = Feed::default();
    let mut answer = post(&test, &body);
    answer.must_wait();
    test.advance(secs(20));
    body.push(&CHAT.as_bytes()[..10]);
    answer.must_wait();
    test.advance(secs(29));
    answer.must_wait();
    test.advance(secs(1));
    assert_eq!(answer.finish().error_line(), "408 invalid_request_error request_timeout");
    assert!(body.is_dropped());
}

#[test]
fn a_body_that_trickles_is_given_up() {
    let test = test_gateway();
    let body = Feed::default();
    let mut answer = post(&test, &body);
    for _ in 0..30 {
        answer.must_wait();
        body.push(" ");
        test.advance(secs(20));
    }
    assert_eq!(answer.finish().error_line(), "408 invalid_request_error request_timeout");
}

#[test]
fn a_body_that_breaks_off_is_refused() {
    let test = test_gateway();
    let body = Feed::default();
    body.push(CHAT);
    body.cut();
    assert_eq!(post(&test, &body).finish().error_line(), "400 invalid_request_error incomplete_body");
    assert!(test.host.calls().is_empty());
}

#[test]
fn two_lengths_for_one_body_are_refused() {
    let test = test_gateway();
    let mut request = test.request(Method::POST, "/v1/chat/completions", CHAT);
    request.headers_mut().insert("content-length", CHAT.len().into());
    request.headers_mut().insert("transfer-encoding", "chunked".parse().unwrap());
    assert_eq!(test.send(request).error_line(), "400 invalid_request_error ambiguous_length");
}

#[test]
fn what_is_not_a_chat_request_is_explained() {
    let test = test_gateway();
    for (body, code, param) in [
        ("", "invalid_request", None),
        ("not JSON", "invalid_type", None),
        ("[]", "invalid_type", None),
        ("{}", "missing_required_parameter", Some("model")),
        (r#"{"model":"m"}"#, "missing_required_parameter", Some("messages")),
        (r#"{"model":7,"messages":[]}"#, "invalid_type", Some("model")),
        (r#"{"model":"m","messages":[{}]}"#, "missing_required_parameter", Some("messages[0].role")),
        (r#"{"model":"m","messages":[{"role":"user","content":NaN}]}"#, "invalid_request", None),
    ] {
        let answer = test.send(test.request(Method::POST, "/v1/chat/completions", body));
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        let error = &answer.json()["error"];
        assert_eq!((error["code"].as_str(), error["param"].as_str()), (Some(code), param), "{body}: {error}");
    }
    assert!(test.host.calls().is_empty());
}

#[test]
fn an_unread_body_is_drained_within_bounds() {
    let refuse = |body: &Feed| {
        let test = test_gateway();
        let mut request = test.request(Method::POST, "/v1/chat/completions", "");
        request.headers_mut().remove("authorization");
        *request.body_mut() = body.body();
        assert_eq!(test.send(request).status, StatusCode::UNAUTHORIZED);
        assert_eq!(test.host.run_spawned(), 1);
        test
    };
    let slow = Feed::default();
    let test = refuse(&slow);
    for _ in 0..4 {
        slow.push("x");
        test.advance(secs(2));
        assert!(!slow.is_dropped());
    }
    test.advance(secs(2));
    assert!(slow.is_dropped(), "ten seconds are enough");
    assert_eq!(test.host.run_spawned(), 0);

    let endless = Feed::default();
    let test = refuse(&endless);
    let megabyte = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    for _ in 0..64 {
        endless.push(megabyte.clone());
    }
    assert_eq!(test.host.run_spawned(), 1);
    endless.push("x");
    assert_eq!(test.host.run_spawned(), 0);
    assert!(endless.is_dropped(), "64 MiB are enough");

    let short = setup().settings(|settings| settings.max_refused_body_bytes = 1 << 20).build();
    let body = Feed::default();
    body.push(megabyte);
    body.push("x");
    let mut request = short.request(Method::POST, "/v1/chat/completions", "");
    *request.uri_mut() = "/nowhere".parse().unwrap();
    *request.body_mut() = body.body();
    assert_eq!(short.send(request).status, StatusCode::NOT_FOUND);
    assert_eq!(short.host.run_spawned(), 0);
    assert!(body.is_dropped(), "an edge reads less");

    // Of whom it knows it reads on, so that they see what is wrong.
    let known = setup().settings(|settings| settings.max_refused_body_bytes = 1 << 20).build();
    let body = Feed::default();
    body.push(bytes::Bytes::from(vec![b'x'; 23 << 20]));
    body.push("x");
    let mut request = known.request(Method::POST, "/v1/chat/completions", "");
    *request.body_mut() = body.body();
    assert_eq!(known.send(request).status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(known.host.run_spawned(), 1, "the rest is awaited");
    assert!(!body.is_dropped());
}

#[test]
fn what_no_target_can_do_is_refused_by_name() {
    let able = |capabilities| json!({"models": [{"id": "m", "capabilities": capabilities}]});
    let image = json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]}]});

    let test = setup().provider("alpha", &able(json!({"images": false}))).build();
    let refusal = test.chat(&image).json();
    assert_eq!(refusal["error"]["code"], "unsupported_content");
    assert_eq!(refusal["error"]["param"], "messages[0].content[1]");
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    assert_eq!(test.chat(&json!({})).status, StatusCode::OK, "text is fine");

    let test = setup().provider("alpha", &able(json!({"chat": false}))).build();
    assert_eq!(test.chat(&json!({})).error_line(), "400 invalid_request_error model_cannot_chat");

    // What is not said is tried.
    let test = setup().provider("alpha", &json!({})).build();
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    assert_eq!(test.chat(&image).status, StatusCode::OK);
}

#[test]
fn bodies_that_do_not_fit_into_memory_together_are_told_to_come_back() {
    let test = setup()
        .provider("alpha", &json!({}))
        .settings(|settings| (settings.max_body_bytes, settings.max_held_bytes) = (1_000, Some(1_500)))
        .build();
    let long = format!("{CHAT}{}", " ".repeat(1_000 - CHAT.len()));
    // What a body announces is its own before it comes, and until its upstream has answered.
    let upstream = Feed::default();
    test.host.reply("alpha", Reply::feed(&upstream).with_header("content-type", "application/json"));
    let mut first = test.start(test.request(Method::POST, "/v1/chat/completions", long.clone()));
    first.must_wait();

    let second = test.send(test.request(Method::POST, "/v1/chat/completions", long.clone()));
    assert_eq!(second.header("retry-after"), Some("2"));
    assert_eq!(second.error_line(), "503 server_error gateway_overloaded");
    let trickling = Feed::default();
    trickling.push(long[..400].to_owned());
    let mut third = post(&test, &trickling);
    third.must_wait();
    trickling.push(long[400..600].to_owned());
    assert_eq!(third.finish().error_line(), "503 server_error gateway_overloaded");
    assert_eq!(test.host.calls().len(), 1);

    upstream.push(completion("ok").to_string());
    upstream.end();
    assert_eq!(first.finish().status, StatusCode::OK);
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    let again = test.send(test.request(Method::POST, "/v1/chat/completions", long));
    assert_eq!(again.status, StatusCode::OK, "all of it was given back");
}

#[test]
fn an_answer_that_does_not_fit_into_memory_is_not_asked_for_again() {
    let test = setup()
        .provider("alpha", &json!({}))
        .settings(|settings| (settings.max_body_bytes, settings.max_held_bytes) = (1_000, Some(1_500)))
        .build();
    test.host.reply("alpha", Reply::json(200, &completion(&"x".repeat(2_000))));
    let answer = test.send(test.request(Method::POST, "/v1/chat/completions", CHAT));
    assert_eq!(answer.error_line(), "503 server_error upstream_overloaded");
    assert_eq!(test.host.calls().len(), 1);
}
