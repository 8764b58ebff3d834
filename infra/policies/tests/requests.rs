//! The store is let do what each of its users does with it, over HTTP, and every request is recorded. The policies must
//! allow what their users need, and refuse what the others do besides.

#![expect(clippy::unwrap_used, reason = "all of it is test code, which clippy sees only in test functions")]

mod recorder;

use std::collections::BTreeSet;

use catalog::testing::SeedStore as _;
use catalog::{
    ApiKeyId, ApiKeyLimits, ApiKeyRecord, Ask, Counter, Held, Hold, KeySecretCheck, KeyStore as _,
    LimitStore as _, Period, Provider, ProviderStore as _, Quantity, RawProvider, Store as _,
};
use recorder::{Recorder, TABLE_ARN};
use runner_api::{Capacity, NodeRecord, Registry as _};
use store::DynamoStore;
use table_policies::{Access, Policy};

fn policy(name: &str) -> Policy {
    let template = match name {
        "edge" => include_str!("../../terraform/modules/store/policies/edge.json.tftpl"),
        "runner" => include_str!("../../terraform/modules/store/policies/runner.json.tftpl"),
        "admin" => include_str!("../../terraform/modules/store/policies/admin.json.tftpl"),
        _ => panic!("no such policy: {name}"),
    };
    Policy::from_template(template, TABLE_ARN).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn refused(policy: &Policy, accesses: &BTreeSet<Access>) -> Vec<Access> {
    accesses.iter().filter(|access| !policy.allows(access)).cloned().collect()
}

fn key_id() -> ApiKeyId {
    ApiKeyId::parse("0123456789ab").unwrap()
}

fn key() -> ApiKeyRecord {
    ApiKeyRecord {
        id: key_id(),
        hash: [7; 32],
        label: "a key".to_owned(),
        created_at_ms: 1,
        expires_at_ms: None,
        revoked_at_ms: None,
        owner: String::new(),
        previous: None,
        allowed_models: None,
        limits: ApiKeyLimits::default(),
    }
}

fn provider() -> Provider {
    let raw = r#"{"name": "Ollama", "type": "local", "base_url": "http://127.0.0.1:11434/v1"}"#;
    let raw: RawProvider = serde_json::from_str(raw).unwrap();
    Provider::check(&raw).unwrap()
}

/// What `dyad-gateway keys …`, `providers …` and an export do.
async fn administer(store: &DynamoStore) {
    store.seed_key_secret(KeySecretCheck([7; 32]), None).await.unwrap();
    store.seed_key(&key(), None).await.unwrap();
    let version = store.seed_provider(&provider(), None).await.unwrap();
    store.remove_provider(&provider().slug, version).await.unwrap();
    store.seed_provider(&provider(), None).await.unwrap();
    store.keys().await.unwrap();
    store.provider(&provider().slug).await.unwrap();
}

/// What an edge does from its start on.
async fn read_configuration(store: &DynamoStore) {
    store.config_version().await.unwrap();
    store.key_secret().await.unwrap();
    store.config().await.unwrap();
    store.find_key(&key_id()).await.unwrap();
}

/// What a runner does from its start to its end.
async fn announce(store: &DynamoStore) {
    store.announce(&node()).await.unwrap();
    store.announce(&node()).await.unwrap();
    store.withdraw(&node().id).await.unwrap();
}

fn node() -> NodeRecord {
    NodeRecord {
        id: "n1".to_owned(),
        url: "https://n1.example:7443".to_owned(),
        version: "0.1.0".to_owned(),
        capacity: Capacity::default(),
        clis: Vec::new(),
        expires_unix_ms: u64::MAX,
    }
}

async fn spend_limits(store: &DynamoStore) {
    let counter = Counter {
        key: key_id(),
        quantity: Quantity::Tokens,
        period: Period::Minute,
        start_ms: 1_800_000_000_000,
    };
    store.take(&counter, Ask { need: 1, extra: 9 }, 100).await.unwrap();
    store.charge(&counter, 5).await.unwrap();
    store.give_back(&counter, 5).await.unwrap();
    let now_ms = counter.start_ms;
    let held = Held { slots: 2, until_ms: now_ms + 60_000 };
    let hold =
        Hold { key: &counter.key, holder: "a", known: Held::default(), wanted: held, limit: 3, now_ms };
    assert_eq!(store.hold(hold).await.unwrap(), 2);
    assert_eq!(store.hold(Hold { known: held, wanted: Held::default(), ..hold }).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_may_do_its_own_work() {
    let recorder = Recorder::start().await;
    administer(&recorder.store).await;
    assert_eq!(refused(&policy("admin"), &recorder.take()), []);
    read_configuration(&recorder.store).await;
    assert_eq!(refused(&policy("edge"), &recorder.take()), []);
    spend_limits(&recorder.store).await;
    assert_eq!(refused(&policy("edge"), &recorder.take()), []);
    announce(&recorder.store).await;
    assert_eq!(refused(&policy("runner"), &recorder.take()), []);
    recorder.store.announce(&node()).await.unwrap();
    recorder.take();
    let nodes = recorder.store.nodes().await.unwrap().nodes;
    assert_eq!(nodes.len(), 1);
    assert_eq!(refused(&policy("edge"), &recorder.take()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_may_not_write_configuration() {
    let recorder = Recorder::start().await;
    let edge = policy("edge");
    // Each of a transaction's parts is refused, not the count of changes alone.
    recorder.store.seed_key(&key(), None).await.unwrap();
    let accesses = recorder.take();
    assert_eq!(refused(&edge, &accesses).len(), accesses.len());
    let version = recorder.store.seed_provider(&provider(), None).await.unwrap();
    let accesses = recorder.take();
    assert_eq!(refused(&edge, &accesses).len(), accesses.len());
    recorder.store.remove_provider(&provider().slug, version).await.unwrap();
    let accesses = recorder.take();
    assert_eq!(refused(&edge, &accesses).len(), accesses.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_sees_nothing_of_it() {
    let recorder = Recorder::start().await;
    let runner = policy("runner");
    administer(&recorder.store).await;
    read_configuration(&recorder.store).await;
    spend_limits(&recorder.store).await;
    let accesses = recorder.take();
    assert_eq!(refused(&runner, &accesses).len(), accesses.len());
}

/// What the store does not do, and somebody with the keys of an edge or a runner could.
#[test]
fn nothing_else_is_allowed_either() {
    let partitions =
        ["CONFIG", "KEY#0", "NODE#0", "CLIS#0", "LIMIT#0123456789ab", "AUDIT", "USAGE#0123456789ab"];
    let with_keys = [
        "GetItem",
        "BatchGetItem",
        "Query",
        "PutItem",
        "UpdateItem",
        "DeleteItem",
        "BatchWriteItem",
        "ConditionCheckItem",
        "PartiQLSelect",
        "PartiQLUpdate",
    ];
    let without = [
        "Scan",
        "DescribeTable",
        "UpdateTable",
        "DeleteTable",
        "CreateBackup",
        "ExportTableToPointInTime",
        "PartiQLSelect",
        "UpdateTimeToLive",
    ];
    let access = |action: &str, key: Option<&str>| Access {
        action: format!("dynamodb:{action}"),
        resource: TABLE_ARN.to_owned(),
        leading_keys: key.map(|key| vec![key.to_owned()]),
    };
    let all = partitions.iter().flat_map(|key| with_keys.iter().map(|action| access(action, Some(*key))));
    let all: BTreeSet<_> = all.chain(without.iter().map(|action| access(action, None))).collect();
    let allowed = |name: &str| {
        let policy = policy(name);
        let allowed = all.iter().filter(|access| policy.allows(access));
        allowed
            .map(|access| {
                format!("{} {}", access.action, access.leading_keys.as_deref().unwrap_or_default().join(","))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        allowed("edge"),
        [
            "dynamodb:GetItem CLIS#0",
            "dynamodb:GetItem CONFIG",
            "dynamodb:GetItem KEY#0",
            "dynamodb:Query CONFIG",
            "dynamodb:Query NODE#0",
            "dynamodb:UpdateItem LIMIT#0123456789ab",
        ]
    );
    let runner = ["dynamodb:DeleteItem NODE#0", "dynamodb:PutItem CLIS#0", "dynamodb:PutItem NODE#0"];
    assert_eq!(allowed("runner"), runner);
}
