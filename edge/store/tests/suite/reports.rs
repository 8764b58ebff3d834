//! Usage, when keys were used last, and how providers stand: on every engine.

use catalog::testing::stored;
use catalog::{
    Day, Failure, Health, HealthState, ProviderId, ProviderStatus, StoreError, TestReport, UsageCounts,
    UsageKey, UsageRow,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::backend::{Backend, get_raw, put_raw};
use crate::contract::on_every_engine;
use crate::records::{key, provider};

on_every_engine! {
    usage_is_added_up
    rows_are_apart_and_in_order
    models_may_have_any_name
    concurrent_usage_adds_up
    keys_know_when_they_were_used_last
    the_last_word_on_a_provider_counts
}

const DAY: Day = Day(20_000);

fn row(seed: u64, slug: &str, model: &str, requests: u64) -> UsageRow {
    let provider = provider(slug).slug;
    UsageRow {
        of: UsageKey { day: DAY, key: key(seed).id, provider, model: model.to_owned() },
        counts: UsageCounts {
            requests,
            failed: requests / 2,
            prompt_tokens: 10 * requests,
            completion_tokens: 100 * requests,
            estimated: requests / 3,
        },
        last_at_ms: DAY.start_ms() + requests,
    }
}

async fn usage_is_added_up(backend: Backend) {
    let store = &*backend.store;
    assert_eq!(store.usage(DAY).await.unwrap(), []);
    store.add_usage(&row(1, "a", "m", 6)).await.unwrap();
    assert_eq!(store.usage(DAY).await.unwrap(), [row(1, "a", "m", 6)]);
    // One that comes late does not move the time back.
    store.add_usage(&row(1, "a", "m", 3)).await.unwrap();
    let counts =
        UsageCounts { requests: 9, failed: 4, prompt_tokens: 90, completion_tokens: 900, estimated: 3 };
    assert_eq!(store.usage(DAY).await.unwrap(), [UsageRow { counts, ..row(1, "a", "m", 6) }]);
    store.add_usage(&row(1, "a", "m", 7)).await.unwrap();
    assert_eq!(store.usage(DAY).await.unwrap()[0].last_at_ms, DAY.start_ms() + 7);
}

async fn rows_are_apart_and_in_order(backend: Backend) {
    let store = &*backend.store;
    let mut rows = Vec::new();
    for seed in 0..3 {
        for slug in ["b", "a-1", "a"] {
            for model in ["y", "x", "X", "x/y"] {
                rows.push(row(seed, slug, model, rows.len() as u64));
            }
        }
    }
    for row in &rows {
        store.add_usage(row).await.unwrap();
    }
    let mut other_day = row(1, "a", "x", 1);
    other_day.of.day = Day(DAY.0 + 1);
    store.add_usage(&other_day).await.unwrap();
    rows.sort_by(|one, other| one.of.cmp(&other.of));
    assert_eq!(store.usage(DAY).await.unwrap(), rows);
    assert_eq!(store.usage(other_day.of.day).await.unwrap(), [other_day]);
}

async fn models_may_have_any_name(backend: Backend) {
    let store = &*backend.store;
    let long = "𝄞".repeat(UsageKey::MAX_MODEL_CHARS);
    let mut names = ["#", "a#b", "../x", "m\n\0", "{}", "ü", "u\u{308}", "=1+1", &long];
    names.sort_unstable();
    for (count, name) in names.into_iter().enumerate() {
        store.add_usage(&row(1, "a", name, count as u64)).await.unwrap();
    }
    let rows = store.usage(DAY).await.unwrap();
    assert!(rows.iter().map(|row| &*row.of.model).eq(names), "{rows:?}");
    for name in ["", &format!("{long}a")] {
        let refused = store.add_usage(&row(1, "a", name, 1)).await;
        assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    }
    assert_eq!(store.usage(DAY).await.unwrap().len(), names.len());
}

async fn concurrent_usage_adds_up(backend: Backend) {
    let mut instances = JoinSet::new();
    for instance in 1..=16 {
        let store = backend.store.clone();
        instances.spawn(async move {
            for time in 0..5 {
                let row = UsageRow { last_at_ms: instance * 10 + time, ..row(1, "a", "m", 6) };
                store.add_usage(&row).await.unwrap();
            }
        });
    }
    instances.join_all().await;
    let counts = UsageCounts {
        requests: 480,
        failed: 240,
        prompt_tokens: 4_800,
        completion_tokens: 48_000,
        estimated: 160,
    };
    let sum = UsageRow { counts, last_at_ms: 164, ..row(1, "a", "m", 6) };
    assert_eq!(backend.store.usage(DAY).await.unwrap(), [sum]);
    assert_eq!(backend.store.last_used().await.unwrap(), [(key(1).id, 164)]);
}

async fn keys_know_when_they_were_used_last(backend: Backend) {
    let store = &*backend.store;
    assert_eq!(store.last_used().await.unwrap(), []);
    for (seed, slug, at) in [(1, "a", 500), (2, "a", 300), (1, "b", 400), (2, "b", 301)] {
        store.add_usage(&UsageRow { last_at_ms: at, ..row(seed, slug, "m", 1) }).await.unwrap();
    }
    let mut expected = [(key(1).id, 500), (key(2).id, 301)];
    expected.sort();
    assert_eq!(store.last_used().await.unwrap(), expected);
}

async fn the_last_word_on_a_provider_counts(backend: Backend) {
    let store = &*backend.store;
    assert_eq!(store.statuses().await.unwrap(), []);
    let id = |slug: &str| stored(&provider(slug)).id;
    let failure = Failure {
        class: "auth".to_owned(),
        message: "the upstream refuses the credential".to_owned(),
        advice: "rotate it".to_owned(),
        status: Some(401),
    };
    let down = Health {
        state: HealthState::Down,
        since_ms: Some(1),
        checked_at_ms: Some(2),
        failure: Some(failure.clone()),
    };
    let healthy =
        Health { state: HealthState::Healthy, since_ms: Some(3), checked_at_ms: Some(4), failure: None };
    let test = TestReport { ok: true, at_ms: 5, model: "m".to_owned(), ..TestReport::default() };
    let status = |last_test: Option<&TestReport>, health: Option<&Health>| ProviderStatus {
        last_test: last_test.cloned(),
        health: health.cloned(),
    };
    store.put_status(&id("a"), &status(None, Some(&down))).await.unwrap();
    store.put_status(&id("b"), &status(Some(&test), None)).await.unwrap();
    store.put_status(&id("a"), &status(Some(&test), None)).await.unwrap();
    let mut expected =
        vec![(id("a"), status(Some(&test), Some(&down))), (id("b"), status(Some(&test), None))];
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(store.statuses().await.unwrap(), expected, "who tests leaves alone what was checked");

    store.put_status(&id("a"), &status(None, Some(&healthy))).await.unwrap();
    store.put_status(&id("b"), &ProviderStatus::default()).await.unwrap();
    let found = store.statuses().await.unwrap();
    let of = |id: &ProviderId| found.iter().find(|(found, _)| found == id).unwrap().1.clone();
    assert_eq!(of(&id("a")), status(Some(&test), Some(&healthy)));
    assert_eq!(of(&id("b")), status(Some(&test), None));

    let long = Failure { message: "x".repeat(70_000), ..failure };
    let long = Health { failure: Some(long), ..down };
    let refused = store.put_status(&id("a"), &status(None, Some(&long))).await;
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    assert_eq!(store.config_version().await.unwrap().providers, 0, "no change of the configuration");
}

/// One bad item takes none of the others away.
#[tokio::test]
async fn unreadable_reports_are_left_out() {
    let backend = Backend::embedded().await;
    let (store, engine) = (&*backend.store, backend.engine.unwrap());
    store.add_usage(&row(1, "a", "m", 1)).await.unwrap();
    store.put_status(&stored(&provider("a")).id, &ProviderStatus::default()).await.unwrap();
    let partition = format!("USAGE#{}", DAY.0);
    let sort_key = |seed: u64| format!("{}#a#{}", key(seed).id, "0".repeat(64));
    put_raw(&engine, &json!({ "pk": { "S": partition }, "sk": { "S": sort_key(2) } }));
    // Another's row under this one's key, and one of another version.
    let moved = json!({ "pk": { "S": partition }, "sk": { "S": sort_key(3) }, "schema_version": { "N": "1" }, "model": { "S": "m" } });
    put_raw(&engine, &moved);
    for pk in ["USED", "STATUS"] {
        put_raw(&engine, &json!({ "pk": { "S": pk }, "sk": { "S": "a" }, "schema_version": { "N": "1" } }));
    }
    assert_eq!(store.usage(DAY).await.unwrap().len(), 1);
    assert_eq!(store.last_used().await.unwrap().len(), 1);
    assert_eq!(store.statuses().await.unwrap().len(), 1);

    let later =
        json!({ "pk": { "S": "USED" }, "sk": { "S": key(1).id.as_str() }, "schema_version": { "N": "2" } });
    put_raw(&engine, &later);
    store.add_usage(&row(1, "a", "m", 1)).await.unwrap();
    assert_eq!(
        get_raw(&engine, "USED", key(1).id.as_str()),
        later,
        "what another version wrote is left alone"
    );
}
