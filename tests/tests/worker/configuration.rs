//! Variables, secrets, and what there is without them.

use serde_json::{Value, json};
use system_tests::config::UPSTREAM_CREDENTIAL_VARIABLE;
use system_tests::worker::Options;

use crate::Scene;

fn with(name: &'static str, value: &str) -> Options {
    Options { variables: [(name, value.to_owned())].into(), ..Options::default() }
}

#[tokio::test]
async fn a_worker_without_its_variables_says_which() {
    let mut options = with("DYAD_TABLE", "");
    options.variables.insert("DYAD_KEEPALIVE_MS", "soon".to_owned());
    options.variables.insert("DYAD_KEY_SECRET", "too-short".to_owned());
    let scene = Scene::start(options).await;
    // Each request looks again.
    for _ in 0..2 {
        let answer = scene.get("/v1/models").await;
        assert_eq!(answer.status, 503);
        let error = answer.error();
        assert_eq!(error["code"], "not_configured");
        let message = error["message"].as_str().unwrap();
        for name in ["DYAD_TABLE", "DYAD_KEEPALIVE_MS", "DYAD_KEY_SECRET"] {
            assert!(message.contains(name), "{name}: {message}");
        }
        assert!(!message.contains("too-short"), "{message}");
    }
    let events = scene.worker.events();
    assert!(events.iter().any(|event| event["level"] == "ERROR"), "{events:?}");
}

#[tokio::test]
async fn a_table_that_is_not_there_is_a_503() {
    let scene = Scene::start(with("DYAD_TABLE", "another-table")).await;
    assert_eq!(scene.chat(json!({})).await.status, 503);
    assert_eq!(scene.get("/ready").await.status, 503);
    assert_eq!(scene.get("/healthz").await.status, 200);
}

/// Its provider is left out: the client is told no more than that the model is not there.
#[tokio::test]
async fn a_credential_that_is_no_secret_of_the_worker_is_named_in_the_log() {
    let scene = Scene::start(with(UPSTREAM_CREDENTIAL_VARIABLE, "")).await;
    let answer = scene.chat(json!({})).await;
    assert_eq!(answer.error()["code"], "model_not_found");
    let named = |event: &Value| {
        event["provider"] == "fake"
            && event["reason"].as_str().unwrap().contains(UPSTREAM_CREDENTIAL_VARIABLE)
    };
    scene.worker.logged("the secret is named", |events| events.iter().any(named)).await;
}
