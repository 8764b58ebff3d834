//! `spin.toml`: what it does not give the component, the component does not have.

use serde_json::json;
use system_tests::config::UPSTREAM_CREDENTIAL_VARIABLE;
use system_tests::secrets;
use system_tests::spin::{Options, component};

use crate::Scene;

/// Spin has to load it at a cold start.
const MAX_COMPONENT_BYTES: u64 = 3_000_000;

#[test]
fn the_component_is_small() {
    let bytes = std::fs::metadata(component()).unwrap().len();
    println!("the component has {bytes} bytes");
    assert!(bytes <= MAX_COMPONENT_BYTES);
}

#[tokio::test]
async fn a_gateway_without_its_variables_says_which() {
    let mut options = Options::default();
    options.variables.insert("AWS_REGION", String::new());
    options.variables.insert("DYAD_KEY_SECRET", "too short for a secret".to_owned());
    options.variables.insert("DYAD_KEEPALIVE_MS", "soon".to_owned());
    secrets::register("too short for a secret");
    let scene = Scene::start(options).await;
    for path in ["/healthz", "/v1/models"] {
        let answer = scene.get(path).await;
        assert_eq!(answer.status, 503);
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "not_configured");
        let message = error["message"].as_str().unwrap();
        for name in ["aws_region: it is not set", "dyad_key_secret: ", "dyad_keepalive_ms: "] {
            assert!(message.contains(name), "{name}: {message}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_allowed_is_not_called() {
    let mut options = Options::default();
    options.variables.insert("DYAD_FURTHER_UPSTREAM", "http://127.0.0.1:1".to_owned());
    let scene = Scene::start(options).await;
    let answer = scene.chat(json!({})).await;
    assert_eq!((answer.status, &answer.error()["code"]), (502, &json!("upstream_unavailable")));
    assert!(scene.upstream.requests().is_empty());
    scene.spin.logged("why", |spin| spin.log().contains("allowed_outbound_hosts")).await;
}

#[tokio::test]
async fn a_credential_without_its_variable_is_named_in_the_log() {
    let mut options = Options::default();
    options.variables.insert(UPSTREAM_CREDENTIAL_VARIABLE, String::new());
    let scene = Scene::start(options).await;
    assert!(scene.chat(json!({})).await.status >= 400);
    let says = format!("{UPSTREAM_CREDENTIAL_VARIABLE} is empty");
    scene.spin.logged("which", |spin| spin.log().contains(&says)).await;
}

/// A call says whom it goes to and how long it is, as any HTTP client's: not all upstreams take chunks.
#[tokio::test]
async fn a_call_has_a_length_and_one_host() {
    let scene = Scene::start(Options::default()).await;
    assert_eq!(scene.chat(json!({})).await.status, 200);
    let request = scene.upstream.last_request();
    assert_eq!(request.headers.all("host").collect::<Vec<_>>(), [scene.upstream.address().to_string()]);
    assert_eq!(request.headers.get("content-length"), Some(&*request.body.len().to_string()));
    assert_eq!(request.headers.get("transfer-encoding"), None);
}
