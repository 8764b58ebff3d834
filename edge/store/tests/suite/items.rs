//! The items in the table: their form, and what happens to those of another form.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use catalog::{ApiKeyLimits, ApiKeyRecord, ProviderSlug, Store, StoreError};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::backend::{Backend, get_raw, put_raw};
use crate::records::{cli_provider, key, provider};

/// Stored items outlive the version that wrote them: a change here needs a new schema version.
#[tokio::test]
async fn the_form_stays_as_it_is() {
    let backend = Backend::embedded().await;
    let engine = backend.engine.unwrap();
    let key = ApiKeyRecord {
        expires_at_ms: Some(2_000),
        revoked_at_ms: Some(1_500),
        allowed_models: Some(vec!["m".to_owned()]),
        limits: ApiKeyLimits {
            requests_per_minute: Some(60),
            concurrent_requests: Some(4),
            tokens_per_minute: Some(100_000),
            tokens_per_day: Some(1_000_000),
            tokens_per_month: Some(10_000_000),
        },
        ..key(1)
    };
    backend.store.put_key(&key, None).await.unwrap();
    backend.store.put_provider(&provider("Ollama"), None).await.unwrap();

    let version = json!({
        "pk": { "S": "CONFIG" }, "sk": { "S": "VERSION" }, "schema_version": { "N": "1" }, "config_version": { "N": "2" },
    });
    assert_eq!(get_raw(&engine, "CONFIG", "VERSION"), version);
    let stored_key = json!({
        "pk": { "S": "KEY" }, "sk": { "S": key.id.as_str() }, "schema_version": { "N": "1" }, "record_version": { "N": "1" },
        "key_hash": { "B": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=" }, "label": { "S": "key 1" },
        "created_at_ms": { "N": "1000" }, "expires_at_ms": { "N": "2000" }, "revoked_at_ms": { "N": "1500" },
        "allowed_models": { "L": [{ "S": "m" }] },
        "requests_per_minute": { "N": "60" }, "concurrent_requests": { "N": "4" },
        "tokens_per_minute": { "N": "100000" }, "tokens_per_day": { "N": "1000000" },
        "tokens_per_month": { "N": "10000000" },
    });
    assert_eq!(get_raw(&engine, "KEY", key.id.as_str()), stored_key);
    let mut stored_provider = get_raw(&engine, "PROVIDER", "ollama");
    let body: Value = serde_json::from_str(stored_provider["body"]["S"].as_str().unwrap()).unwrap();
    stored_provider["body"] = Value::Null;
    let expected = json!({
        "pk": { "S": "PROVIDER" }, "sk": { "S": "ollama" }, "schema_version": { "N": "1" }, "record_version": { "N": "1" },
        "body": null,
    });
    assert_eq!(stored_provider, expected);
    let expected = json!({
        "name": "Ollama", "slug": "ollama", "type": "local", "description": "", "enabled": true, "rank": 100,
        "base_url": "http://127.0.0.1:11434/v1", "discover_models": true, "forward_headers": [], "models": [],
        "timeouts": { "connect_ms": 5_000, "first_byte_ms": 300_000, "idle_ms": 120_000, "total_ms": 3_600_000 },
    });
    assert_eq!(body, expected);

    backend.store.put_provider(&cli_provider("Claude"), None).await.unwrap();
    let stored_cli = get_raw(&engine, "PROVIDER", "claude");
    let body: Value = serde_json::from_str(stored_cli["body"]["S"].as_str().unwrap()).unwrap();
    let expected = json!({
        "name": "Claude", "slug": "claude", "type": "spawn-cli", "description": "", "enabled": true, "rank": 100,
        "cli": "claude", "model_parameter": "", "parameters": { "effort": "high" },
        "models": [{ "id": "m", "upstream_id": "opus" }],
        "timeouts": { "connect_ms": 5_000, "first_byte_ms": 300_000, "idle_ms": 120_000, "total_ms": 3_600_000 },
    });
    assert_eq!(body, expected);
}

/// `item` with some attributes changed, or removed (`null`).
fn with(item: &Value, changes: &Value) -> Value {
    let mut item = item.clone();
    for (name, value) in changes.as_object().unwrap() {
        item[name] = value.clone();
    }
    item.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    item
}

#[tokio::test]
async fn unreadable_providers_are_left_out_and_logged() {
    for backend in [Backend::embedded().await, Backend::over_http().await] {
        let (store, engine) = (backend.store, backend.engine.unwrap());
        for name in ["a", "z"] {
            store.put_provider(&provider(name), None).await.unwrap();
        }
        let good = with(&get_raw(&engine, "PROVIDER", "a"), &json!({ "sk": { "S": "bad" } }));
        for (case, changes) in [
            ("schema 2", json!({ "schema_version": { "N": "2" } })),
            ("schema_version", json!({ "schema_version": null })),
            ("schema_version", json!({ "schema_version": { "S": "1" } })),
            ("record_version", json!({ "record_version": null, "body": { "S": body_of("bad") } })),
            ("record_version", json!({ "record_version": { "N": "1.5" }, "body": { "S": body_of("bad") } })),
            ("attribute body", json!({ "body": null })),
            ("attribute body", json!({ "body": { "M": {} } })),
            ("not JSON", json!({ "body": { "S": "{" } })),
            ("base_url: is required", json!({ "body": { "S": "{}" } })),
            ("slug is not its key", json!({ "body": { "S": body_of("other") } })),
        ] {
            put_raw(&engine, &with(&good, &changes));
            let log = Log::default();
            let slugs: Vec<_> = {
                let _logged = log.start();
                store.providers().await.unwrap().into_iter().map(|provider| provider.value.slug).collect()
            };
            assert_eq!(slugs.iter().map(ProviderSlug::as_str).collect::<Vec<_>>(), ["a", "z"], "{case}");
            let log = log.text();
            assert!(
                log.contains("WARN") && log.contains("sk=\"bad\"") && log.contains(case),
                "{case}: {log}"
            );

            let alone = store.provider(&ProviderSlug::parse("bad").unwrap()).await.unwrap_err();
            assert!(
                matches!(&alone, StoreError::Broken { reason } if reason.contains("PROVIDER/bad")),
                "{alone}"
            );
        }
    }
}

fn body_of(name: &str) -> String {
    provider(name).to_stored().unwrap()
}

#[tokio::test]
async fn unreadable_keys_are_left_out() {
    let backend = Backend::embedded().await;
    let (store, engine) = (backend.store, backend.engine.unwrap());
    let (good, bad) = (key(1), key(2));
    store.put_key(&good, None).await.unwrap();
    let item = with(&get_raw(&engine, "KEY", good.id.as_str()), &json!({ "sk": { "S": bad.id.as_str() } }));
    for changes in [
        json!({ "schema_version": { "N": "2" } }),
        json!({ "record_version": { "N": "-1" } }),
        json!({ "key_hash": null }),
        json!({ "key_hash": { "B": "BwcH" } }),
        json!({ "key_hash": { "S": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=" } }),
        json!({ "label": { "S": "a\nb" } }),
        json!({ "created_at_ms": { "N": "1e30" } }),
        json!({ "revoked_at_ms": { "S": "1500" } }),
        json!({ "allowed_models": { "S": "m" } }),
        json!({ "allowed_models": { "L": [{ "N": "1" }] } }),
        json!({ "requests_per_minute": { "N": "4294967296" } }),
    ] {
        put_raw(&engine, &with(&item, &changes));
        let listed: Vec<_> = store.keys().await.unwrap().into_iter().map(|key| key.value).collect();
        assert_eq!(listed, std::slice::from_ref(&good), "{changes}");
        assert!(matches!(store.find_key(&bad.id).await, Err(StoreError::Broken { .. })), "{changes}");
    }
    put_raw(&engine, &with(&item, &json!({ "sk": { "S": "not an id" } })));
    assert_eq!(keys(&*store).await, 1);
    put_raw(&engine, &item);
    assert_eq!(keys(&*store).await, 2, "unchanged, the item can be read");
}

async fn keys(store: &dyn Store) -> usize {
    store.keys().await.unwrap().len()
}

#[tokio::test]
async fn an_unreadable_version_is_broken() {
    let backend = Backend::embedded().await;
    let item = json!({ "pk": { "S": "CONFIG" }, "sk": { "S": "VERSION" }, "schema_version": { "N": "2" } });
    put_raw(&backend.engine.unwrap(), &item);
    assert!(matches!(backend.store.config_version().await, Err(StoreError::Broken { .. })));
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(self.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
