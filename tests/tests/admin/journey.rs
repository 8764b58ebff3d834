//! The way of an administrator: provider, test, key, chat, rotation during a chat, audit and usage.

use serde_json::json;
use system_tests::SOON;
use system_tests::admin::{Admin, provider};
use system_tests::raw::Connection;
use system_tests::turn::Turn;
use system_tests::upstream::{FakeUpstream, Gate, Reply, Step};

use crate::{audited, chat, chat_request, gateway, until};

const FIRST: &str = "sk-journey-first-4f1d2c";
const SECOND: &str = "sk-journey-second-9a8b7c";

#[tokio::test]
async fn everything_works_without_a_restart() {
    for secret in [FIRST, SECOND] {
        system_tests::secrets::register(secret);
    }
    let upstream = FakeUpstream::start().await;
    upstream.takes_only(&[FIRST]);
    let gateway = gateway().await;
    let admin = Admin::of(&gateway).await;

    let made =
        admin.post("/admin/providers", &provider("house", &upstream.base_url(), FIRST, &["house-1"])).await;
    assert_eq!((made["slug"].as_str(), made["version"].as_u64()), (Some("house"), Some(1)), "{made}");
    assert_eq!(made["credentials"]["apiKey"]["set"], true, "{made}");
    let tested = admin.post("/admin/providers/house/test", &json!({"stream": true})).await;
    assert_eq!(tested["ok"], true, "{tested}");
    assert!(tested["timing"]["endMs"].is_u64(), "{tested}");
    let shown = admin.get("/admin/providers/house").await;
    assert_eq!(shown["lastTest"]["ok"], true, "{shown}");

    let limits =
        json!({"label": "journey", "allowedModels": ["house-1"], "limits": {"requestsPerMinute": 600}});
    let (key, record) = admin.make_key(&limits).await;
    let answer =
        until("the model is served", || chat(&gateway, &key, "house-1"), |answer| answer.status == 200).await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "Hello from the fake upstream.");

    // A stream that began with the first credential goes on while it is rotated.
    let gate = Gate::default();
    let mut frames = Turn::says("One. Two.").frames("house-1", false);
    let rest = frames.split_off(1);
    let held = Reply::sse(frames.concat()).then(Step::Hold(gate.clone()));
    upstream.on("house-1", held.then(Step::Send(rest.concat().into())));
    let mut streaming = Connection::open(&gateway).await;
    let body =
        json!({"model": "house-1", "stream": true, "messages": [{"role": "user", "content": "Count."}]});
    streaming.send(chat_request(&gateway, &key, &body).bytes()).await;
    assert_eq!(streaming.head().await.status, 200);
    upstream.on("house-1", Reply::turn(Turn::says("Hello again.")));
    upstream.takes_only(&[FIRST, SECOND]);
    let rotated = admin
        .post("/admin/providers/house/credentials", &json!({"apiKey": SECOND, "overlapSeconds": 60}))
        .await;
    assert_eq!(rotated["credentials"]["apiKey"]["version"], 2, "{rotated}");
    gate.open();
    let rest = String::from_utf8(streaming.rest().await.to_vec()).expect("SSE is text");
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    let uses_second =
        || upstream.last_request().headers.get("authorization").is_some_and(|it| it.ends_with(SECOND));
    until(
        "the new credential is used",
        || chat(&gateway, &key, "house-1"),
        |answer| answer.status == 200 && uses_second(),
    )
    .await;

    let id = record["id"].as_str().expect("a key has an id");
    admin.call("DELETE", &format!("/admin/keys/{id}"), None).await;
    until("the key is refused", || chat(&gateway, &key, "house-1"), |answer| answer.status == 401).await;

    let log = audited(&admin).await;
    for entry in ["create provider/house", "rotate provider/house"] {
        assert!(log.iter().any(|line| line == entry), "{entry} is not in {log:?}");
    }
    for action in ["create", "revoke"] {
        assert!(log.contains(&format!("{action} key/{id}")), "{action} key/{id} is not in {log:?}");
    }
    assert_eq!(admin.get("/admin/audit/verify").await["ok"], true);

    let usage = || admin.send("GET", "/admin/usage?groupBy=key,model", None);
    let counted = until("the usage is written", usage, |answer| {
        answer.json()["data"].as_array().is_some_and(|rows| rows.iter().any(|row| row["key"] == id))
    });
    let counted = system_tests::within(SOON * 4, "usage", counted).await.json();
    let row = counted["data"].as_array().expect("a list").iter().find(|row| row["key"] == id).expect("found");
    assert!(row["requests"].as_u64() >= Some(3) && row["promptTokens"].as_u64() > Some(0), "{row}");
}
