//! The items in the table: their form, and what happens to those of another form.

use catalog::testing::SeedStore as _;
use catalog::{ApiKeyLimits, ApiKeyRecord, KeySecretCheck, ProviderSlug, StoreError};
use serde_json::{Value, json};

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
        owner: String::new(),
        previous: None,
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
    backend.store.seed_key(&key, None).await.unwrap();
    backend.store.seed_provider(&provider("Ollama"), None).await.unwrap();
    backend.store.seed_key_secret(KeySecretCheck([7; 32]), None).await.unwrap();

    let key_secret = json!({
        "pk": { "S": "CONFIG" }, "sk": { "S": "KEY_SECRET" }, "schema_version": { "N": "1" }, "record_version": { "N": "1" },
        "check": { "B": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=" },
    });
    assert_eq!(get_raw(&engine, "CONFIG", "KEY_SECRET"), key_secret);
    let version = json!({
        "pk": { "S": "CONFIG" }, "sk": { "S": "VERSION" }, "schema_version": { "N": "1" },
        "providers": { "N": "2" }, format!("keys_{}", &key.id.as_str()[..1]): { "N": "1" },
    });
    assert_eq!(get_raw(&engine, "CONFIG", "VERSION"), version);
    let partition = format!("KEY#{}", &key.id.as_str()[..1]);
    let stored_key = json!({
        "pk": { "S": partition }, "sk": { "S": key.id.as_str() }, "schema_version": { "N": "1" }, "record_version": { "N": "1" },
        "key_hash": { "B": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=" }, "label": { "S": "key 1" },
        "created_at_ms": { "N": "1000" }, "expires_at_ms": { "N": "2000" }, "revoked_at_ms": { "N": "1500" },
        "allowed_models": { "L": [{ "S": "m" }] },
        "requests_per_minute": { "N": "60" }, "concurrent_requests": { "N": "4" },
        "tokens_per_minute": { "N": "100000" }, "tokens_per_day": { "N": "1000000" },
        "tokens_per_month": { "N": "10000000" },
    });
    assert_eq!(get_raw(&engine, &partition, key.id.as_str()), stored_key);
    let mut stored_provider = get_raw(&engine, "CONFIG", "PROVIDER#ollama");
    let body: Value = serde_json::from_str(stored_provider["body"]["S"].as_str().unwrap()).unwrap();
    stored_provider["body"] = Value::Null;
    let expected = json!({
        "pk": { "S": "CONFIG" }, "sk": { "S": "PROVIDER#ollama" }, "schema_version": { "N": "1" }, "record_version": { "N": "1" },
        "body": null,
    });
    assert_eq!(stored_provider, expected);
    let expected = json!({
        "name": "Ollama", "slug": "ollama", "type": "local", "description": "", "enabled": true, "rank": 100,
        "base_url": "http://127.0.0.1:11434/v1", "discover_models": true, "forward_headers": [], "models": [],
        "timeouts": { "connect_ms": 5_000, "first_byte_ms": 300_000, "idle_ms": 120_000, "total_ms": 3_600_000 },
    });
    assert_eq!(body, expected);

    backend.store.seed_provider(&cli_provider("Claude"), None).await.unwrap();
    let stored_cli = get_raw(&engine, "CONFIG", "PROVIDER#claude");
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
async fn unreadable_providers_are_left_out_and_named() {
    for backend in [Backend::embedded().await, Backend::over_http().await] {
        let (store, engine) = (backend.store, backend.engine.unwrap());
        for name in ["a", "z"] {
            store.seed_provider(&provider(name), None).await.unwrap();
        }
        let version = store.config_version().await.unwrap();
        let good = with(&get_raw(&engine, "CONFIG", "PROVIDER#a"), &json!({ "sk": { "S": "PROVIDER#bad" } }));
        for (case, changes) in [
            ("schema 2", json!({ "schema_version": { "N": "2" } })),
            ("schema 0", json!({ "schema_version": { "N": "0" } })),
            ("schema_version", json!({ "schema_version": null })),
            ("schema_version", json!({ "schema_version": { "S": "1" } })),
            ("record_version", json!({ "record_version": null, "body": { "S": body_of("bad") } })),
            ("record_version", json!({ "record_version": { "N": "1.5" }, "body": { "S": body_of("bad") } })),
            ("attribute body", json!({ "body": null })),
            ("attribute body", json!({ "body": { "M": {} } })),
            ("not JSON", json!({ "body": { "S": "{" } })),
            ("not JSON", json!({ "body": { "S": "[".repeat(300_000) } })),
            ("base_url: is required", json!({ "body": { "S": "{}" } })),
            ("slug is not its key", json!({ "body": { "S": body_of("other") } })),
        ] {
            put_raw(&engine, &with(&good, &changes));
            let config = store.config().await.unwrap();
            let slugs: Vec<_> =
                config.providers.iter().map(|provider| provider.value.provider.slug.as_str()).collect();
            assert_eq!(slugs, ["a", "z"], "{case}");
            assert_eq!(config.version.as_ref(), Some(&version));
            let [left_out] = &config.left_out[..] else { panic!("{case}: {:?}", config.left_out) };
            assert_eq!(left_out.name, "CONFIG/PROVIDER#bad");
            assert!(left_out.reason.contains(case), "{case}: {left_out:?}");

            let alone = store.provider(&ProviderSlug::parse("bad").unwrap()).await.unwrap_err();
            assert!(matches!(&alone, StoreError::Unreadable(same) if same == left_out), "{alone}");
        }
        // An attribute that nobody knows does no harm.
        let known_and_more =
            json!({ "body": { "S": body_of("bad") }, "later": { "M": { "a": { "NULL": true } } } });
        put_raw(&engine, &with(&good, &known_and_more));
        let config = store.config().await.unwrap();
        assert_eq!((config.providers.len(), config.left_out), (3, vec![]));
    }
}

fn body_of(name: &str) -> String {
    provider(name).to_stored().unwrap()
}

#[tokio::test]
async fn what_does_not_belong_into_the_configuration_is_left_out() {
    let backend = Backend::embedded().await;
    let engine = backend.engine.unwrap();
    backend.store.seed_provider(&provider("a"), None).await.unwrap();
    let strange = "\u{1b}[2J".to_owned() + &"x".repeat(900);
    for sk in [&*strange, "AUDIT#1", "PROVIDER", "provider#a"] {
        put_raw(&engine, &json!({ "pk": { "S": "CONFIG" }, "sk": { "S": sk } }));
    }
    let config = backend.store.config().await.unwrap();
    assert_eq!(config.providers.len(), 1);
    let names: Vec<_> = config.left_out.iter().map(|item| item.name.as_str()).collect();
    let strange = format!("CONFIG/ [2J{}", "x".repeat(117));
    assert_eq!(names, [&*strange, "CONFIG/AUDIT#1", "CONFIG/PROVIDER", "CONFIG/provider#a"]);
}

#[tokio::test]
async fn unreadable_keys_are_left_out_and_named() {
    let backend = Backend::embedded().await;
    let (store, engine) = (backend.store, backend.engine.unwrap());
    let (good, bad) = (key(1), key(2));
    store.seed_key(&good, None).await.unwrap();
    store.seed_key(&bad, None).await.unwrap();
    let partition = format!("KEY#{}", &bad.id.as_str()[..1]);
    let item = get_raw(&engine, &partition, bad.id.as_str());
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
        let list = store.keys().await.unwrap();
        let listed: Vec<_> = list.keys.iter().map(|key| &key.value).collect();
        assert_eq!(listed, [&good], "{changes}");
        assert_eq!(list.left_out.len(), 1, "{changes}");
        assert_eq!(list.left_out[0].name, format!("{partition}/{}", bad.id), "{changes}");
        assert!(matches!(store.find_key(&bad.id).await, Err(StoreError::Unreadable(_))), "{changes}");
    }
    put_raw(&engine, &with(&item, &json!({ "sk": { "S": "not an id" } })));
    put_raw(&engine, &item);
    let list = store.keys().await.unwrap();
    assert_eq!(list.keys.len(), 2, "unchanged, the item can be read");
    assert_eq!(list.left_out[0].name, format!("{partition}/not an id"));
}

#[tokio::test]
async fn an_unreadable_check_of_the_key_secret_takes_nothing_else_away() {
    let backend = Backend::embedded().await;
    let (store, engine) = (backend.store, backend.engine.unwrap());
    store.seed_provider(&provider("a"), None).await.unwrap();
    store.seed_key_secret(KeySecretCheck([7; 32]), None).await.unwrap();
    let item = get_raw(&engine, "CONFIG", "KEY_SECRET");
    for changes in [
        json!({ "schema_version": { "N": "2" } }),
        json!({ "record_version": null }),
        json!({ "check": { "S": "check" } }),
        json!({ "check": { "B": "BwcH" } }),
    ] {
        put_raw(&engine, &with(&item, &changes));
        assert!(matches!(store.key_secret().await, Err(StoreError::Unreadable(_))), "{changes}");
        let config = store.config().await.unwrap();
        assert_eq!((config.key_secret, config.providers.len()), (None, 1), "{changes}");
        assert_eq!(config.left_out[0].name, "CONFIG/KEY_SECRET");
    }
}

#[tokio::test]
async fn an_unreadable_version_takes_nothing_else_away() {
    let backend = Backend::embedded().await;
    let (store, engine) = (backend.store, backend.engine.unwrap());
    store.seed_provider(&provider("a"), None).await.unwrap();
    let item = get_raw(&engine, "CONFIG", "VERSION");
    for changes in [
        json!({ "schema_version": { "N": "2" } }),
        json!({ "schema_version": null }),
        json!({ "providers": { "S": "1" } }),
        json!({ "keys_a": { "N": "-1" } }),
    ] {
        put_raw(&engine, &with(&item, &changes));
        assert!(matches!(store.config_version().await, Err(StoreError::Unreadable(_))), "{changes}");
        let config = store.config().await.unwrap();
        assert_eq!((config.version, config.providers.len()), (None, 1), "{changes}");
        assert_eq!(config.left_out[0].name, "CONFIG/VERSION");
    }
}
