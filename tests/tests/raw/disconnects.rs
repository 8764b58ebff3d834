//! Clients that leave or do not read.

use std::time::Duration;

use serde_json::json;
use system_tests::fixture::{Fixture, chat_body};
use system_tests::raw::{Connection, Request};
use system_tests::turn::{Turn, frame};
use system_tests::upstream::{Reply, Step};
use system_tests::{ABORT_BOUND, SOON, within};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn stalling_stream() -> Reply {
    Reply::turn(Turn::says("one two three")).first_frames(3).then(Step::Stall)
}

#[tokio::test]
async fn a_client_that_closes_is_noticed_by_the_upstream() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(stalling_stream());
    let mut connection = fixture.open_stream(json!({})).await;
    connection.until("one").await;
    drop(connection);
    fixture.upstream.request(1).await.peer_left(ABORT_BOUND).await;
    fixture.assert_serving().await;
}

#[tokio::test]
async fn a_client_that_resets_is_noticed_by_the_upstream() {
    let fixture = Fixture::start().await;
    let silent = Reply::turn(Turn::says("one")).before_head(Step::Stall);
    for reply in [stalling_stream(), silent, endless()] {
        fixture.upstream.forget();
        fixture.upstream_answers(reply);
        let mut stream = TcpStream::connect(fixture.gateway.address()).await.unwrap();
        let request = Request::chat(&fixture.gateway, &chat_body(json!({"stream": true}))).bytes();
        stream.write_all(&request).await.unwrap();
        let received = fixture.upstream.request(1).await;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        received.peer_left(ABORT_BOUND).await;
    }
    fixture.assert_serving().await;
}

fn endless() -> Reply {
    let delta = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": "x".repeat(4_000)}, "finish_reason": null}]});
    Reply::sse("").then(Step::Repeat(frame(&delta).into()))
}

/// The upstream is slowed down to the pace of the reader; the gateway's memory is bounded.
#[tokio::test]
async fn a_client_that_does_not_read_holds_the_upstream_back() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(endless());
    let mut connection = fixture.open_stream(json!({})).await;
    let before = fixture.gateway.resident_bytes();
    let request = fixture.upstream.request(1).await;
    // It comes to rest when the buffers of two connections are full.
    let rest = within(SOON, "the upstream is held back", async {
        let mut interval = tokio::time::interval(Duration::from_millis(400));
        let mut last = 0;
        loop {
            interval.tick().await;
            let sent = request.sent_bytes();
            if sent > 0 && sent == last {
                return sent;
            }
            last = sent;
        }
    })
    .await;
    assert!(rest < 32 << 20, "{rest} bytes are under way");
    let grown = fixture.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "the gateway grew by {grown} bytes");
    // When it reads on, more comes.
    let mut read = 0;
    while read <= rest {
        read += connection.piece().await.expect("the stream is endless").len() as u64;
    }
    drop(connection);
    request.peer_left(ABORT_BOUND).await;
}

#[tokio::test]
async fn a_request_that_is_never_completed_reaches_no_upstream() {
    let fixture = Fixture::start().await;
    let bytes = Request::chat(&fixture.gateway, &chat_body(json!({}))).bytes();
    for end in [1, 20, bytes.len() / 2, bytes.len() - 1] {
        let mut connection = Connection::open(&fixture.gateway).await;
        connection.send(&bytes[..end]).await;
        drop(connection);
        fixture.assert_serving().await;
    }
    assert!(fixture.upstream.requests().is_empty());
}
