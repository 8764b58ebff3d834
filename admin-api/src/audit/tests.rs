use catalog::testing::{SeedStore as _, by};
use catalog::{AuditStore as _, By, KeySecretCheck, Provider, ProviderStore as _};
use http::Method;
use serde_json::json;

use super::*;
use crate::Role;
use crate::testing::{Reply, TestApp, request, token, with_header};

fn provider(name: &str) -> Provider {
    let raw = json!({"name": name, "type": "local", "base_url": "http://127.0.0.1:11434/v1"});
    Provider::check(&raw.into()).unwrap()
}

/// Five changes, one each second from 10 s after the epoch on, by ada and bob in turn.
async fn changed() -> TestApp {
    let app = TestApp::new();
    for (index, name) in ["a", "b", "c", "a", "b"].into_iter().enumerate() {
        let by = By {
            actor: ["ada", "bob"][index % 2].to_owned(),
            request_id: format!("req_{index}"),
            at_ms: 10_000 + 1_000 * index as u64,
            ..by(if index < 3 { Action::Create } else { Action::Update })
        };
        let stored =
            catalog::testing::stored(&Provider { rank: u32::try_from(index).unwrap(), ..provider(name) });
        app.store.put_provider(&stored, (index >= 3).then_some(1), &by).await.unwrap();
    }
    app
}

fn seqs(reply: &Reply) -> Vec<u64> {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body["data"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn entries_are_shown_the_latest_first() {
    let app = changed().await;
    let reply = app.get("/admin/audit").await;
    assert_eq!(seqs(&reply), [5, 4, 3, 2, 1]);
    assert_eq!((&reply.body["object"], &reply.body["nextCursor"]), (&json!("list"), &Value::Null));
    let [latest, .., first] = &reply.body["data"].as_array().unwrap()[..] else { panic!() };
    assert_eq!(first["at"], "1970-01-01T00:00:10.000Z");
    assert_eq!(
        (&first["actor"], &first["requestId"], &first["action"]),
        (&json!("ada"), &json!("req_0"), &json!("create"))
    );
    assert_eq!((&first["object"], &first["before"]), (&json!("provider/a"), &Value::Null));
    assert_eq!((&latest["before"]["rank"], &latest["after"]["rank"]), (&json!(1), &json!(4)));
    assert_eq!(first["previousHash"], "0".repeat(64));
    let head = app.store.audit_head().await.unwrap();
    assert_eq!(latest["hash"], hex32::text(&head.hash));

    app.store.seed_key_secret(KeySecretCheck([7; 32]), None).await.unwrap();
    let reply = app.get("/admin/audit?object=key-secret").await;
    assert_eq!(reply.body["data"][0]["after"], json!({"check": "07".repeat(32)}));
}

#[tokio::test]
async fn entries_are_filtered() {
    let app = changed().await;
    for (query, expected) in [
        ("actor=bob", &[4, 2][..]),
        ("actor=nobody", &[]),
        ("object=provider/a", &[4, 1]),
        ("object=provider%2Fb", &[5, 2]),
        ("action=update", &[5, 4]),
        ("action=create&actor=ada", &[3, 1]),
        ("from=1970-01-01T00:00:12Z&until=1970-01-01T00:00:14Z", &[4, 3]),
        ("from=1970-01-01T01:00:14%2B01:00", &[5]),
    ] {
        assert_eq!(seqs(&app.get(&format!("/admin/audit?{query}")).await), expected, "{query}");
    }
}

#[tokio::test]
async fn pages_follow_each_other() {
    let app = changed().await;
    let (mut found, mut path) = (Vec::new(), "/admin/audit?limit=2".to_owned());
    loop {
        let reply = app.get(&path).await;
        let page = seqs(&reply);
        assert!(page.len() <= 2);
        found.extend(page);
        let Some(cursor) = reply.body["nextCursor"].as_str() else { break };
        path = format!("/admin/audit?limit=2&cursor={cursor}");
        // What happens meanwhile moves nothing.
        app.store.seed_provider(&provider(&format!("new-{}", found.len())), None).await.unwrap();
    }
    assert_eq!(found, [5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn mistakes_in_a_query_are_named() {
    let app = TestApp::new();
    let reply =
        app.get("/admin/audit?from=yesterday&until=2026&action=destroy&limit=0&who=me&actor=a&actor=b").await;
    assert_eq!((reply.status.as_u16(), reply.code()), (400, "invalid_request"));
    assert_eq!(reply.pointers(), ["/actor", "/from", "/until", "/action", "/limit", "/who"]);
    for cursor in ["x", "-1", "1.5", "99999999999999999999"] {
        let reply = app.get(&format!("/admin/audit?cursor={cursor}")).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (400, "invalid_cursor"), "{cursor}");
    }
}

#[tokio::test]
async fn the_log_is_verified() {
    let app = TestApp::new();
    let nothing = json!({"ok": true, "entries": 0, "head": {"seq": 0, "hash": "0".repeat(64)}});
    assert_eq!(app.get("/admin/audit/verify").await.body, nothing);
    let app = changed().await;
    let head = app.store.audit_head().await.unwrap();
    let whole = json!({"ok": true, "entries": 5, "head": {"seq": 5, "hash": hex32::text(&head.hash)}});
    assert_eq!(app.get("/admin/audit/verify").await.body, whole);

    let third = app.store.audit_from(3, 1).await.unwrap()[0].hash;
    let anchored = |seq: u64, hash: &str| format!("/admin/audit/verify?anchorSeq={seq}&anchorHash={hash}");
    assert_eq!(app.get(&anchored(3, &hex32::text(&third).to_uppercase())).await.body, whole);
    for (seq, reason) in [(2, "not the one that was noted"), (6, "missing")] {
        let broken = app.get(&anchored(seq, &hex32::text(&third))).await;
        assert_eq!(
            (broken.status.as_u16(), &broken.body["ok"], &broken.body["seq"]),
            (200, &json!(false), &json!(seq))
        );
        assert!(broken.body["reason"].as_str().unwrap().contains(reason), "{broken:?}");
    }
    for (query, pointer) in [
        ("anchorSeq=1", "/anchorHash"),
        (&*format!("anchorHash={}", "0".repeat(64)), "/anchorSeq"),
        ("anchorSeq=-1&anchorHash=0", "/anchorSeq"),
        ("anchorHash=xyz", "/anchorHash"),
        ("deep=true", "/deep"),
    ] {
        let reply = app.get(&format!("/admin/audit/verify?{query}")).await;
        assert_eq!((reply.status.as_u16(), reply.pointers()[0]), (400, pointer), "{query}");
    }
}

#[tokio::test]
async fn a_viewer_reads_the_log_and_nobody_writes_it() {
    let app = changed().await;
    for path in ["/admin/audit", "/admin/audit/verify"] {
        let viewer = format!("Bearer {}", token("vera", Role::Viewer));
        let get = with_header(request(Method::GET, path, Value::Null), "authorization", &viewer);
        assert_eq!(app.send(get).await.status, 200);
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert_eq!(app.send(request(method, path, Value::Null)).await.status, 405);
        }
    }
}
