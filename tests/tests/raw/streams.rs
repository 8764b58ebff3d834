//! The bytes of a stream.

use serde_json::json;
use system_tests::config::Timeouts;
use system_tests::fixture::{Fixture, MODEL, UPSTREAM_MODEL};
use system_tests::sse::EventStream;
use system_tests::turn::{Turn, UsageAt};
use system_tests::upstream::{Reply, Step};

#[tokio::test]
async fn frames_pass_through_as_they_are_but_for_the_model() {
    let fixture = Fixture::start().await;
    // Spaces, unknown members, escapes and number forms that no serialiser would keep.
    let frames: String = ["{\"role\":\"assistant\",\"content\":\"\"}", "{\"content\":\"caf\\u00e9 \\/ 1\"}", "{\"content\":\" two\"}"]
        .map(|delta| {
            format!(
                "data: {{ \"x_vendor\":[1.50,-0.0] , \"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\
                 \"model\":\"{UPSTREAM_MODEL}\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
            )
        })
        .concat();
    let finish = Turn::new().usage_at(UsageAt::FinishChunk).frames(UPSTREAM_MODEL, false)[1..].concat();
    let finish = finish.replace("chatcmpl-fake-0001", "chatcmpl-1");
    fixture.upstream_answers(Reply::sse(format!("{frames}{finish}")));
    let mut connection = fixture.open_stream(json!({})).await;
    let body = connection.rest().await;
    let expected = frames.replace(UPSTREAM_MODEL, MODEL);
    assert!(body.starts_with(expected.as_bytes()), "{}\n{expected}", String::from_utf8_lossy(&body));
    EventStream::parse(&body).ok(MODEL);
}

#[tokio::test]
async fn the_head_of_a_stream_keeps_intermediaries_from_holding_it() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("hello"));
    let response = fixture.raw_chat(json!({"stream": true})).await;
    let header = |name: &str| response.headers.get(name).unwrap_or_default();
    assert!(header("content-type").starts_with("text/event-stream"));
    assert!(header("cache-control").contains("no-cache"));
    assert_eq!(header("transfer-encoding"), "chunked");
    assert_eq!(response.headers.get("content-length"), None);
    assert_eq!(response.headers.get("content-encoding"), None);
    assert!(!header("x-request-id").is_empty());
    assert_ne!(header("x-request-id"), "req_upstream", "the id is this gateway's");
}

#[tokio::test]
async fn an_error_ends_the_stream_properly_and_the_connection_is_kept() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Reply::turn(Turn::says("one two three")).first_frames(3).then(Step::Reset));
    let mut connection = fixture.open_stream(json!({})).await;
    // The chunked body ends with its last chunk: only the error event tells that the answer is not whole.
    let stream = EventStream::parse(&connection.rest().await);
    assert!(stream.error.is_some());
    connection.assert_usable_or_closed(&fixture.gateway).await;
}

#[tokio::test]
async fn a_long_stream_of_small_frames_arrives_whole() {
    // A busy machine takes its time to make so many.
    let patient = Timeouts { first_byte_ms: 20_000, ..Timeouts::default() };
    let fixture = Fixture::start_with(|config| config.provider[0].timeouts = patient).await;
    let words = "word ".repeat(20_000);
    fixture.upstream_answers(Reply::turn(Turn::says(&words)));
    let stream = fixture.raw_stream(json!({})).await.ok(MODEL);
    assert_eq!(stream.text(), words);
    fixture.upstream_answers(Reply::turn(Turn::says(&words)).in_pieces_of(1_000));
    assert_eq!(fixture.raw_stream(json!({})).await.ok(MODEL).text(), words);
}

#[tokio::test]
async fn one_large_frame_arrives_whole() {
    let fixture = Fixture::start().await;
    let text = "x".repeat(1_000_000);
    fixture.upstream_answers(Reply::turn(Turn::says(&text)).in_pieces_of(10_000));
    assert_eq!(fixture.raw_stream(json!({})).await.ok(MODEL).text(), text);
}
