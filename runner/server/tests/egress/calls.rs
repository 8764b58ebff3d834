//! Calls of models: how they pass, and what is seen of them.

use std::time::Duration;

use cli_dialect::Observed;
use dyad_runner::config::model::Vendor;
use dyad_runner::egress::Endpoint;
use runner_api::{FinishReason, RunUsage};

use super::support::{FakeVendor, Place, enter, request};

const CALL: &str = "POST /v/v1/messages";
const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n";
const DELTA: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":12}}\n\n";
const STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

async fn fake() -> (FakeVendor, Place) {
    let vendor = FakeVendor::start().await;
    let place = Place::with(Vendor::Anthropic, &vendor.url());
    (vendor, place)
}

/// What was seen of one call that the vendor answers so.
async fn observe(status: &str, headers: &str, body: &str) -> (Observed, u16, String) {
    let (vendor, place) = fake().await;
    let endpoint = place.open();
    let mut sandbox = enter(&endpoint).await;
    sandbox.send(request(&endpoint, CALL, "connection: close\r\n", "{}")).await;
    let mut call = vendor.call().await;
    call.answer(status, headers, body).await;
    sandbox.closed().await;
    (endpoint.observed(), sandbox.status(), sandbox.text())
}

#[tokio::test]
async fn nothing_is_held_back_in_either_direction() {
    let (vendor, place) = fake().await;
    let endpoint = place.open();
    let mut sandbox = enter(&endpoint).await;
    let token = endpoint.token().expose();
    sandbox
        .send(format!(
            "{CALL} HTTP/1.1\r\nx-api-key: {token}\r\ntransfer-encoding: chunked\r\n\r\n6\r\n{{\"a\":1\r\n"
        ))
        .await;
    // Each side waits for what the other has sent before it goes on.
    let mut call = vendor.call().await;
    call.until("{\"a\":1").await;
    sandbox.send("1\r\n}\r\n0\r\n\r\n").await;
    call.until("}").await;
    call.begin_stream().await;
    sandbox.until("text/event-stream").await;
    for part in [START, DELTA, STOP] {
        call.chunk(part).await;
        sandbox.until(part).await;
        assert!(!sandbox.text().contains("0\r\n\r\n"));
    }
    call.send("0\r\n\r\n").await;
    sandbox.until("0\r\n\r\n").await;
    let usage = RunUsage { input_tokens: Some(25), output_tokens: Some(12), ..RunUsage::default() };
    let expected = Observed {
        calls: 1,
        status: Some(200),
        usage: Some(usage),
        finish: Some(FinishReason::Stop),
        ..Observed::default()
    };
    assert_eq!(endpoint.observed(), expected);
    // The connection serves the next request, which is none of a model.
    sandbox.seen.clear();
    sandbox.send(request(&endpoint, "POST /v/v1/messages/count_tokens", "", "{}")).await;
    call.until("count_tokens").await;
    call.answer("500 Oops", "", "{}").await;
    sandbox.until("500").await;
    assert_eq!(endpoint.observed(), expected);
}

#[tokio::test]
async fn a_vendors_refusal_passes_as_it_is_and_is_seen() {
    let body = |kind: &str, message: &str| {
        format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}}}}"#)
    };
    for (status, headers, body, code, message, retry_after_ms) in [
        ("401 Unauthorized", "", body("authentication_error", "bad key"), 401, "bad key", None),
        (
            "429 Too Many Requests",
            "retry-after: 7\r\n",
            body("rate_limit_error", "slower"),
            429,
            "slower",
            Some(7000),
        ),
        ("500 Oops", "", body("api_error", "oops"), 500, "oops", None),
        ("529 Overloaded", "", body("overloaded_error", "later"), 529, "later", None),
    ] {
        let (observed, seen, text) = observe(status, headers, &body).await;
        assert_eq!(seen, code);
        assert!(text.ends_with(&body), "{text}");
        assert_eq!(text.contains("retry-after: 7\r\n"), retry_after_ms.is_some(), "{text}");
        let expected = Observed {
            calls: 1,
            status: Some(code),
            message: Some(message.to_owned()),
            retry_after_ms,
            ..Observed::default()
        };
        assert_eq!(observed, expected);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = FakeVendor::start().await;
    let location = format!("location: {}/v1/messages\r\n", elsewhere.url());
    let (_, status, _) = observe("307 Temporary Redirect", &location, "").await;
    assert_eq!(status, 307);
    assert!(elsewhere.is_untouched().await);
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_broken_on_both_sides() {
    let (vendor, place) = fake().await;
    let endpoint = place.open();
    let mut sandbox = enter(&endpoint).await;
    sandbox.send(request(&endpoint, CALL, "", "{}")).await;
    let mut call = vendor.call().await;
    call.begin_stream().await;
    call.chunk(START).await;
    sandbox.until(START).await;
    call.hang_up();
    sandbox.closed().await;
    assert!(!sandbox.text().ends_with("0\r\n\r\n"), "it must not look complete");
    assert_eq!(
        endpoint.observed(),
        Observed { calls: 1, status: Some(200), broken: true, ..Observed::default() }
    );
}

#[tokio::test]
async fn a_stream_without_its_end_marker_is_broken() {
    let (vendor, place) = fake().await;
    let endpoint = place.open();
    let mut sandbox = enter(&endpoint).await;
    sandbox.send(request(&endpoint, CALL, "", "{}")).await;
    let mut call = vendor.call().await;
    call.begin_stream().await;
    call.chunk(START).await;
    call.send("0\r\n\r\n").await;
    sandbox.until("0\r\n\r\n").await;
    assert!(endpoint.observed().broken);
}

/// The sandbox's answer, and what was seen, of a call that the vendor does not answer.
async fn unanswered(endpoint: &Endpoint, code: u16) {
    let mut sandbox = enter(endpoint).await;
    sandbox.send(request(endpoint, CALL, "connection: close\r\n", "{}")).await;
    sandbox.closed().await;
    assert_eq!(sandbox.status(), code, "{}", sandbox.text());
    let observed = endpoint.observed();
    assert_eq!((observed.calls, observed.status, observed.broken), (1, None, true));
    assert!(observed.message.is_some());
}

#[tokio::test]
async fn a_vendor_that_is_not_there_is_told() {
    let (vendor, place) = fake().await;
    drop(vendor);
    unanswered(&place.open(), 502).await;
}

#[tokio::test]
async fn a_vendor_that_says_nothing_is_given_up() {
    let (_vendor, mut place) = fake().await;
    place.timeouts.first_byte = Duration::from_millis(50);
    unanswered(&place.open(), 504).await;
}

#[tokio::test]
async fn a_vendor_that_hangs_up_instead_of_answering_is_told() {
    let (vendor, place) = fake().await;
    let endpoint = place.open();
    tokio::join!(unanswered(&endpoint, 502), async { vendor.call().await.hang_up() });
}

#[tokio::test]
async fn a_vendor_whose_head_never_ends_is_given_up() {
    let (vendor, place) = fake().await;
    let endpoint = place.open();
    tokio::join!(unanswered(&endpoint, 502), async {
        let mut call = vendor.call().await;
        call.send("HTTP/1.1 200 OK\r\n").await;
        let header = format!("x-long: {}\r\n", "x".repeat(8000));
        // Until the runner has hung up.
        for _ in 0..100 {
            call.try_send(&header).await;
        }
        call.closed().await;
    });
}

#[tokio::test]
async fn a_stream_that_stalls_is_given_up() {
    let (vendor, mut place) = fake().await;
    place.timeouts.idle = Duration::from_millis(50);
    let endpoint = place.open();
    let mut sandbox = enter(&endpoint).await;
    sandbox.send(request(&endpoint, CALL, "", "{}")).await;
    let mut call = vendor.call().await;
    call.begin_stream().await;
    call.chunk(START).await;
    sandbox.closed().await;
    call.closed().await;
    assert!(endpoint.observed().broken);
}

#[tokio::test]
async fn a_sandbox_that_stalls_is_given_up_too() {
    let (vendor, mut place) = fake().await;
    place.timeouts.idle = Duration::from_millis(50);
    let endpoint = place.open();
    let mut sandbox = enter(&endpoint).await;
    let token = endpoint.token().expose();
    sandbox.send(format!("{CALL} HTTP/1.1\r\nx-api-key: {token}\r\ncontent-length: 10\r\n\r\n{{")).await;
    vendor.call().await.closed().await;
    sandbox.closed().await;
}
