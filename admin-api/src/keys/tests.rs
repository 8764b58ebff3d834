use std::time::Duration;

use catalog::{ApiKeyHasher, AuditQuery, AuditStore as _, KeyStore as _, Secret};
use http::Method;
use serde_json::json;

use super::*;
use crate::testing::{NOW_MS, Reply, TestApp, request, with_header};

async fn created(app: &TestApp) -> Reply {
    app.post("/admin/keys", json!({"label": "laptop", "owner": "ada", "limits": {"requestsPerMinute": 60}}))
        .await
}

async fn actions(app: &TestApp) -> Vec<(Action, String)> {
    let page = app.store.audit(&AuditQuery { limit: 100, ..AuditQuery::default() }).await.unwrap();
    page.entries.into_iter().rev().map(|entry| (entry.action, entry.object)).collect()
}

#[tokio::test]
async fn a_key_is_made_shown_changed_and_revoked() {
    let app = TestApp::new();
    let made = created(&app).await;
    assert_eq!(made.status, 201, "{made:?}");
    let key = ApiKey::parse(made.body["key"].as_str().unwrap()).unwrap();
    let path = format!("/admin/keys/{}", key.id());
    assert_eq!((made.header("location"), made.header("etag")), (path.as_str(), "\"1\""));
    let stored = app.store.find_key(key.id()).await.unwrap().unwrap().value;
    assert!(ApiKeyHasher::new(&Secret::new("the key secret of tests")).verify(&key, &stored.hash));

    let shown = app.get(&path).await;
    let mut wanted = made.body.clone();
    wanted.as_object_mut().unwrap().remove("key");
    assert_eq!((shown.status.as_u16(), &shown.body), (200, &wanted));
    assert_eq!(
        wanted,
        json!({
            "id": key.id(), "label": "laptop", "owner": "ada", "createdAt": "2027-01-15T08:00:00.000Z",
            "expiresAt": null, "revokedAt": null, "lastUsedAt": null, "allowedModels": null,
            "limits": {"requestsPerMinute": 60, "concurrentRequests": null, "tokensPerMinute": null,
                       "tokensPerDay": null, "tokensPerMonth": null},
            "previousSecretUntil": null, "state": "active", "version": 1,
        })
    );

    let change = json!({"owner": null, "expiresAt": "2027-01-15T09:00:00+00:00", "allowedModels": ["a/b"],
        "limits": {"requestsPerMinute": null, "tokensPerDay": 1000.0}});
    let changed = app.patch(&path, change).await;
    assert_eq!((changed.status.as_u16(), changed.header("etag")), (200, "\"2\""), "{changed:?}");
    assert_eq!(changed.body["label"], "laptop");
    assert_eq!(changed.body["owner"], "");
    assert_eq!(changed.body["expiresAt"], "2027-01-15T09:00:00.000Z");
    assert_eq!(changed.body["allowedModels"], json!(["a/b"]));
    assert_eq!(changed.body["limits"]["requestsPerMinute"], Value::Null);
    assert_eq!(changed.body["limits"]["tokensPerDay"], 1000);
    assert_eq!(app.get(&path).await.body, changed.body);

    let revoked = app.delete(&path).await;
    assert_eq!((revoked.status.as_u16(), &revoked.body["state"]), (200, &json!("revoked")));
    assert_eq!(app.delete(&path).await.body, revoked.body, "again, the same");
    let object = format!("key/{}", key.id());
    assert_eq!(
        actions(&app).await,
        [
            (Action::Create, "key-secret".to_owned()),
            (Action::Create, object.clone()),
            (Action::Update, object.clone()),
            (Action::Revoke, object),
        ]
    );
}

#[tokio::test]
async fn every_mistake_is_named_at_once() {
    let app = TestApp::new();
    let body = json!({
        "label": " x", "owner": 5, "expiresAt": "2027-01-15T08:00:00Z", "allowedModels": ["ok", 7, ""],
        "limits": {"requestsPerMinute": 0, "tokensPerDay": 1.5, "__proto__": {}}, "constructor": 1, "Label": "x",
    });
    let refused = app.post("/admin/keys", body).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_request"));
    let mut pointers = refused.pointers();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/Label",
            "/allowedModels/1",
            "/allowedModels/2",
            "/constructor",
            "/expiresAt",
            "/label",
            "/limits/__proto__",
            "/limits/requestsPerMinute",
            "/limits/tokensPerDay",
            "/owner",
        ]
    );
    assert_eq!(refused.body["error"]["type"], "invalid_request_error");
    assert!(actions(&app).await.is_empty());

    for (body, pointer) in [
        (json!([]), ""),
        (json!({}), "/label"),
        (json!({"label": null}), "/label"),
        (json!({"label": "x".repeat(1 << 19)}), "/label"),
        (json!({"label": "x\r\ny"}), "/label"),
        (json!({"label": "x", "allowedModels": vec!["m"; 1_001]}), "/allowedModels"),
        (json!({"label": "x", "limits": {"tokensPerMonth": 1e16}}), "/limits/tokensPerMonth"),
    ] {
        let refused = app.post("/admin/keys", body).await;
        assert_eq!((refused.status.as_u16(), refused.pointers()), (400, vec![pointer]), "{refused:?}");
    }
}

#[tokio::test]
async fn an_expiry_that_is_over_may_stay() {
    let app = TestApp::new();
    let made = app.post("/admin/keys", json!({"label": "x", "expiresAt": "2027-01-15T08:00:01Z"})).await;
    let path = format!("/admin/keys/{}", made.body["id"].as_str().unwrap());
    app.engine.advance(Duration::from_secs(2));
    let renamed = app.patch(&path, json!({"label": "y"})).await;
    assert_eq!((renamed.status.as_u16(), &renamed.body["state"]), (200, &json!("expired")));
    let refused = app.patch(&path, json!({"expiresAt": "2027-01-15T08:00:01.500Z"})).await;
    assert_eq!(refused.pointers(), ["/expiresAt"]);
    assert_eq!(app.post(&format!("{path}/rotate"), json!({})).await.status, 400);
    let renewed = app.patch(&path, json!({"expiresAt": null})).await;
    assert_eq!((renewed.status.as_u16(), &renewed.body["state"]), (200, &json!("active")));
}

#[tokio::test]
async fn a_rotated_key_keeps_its_id_and_the_old_secret_for_a_while() {
    let app = TestApp::new();
    let made = created(&app).await;
    let old = ApiKey::parse(made.body["key"].as_str().unwrap()).unwrap();
    let path = format!("/admin/keys/{}", old.id());
    let rotated = app.send(request(Method::POST, &format!("{path}/rotate"), Value::Null)).await;
    assert_eq!((rotated.status.as_u16(), rotated.header("etag")), (200, "\"2\""), "{rotated:?}");
    let new = ApiKey::parse(rotated.body["key"].as_str().unwrap()).unwrap();
    assert_eq!(new.id(), old.id());
    assert_ne!(new.expose(), old.expose());
    assert_eq!(rotated.body["previousSecretUntil"], "2027-01-15T09:00:00.000Z");
    let hasher = ApiKeyHasher::new(&Secret::new("the key secret of tests"));
    let stored = app.store.find_key(old.id()).await.unwrap().unwrap().value;
    let previous = stored.previous.unwrap();
    assert!(hasher.verify(&new, &stored.hash) && hasher.verify(&old, &previous.hash));
    assert_eq!(previous.until_ms, NOW_MS + 3_600_000);

    let again = app.post(&format!("{path}/rotate"), json!({"graceSeconds": 0})).await;
    assert_eq!(again.body["previousSecretUntil"], Value::Null);
    assert_eq!(app.store.find_key(old.id()).await.unwrap().unwrap().value.previous, None);
    for grace in [json!(604_801), json!(-1), json!("1"), json!(0.5)] {
        let refused = app.post(&format!("{path}/rotate"), json!({"graceSeconds": grace})).await;
        assert_eq!(refused.pointers(), ["/graceSeconds"]);
    }
    app.delete(&path).await;
    assert_eq!(app.post(&format!("{path}/rotate"), json!({})).await.status, 400);
}

#[tokio::test]
async fn a_change_is_made_to_the_version_that_was_read() {
    let app = TestApp::new();
    let path = format!("/admin/keys/{}", created(&app).await.body["id"].as_str().unwrap());
    let change = |tag: &str, label: &str| {
        with_header(request(Method::PATCH, &path, json!({"label": label})), "if-match", tag)
    };
    assert_eq!(app.send(change("\"1\"", "a")).await.status, 200);
    let late = app.send(change("\"1\"", "b")).await;
    assert_eq!((late.status.as_u16(), late.code()), (412, "version_mismatch"));
    assert_eq!(app.send(change("*", "c")).await.status, 200);
    assert_eq!(
        app.send(with_header(request(Method::DELETE, &path, Value::Null), "if-match", "\"1\"")).await.status,
        412
    );
    for bad in ["1", "\"x\"", "\"1\", \"2\"", "W/\"1\"", ""] {
        let refused = app.send(change(bad, "d")).await;
        assert_eq!((refused.status.as_u16(), refused.pointers()), (400, vec!["/if-match"]), "{bad}");
    }
    assert_eq!(app.get(&path).await.body["label"], "c");
}

#[tokio::test]
async fn keys_are_listed_in_pages_and_by_state_and_owner() {
    let app = TestApp::new();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(created(&app).await.body["id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    app.delete(&format!("/admin/keys/{}", ids[2])).await;
    let mut seen: Vec<String> = Vec::new();
    let mut path = "/admin/keys?limit=2".to_owned();
    loop {
        let page = app.get(&path).await;
        let data = page.body["data"].as_array().unwrap();
        assert!((1..=2).contains(&data.len()));
        assert!(data.iter().all(|key| key.get("key").is_none()));
        seen.extend(data.iter().map(|key| key["id"].as_str().unwrap().to_owned()));
        let Some(next) = page.body["nextCursor"].as_str() else { break };
        path = format!("/admin/keys?limit=2&cursor={next}");
    }
    assert_eq!(seen, ids);
    let of = async |query: &str| {
        app.get(&format!("/admin/keys?{query}")).await.body["data"].as_array().unwrap().len()
    };
    assert_eq!((of("state=active").await, of("state=revoked").await, of("state=expired").await), (4, 1, 0));
    assert_eq!((of("owner=ada").await, of("owner=bob").await), (5, 0));
    let refused = app.get("/admin/keys?limit=0&stat=active&state=x&owner=a&owner=b").await;
    assert_eq!(refused.pointers(), ["/owner", "/state", "/limit", "/stat"]);
    assert_eq!(app.get("/admin/keys?cursor=../x").await.code(), "invalid_cursor");
}

#[tokio::test]
async fn a_request_that_is_sent_again_gets_the_same_answer() {
    let app = TestApp::new();
    let create = |key: &str, label: &str| {
        with_header(request(Method::POST, "/admin/keys", json!({"label": label})), "idempotency-key", key)
    };
    let first = app.send(create("one", "a")).await;
    let again = app.send(create("one", "a")).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.bytes, again.bytes);
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    for name in ["location", "etag"] {
        assert_eq!(first.header(name), again.header(name));
        assert!(!again.header(name).is_empty());
    }
    assert_eq!(app.get("/admin/keys").await.body["data"].as_array().unwrap().len(), 1);

    let other = app.send(create("one", "b")).await;
    assert_eq!((other.status.as_u16(), other.code()), (409, "idempotency_mismatch"));
    assert_ne!(app.send(create("two", "a")).await.body["id"], first.body["id"]);
    let bob = with_header(
        create("one", "a"),
        "authorization",
        &format!("Bearer {}", crate::testing::token("bob", crate::Role::Admin)),
    );
    assert_eq!(app.send(bob).await.header("idempotency-replayed"), "", "another actor's key is another");

    // Errors are not kept.
    assert_eq!(app.send(create("three", "")).await.status, 400);
    assert_eq!(app.send(create("three", "a")).await.status, 201);
    for bad in ["", "a b", &"x".repeat(256)] {
        let refused = app.send(create(bad, "a")).await;
        assert_eq!((refused.status.as_u16(), refused.pointers()), (400, vec!["/idempotency-key"]), "{bad}");
    }
    app.engine.advance(Duration::from_secs(24 * 60 * 60 - 1));
    let token = mint_at(&app);
    let late = with_header(create("one", "a"), "authorization", &token);
    assert_eq!(app.send(late).await.header("idempotency-replayed"), "true");
    app.engine.advance(Duration::from_secs(1));
    let later = with_header(create("one", "a"), "authorization", &token);
    assert_eq!(app.send(later).await.header("idempotency-replayed"), "");
}

/// A token of ada's that begins now.
fn mint_at(app: &TestApp) -> String {
    use crate::Engine as _;
    let (secret, hour) = (Secret::new(crate::testing::TOKEN_SECRET), Duration::from_secs(3_600));
    let token = crate::mint(&secret, "ada", crate::Role::Admin, app.engine.unix_ms(), hour).unwrap();
    format!("Bearer {}", token.expose())
}

#[tokio::test]
async fn no_key_is_made_under_another_key_secret() {
    let app = TestApp::new();
    created(&app).await;
    let other = ApiKeyHasher::new(&Secret::new("another")).check();
    let by = catalog::testing::by(Action::Update);
    app.store.put_key_secret(other, Some(1), &by).await.unwrap();
    let refused = created(&app).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "unavailable"));
    assert_eq!(app.store.keys().await.unwrap().keys.len(), 1);
}
