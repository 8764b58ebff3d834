//! Upstreams that misbehave below the level of JSON.

use std::time::Duration;

use serde_json::{Value, json};
use system_tests::ABORT_BOUND;
use system_tests::config::{Config, Provider};
use system_tests::fixture::{Fixture, MODEL, UPSTREAM_MODEL, chat_body};
use system_tests::gateway::Gateway;
use system_tests::http1::Framing;
use system_tests::raw::{Connection, Request};
use system_tests::turn::Turn;
use system_tests::upstream::{FakeUpstream, Gate, Progress, Reply, Step};

const TEXT: &str = "hello there";

fn content(body: &Value) -> &Value {
    &body["choices"][0]["message"]["content"]
}

#[tokio::test]
async fn every_proper_framing_is_read() {
    let fixture = Fixture::start().await;
    let turn = || Reply::turn(Turn::says(TEXT));
    for (what, reply) in [
        ("chunked", turn().framing(Framing::Chunked)),
        ("until close", turn().framing(Framing::UntilClose)),
        ("interim responses", turn().interim("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")),
        ("100 unasked", turn().interim("HTTP/1.1 100 Continue\r\n\r\n")),
    ] {
        fixture.upstream_answers(reply);
        assert_eq!(content(&fixture.raw_chat(json!({})).await.json()), TEXT, "{what}");
        assert_eq!(fixture.raw_stream(json!({})).await.ok(MODEL).text(), TEXT, "{what}");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_502() {
    // Not before the first comment of a stream, which would be its head.
    let fixture = Fixture::start_with(|config| config.keepalive_ms = 10_000).await;
    let turn = || Reply::always_json(Turn::says(TEXT));
    for (what, reply) in [
        ("shorter than it says", turn().framing(Framing::Length(100_000)).then(Step::Close)),
        ("chunked without its end", turn().framing(Framing::Chunked).then(Step::Close)),
        ("reset in the body", turn().framing(Framing::Length(100_000)).then(Step::Reset)),
        ("reset before the head", turn().before_head(Step::Reset)),
        ("closed before the head", turn().before_head(Step::Close)),
        ("half a head", turn().interim("HTTP/1.1 200 OK\r\ncontent-").before_head(Step::Close)),
        ("no HTTP at all", turn().interim("SSH-2.0-OpenSSH_9.2\r\n").before_head(Step::Close)),
        (
            "a broken chunk size",
            turn().framing(Framing::Chunked).then(Step::SendRaw("zz\r\n".into())).then(Step::Close),
        ),
        (
            "an endless head",
            turn().interim("HTTP/1.1 200 OK\r\n").before_head(Step::Repeat("x-a: b\r\n".into())),
        ),
    ] {
        fixture.upstream_answers(reply);
        for stream in [false, true] {
            let response = fixture.raw_chat(json!({ "stream": stream })).await;
            assert_eq!(response.status, 502, "{what}, stream: {stream}: {}", response.text());
            response.error();
        }
    }
    fixture.assert_serving().await;
}

#[tokio::test]
async fn a_compressed_answer_is_not_mistaken_for_text() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Reply::turn(Turn::says(TEXT)).gzip());
    for stream in [false, true] {
        let response = fixture.raw_chat(json!({ "stream": stream })).await;
        assert!(
            response.status == 502 || response.text().contains("hello"),
            "{} {:?}",
            response.status,
            response.body
        );
    }
    let asked = fixture.upstream.last_request();
    assert!(
        !asked.headers.get("accept-encoding").unwrap_or_default().contains("gzip"),
        "it was not asked for"
    );
}

#[tokio::test]
async fn an_endless_answer_is_given_up() {
    let fixture = Fixture::start().await;
    let before = fixture.gateway.resident_bytes();
    fixture.upstream_answers(
        Reply::body(200, "application/json", "{\"choices\":[\"")
            .framing(Framing::Chunked)
            .then(Step::Repeat(vec![b'x'; 65_536].into())),
    );
    let response = fixture.raw_chat(json!({})).await;
    assert_eq!(response.status, 502);
    response.error();
    fixture.upstream.last_request().peer_left(ABORT_BOUND).await;
    let grown = fixture.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 256 << 20, "the gateway grew by {grown} bytes");
}

#[tokio::test]
async fn an_error_answer_without_end_is_told_at_once() {
    let fixture = Fixture::start().await;
    for then in [Step::Stall, Step::Repeat(vec![b'x'; 65_536].into())] {
        fixture.upstream_answers(Reply::body(500, "text/plain", "oh").framing(Framing::Chunked).then(then));
        let start = std::time::Instant::now();
        let response = fixture.raw_chat(json!({})).await;
        assert!(response.status >= 500);
        response.error();
        assert!(start.elapsed() < Duration::from_secs(5));
        fixture.upstream.last_request().peer_left(ABORT_BOUND * 3).await;
    }
}

#[tokio::test]
async fn an_upstream_that_takes_long_to_read_gets_the_whole_body() {
    let gate = Gate::default();
    let upstream = FakeUpstream::start_reading_after(gate.clone()).await;
    let config = Config::new([Provider::local("slow", &upstream.base_url()).model(MODEL, UPSTREAM_MODEL)]);
    let gateway = Gateway::start(&config).await;
    let text = "x".repeat(8_000_000);
    let body = chat_body(json!({"messages": [{"role": "user", "content": text}]}));
    let mut connection = Connection::open(&gateway).await;
    connection.send(Request::chat(&gateway, &body).bytes()).await;
    gate.open();
    assert_eq!(connection.response().await.status, 200);
    let request = upstream.last_request();
    assert_eq!(request.json()["messages"], body["messages"]);
    assert_eq!(request.headers.get("authorization"), None, "a local provider without a credential gets none");
}

#[tokio::test]
async fn connections_to_an_upstream_are_kept_and_stale_ones_replaced() {
    let fixture = Fixture::start().await;
    // On one client connection, so that one worker serves all.
    let mut connection = Connection::open(&fixture.gateway).await;
    let request = |stream: bool| Request::chat(&fixture.gateway, &chat_body(json!({ "stream": stream })));
    fixture.upstream_answers(Turn::says(TEXT));
    for number in 0..10 {
        assert_eq!(connection.request(&request(number % 2 == 0)).await.status, 200);
        fixture.upstream.last_request().answered(ABORT_BOUND).await;
    }
    let used: std::collections::HashSet<_> =
        fixture.upstream.requests().iter().map(|request| request.connection).collect();
    assert!(used.len() <= 2, "{} connections for ten requests in a row", used.len());
    // This one closes after each answer without having announced it.
    fixture.upstream_answers(Reply::turn(Turn::says(TEXT)).then_close_unannounced());
    for number in 0..20 {
        let response = connection.request(&request(number % 2 == 0)).await;
        assert_eq!(response.status, 200, "request {number}: {}", response.text());
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let fixture = Fixture::start().await;
    let other = FakeUpstream::start().await;
    for status in [301, 302, 307, 308] {
        let location = format!("{}/chat/completions", other.base_url());
        fixture.upstream_answers(Reply::body(status, "text/plain", "").header("location", &location));
        let response = fixture.raw_chat(json!({})).await;
        assert_eq!(response.status, 502);
        response.error();
    }
    assert!(other.requests().is_empty(), "the credential must not go where an upstream points");
}

#[tokio::test]
async fn what_comes_after_the_end_does_not_hold_the_answer() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Reply::turn(Turn::says(TEXT)).then(Step::Stall));
    assert_eq!(fixture.raw_stream(json!({})).await.ok(MODEL).text(), TEXT);
    let request = fixture.upstream.last_request();
    request.peer_left(ABORT_BOUND * 3).await;
    assert_eq!(request.progress(), Progress::PeerLeft);
}
