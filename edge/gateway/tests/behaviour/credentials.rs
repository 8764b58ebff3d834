//! Sealed credentials, and the overlap after one was rotated.

use catalog::testing::{by, stored};
use catalog::{
    Action, CredentialRef, PreviousCredential, ProviderStore as _, SealContext, SealedSecret, Secret,
    StoredProvider, TestRequest,
};
use gateway::Host as _;
use http::StatusCode;
use serde_json::{Value, json};

use crate::metrics::Scrape;
use crate::support::{
    Feed, Log, Reach, Recorded, Reply, Task, TestGateway, completion, ending, provider, ready, secs, setup,
    text_chunk,
};

/// `alpha` with a credential that is sealed as this version.
fn sealed(test: &TestGateway, version: u32, secret: &str) -> StoredProvider {
    let mut record = stored(&provider("alpha", &json!({})));
    record.provider.credential = seal(test, &record, version, secret);
    record.history.credential_version = version;
    record
}

fn seal(test: &TestGateway, record: &StoredProvider, version: u32, secret: &str) -> CredentialRef {
    let context = SealContext::credential(&record.id, StoredProvider::CREDENTIAL_FIELD, version);
    let random = |bytes: &mut [u8]| bytes.fill(u8::try_from(version).unwrap());
    let secret = Secret::new(secret);
    let sealed = SealedSecret::seal(&secret, &context, &*test.master_keys, &random);
    CredentialRef::Sealed(ready(sealed).unwrap())
}

/// The same record with the credential before it, which is used for so many seconds more.
fn rotated(
    test: &TestGateway,
    record: &StoredProvider,
    secret: &str,
    overlap_seconds: u64,
) -> StoredProvider {
    let version = record.history.credential_version;
    let mut next = sealed(test, version + 1, secret);
    next.history.previous = Some(PreviousCredential {
        credential: record.provider.credential.clone(),
        version,
        until_ms: test.host.unix_ms() + overlap_seconds * 1_000,
        fingerprint: None,
    });
    next
}

fn put(test: &TestGateway, record: &StoredProvider, expected: Option<u64>) {
    let by = by(if expected.is_some() { Action::Update } else { Action::Create });
    ready(test.store.inner.put_provider(record, expected, &by)).unwrap();
}

/// Lets the gateway read what has changed.
fn refresh(test: &TestGateway) {
    test.advance(secs(3));
    test.get("/ready");
    test.host.run_spawned();
}

fn chat(test: &TestGateway) -> StatusCode {
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    let status = test.chat(&json!({})).status;
    test.host.forget_replies();
    status
}

/// The credential of a call.
fn sent(call: &Recorded) -> String {
    call.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned()
}

fn refusal() -> Value {
    json!({"error": {"message": "Incorrect API key provided.", "type": "invalid_request_error", "code": "invalid_api_key"}})
}

#[test]
fn a_sealed_credential_is_opened_once_and_never_by_a_request() {
    let test = setup().build();
    put(&test, &sealed(&test, 1, "sk-sealed"), None);
    assert_eq!(chat(&test), StatusCode::OK);
    assert_eq!(sent(&test.host.last_call()), "sk-sealed");
    assert_eq!(test.master_keys.unwrapped(), 1);
    for round in 2..5 {
        // The provider is read again, and its credential is the same.
        let mut changed = sealed(&test, 1, "sk-sealed");
        changed.provider.name = format!("round {round}");
        put(&test, &changed, Some(round - 1));
        refresh(&test);
        assert_eq!(chat(&test), StatusCode::OK);
    }
    assert_eq!(test.master_keys.unwrapped(), 1);
}

#[test]
fn what_does_not_open_leaves_its_provider_out_and_no_other() {
    let test = setup().provider("beta", &json!({"models": [{"id": "other"}]})).build();
    test.master_keys.are(&["k2"]);
    let record = sealed(&test, 1, "sk-sealed");
    put(&test, &record, None);
    test.master_keys.are(&["k1"]);
    let log = Log::start();
    assert_eq!(test.listed(), ["other"]);
    let left_out = test.gateway.status().left_out;
    assert_eq!(left_out.len(), 1);
    assert_eq!(left_out[0].name, "CONFIG/PROVIDER#alpha");
    assert!(left_out[0].reason.contains("no master key \"k2\""), "{left_out:?}");
    assert!(log.all().join("\n").contains("does not open"), "{}", log.all().join("\n"));

    // It is tried again with each check of the configuration, and then a key is there.
    refresh(&test);
    assert_eq!(test.listed(), ["other"]);
    test.master_keys.are(&["k1", "k2"]);
    refresh(&test);
    assert_eq!(test.listed(), ["m", "other"]);
    assert!(test.gateway.status().left_out.is_empty());
    assert_eq!(chat(&test), StatusCode::OK);
    assert_eq!(sent(&test.host.last_call()), "sk-sealed");
    assert!(!log.all().join("\n").contains("sk-sealed"));
}

#[test]
fn what_is_sealed_for_another_record_does_not_open() {
    let test = setup().build();
    let mut moved = sealed(&test, 1, "sk-sealed");
    moved.history.credential_version = 2;
    put(&test, &moved, None);
    let mut other = stored(&provider("beta", &json!({"models": [{"id": "other"}]})));
    other.provider.credential = sealed(&test, 1, "sk-sealed").provider.credential;
    other.history.credential_version = 1;
    put(&test, &other, None);
    assert!(test.listed().is_empty());
    assert_eq!(test.gateway.status().left_out.len(), 2);
    // Not even where the text is known, because its own record has opened it.
    put(&test, &sealed(&test, 1, "sk-sealed"), Some(1));
    refresh(&test);
    refresh(&test);
    assert_eq!(test.listed(), ["m"]);
}

#[test]
fn keys_that_are_out_of_reach_hold_nobody_up() {
    for reach in [Reach::Down, Reach::Hangs] {
        let test = setup().provider("beta", &json!({"models": [{"id": "other"}]})).build();
        let record = sealed(&test, 1, "sk-sealed");
        put(&test, &record, None);
        assert_eq!(test.listed().len(), 2);
        test.master_keys.reach(reach);
        // Sealed anew under another master key, it is the same credential.
        test.master_keys.are(&["k2", "k1"]);
        test.master_keys.reach(Reach::Well);
        let anew = sealed(&test, 1, "sk-sealed");
        assert_ne!(anew.provider.credential, record.provider.credential);
        test.master_keys.reach(reach);
        put(&test, &anew, Some(1));
        for _ in 0..3 {
            refresh(&test);
        }
        assert_eq!(chat(&test), StatusCode::OK, "what was opened last serves on");
        assert_eq!(sent(&test.host.last_call()), "sk-sealed");
        assert_eq!(test.gateway.status().left_out.len(), 1, "{reach:?}: and it is told");

        // An instance that knows nothing yet has the others.
        let cold = test.another(1, 0, None);
        let mut listed = cold.start(cold.request(http::Method::GET, "/v1/models", ""));
        if reach == Reach::Hangs {
            listed.must_wait();
            cold.advance(secs(2));
        }
        assert_eq!(listed.finish().json()["data"][0]["id"], "other");
        test.master_keys.reach(Reach::Well);
        refresh(&cold);
        refresh(&test);
        assert_eq!(cold.listed().len(), 2);
        assert!(test.gateway.status().left_out.is_empty());
    }
}

/// A rotated one that does not open here, for want of the new master key, has the one before.
#[test]
fn a_new_credential_that_does_not_open_leaves_the_one_before_until_it_ends() {
    let test = setup().build();
    let first = sealed(&test, 1, "sk-first");
    put(&test, &first, None);
    assert_eq!(chat(&test), StatusCode::OK);
    test.master_keys.are(&["k2"]);
    let second = rotated(&test, &first, "sk-second", 60);
    test.master_keys.are(&["k1"]);
    put(&test, &second, Some(1));
    refresh(&test);
    assert_eq!(chat(&test), StatusCode::OK);
    assert_eq!(sent(&test.host.last_call()), "sk-first");
    test.advance(secs(60));
    refresh(&test);
    assert!(test.listed().is_empty(), "its time is over");
    test.master_keys.are(&["k2"]);
    refresh(&test);
    assert_eq!(chat(&test), StatusCode::OK);
    assert_eq!(sent(&test.host.last_call()), "sk-second");
}

#[test]
fn the_credential_before_serves_while_the_upstream_refuses_the_new_one() {
    let test = setup().build();
    let log = Log::start();
    let first = sealed(&test, 1, "sk-first");
    put(&test, &first, None);
    assert_eq!(chat(&test), StatusCode::OK);
    put(&test, &rotated(&test, &first, "sk-second", 60), Some(1));
    refresh(&test);
    let bodies = [
        ("/v1/chat/completions", json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})),
        (
            "/v1/chat/completions",
            json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}),
        ),
        ("/v1/embeddings", json!({"model": "m", "input": "Hi"})),
    ];
    let embeddings =
        json!({"data": [{"index": 0, "embedding": [1.0]}], "usage": {"prompt_tokens": 1, "total_tokens": 1}});
    for (path, body) in &bodies {
        let before = test.host.calls().len();
        test.host.reply("alpha", Reply::json(401, &refusal()));
        let answer = if *path == "/v1/embeddings" { embeddings.clone() } else { completion("ok") };
        test.host.reply("alpha", Reply::json(200, &answer));
        let answer = test.send(test.request(http::Method::POST, path, body.to_string()));
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let calls: Vec<_> = test.host.calls()[before..].iter().map(sent).collect();
        assert_eq!(calls, ["sk-second", "sk-first"]);
        assert_eq!(test.host.calls()[before].body, test.host.calls()[before + 1].body);
    }
    assert!(log.all().join("\n").contains("the one before it is tried"));
    assert!(!log.all().join("\n").contains("sk-"), "{}", log.all().join("\n"));
    let again = "upstream_retries_total{provider=\"alpha\",model=\"m\",reason=\"previous_credential\"}";
    assert_eq!(Scrape::of(&test).get(again), 3);

    // Once, and then the client hears of it.
    for _ in 0..2 {
        test.host.reply("alpha", Reply::json(401, &refusal()));
    }
    assert_eq!(test.chat(&json!({})).error_line(), "403 upstream_error upstream_auth_failed");
    // What is refused for another reason is refused.
    test.host.reply("alpha", Reply::json(429, &json!({"error": {"message": "slow down"}})));
    assert_eq!(test.chat(&json!({})).status, StatusCode::TOO_MANY_REQUESTS);
    // And when its time is over, though nothing was written since.
    test.advance(secs(60));
    test.host.reply("alpha", Reply::json(401, &refusal()));
    assert_eq!(test.chat(&json!({})).error_line(), "403 upstream_error upstream_auth_failed");
}

/// The end is by the store's clock, whatever an instance's own says.
#[test]
fn an_overlap_ends_by_the_stores_clock() {
    let test = setup().build();
    let first = sealed(&test, 1, "sk-first");
    put(&test, &rotated(&test, &first, "sk-second", 60), None);
    for (ahead_ms, overlaps) in [(59_999, true), (60_000, false)] {
        test.store.is_ahead_by_ms(ahead_ms);
        test.host.reply("alpha", Reply::json(401, &refusal()));
        assert_eq!(chat(&test) == StatusCode::OK, overlaps);
    }
}

/// An upstream that quotes what it was sent does not show it to clients, whichever it was.
#[test]
fn neither_credential_is_shown() {
    let test = setup().build();
    let first = sealed(&test, 1, "sk-first");
    put(&test, &rotated(&test, &first, "sk-second", 60), None);
    let quoting = json!({"error": {"message": "bad: sk-first sk-second", "type": "invalid_request_error"}});
    test.host.reply("alpha", Reply::json(400, &quoting));
    let answer = test.chat(&json!({})).text();
    assert!(answer.contains("bad: *** ***") && !answer.contains("sk-"), "{answer}");
}

#[test]
fn a_request_keeps_the_credential_that_it_began_with() {
    let test = setup().build();
    let first = sealed(&test, 1, "sk-first");
    put(&test, &first, None);
    let feed = Feed::default();
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.start_chat(&json!({"stream": true}));
    answer.must_wait();
    put(&test, &rotated(&test, &first, "sk-second", 0), Some(1));
    refresh(&test);
    feed.push(text_chunk("a"));
    feed.push(ending());
    feed.end();
    let answer = answer.finish();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(sent(&test.host.last_call()), "sk-first");
    assert_eq!(chat(&test), StatusCode::OK);
    assert_eq!(sent(&test.host.last_call()), "sk-second");
}

#[test]
fn a_provider_that_is_gone_takes_its_secret_along() {
    let test = setup().build();
    put(&test, &sealed(&test, 1, "sk-sealed"), None);
    assert_eq!(chat(&test), StatusCode::OK);
    let slug = provider("alpha", &json!({})).slug;
    ready(test.store.inner.delete_provider(&slug, 1, &by(Action::Delete))).unwrap();
    refresh(&test);
    assert!(test.listed().is_empty());
    put(&test, &sealed(&test, 1, "sk-sealed"), None);
    refresh(&test);
    assert_eq!(chat(&test), StatusCode::OK);
    assert_eq!(test.master_keys.unwrapped(), 2, "it was not kept");
}

/// Whoever may test a provider must not be able to have another one's credential sent to a host of their own.
#[test]
fn a_provider_that_is_only_tested_has_nothing_of_the_stored_one() {
    let test = setup().build();
    let first = sealed(&test, 1, "sk-first");
    put(&test, &rotated(&test, &first, "sk-second", 600), None);
    refresh(&test);
    let run = |provider: &catalog::Provider| {
        let request = TestRequest { provider: provider.clone(), model: None, stream: false };
        let gateway = test.gateway.clone();
        Task::new(async move { gateway.test(request).await }).finish()
    };
    // Its credential is refused, and the one before is not tried.
    let given = CredentialRef::Inline(Secret::new("sk-third"));
    test.host.reply("alpha", Reply::json(401, &refusal()));
    let refused = run(&catalog::Provider { credential: given, ..first.provider.clone() });
    assert_eq!(refused.failure.unwrap().class, "auth");
    assert_eq!(test.host.calls().iter().map(sent).collect::<Vec<_>>(), ["sk-third"]);

    let mut elsewhere = rotated(&test, &first, "sk-second", 600).provider;
    let catalog::Adapter::Proxy(config) = &mut elsewhere.adapter else { panic!("it is a proxy") };
    config.base_url = "https://evil.example/v1".to_owned();
    assert_eq!(run(&elsewhere).failure.unwrap().class, "unusable");
    elsewhere.credential = CredentialRef::Inline(Secret::new("sk-of-evil"));
    test.host.reply("evil", Reply::json(401, &refusal()));
    assert!(!run(&elsewhere).ok);
    assert_eq!(test.host.calls().len(), 2);
    assert_eq!(sent(&test.host.last_call()), "sk-of-evil");
}
