//! The items in the table: their form, and what happens to those of another form.

use catalog::testing::{SeedStore as _, by, stored};
use catalog::{
    Action, ApiKeyLimits, ApiKeyRecord, By, Day, Health, HealthState, KeptAnswer, KeySecretCheck,
    PreviousHash, ProviderSlug, ProviderStatus, StoreError, TestReport, UsageCounts, UsageKey, UsageRow,
};
use serde_json::{Value, json};

use crate::backend::{Backend, get_raw, put_raw};
use crate::records::{cli_provider, key, provider, rotated_provider, sealed};

/// Stored items outlive the version that wrote them: a change here needs a new schema version.
#[tokio::test]
async fn the_form_stays_as_it_is() {
    let backend = Backend::embedded().await;
    let engine = backend.engine.unwrap();
    let key = ApiKeyRecord {
        expires_at_ms: Some(2_000),
        revoked_at_ms: Some(1_500),
        owner: "Ada".to_owned(),
        previous: Some(PreviousHash { hash: [8; 32], until_ms: 1_200 }),
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
        "allowed_models": { "L": [{ "S": "m" }] }, "owner": { "S": "Ada" },
        "previous_hash": { "B": "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=" }, "previous_until_ms": { "N": "1200" },
        "requests_per_minute": { "N": "60" }, "concurrent_requests": { "N": "4" },
        "tokens_per_minute": { "N": "100000" }, "tokens_per_day": { "N": "1000000" },
        "tokens_per_month": { "N": "10000000" },
    });
    assert_eq!(get_raw(&engine, &partition, key.id.as_str()), stored_key);
    let mut stored_provider = get_raw(&engine, "CONFIG", "PROVIDER#ollama");
    let [body, history] = ["body", "history"].map(|name| json_in(&mut stored_provider, name));
    let expected = json!({
        "pk": { "S": "CONFIG" }, "sk": { "S": "PROVIDER#ollama" }, "schema_version": { "N": "1" }, "record_version": { "N": "1" },
        "id": { "S": stored(&provider("Ollama")).id.as_str() }, "body": null, "history": null,
    });
    assert_eq!(stored_provider, expected);
    let expected = json!({
        "created_by": "program:test", "created_at_ms": 1_700_000_000_000_u64, "updated_at_ms": 1_700_000_000_000_u64,
        "credential_version": 0,
    });
    assert_eq!(history, expected);
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

/// The JSON in an attribute, which is `null` from then on: its members have no order.
fn json_in(item: &mut Value, name: &str) -> Value {
    serde_json::from_str(item[name].take()["S"].as_str().unwrap()).unwrap()
}

/// What a provider is that was rotated: sealed values in its body and its history.
#[tokio::test]
async fn the_form_of_credentials_stays_as_it_is() {
    let backend = Backend::embedded().await;
    let engine = backend.engine.unwrap();
    let rotated = rotated_provider("Ollama");
    backend.store.put_provider(&rotated, None, &by(Action::Rotate)).await.unwrap();
    let mut item = get_raw(&engine, "CONFIG", "PROVIDER#ollama");
    let [body, history] = ["body", "history"].map(|name| json_in(&mut item, name));
    assert_eq!(body["credential"], sealed('B').to_string());
    let expected = json!({
        "created_by": "program:test", "created_at_ms": 1_700_000_000_000_u64, "updated_at_ms": 1_700_000_000_000_u64,
        "credential_version": 2, "credential_set_at_ms": 9, "credential_fingerprint": "0000000b",
        "previous": {
            "credential": sealed('A').to_string(), "version": 1, "until_ms": 10, "fingerprint": "0000000a",
        },
    });
    assert_eq!(history, expected);
    let kept = backend.store.provider(&rotated.provider.slug).await.unwrap().unwrap();
    assert_eq!(kept.value, rotated);
}

/// The audit log, answers, usage and the states of providers.
#[tokio::test]
async fn the_form_of_reports_stays_as_it_is() {
    let backend = Backend::embedded().await;
    let (store, engine) = (backend.store, backend.engine.unwrap());
    let key = key(1);
    let answer = KeptAnswer {
        id: [1; 32],
        request: [2; 32],
        status: 201,
        body: sealed('A'),
        until_ms: 1_795_000_000_500,
    };
    let by = By {
        actor: "ada".to_owned(),
        request_id: "req_1".to_owned(),
        at_ms: 1_794_000_000_000,
        action: Action::Create,
        answer: Some(answer),
    };
    store.put_key_secret(KeySecretCheck([7; 32]), None, &by).await.unwrap();
    store.seed_key_secret(KeySecretCheck([8; 32]), Some(1)).await.unwrap();
    let [first, second] = [1, 2].map(|seq| get_raw(&engine, "AUDIT", &format!("{seq:020}")));
    let [one, other] = ["07", "08"].map(|byte| json!({ "check": byte.repeat(32) }).to_string());
    // Not computed by this code: whoever noted a head elsewhere relies on it.
    let hash = "38746f8eea6c364e0b1fb181f2530e506a76462325587fa96c3e6a9530a678a9";
    let expected = json!({
        "pk": { "S": "AUDIT" }, "sk": { "S": "00000000000000000001" }, "schema_version": { "N": "1" },
        "at_ms": { "N": "1794000000000" }, "actor": { "S": "ada" }, "request_id": { "S": "req_1" },
        "action": { "S": "create" }, "object": { "S": "key-secret" }, "after": { "S": one },
        "previous_hash": { "S": "0".repeat(64) }, "hash": { "S": hash },
    });
    assert_eq!(first, expected);
    let expected = json!({
        "pk": { "S": "AUDIT" }, "sk": { "S": "00000000000000000002" }, "schema_version": { "N": "1" },
        "at_ms": { "N": "1700000000000" }, "actor": { "S": "program:test" },
        "action": { "S": "update" }, "object": { "S": "key-secret" }, "before": { "S": one }, "after": { "S": other },
        "previous_hash": { "S": hash }, "hash": second["hash"],
    });
    assert_eq!(second, expected);
    let expected = json!({
        "pk": { "S": "AUDIT" }, "sk": { "S": "HEAD" }, "schema_version": { "N": "1" }, "seq": { "N": "2" },
        "hash": second["hash"],
    });
    assert_eq!(get_raw(&engine, "AUDIT", "HEAD"), expected);

    let mut kept = get_raw(&engine, &format!("ANSWER#{}", "01".repeat(32)), "ANSWER");
    let body = json_in(&mut kept, "body");
    let expected = json!({
        "pk": { "S": format!("ANSWER#{}", "01".repeat(32)) }, "sk": { "S": "ANSWER" }, "schema_version": { "N": "1" },
        "body": null, "until_ms": { "N": "1795000000500" }, "ttl": { "N": "1795000001" },
    });
    assert_eq!(kept, expected);
    let expected = json!({
        "id": "01".repeat(32), "request": "02".repeat(32), "status": 201, "body": sealed('A').to_string(),
        "until_ms": 1_795_000_000_500_u64,
    });
    assert_eq!(body, expected);

    let counts = UsageCounts { requests: 1, failed: 2, prompt_tokens: 3, completion_tokens: 4, estimated: 5 };
    let of = UsageKey {
        day: Day(20_000),
        key: key.id.clone(),
        provider: provider("a").slug,
        model: "m".to_owned(),
    };
    store.add_usage(&UsageRow { of, counts, last_at_ms: 1_728_000_000_001 }).await.unwrap();
    // SHA-256 of "m".
    let sort_key =
        format!("{}#a#{}", key.id, "62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a");
    let expected = json!({
        "pk": { "S": "USAGE#20000" }, "sk": { "S": sort_key }, "schema_version": { "N": "1" }, "model": { "S": "m" },
        "requests": { "N": "1" }, "failed": { "N": "2" }, "prompt_tokens": { "N": "3" },
        "completion_tokens": { "N": "4" }, "estimated": { "N": "5" }, "last_at_ms": { "N": "1728000000001" },
        // 401 days after the day began.
        "ttl": { "N": "1762646400" },
    });
    assert_eq!(get_raw(&engine, "USAGE#20000", &sort_key), expected);
    let expected = json!({
        "pk": { "S": "USED" }, "sk": { "S": key.id.as_str() }, "schema_version": { "N": "1" },
        "at_ms": { "N": "1728000000001" }, "ttl": { "N": "1762646400" },
    });
    assert_eq!(get_raw(&engine, "USED", key.id.as_str()), expected);

    let id = stored(&provider("a")).id;
    let health =
        Health { state: HealthState::Healthy, since_ms: Some(1), checked_at_ms: Some(2), failure: None };
    let status = ProviderStatus { last_test: Some(TestReport::default()), health: Some(health) };
    store.put_status(&id, &status).await.unwrap();
    let mut item = get_raw(&engine, "STATUS", id.as_str());
    let [test, health] = ["last_test", "health"].map(|name| json_in(&mut item, name));
    assert!(item["ttl"].take()["N"].is_string());
    let expected = json!({
        "pk": { "S": "STATUS" }, "sk": { "S": id.as_str() }, "schema_version": { "N": "1" }, "last_test": null,
        "health": null, "ttl": null,
    });
    assert_eq!(item, expected);
    assert_eq!(health, json!({ "state": "healthy", "since_ms": 1, "checked_at_ms": 2, "failure": null }));
    assert_eq!(test["timing"]["end_ms"], 0);
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
