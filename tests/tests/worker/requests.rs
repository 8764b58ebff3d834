//! Requests of one isolate, from their arrival to their end.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use system_tests::fixture::UPSTREAM_MODEL;
use system_tests::raw::Connection;
use system_tests::turn::Turn;
use system_tests::upstream::{Gate, Reply, Step};
use system_tests::worker::Options;
use system_tests::{ABORT_BOUND, SOON, within};

use crate::{Scene, settled};

/// What the suites' configuration says.
const KEEPALIVE: Duration = Duration::from_millis(300);

/// Says one word, and the rest once the gate is open.
fn held_after_one(gate: &Gate) -> Reply {
    let turn = Turn::says("one two three");
    let rest = turn.frames(UPSTREAM_MODEL, true)[2..].concat();
    Reply::turn(turn).first_frames(2).then(Step::Hold(gate.clone())).then(Step::Send(rest.into()))
}

/// Says one word and no more.
fn stalled_after_one() -> Reply {
    Reply::turn(Turn::says("one two three")).first_frames(2).then(Step::Stall)
}

/// Neither may wait for what the other one does: the platform would never wake it.
#[tokio::test]
async fn two_requests_find_a_cold_isolate_at_once() {
    let scene = Scene::start(Options::default()).await;
    let answers = scene.chats(2).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
}

#[tokio::test]
async fn two_hundred_requests_at_once_are_served() {
    let scene = Scene::start(Options::default()).await;
    // Cold, and warm.
    for _ in 0..2 {
        let answers = scene.chats(200).await;
        let failed: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
        assert!(failed.is_empty(), "{} of 200: {:?}", failed.len(), failed[0]);
    }
    scene.worker.logged("all are settled", |events| settled(events, "ok") == 400).await;
}

/// Each piece leaves the Worker before the next one comes in, for many at once.
#[tokio::test]
async fn streams_pass_piece_by_piece() {
    let scene = Scene::start(Options::default()).await;
    let gate = Gate::default();
    scene.upstream_answers(held_after_one(&gate));
    let mut streams = join_all((0..20).map(|_| scene.stream())).await;
    for stream in &mut streams {
        let first = stream.until("one").await;
        assert!(!first.contains("three"), "{first}");
    }
    gate.open();
    for text in join_all(streams.iter_mut().map(Connection::rest)).await {
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.contains("three") && text.ends_with("data: [DONE]\n\n"), "{text}");
    }
}

/// workerd looks whether a client is there when it writes to it; a comment in a silent stream is enough.
#[tokio::test]
async fn a_client_that_leaves_a_silent_stream_is_noticed_at_the_next_comment() {
    let scene = Scene::start(Options::default()).await;
    scene.upstream_answers(stalled_after_one());
    let mut stream = scene.stream().await;
    stream.until("one").await;
    let left = Instant::now();
    drop(stream);
    scene.upstream.request(1).await.peer_left(KEEPALIVE + ABORT_BOUND).await;
    println!("the upstream saw it after {} ms", left.elapsed().as_millis());
    scene.worker.logged("the request is settled", |events| settled(events, "client_gone") == 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_that_flows_is_noticed_within_a_second() {
    let scene = Scene::start(Options::default()).await;
    let frame = Turn::says("one two three").frames(UPSTREAM_MODEL, true)[1].clone();
    scene.upstream_answers(Reply::sse("").then(Step::Repeat(frame.into())));
    let mut stream = scene.stream().await;
    stream.until("one").await;
    drop(stream);
    scene.upstream.request(1).await.peer_left(ABORT_BOUND).await;
}

/// Those that clients left are no less over than those that ended: what they had in use is there again.
#[tokio::test]
async fn every_request_is_settled_once_however_it_ends() {
    let scene = Scene::start(Options::default()).await;
    assert!(scene.chats(5).await.iter().all(|answer| answer.status == 200));
    scene.stream().await.rest().await;
    scene.upstream_answers(stalled_after_one());
    for _ in 0..3 {
        scene.stream().await.until("one").await;
    }
    scene.upstream_answers(Reply::error(500, "broken", "server_error", None, None));
    assert_eq!(scene.chat(json!({})).await.status, 502);
    let broken = Reply::turn(Turn::says("one two three")).first_frames(2).then(Step::Reset);
    scene.upstream_answers(broken);
    scene.stream().await.rest().await;
    scene
        .worker
        .logged("all are settled", |events| settled(events, "ok") == 6 && settled(events, "client_gone") == 3)
        .await;
    // Were one settled twice, the second line would not come later than the next request's.
    scene.upstream_answers(Turn::says("hello"));
    assert_eq!(scene.chat(json!({})).await.status, 200);
    scene.worker.logged("so is the next one", |events| settled(events, "ok") == 7).await;
    let all = scene.worker.events();
    assert_eq!(all.iter().filter(|event| event["message"] == "chat_completion").count(), 12);
    let ok = all.iter().find(|event| event["outcome"] == "ok").unwrap();
    let usage = Turn::says("hello").completion(UPSTREAM_MODEL)["usage"].clone();
    assert_eq!(ok["prompt_tokens"], usage["prompt_tokens"], "{ok}");
}

#[tokio::test]
async fn a_request_of_22_mib_passes_and_one_more_byte_does_not() {
    let scene = Scene::start(Options::default()).await;
    let empty = system_tests::fixture::chat_body(json!({"messages": [{"role": "user", "content": ""}]}));
    let text = "x".repeat((22 << 20) - empty.to_string().len());
    let messages = |text: &str| json!({"messages": [{"role": "user", "content": text}]});
    assert_eq!(scene.chat(messages(&text)).await.status, 200);
    let received = scene.upstream.last_request();
    assert_eq!(received.json()["messages"][0]["content"].as_str().unwrap().len(), text.len());
    assert_eq!(received.headers.get("content-length").unwrap(), received.body.len().to_string());
    let answer = scene.chat(messages(&format!("{text}x"))).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.error()["code"], "request_too_large");
}

/// The request that finds the configuration stale is answered with what is known; the look into the store goes on
/// without it, and without any other request.
#[tokio::test]
async fn a_look_into_the_store_outlives_the_request_that_set_it_off() {
    let options = Options {
        variables: [
            ("DYAD_CONFIG_REFRESH_MS", "10".to_owned()),
            ("DYAD_CONFIG_MAX_AGE_MS", "3600000".to_owned()),
        ]
        .into(),
        ..Options::default()
    };
    let scene = Scene::start(options).await;
    let models = || async { scene.get("/v1/models").await.json()["data"].as_array().unwrap().len() };
    let before = models().await;
    scene.table.run(&["providers", "remove", "fake"]).await;
    within(SOON, "the change is seen", async {
        loop {
            let left = models().await;
            if left == 0 {
                break;
            }
            assert_eq!(left, before);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
