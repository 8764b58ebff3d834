//! What an edge asks of its table, counted where it goes by. The store crate's documentation reckons with these
//! numbers.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use catalog::testing::SeedStore as _;
use catalog::{Day, UsageStore as _};
use http::StatusCode;

use crate::support::{Edge, Table, UPSTREAM, provider, provider_at};

const TICK: Duration = Duration::from_secs(2);

fn counted(table: &Table) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for operation in table.proxy.take_operations() {
        *counts.entry(operation).or_default() += 1;
    }
    counts
}

fn calls<const N: usize>(calls: [(&str, usize); N]) -> BTreeMap<String, usize> {
    calls.map(|(operation, count)| (operation.to_owned(), count)).into()
}

/// Two seconds pass, with so many requests of each key.
async fn tick(edge: &Edge, keys: &[catalog::ApiKey], each: usize) {
    edge.advance(TICK);
    // The first finds that a check is due, and goes on beside it.
    edge.models(&keys[0]).await;
    edge.at_rest().await;
    for _ in 0..each {
        for key in keys {
            edge.models(key).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_do_not_grow_with_requests() {
    let table = Table::empty().await;
    let mut keys = Vec::new();
    for seed in 1..=5 {
        keys.push(table.put_key(seed, |_| {}).await);
    }
    for name in ["a", "b", "c"] {
        table.store.seed_provider(&provider(name, name), None).await.unwrap();
    }
    counted(&table);
    let edge = table.edge();
    // Cold: the configuration, and each key when it is first used.
    edge.models(&keys[0]).await;
    assert_eq!(counted(&table), calls([("Query", 1), ("GetItem", 1)]));
    for key in &keys[1..] {
        edge.models(key).await;
    }
    assert_eq!(counted(&table), calls([("GetItem", 4)]));
    // The first check, and all of it once more.
    tick(&edge, &keys, 1).await;
    tick(&edge, &keys, 1).await;
    assert_eq!(counted(&table), calls([("Query", 1), ("GetItem", 2 + 5)]));
    // From then on one small read every two seconds, whatever comes.
    for each in [1, 10, 40] {
        for _ in 0..10 {
            tick(&edge, &keys, each).await;
        }
        assert_eq!(counted(&table), calls([("GetItem", 10)]));
    }
    // Nobody asks, nothing is asked.
    edge.advance(Duration::from_secs(3_600));
    assert_eq!(counted(&table), calls([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_costs_what_it_concerns_twice() {
    let table = Table::empty().await;
    let mut keys = Vec::new();
    for seed in 1..=5 {
        keys.push(table.put_key(seed, |_| {}).await);
    }
    let first = |key: &catalog::ApiKey| key.id().group();
    assert!(keys[1..].iter().all(|key| first(key) != first(&keys[0])), "the test wants another seed");
    table.store.seed_provider(&provider("a", "m"), None).await.unwrap();
    let edge = table.edge();
    for _ in 0..3 {
        tick(&edge, &keys, 1).await;
    }
    counted(&table);

    // A key: its own record, when it is next used, and again.
    table.put_key(1, |record| record.label = "changed".to_owned()).await;
    for _ in 0..4 {
        tick(&edge, &keys, 2).await;
    }
    assert_eq!(counted(&table), calls([("GetItem", 4 + 2)]));

    // A provider: all providers.
    table.store.seed_provider(&provider("b", "new"), None).await.unwrap();
    for _ in 0..4 {
        tick(&edge, &keys, 2).await;
    }
    assert_eq!(counted(&table), calls([("GetItem", 4), ("Query", 2)]));
}

/// The promise: within ten seconds, on an instance that is idle or busy.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_effective_within_the_greatest_age() {
    let table = Table::empty().await;
    let key = table.put_key(1, |_| {}).await;
    let (busy, idle) = (table.edge(), table.edge());
    for edge in [&busy, &idle] {
        for _ in 0..3 {
            tick(edge, std::slice::from_ref(&key), 1).await;
        }
    }
    table.put_key(1, |record| record.revoked_at_ms = Some(1)).await;
    busy.advance(TICK);
    busy.get("/v1/models", &key).await;
    busy.at_rest().await;
    assert_eq!(busy.get("/v1/models", &key).await.status, StatusCode::UNAUTHORIZED);
    idle.advance(Duration::from_secs(10));
    assert_eq!(idle.get("/v1/models", &key).await.status, StatusCode::UNAUTHORIZED);
}

/// What requests used is two updates for each key and model that was used, every interval, however many they were.
#[tokio::test(flavor = "multi_thread")]
async fn usage_costs_by_the_interval_and_not_by_the_request() {
    let table = Table::empty().await;
    let keys = [table.put_key(1, |_| {}).await, table.put_key(2, |_| {}).await];
    let provider = provider_at(&format!("http://{UPSTREAM}/v1"), "up", "m");
    table.store.seed_provider(&provider, None).await.unwrap();
    let edge = table.edge();
    for key in &keys {
        edge.models(key).await;
    }
    counted(&table);
    for each in [1, 25] {
        for key in &keys {
            for _ in 0..each {
                assert_eq!(edge.chat(key).await.status, StatusCode::OK);
            }
        }
        edge.at_rest().await;
        let updates = counted(&table).remove("UpdateItem").unwrap_or_default();
        // Where the interval ends among the requests, there are two of them.
        assert!((4..=8).contains(&updates), "{updates}");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let today = Day::of_ms(u64::try_from(now.as_millis()).unwrap());
    // It may have been midnight.
    let mut rows = table.store.usage(Day(today.0 - 1)).await.unwrap();
    rows.extend(table.store.usage(today).await.unwrap());
    assert!(rows.iter().all(|row| row.of.model == "m"));
    let requests: u64 = rows.iter().map(|row| row.counts.requests).sum();
    let prompt_tokens: u64 = rows.iter().map(|row| row.counts.prompt_tokens).sum();
    assert_eq!((requests, prompt_tokens), (52, 52 * 5));
    assert_eq!(table.store.last_used().await.unwrap().len(), 2);
}
