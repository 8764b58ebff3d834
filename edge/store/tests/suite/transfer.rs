//! From one store to another, by way of a file.

use std::io::{BufReader, Cursor, Read};

use catalog::testing::{SeedStore as _, by};
use catalog::{
    Action, ApiKeyLimits, ApiKeyRecord, AuditQuery, CredentialRef, KeySecretCheck, PreviousHash, Provider,
    Store, StoredProvider,
};
use serde_json::{Value, json};
use store::transfer::{Existing, Imported, TransferError, export, import};

use crate::backend::{Backend, put_raw};
use crate::records::{cli_provider, key, provider, rotated_provider, sealed};

async fn exported(store: &dyn Store) -> String {
    let mut file = Vec::new();
    export(store, &mut file).await.unwrap();
    String::from_utf8(file).unwrap()
}

async fn imported(store: &dyn Store, file: &str, existing: Existing) -> Result<Imported, TransferError> {
    import(store, &mut Cursor::new(file), existing, &by(Action::Import)).await
}

/// With all that records can have.
async fn fill(store: &dyn Store) {
    let with_credential = Provider { credential: CredentialRef::Env("KEY".to_owned()), ..provider("Ollama") };
    for provider in [&with_credential, &cli_provider("claude")] {
        store.seed_provider(provider, None).await.unwrap();
    }
    store.put_provider(&rotated_provider("rotated"), None, &by(Action::Create)).await.unwrap();
    let hash = std::array::from_fn(|index| u8::try_from(index).unwrap());
    let full = ApiKeyRecord {
        hash,
        label: "Jürgens Laptop ☕".to_owned(),
        expires_at_ms: Some(u64::MAX),
        revoked_at_ms: Some(3),
        owner: "Ada".to_owned(),
        previous: Some(PreviousHash { hash: [8; 32], until_ms: 1_200 }),
        allowed_models: Some(vec!["vendor/model:free".to_owned(), "ü".to_owned()]),
        limits: ApiKeyLimits {
            requests_per_minute: Some(1),
            concurrent_requests: Some(2),
            tokens_per_minute: Some(3),
            tokens_per_day: Some(4),
            tokens_per_month: Some(5),
        },
        ..key(2)
    };
    for key in [&key(1), &full, &ApiKeyRecord { allowed_models: Some(Vec::new()), ..key(3) }] {
        store.seed_key(key, None).await.unwrap();
    }
}

async fn content(store: &dyn Store) -> (Vec<StoredProvider>, Vec<ApiKeyRecord>) {
    let providers = store.config().await.unwrap().providers.into_iter().map(|provider| provider.value);
    let keys = store.keys().await.unwrap().keys.into_iter().map(|key| key.value);
    (providers.collect(), keys.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_imported_from_any_engine_to_any() {
    for from in [Backend::memory().await, Backend::embedded().await, Backend::over_http().await] {
        fill(&*from.store).await;
        let file = exported(&*from.store).await;
        for to in [Backend::memory().await, Backend::embedded().await, Backend::over_http().await] {
            let done = imported(&*to.store, &file, Existing::Refuse).await.unwrap();
            assert_eq!(done, Imported { created: 6, ..Imported::default() });
            assert_eq!(content(&*to.store).await, content(&*from.store).await);
            assert_eq!(exported(&*to.store).await, file);
            let again = imported(&*to.store, &file, Existing::Refuse).await.unwrap();
            assert_eq!(again, Imported { unchanged: 6, ..Imported::default() });
        }
    }
}

/// Files outlive the version that wrote them: a change here needs a new version in the header.
#[tokio::test]
async fn the_form_stays_as_it_is() {
    let store = Backend::memory().await.store;
    fill(&*store).await;
    let file = exported(&*store).await;
    let lines: Vec<Value> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], json!({"format": "dyad-gateway-store", "version": 2}));
    let slugs = [1, 2, 3].map(|line: usize| lines[line]["provider"]["provider"]["slug"].as_str().unwrap());
    assert_eq!(slugs, ["claude", "ollama", "rotated"]);
    assert_eq!(lines[2]["provider"]["provider"]["credential"], "env:KEY");
    let rotated = &lines[3]["provider"];
    assert_eq!(rotated["id"], rotated_provider("rotated").id.as_str());
    assert_eq!(rotated["provider"]["credential"], sealed('B').to_string());
    let history = json!({
        "created_by": "program:test", "created_at_ms": 1_700_000_000_000_u64, "updated_at_ms": 1_700_000_000_000_u64,
        "credential_version": 2, "credential_set_at_ms": 9, "credential_fingerprint": "0000000b",
        "previous": {
            "credential": sealed('A').to_string(), "version": 1, "until_ms": 10, "fingerprint": "0000000a",
        },
    });
    assert_eq!(rotated["history"], history);
    let full = lines[4..7].iter().find(|line| line["key"]["revoked_at_ms"] == 3).unwrap();
    let expected = json!({
        "id": key(2).id.as_str(), "hash": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "label": "Jürgens Laptop ☕", "created_at_ms": 1_000, "expires_at_ms": u64::MAX, "revoked_at_ms": 3,
        "allowed_models": ["vendor/model:free", "ü"], "requests_per_minute": 1, "concurrent_requests": 2,
        "tokens_per_minute": 3, "tokens_per_day": 4, "tokens_per_month": 5,
        "owner": "Ada", "previous": { "hash": "08".repeat(32), "until_ms": 1_200 },
    });
    assert_eq!(full["key"], expected);
    assert_eq!(lines[7], json!({"end": {"providers": 3, "keys": 3}}));
}

#[tokio::test]
async fn what_is_there_is_replaced_on_request_only() {
    let from = Backend::memory().await.store;
    fill(&*from).await;
    let file = exported(&*from).await;
    let to = Backend::memory().await.store;
    let (other, extra) = (Provider { rank: 7, ..provider("Ollama") }, provider("extra"));
    to.seed_provider(&other, None).await.unwrap();
    to.seed_provider(&extra, None).await.unwrap();
    to.seed_key(&ApiKeyRecord { label: "another".to_owned(), ..key(1) }, None).await.unwrap();
    let before = (content(&*to).await, to.config_version().await.unwrap());

    let error = imported(&*to, &file, Existing::Refuse).await.unwrap_err();
    let TransferError::Differs(names) = &error else { panic!("{error}") };
    assert_eq!(*names, ["provider ollama".to_owned(), format!("API key {}", key(1).id)]);
    assert_eq!((content(&*to).await, to.config_version().await.unwrap()), before, "nothing was written");

    let done = imported(&*to, &file, Existing::Replace).await.unwrap();
    assert_eq!(done, Imported { created: 4, replaced: 2, ..Imported::default() });
    let (mut providers, keys) = content(&*to).await;
    providers.retain(|stored| stored.provider.slug != extra.slug);
    assert_eq!((providers, keys), content(&*from).await);
    assert_eq!(to.provider(&other.slug).await.unwrap().unwrap().version, 2);
}

#[tokio::test]
async fn a_revoked_key_stays_revoked() {
    let store = Backend::memory().await.store;
    let (leaked, renamed) = (key(1), key(2));
    for key in [&leaked, &renamed] {
        store.seed_key(key, None).await.unwrap();
    }
    let file = exported(&*store).await;
    let leaked = ApiKeyRecord { revoked_at_ms: Some(7), ..leaked };
    store.seed_key(&leaked, Some(1)).await.unwrap();
    let changed =
        ApiKeyRecord { revoked_at_ms: Some(8), label: "since renamed".to_owned(), ..renamed.clone() };
    store.seed_key(&changed, Some(1)).await.unwrap();

    let error = imported(&*store, &file, Existing::Refuse).await.unwrap_err();
    assert!(matches!(&error, TransferError::Differs(names) if names.len() == 2), "{error}");
    let done = imported(&*store, &file, Existing::Replace).await.unwrap();
    assert_eq!(done, Imported { replaced: 1, unchanged: 1, kept_revoked: 2, ..Imported::default() });
    let renamed = ApiKeyRecord { revoked_at_ms: Some(8), ..renamed };
    assert_eq!(content(&*store).await.1, [leaked, renamed]);
}

#[tokio::test]
async fn a_rotated_key_keeps_its_secret() {
    let store = Backend::memory().await.store;
    let leaked = key(1);
    store.seed_key(&leaked, None).await.unwrap();
    let file = exported(&*store).await;
    let rotated = ApiKeyRecord { hash: [9; 32], ..leaked };
    store.seed_key(&rotated, Some(1)).await.unwrap();
    let done = imported(&*store, &file, Existing::Replace).await.unwrap();
    assert_eq!(done, Imported { unchanged: 1, kept_rotated: 1, ..Imported::default() });
    assert_eq!(content(&*store).await.1, [rotated]);
}

#[tokio::test]
async fn keys_of_another_secret_are_not_imported() {
    let (one, other) = (KeySecretCheck([7; 32]), KeySecretCheck([8; 32]));
    let from = Backend::memory().await.store;
    from.seed_key_secret(one, None).await.unwrap();
    from.seed_provider(&provider("Ollama"), None).await.unwrap();
    assert!(!exported(&*from).await.contains("key_secret"), "providers alone fit everywhere");
    from.seed_key(&key(1), None).await.unwrap();
    let file = exported(&*from).await;
    let line = format!("{{\"key_secret\":\"{}\"}}", "07".repeat(32));
    assert_eq!(file.lines().nth(1), Some(&*line));

    let to = Backend::memory().await.store;
    to.seed_key_secret(other, None).await.unwrap();
    for existing in [Existing::Refuse, Existing::Replace] {
        let error = imported(&*to, &file, existing).await.unwrap_err();
        assert!(matches!(error, TransferError::OtherKeySecret), "{error}");
    }
    assert_eq!(content(&*to).await, (vec![], vec![]));
    to.seed_key_secret(one, Some(1)).await.unwrap();
    assert_eq!(imported(&*to, &file, Existing::Refuse).await.unwrap().created, 2);
    let empty = Backend::memory().await.store;
    imported(&*empty, &file, Existing::Refuse).await.unwrap();
    assert_eq!(empty.config().await.unwrap().key_secret, Some(one), "the file's is the store's from now on");

    let twice = file.replace(&line, &format!("{line}\n{line}"));
    let damaged = file.replace(&line, "{\"key_secret\":\"07\"}");
    for (file, number, word) in [(twice, 3, "twice"), (damaged, 2, "hexadecimal")] {
        let error = imported(&*empty, &file, Existing::Refuse).await.unwrap_err();
        let TransferError::Line { line, reason } = &error else { panic!("{error}") };
        assert!((*line, reason.contains(word)) == (number, true), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_in_order_changes_nothing() {
    let from = Backend::memory().await.store;
    fill(&*from).await;
    let good = exported(&*from).await;
    let lines: Vec<&str> = good.lines().collect();
    let without = |line: usize| [&lines[..line], &lines[line + 1..]].concat().join("\n");
    let with = |line: usize, text: &str| {
        let mut lines = lines.clone();
        lines[line] = text;
        lines.join("\n")
    };
    let fat = format!("{{\"provider\":\"{}\"}}", "x".repeat(3 << 20));
    for (file, line, word) in [
        (String::new(), 1, "cut off"),
        ("{\"provider\":{}}\n".to_owned(), 1, "no export"),
        (with(0, r#"{"format":"dyad-gateway-store","version":1}"#), 1, "version 1"),
        (without(1), 8, "cut off"),
        (without(7), 8, "cut off"),
        (with(1, "{"), 2, "EOF"),
        (with(1, &lines[1].replace("\"type\":", "\"kind\":")), 2, "provider.provider.type: is required"),
        (with(1, &lines[1].replace("\"prv_", "\"p_")), 2, "prv_"),
        (with(1, &lines[1].replace("\"created_by\":", "\"made_by\":")), 2, "made_by"),
        (with(3, &lines[3].replace("sealed:1:", "sealed:9:")), 4, "sealed"),
        (with(1, r#"{"audit":{}}"#), 2, "audit"),
        (with(1, lines[2]), 3, "ollama is there twice"),
        (with(4, lines[5]), 6, "is there twice"),
        (with(4, &lines[4].replace("\"hash\":\"", "\"hash\":\"x")), 5, "hexadecimal"),
        (with(4, &lines[4].replace("\"label\":", "\"surprise\":1,\"label\":")), 5, "surprise"),
        (with(4, r#"{"key":{"id":"short","hash":"","label":"","created_at_ms":0}}"#), 5, "12 characters"),
        (format!("{good}{}\n", lines[1]), 9, "after the end"),
        (with(1, &fat), 2, "bytes or more"),
    ] {
        let to = Backend::memory().await.store;
        let error = imported(&*to, &file, Existing::Replace).await.unwrap_err();
        let TransferError::Line { line: found, reason } = &error else { panic!("{error}") };
        assert!((*found, reason.contains(word)) == (line, true), "{line} {word}: {error}");
        assert_eq!(content(&*to).await, (vec![], vec![]));
    }
}

/// Each change has its entry; what was there already has none.
#[tokio::test]
async fn an_import_is_in_the_audit_log() {
    let from = Backend::memory().await.store;
    fill(&*from).await;
    from.seed_key_secret(KeySecretCheck([7; 32]), None).await.unwrap();
    let file = exported(&*from).await;
    let to = Backend::memory().await.store;
    imported(&*to, &file, Existing::Refuse).await.unwrap();
    imported(&*to, &file, Existing::Refuse).await.unwrap();
    let log = to.audit(&AuditQuery { limit: 100, ..AuditQuery::default() }).await.unwrap().entries;
    assert_eq!(log.len(), 7);
    assert!(log.iter().all(|entry| entry.action == Action::Import && entry.before.is_none()));
}

/// Lines of large keys, no two the same.
struct EndlessKeys {
    seed: u64,
    line: Cursor<Vec<u8>>,
}

impl Read for EndlessKeys {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.line.position() == self.line.get_ref().len() as u64 {
            self.seed += 1;
            let models = vec!["m".repeat(256); 1_000];
            let key = json!({
                "id": key(self.seed).id.as_str(), "hash": "07".repeat(32), "label": "k", "created_at_ms": 1,
                "allowed_models": models,
            });
            self.line = Cursor::new(format!("{}\n", json!({ "key": key })).into_bytes());
        }
        self.line.read(buffer)
    }
}

/// Endless input is not read to its end.
#[tokio::test]
async fn a_file_that_is_too_long_is_refused() {
    let store = Backend::memory().await.store;
    let header = b"{\"format\":\"dyad-gateway-store\",\"version\":2}\n".as_slice();
    let endless = header.chain(EndlessKeys { seed: 0, line: Cursor::default() });
    let error = import(&*store, &mut BufReader::new(endless), Existing::Refuse, &by(Action::Import))
        .await
        .unwrap_err();
    let TransferError::Line { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.contains("in parts"), "{reason}");
    assert_eq!(content(&*store).await, (vec![], vec![]));
}

#[tokio::test]
async fn what_cannot_be_read_is_told() {
    let backend = Backend::embedded().await;
    fill(&*backend.store).await;
    put_raw(&backend.engine.unwrap(), &json!({ "pk": { "S": "KEY#a" }, "sk": { "S": "a" } }));
    let mut file = Vec::new();
    let done = export(&*backend.store, &mut file).await.unwrap();
    assert_eq!((done.providers, done.keys, &*done.left_out[0].name), (3, 3, "KEY#a/a"));
}
