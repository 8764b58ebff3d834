//! Limits across instances: what every store must do, and what the table's own does when answers get lost.

use std::time::{Duration, SystemTime};

use catalog::{ApiKeyId, Ask, Counter, Held, Hold, LimitStore, Period, Quantity, StoreError, Taken};
use serde_json::{Value, json};
use store::Timing;
use store::sdk::{SharedTimeSource, TimeSource};
use tokio::task::JoinSet;

use crate::backend::{Backend, get_raw, over_http, over_http_at, put_raw, serve};
use crate::contract::on_every_engine;
use crate::fault_proxy::{Fault, FaultProxy};
use crate::records::key;

const NOW_MS: u64 = 1_785_751_200_000;
const LATER_MS: u64 = NOW_MS + 30_000;

on_every_engine! {
    a_window_is_granted_once
    what_is_too_little_is_not_taken
    what_was_given_back_can_be_taken
    what_was_charged_cannot
    counters_are_apart
    many_takers_get_the_limit
    slots_are_held_by_somebody
    slots_expire
    a_mistaken_holder_is_put_right
    a_lowered_limit_leaves_what_runs
    many_holders_get_the_limit
}

fn id(seed: u64) -> ApiKeyId {
    key(seed).id
}

fn counter() -> Counter {
    Counter { key: id(1), quantity: Quantity::Requests, period: Period::Minute, start_ms: NOW_MS }
}

async fn take(store: &dyn LimitStore, need: u64, extra: u64, limit: u64) -> (u64, u64, u64) {
    let Taken { granted, counted, left } = store.take(&counter(), Ask { need, extra }, limit).await.unwrap();
    (granted, counted, left)
}

async fn a_window_is_granted_once(backend: Backend) {
    let store = &*backend.limits;
    assert_eq!(take(store, 1, 3, 10).await, (4, 4, 6));
    assert_eq!(take(store, 1, 0, 10).await, (1, 1, 5));
    // The end of the window: granted is what was left, counted what was asked for.
    assert_eq!(take(store, 1, 7, 10).await, (5, 8, 0));
    assert_eq!(take(store, 1, 0, 10).await, (0, 0, 0));
    assert_eq!(take(store, 1, 0, 15).await, (1, 1, 1), "another limit, and what was counted in vain");
}

async fn what_is_too_little_is_not_taken(backend: Backend) {
    let store = &*backend.limits;
    assert_eq!(take(store, 11, 0, 10).await, (0, 0, 10));
    assert_eq!(take(store, 7, 0, 10).await, (7, 7, 3));
    assert_eq!(take(store, 4, 5, 10).await, (0, 0, 3));
    assert_eq!(take(store, 3, 5, 10).await, (3, 8, 0));
}

async fn what_was_given_back_can_be_taken(backend: Backend) {
    let store = &*backend.limits;
    store.give_back(&counter(), 1).await.unwrap();
    assert_eq!(take(store, 1, 7, 8).await, (8, 8, 0));
    store.give_back(&counter(), 5).await.unwrap();
    assert_eq!(take(store, 5, 5, 8).await, (5, 10, 0));
    store.give_back(&counter(), 14).await.unwrap();
    assert_eq!(take(store, 1, 0, 8).await, (0, 0, 0), "more than there is cannot be given back");
    store.give_back(&counter(), 13).await.unwrap();
    assert_eq!(take(store, 8, 0, 8).await, (8, 8, 0));
}

async fn what_was_charged_cannot(backend: Backend) {
    let store = &*backend.limits;
    store.charge(&counter(), 4).await.unwrap();
    assert_eq!(take(store, 1, 0, 6).await, (1, 1, 1));
    store.charge(&counter(), 4).await.unwrap();
    assert_eq!(take(store, 1, 0, 6).await, (0, 0, 0));
    assert_eq!(take(store, 1, 0, 10).await, (1, 1, 0));
}

async fn counters_are_apart(backend: Backend) {
    let store = &*backend.limits;
    let day = Period::Day.window(NOW_MS).start_ms;
    let month = Period::Month.window(NOW_MS).start_ms;
    for other in [
        counter(),
        Counter { key: id(2), ..counter() },
        Counter { quantity: Quantity::Tokens, ..counter() },
        Counter { period: Period::Day, start_ms: day, ..counter() },
        Counter { period: Period::Month, start_ms: month, ..counter() },
        Counter { start_ms: NOW_MS + 60_000, ..counter() },
        Counter { start_ms: NOW_MS - 60_000, ..counter() },
    ] {
        let ask = Ask { need: 5, extra: 0 };
        let taken = Taken { granted: 5, counted: 5, left: 0 };
        assert_eq!(store.take(&other, ask, 5).await.unwrap(), taken, "{other:?}");
    }
    assert_eq!(take(store, 1, 0, 5).await, (0, 0, 0));
}

/// Sixteen takers until nothing is left, each giving back what it did not get.
async fn many_takers_get_the_limit(backend: Backend) {
    const LIMIT: u64 = 500;
    let mut takers = JoinSet::new();
    for taker in 0..16 {
        let store = backend.limits.clone();
        takers.spawn(async move {
            let mut all = 0;
            loop {
                let ask = Ask { need: 1, extra: taker };
                let taken = store.take(&counter(), ask, LIMIT).await.unwrap();
                if taken.granted == 0 {
                    return all;
                }
                store.give_back(&counter(), taken.counted - taken.granted).await.unwrap();
                all += taken.granted;
            }
        });
    }
    let all: u64 = takers.join_all().await.into_iter().sum();
    let (rest, ..) = take(&*backend.limits, 1, LIMIT, LIMIT).await;
    assert_eq!(all + rest, LIMIT);
}

fn hold<'a>(key: &'a ApiKeyId, holder: &'a str, known: u32, wanted: u32, limit: u32) -> Hold<'a> {
    at(
        NOW_MS,
        Hold { key, holder, known: until(known, LATER_MS), wanted: until(wanted, 0), limit, now_ms: 0 },
    )
}

fn until(slots: u32, until_ms: u64) -> Held {
    Held { slots, until_ms }
}

/// At this time, for half a minute.
fn at(now_ms: u64, hold: Hold<'_>) -> Hold<'_> {
    Hold { now_ms, wanted: until(hold.wanted.slots, now_ms + 30_000), ..hold }
}

async fn slots_are_held_by_somebody(backend: Backend) {
    let (store, key, other) = (&*backend.limits, id(1), id(2));
    assert_eq!(store.hold(hold(&key, "a", 0, 3, 5)).await.unwrap(), 3);
    assert_eq!(store.hold(hold(&key, "b", 0, 3, 5)).await.unwrap(), 2);
    assert_eq!(store.hold(hold(&key, "c", 0, 1, 5)).await.unwrap(), 0);
    assert_eq!(store.hold(hold(&other, "c", 0, 9, 5)).await.unwrap(), 5, "another key has its own");
    // Again, fewer, none.
    assert_eq!(store.hold(hold(&key, "a", 3, 3, 5)).await.unwrap(), 3);
    assert_eq!(store.hold(hold(&key, "a", 3, 1, 5)).await.unwrap(), 1);
    assert_eq!(store.hold(hold(&key, "c", 0, 9, 5)).await.unwrap(), 2);
    assert_eq!(store.hold(hold(&key, "b", 2, 0, 5)).await.unwrap(), 0);
    assert_eq!(store.hold(hold(&key, "c", 2, 9, 5)).await.unwrap(), 4);
    assert_eq!(store.hold(hold(&key, "d", 0, 0, 5)).await.unwrap(), 0);
}

async fn slots_expire(backend: Backend) {
    let (store, key) = (&*backend.limits, id(1));
    assert_eq!(store.hold(hold(&key, "a", 0, 3, 5)).await.unwrap(), 3);
    assert_eq!(store.hold(hold(&key, "b", 0, 2, 5)).await.unwrap(), 2);
    assert_eq!(store.hold(at(LATER_MS - 10_000, hold(&key, "b", 2, 2, 5))).await.unwrap(), 2, "renewed");
    assert_eq!(store.hold(at(LATER_MS - 1, hold(&key, "c", 0, 4, 5))).await.unwrap(), 0);
    assert_eq!(store.hold(at(LATER_MS, hold(&key, "c", 0, 4, 5))).await.unwrap(), 3, "a's time is over");
    // Who comes back too late has nothing left, and cannot take from others.
    assert_eq!(store.hold(at(LATER_MS, hold(&key, "a", 3, 3, 5))).await.unwrap(), 0);
    // Nobody has taken it: late, but still there.
    let late = LATER_MS + 60_000;
    assert_eq!(store.hold(at(late, hold(&key, "b", 2, 2, 5))).await.unwrap(), 2);
    assert_eq!(store.hold(at(late, hold(&key, "a", 0, 9, 5))).await.unwrap(), 3);
}

async fn a_mistaken_holder_is_put_right(backend: Backend) {
    let (store, key) = (&*backend.limits, id(1));
    assert_eq!(store.hold(hold(&key, "a", 4, 3, 5)).await.unwrap(), 3, "it has none");
    assert_eq!(store.hold(hold(&key, "a", 0, 2, 5)).await.unwrap(), 2, "it has three");
    assert_eq!(store.hold(hold(&key, "a", 1, 4, 5)).await.unwrap(), 4, "it has two");
    assert_eq!(store.hold(hold(&key, "b", 7, 0, 5)).await.unwrap(), 0);
    assert_eq!(store.hold(hold(&key, "b", 0, 9, 5)).await.unwrap(), 1);
    assert_eq!(store.hold(hold(&key, "a", 9, 0, 5)).await.unwrap(), 0);
    assert_eq!(store.hold(hold(&key, "b", 1, 9, 5)).await.unwrap(), 5);
}

async fn a_lowered_limit_leaves_what_runs(backend: Backend) {
    let (store, key) = (&*backend.limits, id(1));
    assert_eq!(store.hold(hold(&key, "a", 0, 4, 10)).await.unwrap(), 4);
    assert_eq!(store.hold(hold(&key, "b", 0, 4, 10)).await.unwrap(), 4);
    assert_eq!(store.hold(hold(&key, "c", 0, 1, 5)).await.unwrap(), 0);
    assert_eq!(store.hold(hold(&key, "a", 4, 5, 5)).await.unwrap(), 4, "no more than it has");
    assert_eq!(store.hold(hold(&key, "b", 0, 9, 5)).await.unwrap(), 4, "though it knows nothing of it");
    assert_eq!(store.hold(hold(&key, "a", 4, 1, 5)).await.unwrap(), 1);
    assert_eq!(store.hold(hold(&key, "c", 0, 1, 5)).await.unwrap(), 0);
    assert_eq!(store.hold(hold(&key, "b", 4, 3, 5)).await.unwrap(), 3);
    assert_eq!(store.hold(hold(&key, "c", 0, 9, 5)).await.unwrap(), 1);
}

/// Sixteen holders that come and go, over twenty slots: what they hold at once never passes the limit.
async fn many_holders_get_the_limit(backend: Backend) {
    const LIMIT: u32 = 20;
    let mut holders = JoinSet::new();
    for holder in 0..16_u32 {
        let (store, key) = (backend.limits.clone(), id(1));
        holders.spawn(async move {
            let name = format!("holder{holder}");
            let mut held = 0;
            for step in 1..=6 {
                let wanted = (holder + step) % 4;
                held = store.hold(hold(&key, &name, held, wanted, LIMIT)).await.unwrap();
                assert!(held <= wanted);
            }
            held
        });
    }
    let held: u32 = holders.join_all().await.into_iter().sum();
    assert!(held <= LIMIT, "{held} of {LIMIT}");
    let rest = backend.limits.hold(hold(&id(1), "last", 0, LIMIT, LIMIT)).await.unwrap();
    assert_eq!(held + rest, LIMIT, "no slot is lost");
}

/// Instances of several versions count in the same items: a change here needs other sort keys.
#[tokio::test]
async fn the_form_stays_as_it_is() {
    let backend = Backend::embedded().await;
    let (store, engine, key) = (&*backend.limits, backend.engine.unwrap(), id(1));
    take(store, 1, 4, 10).await;
    let pk = format!("LIMIT#{key}");
    let expected = json!({
        "pk": { "S": pk }, "sk": { "S": "REQUESTS#MINUTE#1785751200000" }, "schema_version": { "N": "1" },
        "taken": { "N": "5" }, "ttl": { "N": "1785754860" },
    });
    assert_eq!(get_raw(&engine, &pk, "REQUESTS#MINUTE#1785751200000"), expected);
    for (period, start_ms, sk) in [
        (Period::Day, 1_785_715_200_000, "TOKENS#DAY#1785715200000"),
        (Period::Month, 1_785_542_400_000, "TOKENS#MONTH#1785542400000"),
    ] {
        let counter = Counter { quantity: Quantity::Tokens, period, start_ms, key: key.clone() };
        store.charge(&counter, 7).await.unwrap();
        assert_eq!(get_raw(&engine, &pk, sk)["taken"], json!({ "N": "7" }), "{sk}");
    }

    store.hold(hold(&key, "a1", 0, 2, 5)).await.unwrap();
    store.hold(hold(&key, "b2", 0, 1, 5)).await.unwrap();
    let expected = json!({
        "pk": { "S": pk }, "sk": { "S": "SLOTS" }, "schema_version": { "N": "1" }, "held": { "N": "3" },
        "holder_a1": { "M": { "slots": { "N": "2" }, "until_ms": { "N": "1785751230000" } } },
        "holder_b2": { "M": { "slots": { "N": "1" }, "until_ms": { "N": "1785751230000" } } },
        "ttl": { "N": "1785754830" },
    });
    assert_eq!(get_raw(&engine, &pk, "SLOTS"), expected);
}

#[tokio::test]
async fn unreadable_items_are_named() {
    let backend = Backend::over_http().await;
    let (store, engine, key) = (&*backend.limits, backend.engine.unwrap(), id(1));
    let (pk, sk) = (format!("LIMIT#{key}"), "REQUESTS#MINUTE#1785751200000");
    let put = |sk: &str, attributes: &Value| {
        let mut item = json!({ "pk": { "S": pk }, "sk": { "S": sk } });
        item.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
        put_raw(&engine, &item);
    };
    put(sk, &json!({ "taken": { "S": "many" } }));
    let ask = Ask { need: 1, extra: 0 };
    let error = store.take(&counter(), ask, 10).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable(item) if item.name == format!("{pk}/{sk}")), "{error}");

    for (attributes, named) in [
        (json!({ "held": { "N": "1" }, "holder_a": { "S": "1" } }), "holder_a"),
        (json!({ "held": { "N": "1" }, "holder_a": { "M": { "slots": { "N": "1" } } } }), "holder_a"),
        (json!({ "held": { "N": "9" } }), "held"),
    ] {
        put("SLOTS", &attributes);
        let error = store.hold(hold(&key, "b", 0, 5, 5)).await.unwrap_err();
        let StoreError::Unreadable(item) = &error else { panic!("{error}") };
        assert_eq!(item.name, format!("LIMIT#{key}/SLOTS"));
        assert!(item.reason.contains(&format!("attribute {named} ")), "{error}");
    }
    let error = store.hold(hold(&key, "#", 0, 5, 5)).await.unwrap_err();
    assert!(matches!(&error, StoreError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn damaged_slots_are_put_right() {
    let backend = Backend::over_http().await;
    let (store, engine, key) = (&*backend.limits, backend.engine.unwrap(), id(1));
    let pk = format!("LIMIT#{key}");
    let well = json!({ "M": { "slots": { "N": "2" }, "until_ms": { "N": LATER_MS.to_string() } } });
    for damaged in [
        json!({ "held": { "N": "3" } }),
        json!({ "held": { "S": "many" }, "holder_a": well }),
        json!({ "holder_a": well }),
        json!({ "held": { "N": "3" }, "holder_a": well, "holder_b": { "S": "?" }, "holder_c": { "N": "1" } }),
    ] {
        let mut item = json!({ "pk": { "S": pk }, "sk": { "S": "SLOTS" }, "other": { "S": "kept" } });
        item.as_object_mut().unwrap().extend(damaged.as_object().unwrap().clone());
        put_raw(&engine, &item);
        let free = if damaged.get("holder_a").is_some() { 3 } else { 5 };
        let error = store.hold(hold(&key, "d", 0, 9, 5)).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unreadable(_)), "{error}");
        assert_eq!(store.hold(hold(&key, "d", 0, 9, 5)).await.unwrap(), free, "{damaged}");
        let item = get_raw(&engine, &pk, "SLOTS");
        assert_eq!((&item["held"], &item["other"]), (&json!({ "N": "5" }), &json!({ "S": "kept" })));
        assert!(item.get("holder_b").is_none() && item.get("holder_c").is_none(), "{item}");
    }
}

/// Nobody knows what it means, so nobody changes it.
#[tokio::test]
async fn items_of_another_schema_are_left_alone() {
    let backend = Backend::over_http().await;
    let (store, engine, key) = (&*backend.limits, backend.engine.unwrap(), id(1));
    let pk = format!("LIMIT#{key}");
    let item = |sk: &str| {
        json!({
            "pk": { "S": pk }, "sk": { "S": sk }, "schema_version": { "N": "2" },
            "taken": { "N": "1" }, "held": { "N": "7" },
        })
    };
    let counter_sk = "REQUESTS#MINUTE#1785751200000";
    for sk in [counter_sk, "SLOTS"] {
        put_raw(&engine, &item(sk));
    }
    for error in [
        store.take(&counter(), Ask { need: 1, extra: 0 }, 10).await.unwrap_err(),
        store.charge(&counter(), 1).await.unwrap_err(),
        store.hold(hold(&key, "a", 0, 1, 5)).await.unwrap_err(),
    ] {
        assert!(
            matches!(&error, StoreError::Unreadable(item) if item.reason.contains("schema 2")),
            "{error}"
        );
    }
    store.give_back(&counter(), 1).await.unwrap();
    for sk in [counter_sk, "SLOTS"] {
        assert_eq!(get_raw(&engine, &pk, sk), item(sk));
    }
}

/// Instances that never came back, far below the limit: somebody has to clear up after them.
#[tokio::test]
async fn expired_holders_do_not_gather() {
    let backend = Backend::embedded().await;
    let (store, engine, key) = (&*backend.limits, backend.engine.unwrap(), id(1));
    for holder in 0..50 {
        store.hold(hold(&key, &format!("gone{holder}"), 0, 1, 1_000)).await.unwrap();
    }
    let mut held = 0;
    for round in 0..3 {
        let late = at(LATER_MS, hold(&key, "a", held, 2, 1_000));
        held = store.hold(late).await.unwrap();
        assert_eq!(held, 2, "{round}");
    }
    let item = get_raw(&engine, &format!("LIMIT#{key}"), "SLOTS");
    assert_eq!(item["held"], json!({ "N": "2" }));
    assert_eq!(item.as_object().unwrap().keys().filter(|name| name.starts_with("holder_")).count(), 1);
}

const TIMING: Timing = Timing { attempt: Duration::from_millis(400), call: Duration::from_secs(3) };

async fn faulty_store() -> (store::DynamoStore, FaultProxy) {
    let (address, _) = serve().await;
    let proxy = FaultProxy::start(address).await;
    let store = over_http(proxy.address, TIMING);
    store.create_table().await.unwrap();
    proxy.plan([], Fault::None);
    (store, proxy)
}

#[tokio::test]
async fn each_call_is_one_request() {
    let (store, proxy) = faulty_store().await;
    take(&store, 1, 4, 10).await;
    store.charge(&counter(), 5).await.unwrap();
    take(&store, 1, 4, 10).await;
    store.give_back(&counter(), 3).await.unwrap();
    assert_eq!(proxy.requests(), 4);
    let key = id(1);
    assert_eq!(store.hold(hold(&key, "a", 0, 3, 5)).await.unwrap(), 3);
    assert_eq!(store.hold(hold(&key, "b", 0, 2, 5)).await.unwrap(), 2);
    assert_eq!(store.hold(hold(&key, "a", 3, 2, 5)).await.unwrap(), 2);
    assert_eq!(store.hold(hold(&key, "a", 2, 2, 5)).await.unwrap(), 2);
    assert_eq!(store.hold(hold(&key, "b", 2, 0, 5)).await.unwrap(), 0);
    assert_eq!(proxy.requests(), 9);
    // Two where others are in the way: fewer than wanted are free, or somebody's time is over.
    assert_eq!(store.hold(hold(&key, "b", 0, 4, 5)).await.unwrap(), 3);
    assert_eq!(proxy.requests(), 11);
}

/// The answer is lost after the request took effect.
#[tokio::test]
async fn a_lost_answer_wastes_and_never_exceeds() {
    let (store, proxy) = faulty_store().await;
    proxy.plan([Fault::LostAnswer], Fault::None);
    assert_eq!(take(&store, 1, 1, 10).await, (2, 2, 6), "counted twice");
    assert_eq!(proxy.requests(), 2);

    // Given back twice, it could be taken twice: nobody asks again, whether it took effect or not.
    for fault in [Fault::LostAnswer, Fault::HangUp] {
        proxy.plan([fault], Fault::None);
        let error = store.give_back(&counter(), 1).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert_eq!(proxy.requests(), 1, "{fault:?}");
    }
    assert_eq!(take(&store, 1, 0, 10).await, (1, 1, 6), "given back once");

    proxy.plan([Fault::LostAnswer], Fault::None);
    let key = id(1);
    assert_eq!(store.hold(hold(&key, "a", 0, 3, 5)).await.unwrap(), 3);
    proxy.plan([Fault::LostAnswer], Fault::None);
    assert_eq!(store.hold(hold(&key, "a", 3, 1, 5)).await.unwrap(), 1);
    assert_eq!(store.hold(hold(&key, "b", 0, 9, 5)).await.unwrap(), 4);
}

#[derive(Debug)]
struct Late(Duration);

impl TimeSource for Late {
    fn now(&self) -> SystemTime {
        SystemTime::now() - self.0
    }
}

#[tokio::test]
async fn the_clock_is_the_stores() {
    let (address, _) = serve().await;
    let late = over_http_at(address, TIMING, SharedTimeSource::new(Late(Duration::from_secs(300))));
    assert_eq!(late.clock_offset_ms(), 0, "nothing is known yet");
    late.create_table().await.unwrap();
    let off_by = late.clock_offset_ms().abs_diff(300_000);
    assert!(off_by < 2_000, "{off_by} ms");
    let right = over_http(address, TIMING);
    right.create_table().await.unwrap();
    assert_eq!(right.clock_offset_ms(), 0);
}
