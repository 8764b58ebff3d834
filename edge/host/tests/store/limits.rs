//! Fifty instances on one table.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use catalog::testing::SeedStore as _;
use catalog::{ApiKey, ApiKeyLimits};
use gateway::{OnStoreFailure, Settings};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Edge, TOKENS, Table, UPSTREAM, provider_at};

const INSTANCES: usize = 50;

async fn fleet(limits: ApiKeyLimits) -> (Table, ApiKey, Vec<Arc<Edge>>) {
    let table = Table::empty().await;
    let key = table.put_key(1, |record| record.limits = limits).await;
    let provider = provider_at(&format!("http://{UPSTREAM}/v1"), "up", "m");
    table.store.seed_provider(&provider, None).await.unwrap();
    // What an emulator that is too slow would let through on its own is no matter of this test.
    let closed = |settings: &mut Settings| settings.limits_on_store_failure = OnStoreFailure::FailClosed;
    let edges = (0..INSTANCES).map(|_| Arc::new(table.near_edge(closed))).collect();
    (table, key, edges)
}

/// The items of the key's limits, by sort key.
fn items(table: &Table, key: &ApiKey) -> Vec<(String, Value)> {
    let request = json!({
        "TableName": "dyad-gateway", "KeyConditionExpression": "pk = :pk",
        "ExpressionAttributeValues": { ":pk": { "S": format!("LIMIT#{}", key.id()) } },
    });
    let answer = table.engine.query(serde_json::from_value(request).unwrap()).unwrap();
    let answer = serde_json::to_value(answer).unwrap();
    let items = answer["Items"].as_array().unwrap().clone();
    items.into_iter().map(|item| (item["sk"]["S"].as_str().unwrap().to_owned(), item)).collect()
}

fn taken(items: &[(String, Value)], kind: &str) -> Vec<u64> {
    let of_kind = items.iter().filter(|(sk, _)| sk.starts_with(kind));
    of_kind.map(|(_, item)| item["taken"]["N"].as_str().unwrap().parse().unwrap()).collect()
}

fn minute() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_instances_count_as_one() {
    const REQUESTS: u32 = 300;
    let limits = ApiKeyLimits {
        requests_per_minute: Some(REQUESTS),
        tokens_per_month: Some(1_000_000),
        ..ApiKeyLimits::default()
    };
    let (table, key, edges) = fleet(limits).await;
    let key = Arc::new(key);
    let begun = minute();
    let mut clients = JoinSet::new();
    for edge in &edges {
        let (edge, key) = (edge.clone(), key.clone());
        clients.spawn(async move {
            let (mut answered, mut unanswered) = (0, 0);
            loop {
                let answer = edge.chat(&key).await;
                match answer.status {
                    StatusCode::OK => answered += 1,
                    StatusCode::TOO_MANY_REQUESTS => return (answered, unanswered),
                    // The emulator took more than a second, on a machine that has much to do.
                    StatusCode::SERVICE_UNAVAILABLE => {
                        unanswered += 1;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    other => panic!("{other}: {}", answer.json),
                }
            }
        });
    }
    let counts = clients.join_all().await;
    let answered: u64 = counts.iter().map(|(answered, _)| answered).sum();
    let unanswered: u64 = counts.iter().map(|(_, unanswered)| unanswered).sum();
    let minutes = minute() - begun + 1;
    let limit = u64::from(REQUESTS);
    assert!(answered <= limit * minutes, "{answered} of {limit} in {minutes} minutes");

    // At rest, what is counted is what was used, to the last token: nothing got lost between the instances.
    for edge in &edges {
        edge.at_rest().await;
    }
    let items = items(&table, &key);
    let (tokens, requests) = (taken(&items, "TOKENS#MONTH"), taken(&items, "REQUESTS#MINUTE"));
    assert!(tokens.len() == 1 && tokens[0] >= answered * TOKENS, "{tokens:?} for {answered} answers");
    assert!(requests.iter().sum::<u64>() >= answered, "{requests:?} for {answered} answers");
    // A lost answer, or what was left of a minute that is over, is wasted.
    if unanswered == 0 {
        assert_eq!(tokens, [answered * TOKENS]);
        assert!(answered * 100 >= limit * 87, "{answered} of {limit}");
        if minute() == begun {
            assert_eq!(requests, [answered]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_instances_share_slots() {
    const SLOTS: u32 = 20;
    let limits = ApiKeyLimits { concurrent_requests: Some(SLOTS), ..ApiKeyLimits::default() };
    let (table, key, edges) = fleet(limits).await;
    let key = Arc::new(key);
    let mut clients = JoinSet::new();
    for edge in &edges {
        let (edge, key) = (edge.clone(), key.clone());
        clients.spawn(async move {
            for _ in 0..10 {
                let answer = edge.chat(&key).await;
                let expected =
                    [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
                assert!(expected.contains(&answer.status), "{}: {}", answer.status, answer.json);
            }
        });
    }
    clients.join_all().await;
    let peak = table.upstream.peak.load(Ordering::SeqCst);
    assert!(peak <= SLOTS as usize, "{peak} of {SLOTS} at once");
    assert!(peak > 5, "{peak}: the test does not press");

    for edge in &edges {
        edge.at_rest().await;
    }
    let items = items(&table, &key);
    let (_, slots) = items.iter().find(|(sk, _)| sk == "SLOTS").unwrap();
    assert_eq!(slots["held"], json!({ "N": "0" }));
    assert!(slots.as_object().unwrap().keys().all(|name| !name.starts_with("holder_")), "{slots}");
}
