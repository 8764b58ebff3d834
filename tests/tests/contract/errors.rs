//! Lines 30 to 35: errors.

use std::time::Duration;

use serde_json::json;
use system_tests::ABORT_BOUND;
use system_tests::clients::{Client, Job};
use system_tests::fixture::{Fixture, MODEL, chat_body};
use system_tests::turn::Turn;
use system_tests::upstream::{Progress, Reply, Step};

#[tokio::test]
async fn contract_30_before_the_stream_errors_have_their_status_and_openais_shape() {
    let fixture = Fixture::start().await;
    for status in [400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504, 529] {
        for (shape, reply) in Reply::errors_of_every_shape(status) {
            fixture.upstream_answers(reply);
            for stream in [false, true] {
                let response = fixture.raw_chat(json!({ "stream": stream })).await;
                let what =
                    format!("{status} {shape}, stream: {stream}: {} {}", response.status, response.text());
                let error = response.error();
                let message = error["message"].as_str().unwrap();
                assert!(!message.contains("<html"), "{what}");
                match status {
                    // What the caller did wrong is told as that.
                    400 | 413 | 422 => assert!((400..500).contains(&response.status), "{what}"),
                    429 => assert_eq!(response.status, 429, "{what}"),
                    // The gateway's own credential is no fault of the caller's key.
                    401 | 403 => assert!(response.status != 401, "{what}"),
                    404 => assert!([404, 502].contains(&response.status), "{what}"),
                    _ => assert!(response.status >= 500, "{what}"),
                }
            }
        }
    }
    // Where the caller is at fault, the upstream's explanation is what helps.
    fixture.upstream_answers(Reply::error(
        400,
        "messages[0].content is too blue",
        "invalid_request_error",
        Some("too_blue"),
        Some("messages"),
    ));
    for answers in [fixture.stream(json!({})).await, fixture.complete(json!({})).await] {
        for (client, answer) in answers {
            let error = answer.error();
            assert_eq!(error.status, Some(400), "{client:?}");
            assert!(
                error.message.as_deref().is_some_and(|message| message.contains("too blue")),
                "{client:?}: {error:?}"
            );
            assert_eq!(error.code, "too_blue", "{client:?}");
            assert_eq!(error.param, "messages", "{client:?}");
        }
    }
}

#[tokio::test]
async fn contract_30_an_error_is_never_in_a_200() {
    let fixture = Fixture::start().await;
    let error =
        json!({"error": {"message": "it broke", "type": "server_error", "code": null, "param": null}});
    for (what, reply) in [
        ("an error object", Reply::json(200, &error)),
        ("an error text", Reply::json(200, &json!({"error": "it broke"}))),
        ("an error event", Reply::sse(format!("data: {error}\n\n"))),
        ("nothing", Reply::body(200, "application/json", "")),
        ("an empty stream", Reply::sse("")),
        ("[DONE] alone", Reply::sse("data: [DONE]\n\n")),
        ("HTML", Reply::body(200, "text/html", "<html>Sign in</html>")),
        ("a number", Reply::body(200, "application/json", "17")),
        ("no choices", Reply::json(200, &json!({"id": "x", "object": "chat.completion", "choices": []}))),
        ("garbage", Reply::sse(&b"data: \xff\xfe{]\n\n"[..])),
        ("204", Reply::body(204, "text/plain", "")),
        ("a redirect", Reply::body(302, "text/html", "").header("location", "http://127.0.0.1:1/")),
    ] {
        fixture.upstream_answers(reply);
        for stream in [false, true] {
            let response = fixture.raw_chat(json!({ "stream": stream })).await;
            assert!(
                response.status >= 500,
                "{what}, stream: {stream}: {} {}",
                response.status,
                response.text()
            );
            response.error();
        }
        for answers in [fixture.stream(json!({})).await, fixture.complete(json!({})).await] {
            for (client, answer) in answers {
                assert!(answer.error().status >= Some(500), "{what}: {client:?}: {:?}", answer.error);
            }
        }
    }
}

#[tokio::test]
async fn contract_31_a_short_429_says_when_to_retry() {
    let fixture = Fixture::start().await;
    let busy = || Reply::error(429, "slow down", "requests", Some("rate_limit_exceeded"), None);
    for reply in [
        busy(),
        busy().header("retry-after", "7"),
        busy().header("retry-after-ms", "1500"),
        busy().header("retry-after", "soon"),
        Reply::body(429, "text/plain", "Too Many Requests"),
    ] {
        fixture.upstream_answers(reply);
        let response = fixture.raw_chat(json!({})).await;
        assert_eq!(response.status, 429);
        response.error();
        let after: u64 =
            response.headers.get("retry-after").and_then(|value| value.parse().ok()).expect("Retry-After");
        assert!((1..60).contains(&after), "{after}");
    }
    for (client, answer) in fixture.stream(json!({})).await {
        assert_eq!(answer.error().status, Some(429), "{client:?}");
        if Client::OPENAI.contains(&client) {
            assert_eq!(answer.error().class, "RateLimitError", "{client:?}");
        }
    }
}

#[tokio::test]
async fn contract_31_an_exhausted_quota_is_not_repeated() {
    let fixture = Fixture::start().await;
    for (what, reply) in [
        (
            "by code",
            Reply::error(
                429,
                "You exceeded your current quota",
                "insufficient_quota",
                Some("insufficient_quota"),
                None,
            ),
        ),
        (
            "by Retry-After",
            Reply::error(429, "come back", "requests", None, None).header("retry-after", "7200"),
        ),
        ("by status", Reply::json(402, &json!({"error": "Payment required"}))),
    ] {
        fixture.upstream_answers(reply);
        fixture.upstream.forget();
        let job = Job { max_retries: 2, ..Job::chat_stream(&fixture.gateway, chat_body(json!({}))) };
        for (client, answer) in fixture.clients.all(&job).await {
            let error = answer.error();
            assert!([Some(402), Some(403)].contains(&error.status), "{what}: {client:?}: {error:?}");
            assert_eq!(error.code, "insufficient_quota", "{what}: {client:?}");
        }
        assert_eq!(fixture.upstream.requests().len(), Client::ALL.len(), "{what}: nobody repeated it");
    }
}

/// Ways a stream can break after two words.
fn broken_streams() -> Vec<(&'static str, Reply)> {
    let begun = || Reply::turn(Turn::says("one two three")).first_frames(3);
    let error = json!({"error": {"message": "it broke {{authorization}}", "type": "server_error"}});
    let event = |text: String| Step::Send(text.into());
    vec![
        ("reset", begun().then(Step::Reset)),
        ("cut", begun().then(Step::Close)),
        ("ended without [DONE]", begun()),
        ("[DONE] without a finish reason", begun().then(event("data: [DONE]\n\n".into()))),
        ("error event", begun().then(event(format!("data: {error}\n\n")))),
        ("named error event", begun().then(event(format!("event: error\ndata: {error}\n\n")))),
        ("garbage", begun().then(event("data: {\"choices\": nope\n\n".into())).then(Step::Stall)),
        ("stall", begun().then(Step::Stall)),
        ("half a frame", begun().then(event("data: {\"id\":\"x\",".into())).then(Step::Close)),
        (
            "a frame without end",
            begun().then(event("data: \"".into())).then(Step::Repeat(vec![b'x'; 65_536].into())),
        ),
    ]
}

#[tokio::test]
async fn contract_32_a_broken_stream_ends_with_an_error_event() {
    let fixture = Fixture::start().await;
    for (what, reply) in broken_streams() {
        fixture.upstream_answers(reply);
        let stream = fixture.raw_stream(json!({})).await;
        assert!(stream.error.is_some() && !stream.done, "{what}: {stream:?}");
        assert_eq!(stream.text(), "one two ", "{what}: what had come is delivered");
        for (client, answer) in fixture.stream(json!({})).await {
            let message = answer.error().message.as_deref().unwrap_or_default();
            assert!(!message.is_empty(), "{what}: {client:?}");
            assert_eq!(answer.text, "one two ", "{what}: {client:?}");
        }
    }
}

#[tokio::test]
async fn contract_33_an_end_without_a_finish_reason_is_an_error() {
    let fixture = Fixture::start().await;
    for (what, turn) in [
        ("no finish reason", Turn::says("one two").without_finish()),
        ("neither finish reason nor [DONE]", Turn::says("one two").without_finish().without_done()),
    ] {
        fixture.upstream_answers(turn);
        let stream = fixture.raw_stream(json!({})).await;
        assert!(stream.error.is_some() && !stream.done, "{what}: {stream:?}");
        for (client, answer) in fixture.stream(json!({})).await {
            assert!(answer.error.is_some(), "{what}: {client:?}");
        }
    }
    for (what, turn) in [
        ("nothing but a role", Turn::new().without_finish()),
        (
            "a finish reason and no output",
            Turn::new().distort_each(|chunk| drop(chunk.as_object_mut().unwrap().remove("usage"))),
        ),
    ] {
        fixture.upstream_answers(turn);
        let response = fixture.raw_chat(json!({"stream": true})).await;
        assert!(response.status >= 500, "{what}: {}", response.text());
        response.error();
        for (client, answer) in fixture.stream(json!({})).await {
            assert!(answer.error().status >= Some(500), "{what}: {client:?}");
        }
    }
    // A finish reason without [DONE] is a complete answer.
    fixture.upstream_answers(Turn::says("one two").without_done());
    fixture.raw_stream(json!({})).await.ok(MODEL);
}

#[tokio::test]
async fn contract_34_an_abort_of_a_stream_reaches_the_upstream() {
    let fixture = Fixture::start().await;
    let job = Job::chat_stream(&fixture.gateway, chat_body(json!({})));
    for client in Client::ALL {
        fixture.upstream.forget();
        fixture.upstream_answers(Reply::turn(Turn::says("one two three")).first_frames(3).then(Step::Stall));
        let answer = fixture.clients.run(client, &Job { abort_after_chunks: Some(2), ..job.clone() }).await;
        assert!(answer.aborted, "{client:?}: {answer:?}");
        fixture.upstream.request(1).await.peer_left(ABORT_BOUND).await;
        abort_before_anything_came(&fixture, client, &job).await;
    }
}

#[tokio::test]
async fn contract_34_an_abort_of_a_whole_answer_reaches_the_upstream() {
    let fixture = Fixture::start().await;
    let job = Job::chat(&fixture.gateway, chat_body(json!({})));
    for client in Client::ALL {
        abort_before_anything_came(&fixture, client, &job).await;
    }
}

async fn abort_before_anything_came(fixture: &Fixture, client: Client, job: &Job) {
    fixture.upstream.forget();
    fixture.upstream_answers(Reply::turn(Turn::says("one")).before_head(Step::Stall));
    let answer = fixture.clients.run(client, &Job { abort_after_ms: Some(1_000), ..job.clone() }).await;
    assert!(answer.aborted, "{client:?}: {answer:?}");
    fixture.upstream.request(1).await.peer_left(ABORT_BOUND).await;
}

#[tokio::test]
async fn contract_34_a_complete_answer_is_no_abort() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("one two three"));
    for (client, answer) in fixture.stream(json!({})).await {
        answer.ok();
        assert_eq!(answer.text, "one two three", "{client:?}");
    }
    for request in fixture.upstream.requests() {
        assert_eq!(request.progress(), Progress::Answered);
    }
}

/// The harness looks for the API key and the upstream credential in everything it receives and, at
/// the end, in the log; here upstreams quote the credential in every way they can.
#[tokio::test]
async fn contract_35_no_secret_is_shown() {
    let fixture = Fixture::start().await;
    let quote = "{{authorization}}";
    for status in [200, 400, 401, 403, 404, 422, 429, 500, 503] {
        for reply in [
            Reply::error(
                status,
                &format!("Incorrect API key provided: {quote}"),
                quote,
                Some(quote),
                Some(quote),
            ),
            Reply::json(status, &json!({"error": quote})),
            Reply::json(status, &json!({"detail": quote})),
            Reply::body(status, "text/plain", quote),
        ] {
            fixture.upstream_answers(reply);
            for stream in [false, true] {
                fixture.raw_chat(json!({ "stream": stream })).await.error();
            }
        }
    }
    fixture.upstream_answers(
        Reply::turn(Turn::says("one two")).first_frames(2).then(Step::Send(
            format!(
                "data: {{\"error\":{{\"message\":\"{}\"}}}}\n\n",
                system_tests::config::UPSTREAM_CREDENTIAL
            )
            .into(),
        )),
    );
    assert!(fixture.raw_stream(json!({})).await.error.is_some());
    fixture.gateway.stop().await;
}

#[tokio::test]
async fn contract_30_a_silent_upstream_is_given_up() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Reply::turn(Turn::says("late")).before_head(Step::Stall));
    let response = fixture.raw_chat(json!({})).await;
    assert_eq!(response.status, 504);
    response.error();
    fixture.upstream.last_request().peer_left(ABORT_BOUND).await;
    // A stream has begun by then, with comments, and says so in-band.
    let stream = fixture.raw_stream(json!({})).await;
    assert!(stream.error.is_some() && stream.comments > 0, "{stream:?}");
    let start = std::time::Instant::now();
    for (client, answer) in fixture.stream(json!({})).await {
        assert!(answer.error.is_some(), "{client:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(15), "first_byte_ms is 2000");
}
