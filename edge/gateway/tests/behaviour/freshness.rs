//! What is read from the store, when, and who waits for it.

use catalog::testing::SeedStore as _;
use catalog::{ApiKey, ApiKeyHasher, LeftOut, Secret};
use futures_util::FutureExt as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Log, Mood, Task, TestGateway, provider, secs, setup};

const MS: fn(u64) -> std::time::Duration = std::time::Duration::from_millis;

fn start_models(test: &TestGateway) -> Task<Answer> {
    test.start(test.request(Method::GET, "/v1/models", ""))
}

/// Snapshots, versions and keys that were read.
fn reads(test: &TestGateway) -> [usize; 3] {
    [test.store.snapshots(), test.store.checks(), test.store.key_look_ups()]
}

/// Lets time pass until what was new at the start has been confirmed.
fn settle(test: &TestGateway) {
    for _ in 0..3 {
        test.listed();
        test.host.run_spawned();
        test.advance(secs(2));
    }
    test.listed();
    test.host.run_spawned();
    test.listed();
}

#[test]
fn a_cold_instance_reads_twice_at_once_before_its_first_answer() {
    let test = setup().provider("alpha", &json!({})).store(Mood::Slow).build();
    let mut first = start_models(&test);
    first.must_wait();
    assert_eq!(reads(&test), [1, 0, 1], "both are under way");
    test.store.is(Mood::Well);
    test.store.go();
    assert_eq!(first.finish().status, StatusCode::OK);
    assert_eq!(reads(&test), [1, 0, 1]);
}

#[test]
fn what_was_new_is_read_once_more_and_then_no_more() {
    let test = setup().provider("alpha", &json!({})).build();
    settle(&test);
    let [snapshots, checks, keys] = reads(&test);
    assert_eq!([snapshots, keys], [2, 2]);
    for _ in 0..5 {
        test.advance(secs(2));
        test.listed();
        test.host.run_spawned();
    }
    assert_eq!(reads(&test), [snapshots, checks + 5, keys], "a small read every two seconds is all");
}

#[test]
fn a_change_makes_nobody_read_what_it_does_not_concern() {
    let test = setup().provider("alpha", &json!({})).build();
    settle(&test);
    let mine = ApiKey::parse(&test.key).unwrap();
    let others = (10..).map(|seed| ApiKey::from_random(&[seed; 32]));
    let mut others = others.filter(|other| other.id().group() != mine.id().group());
    let [snapshots, _, keys] = reads(&test);
    for other in others.by_ref().take(9) {
        test.put_key(&other, |_| {});
    }
    settle(&test);
    assert_eq!((test.store.snapshots(), test.store.key_look_ups()), (snapshots, keys));

    test.put_provider(&provider("beta", &json!({"models": [{"id": "new"}]})), None);
    settle(&test);
    assert_eq!(test.listed(), ["m", "new"]);
    assert_eq!((test.store.snapshots(), test.store.key_look_ups()), (snapshots + 2, keys));

    test.put_key(&mine, |record| record.label = "changed".to_owned());
    settle(&test);
    assert_eq!((test.store.snapshots(), test.store.key_look_ups()), (snapshots + 2, keys + 2));
}

/// A new count and the old record: who reads in the middle of a write may see that.
#[test]
fn a_revocation_that_was_read_too_early_is_seen_at_the_next_check() {
    let test = setup().build();
    settle(&test);
    let key = ApiKey::parse(&test.key).unwrap();
    test.store.keeps_showing_key(Some(test.key_record(&key)));
    test.put_key(&key, |record| record.revoked_at_ms = Some(1));
    test.advance(secs(10));
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    test.store.keeps_showing_key(None);
    test.advance(secs(2));
    test.get("/v1/models");
    test.host.run_spawned();
    assert_eq!(test.get("/v1/models").status, StatusCode::UNAUTHORIZED);
}

/// On a Worker, a request that another one wakes goes on in that one's context.
#[test]
fn who_waits_for_anothers_reading_is_woken_by_time_alone() {
    let test = setup().provider("alpha", &json!({})).store(Mood::Slow).build();
    let (mut reader, mut waiter) = (start_models(&test), start_models(&test));
    reader.must_wait();
    waiter.must_wait();
    assert_eq!(test.store.snapshots(), 1, "one reads for both");
    test.store.is(Mood::Well);
    test.store.go();
    assert_eq!(reader.finish().status, StatusCode::OK);
    waiter.must_wait();
    test.host.advance(MS(100));
    assert_eq!(waiter.finish().status, StatusCode::OK);
    assert_eq!(test.store.snapshots(), 1);
}

#[test]
fn a_reading_that_was_cancelled_holds_nobody_up() {
    let test = setup().provider("alpha", &json!({})).store(Mood::Slow).build();
    let (mut reader, mut waiter) = (start_models(&test), start_models(&test));
    reader.must_wait();
    waiter.must_wait();
    drop(reader);
    test.store.is(Mood::Well);
    test.store.go();
    waiter.must_wait();
    test.host.advance(MS(100));
    assert_eq!(waiter.finish().status, StatusCode::OK);
}

/// A Worker's request that ends takes its futures along, and drops none of them.
#[test]
fn a_reading_that_went_silent_holds_others_up_for_a_second() {
    let test = setup().provider("alpha", &json!({})).store(Mood::Slow).build();
    let (mut silent, mut waiter) = (start_models(&test), start_models(&test));
    silent.must_wait();
    waiter.must_wait();
    test.store.is(Mood::Well);
    for _ in 0..9 {
        test.host.advance(MS(100));
        waiter.must_wait();
    }
    // The key was asked for while the store was slow.
    test.store.go();
    test.host.advance(MS(100));
    assert_eq!(waiter.finish().status, StatusCode::OK);
    assert_eq!(test.store.snapshots(), 2);
    drop(silent);
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
}

#[test]
fn many_that_wait_for_a_store_that_fails_try_it_once() {
    let test = setup().provider("alpha", &json!({})).store(Mood::Slow).build();
    let mut waiting: Vec<_> = (0..20).map(|_| start_models(&test)).collect();
    waiting.iter_mut().for_each(Task::must_wait);
    test.store.is(Mood::Down);
    test.store.go();
    let first = waiting.remove(0).finish();
    assert_eq!(first.error_line(), "503 server_error store_unavailable");
    test.host.advance(MS(100));
    for answer in waiting {
        assert_eq!(answer.finish().error_line(), "503 server_error store_unavailable");
    }
    assert_eq!(test.store.snapshots(), 1);
}

#[test]
fn a_cold_instance_with_a_store_that_hangs_says_so_and_takes_what_comes_late() {
    let test = setup().provider("alpha", &json!({})).store(Mood::Slow).build();
    let mut first = start_models(&test);
    first.must_wait();
    test.host.advance(secs(2));
    first.must_wait();
    test.host.advance(secs(1));
    let answer = first.finish();
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(answer.error_line(), "503 server_error store_unavailable");
    test.store.is(Mood::Well);
    test.store.go();
    assert_eq!(test.host.run_spawned(), 0);
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    assert_eq!(test.store.snapshots(), 1, "the first reading was not in vain");
}

#[test]
fn a_cold_instance_says_what_is_wrong_with_its_store() {
    for (mood, class, word) in [
        (Mood::Down, "unavailable", "does not answer"),
        (Mood::NotSetUp, "not_set_up", "DYAD_TABLE"),
        (Mood::Denied, "denied", "credentials"),
    ] {
        let test = setup().provider("alpha", &json!({})).store(mood).build();
        let ready = test.get("/ready");
        assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ready.header("retry-after"), Some("2"));
        let expected = json!({"status": "unavailable", "store": class, "limits": "ok", "key_secret": "ok", "models": 0, "left_out": 0});
        assert_eq!(ready.json(), expected);
        let answer = test.get("/v1/models");
        assert_eq!(answer.header("retry-after"), Some("2"));
        let error: Value = answer.json()["error"].take();
        assert_eq!(error["code"], "store_unavailable");
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
        assert_eq!(test.gateway.status().store_failure, Some(class));
        // Whoever has no key is told that, and the store is not asked.
        let snapshots = test.store.snapshots();
        assert_eq!(test.models_with(None).status, StatusCode::UNAUTHORIZED);
        assert_eq!(test.models_with(Some("Bearer dgw_x")).status, StatusCode::UNAUTHORIZED);
        assert_eq!(test.store.snapshots(), snapshots);
    }
}

#[test]
fn a_warm_instance_serves_on_and_says_what_is_wrong() {
    for (mood, class) in [(Mood::NotSetUp, "not_set_up"), (Mood::Denied, "denied")] {
        let test = setup().provider("alpha", &json!({})).build();
        assert_eq!(test.listed(), ["m"]);
        test.store.is(mood);
        test.advance(secs(2));
        test.listed();
        test.host.run_spawned();
        assert_eq!(test.listed(), ["m"]);
        let expected = json!({"status": "degraded", "store": class, "limits": "ok", "key_secret": "ok", "models": 1, "left_out": 0});
        assert_eq!(test.get("/ready").json(), expected);
        test.store.is(Mood::Well);
        test.advance(secs(2));
        test.listed();
        test.host.run_spawned();
        assert_eq!(test.get("/ready").json()["store"], "ok");
    }
}

#[test]
fn what_is_left_out_is_named_and_logged_once() {
    let test = setup().provider("alpha", &json!({})).build();
    let log = Log::start();
    let told = || log.all().iter().filter(|line| line.contains("CONFIG/PROVIDER#")).count();
    let bad = |name: &str| LeftOut::new(&format!("CONFIG/PROVIDER#{name}"), "attribute body is not JSON");
    test.store.leaves_out(&[bad("b")]);
    settle(&test);
    assert_eq!(test.listed(), ["m"], "the others serve");
    assert_eq!(told(), 1);
    assert_eq!(test.get("/ready").json()["left_out"], 1);
    assert_eq!(test.gateway.status().left_out, [bad("b")]);

    test.store.leaves_out(&[bad("b"), bad("c")]);
    test.put_provider(&provider("new", &json!({})), None);
    settle(&test);
    assert_eq!(told(), 2);
    test.store.leaves_out(&[]);
    test.put_provider(&provider("newer", &json!({})), None);
    settle(&test);
    assert_eq!(test.gateway.status().left_out, []);
}

#[test]
fn another_key_secret_than_the_stores_is_told_and_logged_once() {
    let test = setup().provider("alpha", &json!({})).build();
    let log = Log::start();
    let told = || log.all().iter().filter(|line| line.contains("another key secret")).count();
    let stands = || {
        test.advance(secs(10));
        test.listed();
        test.host.run_spawned();
        let ready = test.get("/ready").json();
        (ready["status"].clone(), ready["key_secret"].clone())
    };
    let other = ApiKeyHasher::new(&Secret::new("another")).check();
    let put = |check, expected| test.store.seed_key_secret(check, expected).now_or_never().unwrap().unwrap();
    assert_eq!(stands(), (json!("ready"), json!("ok")), "nobody has said yet which is the store's");
    put(other, None);
    assert_eq!(stands(), (json!("degraded"), json!("mismatch")));
    assert!(test.gateway.status().key_secret_differs);
    assert_eq!((stands().0, told()), (json!("degraded"), 1));
    put(test.hasher.check(), Some(1));
    assert_eq!(stands(), (json!("ready"), json!("ok")));
    assert_eq!(told(), 1);
}

#[test]
fn a_key_that_cannot_be_read_is_refused_and_named() {
    let test = setup().provider("alpha", &json!({})).build();
    settle(&test);
    let key = ApiKey::parse(&test.key).unwrap();
    let damage = LeftOut::new("KEY#n/n1", "attribute key_hash is missing or of the wrong kind");
    // Whatever was known of it: perhaps it was revoked by a newer version.
    test.put_key(&key, |_| {});
    test.store.cannot_read_keys(Some(damage.clone()));
    test.advance(secs(10));
    let look_ups = test.store.key_look_ups();
    for _ in 0..3 {
        assert_eq!(test.get("/v1/models").error_line(), "503 server_error store_unavailable");
    }
    assert_eq!(test.store.key_look_ups(), look_ups + 1);
    assert_eq!(test.gateway.status().left_out, [damage]);

    test.store.cannot_read_keys(None);
    test.put_key(&key, |_| {});
    test.advance(secs(10));
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    assert_eq!(test.gateway.status().left_out, []);
}

#[test]
fn an_idle_instance_looks_again_at_a_store_that_failed_long_ago() {
    let test = setup().provider("alpha", &json!({})).build();
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    test.store.is(Mood::Down);
    test.advance(secs(3));
    test.listed();
    test.host.run_spawned();
    let checks = test.store.checks();
    test.store.is(Mood::Hangs);
    test.advance(secs(9));
    assert_eq!(test.get("/v1/models").status, StatusCode::OK, "it failed just now: nobody waits");
    assert_eq!(test.store.checks(), checks);
    test.host.run_spawned();

    test.store.is(Mood::Well);
    test.put_key(&ApiKey::parse(&test.key).unwrap(), |record| record.revoked_at_ms = Some(1));
    test.advance(secs(3_600));
    assert_eq!(test.get("/v1/models").status, StatusCode::UNAUTHORIZED);
}

#[test]
fn nothing_is_fresh_for_longer_than_it_may_be_old() {
    let settings = |s: &mut gateway::Settings| s.config_refresh = secs(300);
    let test = setup().provider("alpha", &json!({})).settings(settings).build();
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    test.put_key(&ApiKey::parse(&test.key).unwrap(), |record| record.revoked_at_ms = Some(1));
    test.advance(secs(10));
    assert_eq!(test.get("/v1/models").status, StatusCode::UNAUTHORIZED);
}

#[test]
fn one_reads_a_changed_key_for_all() {
    let test = setup().provider("alpha", &json!({})).build();
    settle(&test);
    test.put_key(&ApiKey::parse(&test.key).unwrap(), |record| record.revoked_at_ms = Some(1));
    test.advance(secs(2));
    test.listed();
    test.host.run_spawned();
    let before = test.store.key_look_ups();
    test.store.is(Mood::Slow);
    let mut reader = start_models(&test);
    reader.must_wait();
    for _ in 0..100 {
        assert_eq!(test.get("/v1/models").status, StatusCode::OK, "it was good two seconds ago");
    }
    assert_eq!(test.store.key_look_ups(), before + 1);
    test.store.is(Mood::Well);
    test.store.go();
    assert_eq!(reader.finish().status, StatusCode::UNAUTHORIZED);
    assert_eq!(test.get("/v1/models").status, StatusCode::UNAUTHORIZED);
}

#[test]
fn what_was_known_too_long_ago_is_not_served_while_another_reads() {
    let test = setup().provider("alpha", &json!({})).build();
    settle(&test);
    test.put_key(&ApiKey::parse(&test.key).unwrap(), |record| record.revoked_at_ms = Some(1));
    test.advance(secs(3_600));
    test.store.hold_keys(true);
    let (mut reader, mut waiter) = (start_models(&test), start_models(&test));
    let before = test.store.key_look_ups();
    reader.must_wait();
    waiter.must_wait();
    assert_eq!(test.store.key_look_ups(), before + 1);
    test.store.hold_keys(false);
    test.store.go();
    assert_eq!(reader.finish().status, StatusCode::UNAUTHORIZED);
    test.host.advance(MS(10));
    assert_eq!(waiter.finish().status, StatusCode::UNAUTHORIZED);
}
