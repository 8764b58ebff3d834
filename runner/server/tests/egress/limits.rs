//! What a sandbox may use up.

use std::time::Duration;

use dyad_runner::config::model::Vendor;

use super::support::{FakeVendor, Place, enter, request};

const CALL: &str = "POST /v/v1/messages";
/// As many connections as one sandbox may have.
const CONNECTIONS: usize = 64;

async fn fake() -> (FakeVendor, Place) {
    let vendor = FakeVendor::start().await;
    let place = Place::with(Vendor::Anthropic, &vendor.url());
    (vendor, place)
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_cut_off_and_nothing_follows() {
    let (vendor, mut place) = fake().await;
    place.egress.max_bytes = 20_000;
    let endpoint = place.open();
    let mut sandbox = enter(&endpoint).await;
    sandbox.send(request(&endpoint, CALL, "", "{}")).await;
    let mut call = vendor.call().await;
    call.begin_stream().await;
    let piece = format!(": {}\n\n", "x".repeat(1000));
    for _ in 0..1000 {
        if !call.try_send(format!("{:x}\r\n{piece}\r\n", piece.len())).await {
            break;
        }
    }
    call.closed().await;
    sandbox.closed().await;
    // What was in the runner's buffers at that moment may still have passed.
    assert!(sandbox.seen.len() < 500_000, "{}", sandbox.seen.len());
    let mut again = enter(&endpoint).await;
    again.try_send(request(&endpoint, CALL, "", "{}")).await;
    again.closed().await;
    assert!(again.seen.is_empty());
    assert!(vendor.is_untouched().await);
    let observed = endpoint.observed();
    assert!(observed.broken && observed.message.unwrap().contains("20000 bytes"));
}

#[tokio::test]
async fn so_is_a_request() {
    let (vendor, mut place) = fake().await;
    place.egress.max_bytes = 20_000;
    let endpoint = place.open();
    let mut sandbox = enter(&endpoint).await;
    let serving = async {
        let mut call = vendor.call().await;
        call.closed().await;
        call.seen.len()
    };
    let sending = async {
        sandbox.try_send(request(&endpoint, CALL, "", &"x".repeat(1 << 20))).await;
        sandbox.closed().await;
    };
    let (passed, ()) = tokio::join!(serving, sending);
    assert!(passed < 500_000, "{passed}");
}

#[tokio::test]
async fn a_head_that_takes_too_long_ends_its_connection() {
    let (_vendor, mut place) = fake().await;
    place.timeouts.head = Duration::from_millis(50);
    let endpoint = place.open();
    let mut silent = enter(&endpoint).await;
    let mut slow = enter(&endpoint).await;
    slow.send("POST /v/v1/messages HTTP/1.1\r\nx-api").await;
    silent.closed().await;
    slow.closed().await;
    assert!(silent.seen.is_empty());
}

#[tokio::test]
async fn heads_have_limits() {
    let (vendor, place) = fake().await;
    let endpoint = place.open();
    for headers in ["x-many: y\r\n".repeat(200), format!("x-long: {}\r\n", "x".repeat(70_000))] {
        let mut sandbox = enter(&endpoint).await;
        sandbox.try_send(request(&endpoint, CALL, &headers, "{}")).await;
        sandbox.closed().await;
        assert_eq!(sandbox.status(), 431);
    }
    let mut sandbox = enter(&endpoint).await;
    sandbox.try_send(request(&endpoint, &format!("POST /v/{}", "x".repeat(70_000)), "", "")).await;
    sandbox.closed().await;
    assert!(matches!(sandbox.status(), 414 | 431));
    assert!(vendor.is_untouched().await);
}

#[tokio::test]
async fn a_connection_beyond_the_most_waits_until_another_ends() {
    let (_vendor, place) = fake().await;
    let endpoint = place.open();
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut sandbox = enter(&endpoint).await;
        sandbox.send("GET / HTTP/1.1\r\n\r\n").await;
        sandbox.until("401").await;
        held.push(sandbox);
    }
    let mut waiting = enter(&endpoint).await;
    waiting.send("GET / HTTP/1.1\r\n\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(100), waiting.until("401")).await;
    assert!(early.is_err(), "it must wait");
    held.pop();
    waiting.until("401").await;
}
