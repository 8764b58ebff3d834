//! The store is stopped, slow, throttles or refuses: what is known serves, readiness says so, and all is well again
//! without a restart.

use std::time::{Duration, Instant};

use catalog::testing::SeedStore as _;
use http::StatusCode;

use crate::fault_proxy::Fault;
use crate::support::{Edge, Table, provider};

const fn answer(body: &'static str) -> Fault {
    Fault::Answer { status: 400, body }
}

const THROTTLED: Fault =
    answer(r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"}"#);
const WRONG_CREDENTIALS: Fault =
    answer(r#"{"__type":"com.amazon.coral.service#UnrecognizedClientException"}"#);
const EXPIRED_TOKEN: Fault = answer(r#"{"__type":"com.amazon.coral.service#ExpiredTokenException"}"#);
const NO_TABLE: Fault = answer(r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"}"#);
const OTHER_SERVER: Fault = Fault::Answer { status: 404, body: "<html>" };

/// Answers take no longer, on a busy machine.
const BRIEFLY: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(2);

/// Lets the configuration become due, and one request find that.
async fn check(edge: &Edge, key: &catalog::ApiKey) {
    edge.advance(TICK);
    edge.models(key).await;
    edge.at_rest().await;
}

async fn a_warm_edge_serves_on(fault: Fault, class: &str) {
    let table = Table::empty().await;
    let key = table.put_key(1, |_| {}).await;
    table.store.seed_provider(&provider("a", "m"), None).await.unwrap();
    let edge = table.edge();
    assert_eq!(edge.models(&key).await, ["m"]);
    table.proxy.plan([], fault);
    check(&edge, &key).await;
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(edge.models(&key).await, ["m"]);
        assert!(began.elapsed() < BRIEFLY, "{:?}", began.elapsed());
        assert_eq!(edge.store_state(&key).await, class);
        // For as long as it takes.
        edge.advance(Duration::from_secs(3_600));
    }
    edge.at_rest().await;

    table.store.seed_provider(&provider("b", "new"), None).await.unwrap();
    table.proxy.plan([], Fault::None);
    check(&edge, &key).await;
    assert_eq!(edge.models(&key).await, ["m", "new"]);
    assert_eq!(edge.store_state(&key).await, "ok");
}

async fn a_cold_edge_says_so(fault: Fault, class: &str, word: &str) {
    let table = Table::empty().await;
    let key = table.put_key(1, |_| {}).await;
    table.store.seed_provider(&provider("a", "m"), None).await.unwrap();
    let edge = table.edge();
    table.proxy.plan([], fault);
    for path in ["/v1/models", "/ready"] {
        let began = Instant::now();
        let answer = edge.get(path, &key).await;
        assert!(began.elapsed() < Duration::from_secs(3) + BRIEFLY, "{:?}", began.elapsed());
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.retry_after.as_deref(), Some("2"));
        let text = answer.json.to_string();
        assert!(!text.contains("hunter2") && !text.contains("AKIA"), "{text}");
        if path == "/ready" {
            assert_eq!(answer.json["store"], class);
        } else {
            assert_eq!(answer.json["error"]["code"], "store_unavailable");
            assert!(text.contains(word), "{text}");
        }
    }
    edge.at_rest().await;
    table.proxy.plan([], Fault::None);
    assert_eq!(edge.models(&key).await, ["m"]);
    assert_eq!(edge.store_state(&key).await, "ok");
}

macro_rules! faults {
    ($($name:ident: $fault:expr => $class:literal, $word:literal;)*) => {
        $(
            mod $name {
                use super::*;

                #[tokio::test(flavor = "multi_thread")]
                async fn warm() {
                    a_warm_edge_serves_on($fault, $class).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn cold() {
                    a_cold_edge_says_so($fault, $class, $word).await;
                }
            }
        )*
    };
}

faults! {
    stopped: Fault::HangUp => "unavailable", "does not answer";
    silent: Fault::Silence => "unavailable", "does not answer";
    throttled: THROTTLED => "unavailable", "does not answer";
    wrong_credentials: WRONG_CREDENTIALS => "denied", "credentials";
    expired_token: EXPIRED_TOKEN => "denied", "credentials";
    no_table: NO_TABLE => "not_set_up", "DYAD_TABLE";
    other_server: OTHER_SERVER => "broken", "not usable";
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_slows_nobody_down_but_the_first() {
    let table = Table::empty().await;
    let key = table.put_key(1, |_| {}).await;
    table.store.seed_provider(&provider("a", "m"), None).await.unwrap();
    let edge = table.edge();
    table.proxy.plan([], Fault::Slow(Duration::from_millis(700)));
    assert_eq!(edge.models(&key).await, ["m"]);
    table.store.seed_provider(&provider("b", "new"), None).await.unwrap();
    edge.advance(TICK);
    let began = Instant::now();
    assert_eq!(edge.models(&key).await, ["m"]);
    assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    edge.at_rest().await;
    assert_eq!(edge.models(&key).await, ["m", "new"]);
    assert_eq!(edge.store_state(&key).await, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_made_later_is_found() {
    let table = Table::to_be_made().await;
    let edge = table.edge();
    let nobody = catalog::ApiKey::from_random(&[9; 32]);
    let answer = edge.get("/v1/models", &nobody).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.json.to_string().contains("DYAD_TABLE"), "{}", answer.json);
    table.store.create_table().await.unwrap();
    let key = table.put_key(1, |_| {}).await;
    table.store.seed_provider(&provider("a", "m"), None).await.unwrap();
    assert_eq!(edge.models(&key).await, ["m"]);
}

/// One bad item must not take the edge down.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_items_are_passed_over() {
    let table = Table::empty().await;
    let key = table.put_key(1, |_| {}).await;
    table.store.seed_provider(&provider("a", "m"), None).await.unwrap();
    let item = |pk: &str, sk: &str| {
        let item = serde_json::json!({
            "pk": {"S": pk}, "sk": {"S": sk}, "schema_version": {"N": "7"}, "body": {"S": "{"},
        });
        let request = serde_json::json!({"TableName": "dyad-gateway", "Item": item});
        table.engine.put_item(serde_json::from_value(request).unwrap()).unwrap();
    };
    item("CONFIG", "PROVIDER#bad");
    let edge = table.edge();
    assert_eq!(edge.models(&key).await, ["m"]);
    let ready = edge.get("/ready", &key).await;
    assert_eq!((ready.status, &ready.json["left_out"]), (StatusCode::OK, &serde_json::json!(1)));

    item("CONFIG", "VERSION");
    for _ in 0..3 {
        check(&edge, &key).await;
        assert_eq!(edge.store_state(&key).await, "ok");
    }
    let ready = edge.get("/ready", &key).await;
    assert_eq!(ready.json["left_out"], 2);
    assert_eq!(table.edge().models(&key).await, ["m"], "a cold one starts all the same");
}
