//! The store is let do what each of its users does with it, over HTTP, and every request is recorded. The policies must
//! allow what their users need, and refuse what the others do besides.

#![expect(clippy::unwrap_used, reason = "all of it is test code, which clippy sees only in test functions")]

mod recorder;

use std::collections::BTreeSet;

use catalog::testing::{SeedStore as _, by, stored};
use catalog::{
    Action, AnswerStore as _, ApiKeyId, ApiKeyLimits, ApiKeyRecord, Ask, AuditQuery, AuditStore as _, By,
    Counter, Day, Held, Hold, KeptAnswer, KeySecretCheck, KeyStore as _, LimitStore as _, Period, Provider,
    ProviderStatus, ProviderStore as _, Quantity, RawProvider, SealedSecret, StatusStore as _, Store as _,
    UsageCounts, UsageKey, UsageRow, UsageStore as _, verify_audit,
};
use recorder::{Recorder, TABLE_ARN};
use runner_api::{Capacity, NodeRecord, Registry as _};
use store::DynamoStore;
use store::transfer::{self, Existing};
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

/// What the administration does, at any host and from the command line.
async fn administer(store: &DynamoStore) {
    store.seed_key_secret(KeySecretCheck([7; 32]), None).await.unwrap();
    store.put_key(&key(), None, &answering()).await.unwrap();
    store.kept_answer([1; 32], 0).await.unwrap().unwrap();
    let version = store.seed_provider(&provider(), None).await.unwrap();
    store.remove_provider(&provider().slug, version).await.unwrap();
    store.seed_provider(&provider(), None).await.unwrap();
    store.keys().await.unwrap();
    store.provider(&provider().slug).await.unwrap();
    store.put_status(&stored(&provider()).id, &ProviderStatus::default()).await.unwrap();
    assert_eq!(store.statuses().await.unwrap().len(), 1);
    let log = store.audit(&AuditQuery { limit: 2, ..AuditQuery::default() }).await.unwrap();
    assert_eq!(log.entries.len(), 2);
    assert_eq!(verify_audit(store, None).await.unwrap().seq, 5);
    assert_eq!(store.usage(Day(20_000)).await.unwrap(), []);
    assert_eq!(store.last_used().await.unwrap(), []);
    assert!(store.table_state().await.unwrap().unwrap().items_expire);
    let mut file = Vec::new();
    transfer::export(store, &mut file).await.unwrap();
    transfer::import(store, &mut &file[..], Existing::Replace, &by(Action::Import)).await.unwrap();
}

/// A change whose answer is kept.
fn answering() -> By {
    let body = format!("sealed:1:key-1:{}:{}", "A".repeat(96), "A".repeat(64));
    let answer = KeptAnswer {
        id: [1; 32],
        request: [2; 32],
        status: 201,
        body: SealedSecret::parse(&body).unwrap(),
        until_ms: u64::MAX,
    };
    By { answer: Some(answer), ..by(Action::Create) }
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

/// What it counts of requests.
async fn add_usage(store: &DynamoStore) {
    let of = UsageKey { day: Day(20_000), key: key_id(), provider: provider().slug, model: "m".to_owned() };
    let row = UsageRow { of, counts: UsageCounts { requests: 1, ..UsageCounts::default() }, last_at_ms: 2 };
    store.add_usage(&row).await.unwrap();
    // One that comes late.
    store.add_usage(&UsageRow { last_at_ms: 1, ..row }).await.unwrap();
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
    add_usage(&recorder.store).await;
    let served = recorder.take();
    assert_eq!(refused(&policy("edge"), &served), []);
    assert_eq!(refused(&policy("admin"), &served), [], "a gateway that serves the administration too");
    announce(&recorder.store).await;
    assert_eq!(refused(&policy("runner"), &recorder.take()), []);
    recorder.store.announce(&node()).await.unwrap();
    recorder.take();
    let nodes = recorder.store.nodes().await.unwrap().nodes;
    assert_eq!(nodes.len(), 1);
    let looked = recorder.take();
    assert_eq!(refused(&policy("edge"), &looked), []);
    assert_eq!(refused(&policy("admin"), &looked), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_may_not_write_configuration() {
    let recorder = Recorder::start().await;
    let edge = policy("edge");
    // Each of a transaction's parts is refused, not the count of changes alone; and so is the log, to read.
    let check = || {
        let accesses = recorder.take();
        let is_log = |access: &Access| access.leading_keys.as_deref() == Some(&["AUDIT".to_owned()]);
        assert_eq!(accesses.iter().filter(|access| is_log(access)).count(), 2, "read and written");
        let mut reads =
            accesses.iter().filter(|access| access.action == "dynamodb:GetItem" && !is_log(access));
        assert!(reads.all(|access| edge.allows(access)), "what it serves from");
        let refused = refused(&edge, &accesses);
        let changes = accesses.iter().filter(|access| is_log(access) || access.action != "dynamodb:GetItem");
        assert!(changes.eq(&refused), "{accesses:?}");
    };
    recorder.store.seed_key(&key(), None).await.unwrap();
    check();
    let version = recorder.store.seed_provider(&provider(), None).await.unwrap();
    check();
    recorder.store.remove_provider(&provider().slug, version).await.unwrap();
    check();
    recorder.store.put_status(&stored(&provider()).id, &ProviderStatus::default()).await.unwrap();
    assert_eq!(refused(&edge, &recorder.take()).len(), 1);
}

/// Not even administrators: neither by these policies, nor by any other that they may have besides.
#[test]
fn nobody_may_change_an_audit_entry() {
    let admin = policy("admin");
    for action in ["UpdateItem", "DeleteItem", "BatchWriteItem", "PartiQLUpdate", "PartiQLDelete"] {
        let access = |key: &str| Access {
            action: format!("dynamodb:{action}"),
            resource: TABLE_ARN.to_owned(),
            leading_keys: Some(vec!["CONFIG".to_owned(), key.to_owned()]),
        };
        assert!(admin.denies(&access("AUDIT")), "{action}");
        assert!(!admin.denies(&access("KEY#a")), "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_sees_nothing_of_it() {
    let recorder = Recorder::start().await;
    let runner = policy("runner");
    administer(&recorder.store).await;
    read_configuration(&recorder.store).await;
    spend_limits(&recorder.store).await;
    add_usage(&recorder.store).await;
    let accesses = recorder.take();
    assert_eq!(refused(&runner, &accesses).len(), accesses.len());
}

/// What the store does not do, and somebody with the keys of an edge or a runner could.
#[test]
fn nothing_else_is_allowed_either() {
    let partitions = [
        "ANSWER#0",
        "AUDIT",
        "CLIS#0",
        "CONFIG",
        "KEY#0",
        "LIMIT#0123456789ab",
        "NODE#0",
        "STATUS",
        "USAGE#20000",
        "USED",
    ];
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
        "DescribeTimeToLive",
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
            "dynamodb:UpdateItem USAGE#20000",
            "dynamodb:UpdateItem USED",
        ]
    );
    assert_eq!(
        allowed("admin"),
        [
            "dynamodb:DeleteItem CONFIG",
            "dynamodb:DescribeTable ",
            "dynamodb:DescribeTimeToLive ",
            "dynamodb:GetItem ANSWER#0",
            "dynamodb:GetItem AUDIT",
            "dynamodb:GetItem CLIS#0",
            "dynamodb:GetItem CONFIG",
            "dynamodb:GetItem KEY#0",
            "dynamodb:GetItem NODE#0",
            "dynamodb:GetItem STATUS",
            "dynamodb:GetItem USAGE#20000",
            "dynamodb:GetItem USED",
            "dynamodb:PutItem ANSWER#0",
            "dynamodb:PutItem AUDIT",
            "dynamodb:PutItem CONFIG",
            "dynamodb:PutItem KEY#0",
            "dynamodb:Query ANSWER#0",
            "dynamodb:Query AUDIT",
            "dynamodb:Query CLIS#0",
            "dynamodb:Query CONFIG",
            "dynamodb:Query KEY#0",
            "dynamodb:Query NODE#0",
            "dynamodb:Query STATUS",
            "dynamodb:Query USAGE#20000",
            "dynamodb:Query USED",
            "dynamodb:UpdateItem CONFIG",
            "dynamodb:UpdateItem LIMIT#0123456789ab",
            "dynamodb:UpdateItem STATUS",
            "dynamodb:UpdateItem USAGE#20000",
            "dynamodb:UpdateItem USED",
        ]
    );
    let runner = ["dynamodb:DeleteItem NODE#0", "dynamodb:PutItem CLIS#0", "dynamodb:PutItem NODE#0"];
    assert_eq!(allowed("runner"), runner);
}
