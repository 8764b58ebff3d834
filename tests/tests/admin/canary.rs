//! A secret is put wherever one can be, and then looked for wherever it must not be: every answer (the harness searches
//! each), the log, the audit log, the metrics, and the files of the data directory.

use std::fs;

use serde_json::json;
use system_tests::admin::{Admin, provider, run};
use system_tests::config::Config;
use system_tests::gateway::Gateway;
use system_tests::raw::{Connection, Request};
use system_tests::secrets;
use system_tests::turn::Turn;
use system_tests::upstream::{FakeUpstream, QUOTED_AUTHORIZATION, Reply};

use crate::{chat, until};

#[tokio::test]
async fn no_secret_is_shown_or_kept_in_clear() {
    let canary = |place: &str| {
        let secret = format!("sk-canary-{place}-{}", "c0ffee".repeat(4));
        secrets::register(&secret);
        secret
    };
    let upstream = FakeUpstream::start().await;
    let gateway = Gateway::start_with_arguments(&Config::new([]), &["--metrics", "127.0.0.1:0"]).await;
    let admin = Admin::of(&gateway).await;

    // Where it belongs, and rotated, and with an upstream that quotes it in its refusals.
    let first = canary("first");
    let base = upstream.base_url();
    admin.post("/admin/providers", &provider("canary", &base, &first, &["m"])).await;
    let second = canary("second");
    admin.post("/admin/providers/canary/credentials", &json!({"apiKey": second})).await;
    let quoting = format!("Your key {QUOTED_AUTHORIZATION} is wrong");
    upstream.on("m", Reply::error(401, &quoting, "invalid_request_error", Some("invalid_api_key"), None));
    let tested = admin.post("/admin/providers/canary/test", &json!({})).await;
    assert_eq!(tested["ok"], false, "{tested}");
    for stream in [false, true] {
        upstream.on("m", Reply::turn(Turn::says(&format!("You sent Bearer {second}."))));
        let tested = admin.post("/admin/providers/canary/test", &json!({"stream": stream})).await;
        assert_eq!(tested["ok"], true, "{tested}");
        assert!(tested["answer"].as_str().is_some_and(|text| text.contains("***")), "{tested}");
    }
    upstream.on("m", Reply::turn(Turn::says("Hello.")));
    let (key, record) = admin.make_key(&json!({"label": "canary"})).await;
    until("the model is served", || chat(&gateway, &key, "m"), |answer| answer.status != 404).await;
    let id = record["id"].as_str().expect("a key has an id");
    let rotated = admin.post(&format!("/admin/keys/{id}/rotate"), &json!({})).await;
    let rotated = rotated["key"].as_str().expect("a rotated key is shown").to_owned();
    secrets::register(&rotated);

    // With an idempotency key, whose answer is kept.
    let request = admin.prepare("POST", "/admin/keys", None).header("idempotency-key", "canary-1");
    let kept = admin.request(request.json(&json!({"label": "kept"}))).await.json();
    let kept = kept["key"].as_str().expect("a new key is shown").to_owned();

    // Where it does not belong: members of other names, paths, queries, headers, texts that are no JSON.
    let wrong = canary("wrong");
    for body in [
        json!({"apiKey": wrong}),
        json!({"name": "x", "type": "local", "adapterConfig": {"baseUrl": "http://127.0.0.1:9/v1", "apiKey": wrong}}),
        json!({"name": "x", "type": "local", "adapterConfig": {"baseUrl": format!("http://u:{wrong}@127.0.0.1:9/v1")}}),
        json!({"name": "x", "type": "local", "adapterConfig": {"baseUrl": "http://127.0.0.1:9/v1"}, "credentials": {"key": wrong}}),
        json!({"name": "x", "type": "local", "adapterConfig": {"baseUrl": "http://127.0.0.1:9/v1"}, "credentials": wrong}),
        json!([wrong]),
        json!(wrong),
    ] {
        let refused = admin.send("POST", "/admin/providers", Some(&body)).await;
        assert!((400..500).contains(&refused.status), "{}: {}", refused.status, refused.text());
    }
    let broken =
        admin.prepare("POST", "/admin/providers", None).body("application/json", format!("{{\"{wrong}"));
    assert_eq!(admin.request(broken).await.status, 400);
    let cursor = format!("/admin/providers?cursor=!{wrong}");
    assert_eq!(admin.send("GET", &cursor, None).await.status, 400);
    let stranger = Request::bare("GET", "/admin/providers").header("host", gateway.address());
    let refused = stranger.header("authorization", format!("Bearer {wrong}"));
    assert_eq!(Connection::open(&gateway).await.request(&refused).await.status, 401);

    // What is read is searched by the harness.
    for target in [
        "/admin/providers",
        "/admin/keys",
        "/admin/audit?limit=100",
        "/admin/usage",
        "/openapi.json",
        "/admin/runners",
    ] {
        admin.get(target).await;
    }
    let metrics = gateway.metrics_url.clone().expect("metrics were asked for");
    let metrics = Gateway::at(metrics, "no-key-is-needed".to_owned());
    let request = Request::bare("GET", "/metrics").header("host", metrics.address());
    let exposed = Connection::open(&metrics).await.request(&request).await;
    assert!(exposed.text().contains("# EOF") || exposed.text().contains("# TYPE"), "metrics are exposed");
    let listed = run(&gateway.data_dir(), &["providers", "show", "canary", "--json"]).await;
    secrets::assert_none_in("the command line", listed.as_bytes());

    // The kept answer shows its key to whoever sends the same request again, and to nobody else.
    secrets::register(&kept);
    for entry in fs::read_dir(gateway.data_dir()).expect("the data directory is there") {
        let path = entry.expect("its entries can be read").path();
        if path.is_file() {
            let bytes = fs::read(&path).expect("the test runs as its owner");
            let of_this_kind = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            secrets::assert_none_in(&of_this_kind, &bytes);
        }
    }
    gateway.stop().await;
}
