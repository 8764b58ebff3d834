//! Several providers for one model: the next is tried until one commits, and not after.

use serde_json::{Value, json};
use system_tests::clients::Clients;
use system_tests::config::{Config, Provider};
use system_tests::fixture::{Fixture, MODEL, UPSTREAM_MODEL};
use system_tests::gateway::Gateway;
use system_tests::turn::Turn;
use system_tests::upstream::{FakeUpstream, Reply, Step};

/// `first` before `second`, both with the model.
async fn two_providers() -> (Fixture, FakeUpstream) {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let config = Config::new([
        Provider::proxy("a-second", &second.base_url()).rank(2).model(MODEL, UPSTREAM_MODEL),
        Provider::proxy("b-first", &first.base_url()).rank(1).model(MODEL, UPSTREAM_MODEL),
    ]);
    second.on(UPSTREAM_MODEL, Turn::says("from the second"));
    let gateway = Gateway::start(&config).await;
    (Fixture { gateway, upstream: first, clients: Clients::default() }, second)
}

fn content(body: &Value) -> &Value {
    &body["choices"][0]["message"]["content"]
}

#[tokio::test]
async fn the_next_provider_is_tried_before_anything_was_sent() {
    let (fixture, second) = two_providers().await;
    for (what, reply) in [
        ("500", Reply::error(500, "it broke", "server_error", None, None)),
        ("429", Reply::error(429, "busy", "requests", None, None)),
        ("401", Reply::error(401, "bad key", "invalid_request_error", None, None)),
        (
            "no such model",
            Reply::error(404, "unknown model", "invalid_request_error", Some("model_not_found"), None),
        ),
        ("reset", Reply::turn(Turn::new()).before_head(Step::Reset)),
        ("silence", Reply::turn(Turn::new()).before_head(Step::Stall)),
        ("silence after the head", Reply::sse("").then(Step::Stall)),
        ("error event first", Reply::sse("data: {\"error\":{\"message\":\"overloaded\"}}\n\n")),
        ("role and cut", Reply::always_sse(Turn::says("x")).first_frames(1).then(Step::Reset)),
        ("empty", Reply::sse("data: [DONE]\n\n")),
        ("HTML", Reply::body(200, "text/html", "<html>")),
    ] {
        fixture.upstream_answers(reply);
        let stream = fixture.raw_stream(json!({})).await.ok(MODEL);
        assert_eq!(stream.text(), "from the second", "{what}");
        let body = fixture.raw_chat(json!({})).await.json();
        assert_eq!(content(&body), "from the second", "{what}");
        assert_eq!(body["model"], MODEL);
    }
    fixture.upstream_answers(Turn::says("from the first"));
    second.forget();
    assert_eq!(content(&fixture.raw_chat(json!({})).await.json()), "from the first");
    assert!(second.requests().is_empty(), "it was not needed");
}

#[tokio::test]
async fn a_provider_that_is_down_is_passed_over() {
    let (mut fixture, second) = two_providers().await;
    fixture.upstream = FakeUpstream::start().await; // the one that was configured is gone
    assert_eq!(fixture.raw_stream(json!({})).await.ok(MODEL).text(), "from the second");
    drop(second);
    let response = fixture.raw_chat(json!({})).await;
    assert_eq!(response.status, 502);
    response.error();
}

#[tokio::test]
async fn after_the_first_word_there_is_no_going_back() {
    let (fixture, second) = two_providers().await;
    fixture.upstream_answers(Reply::turn(Turn::says("one two")).first_frames(2).then(Step::Reset));
    let stream = fixture.raw_stream(json!({})).await;
    assert!(stream.error.is_some());
    assert_eq!(stream.text(), "one ");
    assert!(second.requests().is_empty());
}

#[tokio::test]
async fn the_callers_fault_is_nobody_elses() {
    let (fixture, second) = two_providers().await;
    fixture.upstream_answers(Reply::error(400, "too blue", "invalid_request_error", Some("too_blue"), None));
    let response = fixture.raw_chat(json!({})).await;
    assert_eq!((response.status, &response.error()["code"]), (400, &json!("too_blue")));
    assert!(second.requests().is_empty());
}

#[tokio::test]
async fn a_model_named_with_its_provider_has_no_other() {
    let (fixture, second) = two_providers().await;
    fixture.upstream_answers(Reply::error(500, "it broke", "server_error", None, None));
    let response = fixture.raw_chat(json!({"model": format!("b-first/{MODEL}")})).await;
    assert!(response.status >= 500);
    response.error();
    assert!(second.requests().is_empty());
    let body = fixture.raw_chat(json!({"model": format!("a-second/{MODEL}")})).await.json();
    assert_eq!(content(&body), "from the second");
}
