//! HTTP/2 in clear and over TLS.

use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde_json::json;
use system_tests::fixture::{Fixture, MODEL, chat_body, standard_config};
use system_tests::gateway::Gateway;
use system_tests::h2::{H2Connection, body_of, connect_tls};
use system_tests::raw::{Connection, Request};
use system_tests::sse::EventStream;
use system_tests::tls::ServerIdentity;
use system_tests::turn::Turn;
use system_tests::upstream::{FakeUpstream, Reply, Step};
use system_tests::{ABORT_BOUND, SOON, within};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn many_streams_share_a_connection_in_clear() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("two point zero"));
    let connection = H2Connection::open(&fixture.gateway).await;
    let streams = (0..50).map(|number| {
        let mut connection = connection.clone();
        async move {
            let response = connection.post(CHAT, &chat_body(json!({"stream": number % 2 == 0}))).await;
            assert_eq!(response.status(), 200);
            assert!(!response.headers().contains_key("transfer-encoding"), "HTTP/2 has its own framing");
            (number, body_of(response).await)
        }
    });
    for (number, body) in join_all(streams).await {
        if number % 2 == 0 {
            assert_eq!(EventStream::parse(&body).ok(MODEL).text(), "two point zero");
        } else {
            assert!(String::from_utf8_lossy(&body).contains("two point zero"));
        }
    }
}

#[tokio::test]
async fn a_reset_stream_reaches_the_upstream_and_spares_the_connection() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Reply::turn(Turn::says("one two")).first_frames(2).then(Step::Stall));
    let mut connection = H2Connection::open(&fixture.gateway).await;
    let mut response = connection.post(CHAT, &chat_body(json!({"stream": true}))).await;
    within(SOON, "the first frame", response.body_mut().frame()).await.unwrap().unwrap();
    drop(response);
    fixture.upstream.request(1).await.peer_left(ABORT_BOUND).await;
    fixture.upstream_answers(Turn::says("still here"));
    let response = connection.post(CHAT, &chat_body(json!({}))).await;
    assert_eq!(response.status(), 200);
    assert!(String::from_utf8_lossy(&body_of(response).await).contains("still here"));
}

#[tokio::test]
async fn a_broken_stream_is_told_in_band() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Reply::turn(Turn::says("one two")).first_frames(2).then(Step::Reset));
    let mut connection = H2Connection::open(&fixture.gateway).await;
    let response = connection.post(CHAT, &chat_body(json!({"stream": true}))).await;
    assert!(EventStream::parse(&body_of(response).await).error.is_some());
}

#[tokio::test]
async fn tls_serves_both_protocols_and_refuses_plain_http() {
    let upstream = FakeUpstream::start().await;
    let identity = ServerIdentity::generate();
    let gateway = Gateway::start_tls(&standard_config(&upstream.base_url()), &identity).await;
    assert!(gateway.base_url.starts_with("https://"), "{}", gateway.base_url);
    let mut connection = H2Connection::open_tls(&gateway, &identity).await;
    let response = connection.post(CHAT, &chat_body(json!({"stream": true}))).await;
    EventStream::parse(&body_of(response).await).ok(MODEL);
    for alpn in [&["http/1.1"][..], &[]] {
        let mut connection = Connection::over(connect_tls(&gateway, &identity, alpn).await);
        let response = connection.request(&Request::chat(&gateway, &chat_body(json!({})))).await;
        assert_eq!(response.status, 200);
    }
    // In clear there is no answer, and no harm.
    let mut connection = Connection::open(&gateway).await;
    connection.send(Request::bare("GET", "/healthz").bytes()).await;
    connection.closed(SOON).await;
    let mut connection = Connection::over(connect_tls(&gateway, &identity, &[]).await);
    assert_eq!(connection.request(&Request::new(&gateway, "GET", "/healthz")).await.status, 200);
}
