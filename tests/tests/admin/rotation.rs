//! Upstream credentials and the master key change while 200 requests a second are served: none fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use system_tests::admin::{Admin, provider, run};
use system_tests::raw::Connection;
use system_tests::upstream::FakeUpstream;

use crate::{chat, chat_request, gateway, until};

const REQUESTS_PER_SECOND: u32 = 200;
const CONNECTIONS: u32 = 8;
const ROTATIONS: usize = 5;

#[tokio::test]
async fn no_request_fails_while_everything_rotates() {
    let credential = |number: usize| format!("sk-rotating-{number}-3c1b5a7d9e");
    let all: Vec<String> = (0..=ROTATIONS).map(credential).collect();
    for secret in &all {
        system_tests::secrets::register(secret);
    }
    let upstream = FakeUpstream::start().await;
    upstream.takes_only(&[&all[0]]);
    let gateway = Arc::new(gateway().await);
    let admin = Admin::of(&gateway).await;
    admin.post("/admin/providers", &provider("busy", &upstream.base_url(), &all[0], &["m"])).await;
    let (key, _) = admin.make_key(&json!({"label": "load"})).await;
    until("the model is served", || chat(&gateway, &key, "m"), |answer| answer.status == 200).await;

    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (gateway, key, stop, served) = (gateway.clone(), key.clone(), stop.clone(), served.clone());
            tokio::spawn(async move {
                let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hello!"}]});
                let request = chat_request(&gateway, &key, &body);
                let mut connection = Connection::open(&gateway).await;
                let mut pace =
                    tokio::time::interval(Duration::from_secs(1) * CONNECTIONS / REQUESTS_PER_SECOND);
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let answer = connection.request(&request).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    for pair in all.windows(2) {
        // As a vendor does it: both are good for a while, then the old one is not.
        upstream.takes_only(&[&pair[0], &pair[1]]);
        let rotation = json!({"apiKey": pair[1], "overlapSeconds": 60});
        admin.post("/admin/providers/busy/credentials", &rotation).await;
        run(&gateway.data_dir(), &["secrets", "new-key"]).await;
        let rewrapped = admin.post("/admin/secrets/rewrap", &json!({})).await;
        assert!(rewrapped["rewrapped"].as_u64() >= Some(1), "{rewrapped}");
        assert_eq!(rewrapped["failed"], json!([]), "{rewrapped}");
        let newest = format!("Bearer {}", pair[1]);
        let uses_newest = || upstream.last_request().headers.get("authorization") == Some(&newest);
        until("the new credential is used", || chat(&gateway, &key, "m"), |_| uses_newest()).await;
        upstream.takes_only(&[&pair[1]]);
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no request failed");
    }
    assert!(served.load(Ordering::Relaxed) > 500, "{served:?} requests are no load");
    assert_eq!(admin.get("/admin/audit/verify").await["ok"], true);
}
