//! What an administrator, or somebody with an administrator's token, may send by mistake or on purpose.

use serde_json::{Value, json};
use system_tests::admin::{Admin, provider};
use system_tests::config::Config;
use system_tests::gateway::Gateway;
use system_tests::raw::Connection;
use system_tests::turn::Turn;
use system_tests::upstream::{FakeUpstream, Gate, Reply, Step};

use crate::{chat, chat_request, gateway, until};

fn proxy_at(base_url: &str) -> Value {
    json!({"name": "x", "type": "proxy", "adapterConfig": {"baseUrl": base_url}})
}

#[tokio::test]
async fn addresses_inside_are_refused_however_they_are_written() {
    let allows_none = Config { private_upstream_hosts: Vec::new(), ..Config::new([]) };
    let gateway = Gateway::start(&allows_none).await;
    let admin = Admin::of(&gateway).await;
    for url in [
        "https://127.0.0.1/v1",
        "https://2130706433/v1",
        "https://0x7f.1/v1",
        "https://0177.0.0.1/v1",
        "https://[::1]/v1",
        "https://[::ffff:127.0.0.1]/v1",
        "https://[::ffff:a9fe:a9fe]/v1",
        "https://169.254.169.254/v1",
        "https://10.0.0.1/v1",
        "https://[fd00:ec2::254]/v1",
        "https://localhost/v1",
        "https://metadata.google.internal/v1",
        "https://0.0.0.0/v1",
        "https://100.64.0.1/v1",
    ] {
        let refused = admin.send("POST", "/admin/providers", Some(&proxy_at(url))).await;
        assert_eq!(refused.status, 400, "{url}: {}", refused.text());
        let error = refused.json();
        assert_eq!(error["error"]["details"][0]["pointer"], "/adapterConfig/baseUrl", "{url}: {error}");
    }
    assert_eq!(admin.get("/admin/providers?origin=store").await["data"], json!([]));
}

#[tokio::test]
async fn every_mistake_is_named_at_once() {
    let gateway = gateway().await;
    let admin = Admin::of(&gateway).await;
    let body = json!({
        "name": "", "slug": "../etc", "type": "local", "enabled": "yes", "__proto__": {}, "limits": {},
        "models": [{"dyadModelId": "a"}, {"dyadModelId": "a"}, {"dyadModelId": 7, "colour": "red"}],
        "adapterConfig": {"baseUrl": "ftp://x", "forwardHeaders": ["x-a\r\nx-b: c"], "timeouts": {"connectMs": 0}},
        "credentials": {"apiKey": 1},
    });
    let refused = admin.send("POST", "/admin/providers", Some(&body)).await;
    assert_eq!(refused.status, 400);
    let error = refused.json();
    let details = error["error"]["details"].as_array().expect("details are listed");
    for pointer in [
        "/name",
        "/slug",
        "/enabled",
        "/__proto__",
        "/limits",
        "/models/1/dyadModelId",
        "/models/2/dyadModelId",
        "/models/2/colour",
        "/adapterConfig/baseUrl",
        "/adapterConfig/forwardHeaders/0",
        "/adapterConfig/timeouts/connectMs",
        "/credentials/apiKey",
    ] {
        assert!(details.iter().any(|detail| detail["pointer"] == pointer), "{pointer} is missing: {error}");
    }
    for slug in ["a%2eb", "%2e%2e", "аdmin", "A", "a/b", "a b", "a\r\nb", &"a".repeat(64)] {
        let body = json!({"name": "n", "slug": slug, "type": "local", "adapterConfig": {"baseUrl": "http://127.0.0.1:9/v1"}});
        let refused = admin.send("POST", "/admin/providers", Some(&body)).await;
        assert_eq!(refused.status, 400, "{slug}: {}", refused.text());
    }
    let long = json!({"name": "n".repeat(1 << 20), "type": "local", "adapterConfig": {"baseUrl": "http://127.0.0.1:9/v1"}});
    assert_eq!(admin.send("POST", "/admin/providers", Some(&long)).await.status, 413);
}

#[tokio::test]
async fn a_lost_update_is_refused() {
    let gateway = gateway().await;
    let admin = Admin::of(&gateway).await;
    admin.post("/admin/providers", &provider("p", "http://127.0.0.1:9/v1", "env:NOWHERE", &["m"])).await;
    let patch = |rank: u32| {
        let request = admin.prepare("PATCH", "/admin/providers/p", None).header("if-match", "\"1\"");
        request.body("application/merge-patch+json", json!({"rank": rank}).to_string())
    };
    let first = admin.request(patch(1)).await;
    assert_eq!(
        (first.status, first.headers.get("etag").map(ToString::to_string)),
        (200, Some("\"2\"".into()))
    );
    let second = admin.request(patch(2)).await;
    assert_eq!((second.status, second.error()["code"].as_str()), (412, Some("version_mismatch")));
    assert_eq!(admin.get("/admin/providers/p").await["rank"], 1);
}

#[tokio::test]
async fn the_same_request_twice_makes_one() {
    let gateway = gateway().await;
    let admin = Admin::of(&gateway).await;
    let request = |label: &str| {
        let request = admin.prepare("POST", "/admin/keys", None).header("idempotency-key", "one-and-only");
        request.json(&json!({"label": label}))
    };
    let first = admin.request(request("a")).await.json();
    let again = admin.request(request("a")).await;
    assert_eq!(again.headers.get("idempotency-replayed").map(ToString::to_string), Some("true".into()));
    assert_eq!(again.json(), first);
    let other = admin.request(request("b")).await;
    assert_eq!((other.status, other.error()["code"].as_str()), (409, Some("idempotency_mismatch")));
    let keys = admin.get("/admin/keys").await;
    let made = keys["data"].as_array().expect("a list").iter().filter(|key| key["label"] == "a").count();
    assert_eq!(made, 1, "{keys}");
}

#[tokio::test]
async fn requests_under_way_outlive_their_provider() {
    let upstream = FakeUpstream::start().await;
    let gateway = gateway().await;
    let admin = Admin::of(&gateway).await;
    let credential = "sk-short-lived-123456";
    system_tests::secrets::register(credential);
    admin.post("/admin/providers", &provider("gone", &upstream.base_url(), credential, &["m"])).await;
    let (key, _) = admin.make_key(&json!({"label": "k"})).await;
    until("the model is served", || chat(&gateway, &key, "m"), |answer| answer.status == 200).await;
    let gate = Gate::default();
    let mut frames = Turn::says("One. Two.").frames("m", false);
    let rest = frames.split_off(1);
    let held = Reply::sse(frames.concat()).then(Step::Hold(gate.clone()));
    upstream.on("m", held.then(Step::Send(rest.concat().into())));
    let mut streaming = Connection::open(&gateway).await;
    let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "Count."}]});
    streaming.send(chat_request(&gateway, &key, &body).bytes()).await;
    assert_eq!(streaming.head().await.status, 200);
    upstream.on("m", Reply::turn(Turn::says("Hello again.")));
    assert_eq!(admin.send("DELETE", "/admin/providers/gone", None).await.status, 204);
    until("the model is gone", || chat(&gateway, &key, "m"), |answer| answer.status == 404).await;
    gate.open();
    let rest = String::from_utf8(streaming.rest().await.to_vec()).expect("SSE is text");
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
}
