//! An instance: made for a request, shared by others, kept while there is work.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use system_tests::fixture::UPSTREAM_MODEL;
use system_tests::raw::Connection;
use system_tests::spin::Options;
use system_tests::turn::Turn;
use system_tests::upstream::{Gate, Reply, Step};
use system_tests::{ABORT_BOUND, SOON, within};

use crate::{Scene, instance};

/// Spin's defaults.
const REQUESTS_PER_INSTANCE: usize = 128;
const REQUESTS_AT_ONCE: usize = 16;
/// What the suites' configuration says.
const KEEPALIVE: Duration = Duration::from_millis(300);

fn kept() -> Options {
    Options { idle_instance_timeout: Some(Duration::from_secs(60)), ..Options::default() }
}

/// Says one word, and the rest once the gate is open.
fn held_after_one(gate: &Gate) -> Reply {
    let turn = Turn::says("one two three");
    let rest = turn.frames(UPSTREAM_MODEL, true)[2..].concat();
    Reply::turn(turn).first_frames(2).then(Step::Hold(gate.clone())).then(Step::Send(rest.into()))
}

#[tokio::test]
async fn requests_that_come_together_to_a_cold_host_are_all_served() {
    let scene = Scene::start(kept()).await;
    for _ in 0..4 {
        let answers = scene.chats(3 * REQUESTS_AT_ONCE).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [200; 3 * REQUESTS_AT_ONCE]);
    }
}

#[tokio::test]
async fn an_instance_serves_sixteen_streams_at_once() {
    let scene = Scene::start(kept()).await;
    let gate = Gate::default();
    scene.upstream_answers(held_after_one(&gate));
    let mut streams = Vec::new();
    for _ in 0..REQUESTS_AT_ONCE {
        let mut stream = scene.stream().await;
        stream.until("one").await;
        streams.push(stream);
    }
    gate.open();
    for text in join_all(streams.iter_mut().map(Connection::rest)).await {
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.contains("three") && text.ends_with("data: [DONE]\n\n"), "{text}");
    }
}

#[tokio::test]
async fn an_instance_is_used_again_and_replaced_after_128_requests() {
    let scene = Scene::start(kept()).await;
    let mut instances = Vec::new();
    for _ in 0..=REQUESTS_PER_INSTANCE {
        instances.push(instance(&scene.get("/healthz").await));
    }
    let (replaced, used) = instances.split_last().unwrap();
    assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), 1);
    assert_ne!(replaced, &used[0]);
}

/// Each piece leaves the component before the next one comes in.
#[tokio::test]
async fn a_stream_passes_piece_by_piece() {
    let scene = Scene::start(kept()).await;
    let gate = Gate::default();
    scene.upstream_answers(held_after_one(&gate));
    let mut stream = scene.stream().await;
    let first = stream.until("one").await;
    assert!(!first.contains("three"), "{first}");
    gate.open();
    stream.until("data: [DONE]").await;
}

/// Spin shows the component that its client is gone when it next writes; a comment in a silent stream is enough.
#[tokio::test]
async fn a_client_that_leaves_a_silent_stream_is_noticed_at_the_next_comment() {
    let scene = Scene::start(kept()).await;
    scene.upstream_answers(Reply::turn(Turn::says("one two three")).first_frames(3).then(Step::Stall));
    let mut stream = scene.stream().await;
    stream.until("one").await;
    let left = Instant::now();
    drop(stream);
    scene.upstream.request(1).await.peer_left(KEEPALIVE + ABORT_BOUND).await;
    println!("the upstream saw it after {} ms", left.elapsed().as_millis());
    scene.spin.logged("the request is settled", |spin| settled(spin, "client_gone") == 1).await;
}

#[tokio::test]
async fn every_request_is_settled_once_however_it_ends() {
    let scene = Scene::start(kept()).await;
    assert!(scene.chats(5).await.iter().all(|answer| answer.status == 200));
    scene.stream().await.rest().await;
    scene.upstream_answers(Reply::turn(Turn::says("one two three")).first_frames(3).then(Step::Stall));
    for _ in 0..3 {
        scene.stream().await.until("one").await;
    }
    scene.upstream_answers(Reply::error(500, "broken", "server_error", None, None));
    assert_eq!(scene.chat(json!({})).await.status, 502);
    scene
        .spin
        .logged("all are settled", |spin| settled(spin, "ok") == 6 && settled(spin, "client_gone") == 3)
        .await;
    // Were one settled twice, the second line would not come later than the next request's.
    scene.upstream_answers(Reply::turn(Turn::says("hello")));
    assert_eq!(scene.chat(json!({})).await.status, 200);
    scene.spin.logged("so is the next one", |spin| settled(spin, "ok") == 7).await;
    let all = scene.spin.events().iter().filter(|event| event["message"] == "chat_completion").count();
    assert_eq!(all, 11);
}

fn settled(spin: &system_tests::spin::Spin, outcome: &str) -> usize {
    let settled =
        |event: &&serde_json::Value| event["message"] == "chat_completion" && event["outcome"] == outcome;
    spin.events().iter().filter(settled).count()
}

/// The request that finds the configuration stale is answered with what is known; the look into the store goes on without
/// it, and without any other request.
#[tokio::test]
async fn a_look_into_the_store_outlives_the_request_that_set_it_off() {
    let mut options = kept();
    options.variables.insert("DYAD_CONFIG_REFRESH_MS", "10".to_owned());
    options.variables.insert("DYAD_CONFIG_MAX_AGE_MS", "3600000".to_owned());
    let scene = Scene::start(options).await;
    let models = || async {
        let answer = scene.get("/v1/models").await;
        (instance(&answer), answer.json()["data"].as_array().unwrap().len())
    };
    let (first, before) = models().await;
    scene.table.run(&["providers", "remove", "fake"]).await;
    within(SOON, "the change is seen", async {
        loop {
            let (now, left) = models().await;
            assert_eq!(now, first, "the same instance has to see it");
            if left == 0 {
                break;
            }
            assert_eq!(left, before);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// What a client sends is not gathered on the way, but for the one copy that the gateway needs.
#[tokio::test]
async fn a_request_of_22_mib_passes() {
    let scene = Scene::start(kept()).await;
    let rest = chat_len();
    let text = "x".repeat((22 << 20) - rest);
    let answer = scene.chat(json!({"messages": [{"role": "user", "content": text}]})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        scene.upstream.last_request().json()["messages"][0]["content"].as_str().unwrap().len(),
        text.len()
    );
    let answer = scene.chat(json!({"messages": [{"role": "user", "content": format!("{text}xx")}]})).await;
    assert_eq!(answer.status, 413);
}

/// The length of everything else.
fn chat_len() -> usize {
    let body = system_tests::fixture::chat_body(json!({"messages": [{"role": "user", "content": ""}]}));
    body.to_string().len()
}
