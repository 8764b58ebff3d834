//! What a store says while DynamoDB fails, and that it works again afterwards.

use std::time::{Duration, Instant};

use catalog::testing::{SeedStore as _, by};
use catalog::{
    Action, AnswerStore as _, By, KeptAnswer, KeyStore, ProviderStore, Store, StoreError, verify_audit,
};
use store::{DynamoStore, Timing};
use tokio::net::TcpListener;

use crate::backend::{over_http, serve};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::records::{key, provider, sealed};

const TIMING: Timing = Timing { attempt: Duration::from_millis(400), call: Duration::from_secs(3) };
/// What a busy machine may add to [`Timing::call`].
const SLACK: Duration = Duration::from_secs(2);

async fn faulty_store() -> (DynamoStore, FaultProxy) {
    let (address, _) = serve().await;
    let proxy = FaultProxy::start(address).await;
    let store = over_http(proxy.address, TIMING);
    store.create_table().await.unwrap();
    (store, proxy)
}

async fn key_writes(store: &DynamoStore) -> u64 {
    store.config_version().await.unwrap().keys.iter().sum()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Unavailable,
    NotSetUp,
    Denied,
    Broken,
}

/// While it lasts, a fault makes every call fail in time with the expected error; afterwards all is as before.
async fn check(fault: Fault, expected: Expected) {
    let (store, proxy) = faulty_store().await;
    let (key, provider) = (key(1), provider("a"));
    store.seed_key(&key, None).await.unwrap();
    proxy.plan([], fault);
    let started = Instant::now();
    let (version, keys, config, found, read) = tokio::join!(
        store.config_version(),
        store.keys(),
        store.config(),
        store.find_key(&key.id),
        store.provider(&provider.slug),
    );
    let (put_key, put_provider, delete) = tokio::join!(
        store.seed_key(&key, Some(9)),
        store.seed_provider(&provider, Some(9)),
        store.remove_provider(&provider.slug, 9),
    );
    let elapsed = started.elapsed();
    assert!(elapsed < 2 * TIMING.call + SLACK, "{fault:?} took {elapsed:?}");
    for error in [
        version.unwrap_err(),
        keys.unwrap_err(),
        config.unwrap_err(),
        found.unwrap_err(),
        read.unwrap_err(),
        put_key.unwrap_err(),
        put_provider.unwrap_err(),
        delete.unwrap_err(),
    ] {
        let kind = match error {
            StoreError::Unavailable { .. } => Expected::Unavailable,
            StoreError::NotSetUp { .. } => Expected::NotSetUp,
            StoreError::Denied { .. } => Expected::Denied,
            StoreError::Broken { .. } => Expected::Broken,
            _ => panic!("{fault:?}: {error}"),
        };
        assert_eq!(kind, expected, "{fault:?}: {error}");
        let message = error.to_string();
        assert!(!message.contains("hunter2") && !message.contains("secret"), "{message}");
    }
    let calls = 8;
    match expected {
        Expected::Unavailable => assert!(proxy.requests() > calls, "{fault:?}: not tried again"),
        Expected::NotSetUp | Expected::Denied | Expected::Broken => {
            // The list of keys reads four partitions at once.
            let once = calls..=calls + 3;
            assert!(once.contains(&proxy.requests()), "{fault:?}: tried again in vain");
        }
    }

    proxy.plan([], Fault::None);
    assert_eq!(key_writes(&store).await, 1);
    assert_eq!(store.seed_key(&key, Some(1)).await.unwrap(), 2);
}

macro_rules! faults {
    ($($name:ident: $fault:expr => $expected:ident;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                check($fault, Expected::$expected).await;
            }
        )*
    };
}

const fn answer(status: u16, body: &'static str) -> Fault {
    Fault::Answer { status, body }
}

const THROUGHPUT: Fault = answer(
    400,
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"secret"}"#,
);

faults! {
    hang_up: Fault::HangUp => Unavailable;
    silence: Fault::Silence => Unavailable;
    not_http: Fault::NotHttp => Unavailable;
    broken_off: Fault::BrokenOff => Unavailable;
    throughput_exceeded: THROUGHPUT => Unavailable;
    throttled: answer(400, r#"{"__type":"com.amazon.coral.availability#ThrottlingException"}"#) => Unavailable;
    request_limit: answer(400, r#"{"__type":"com.amazonaws.dynamodb.v20120810#RequestLimitExceeded"}"#) => Unavailable;
    internal_error: answer(500, r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError"}"#) => Unavailable;
    balancer_error: answer(503, "<html>secret</html>") => Unavailable;
    empty_error: answer(500, "") => Unavailable;
    garbage: answer(200, "\0\0secret") => Broken;
    half_json: answer(200, r#"{"Item":{"pk":"#) => Broken;
    other_json: answer(200, "[1]") => Broken;
    no_table: answer(400, r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"}"#) => NotSetUp;
    no_permission: answer(400, r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"secret"}"#) => Denied;
    bad_token: answer(400, r#"{"__type":"com.amazon.coral.service#UnrecognizedClientException"}"#) => Denied;
    expired_token: answer(400, r#"{"__type":"com.amazon.coral.service#ExpiredTokenException"}"#) => Denied;
    wrong_signature: answer(400, r#"{"__type":"com.amazon.coral.service#InvalidSignatureException"}"#) => Denied;
    odd_code: answer(400, r#"{"__type":"the secret is hunter2"}"#) => Broken;
    other_server: answer(404, "<html>secret</html>") => Broken;
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = over_http(address, TIMING).config_version().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_table_is_named() {
    let (address, _) = serve().await;
    let error = over_http(address, TIMING).config_version().await.unwrap_err();
    assert!(
        matches!(&error, StoreError::NotSetUp { reason } if reason.contains("\"dyad-gateway\"")),
        "{error}"
    );
}

/// A deadline shorter than an attempt: nothing else ends the call.
#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let (address, _) = serve().await;
    let proxy = FaultProxy::start(address).await;
    proxy.plan([], Fault::Silence);
    let timing = Timing { attempt: Duration::from_secs(600), call: Duration::from_millis(200) };
    let started = Instant::now();
    let error = over_http(proxy.address, timing).keys().await.unwrap_err();
    assert!(started.elapsed() < SLACK, "{:?}", started.elapsed());
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}

/// What a change reads before it writes: the audit log's head, and the record as it is.
const READS: [Fault; 2] = [Fault::None; 2];

#[tokio::test]
async fn a_passing_fault_is_not_noticed() {
    let (store, proxy) = faulty_store().await;
    for (seed, reads) in [(1, 0), (2, 1), (3, 2)] {
        let passing = [Fault::HangUp, THROUGHPUT, answer(500, ""), Fault::Silence];
        proxy.plan(READS.into_iter().take(reads).chain(passing), Fault::None);
        assert_eq!(store.seed_key(&key(seed), None).await.unwrap(), 1);
        assert_eq!(proxy.requests(), 7);
        assert_eq!(key_writes(&store).await, seed);
    }
}

/// The write took place, its answer got lost: trying again must neither fail nor write twice.
#[tokio::test]
async fn a_lost_answer_does_not_write_twice() {
    let (store, proxy) = faulty_store().await;
    proxy.plan(READS.into_iter().chain([Fault::LostAnswer]), Fault::None);
    assert_eq!(store.seed_key(&key(1), None).await.unwrap(), 1);
    assert_eq!(proxy.requests(), 4);
    assert_eq!(key_writes(&store).await, 1);
    assert_eq!(store.keys().await.unwrap().keys.len(), 1);
    assert_eq!(verify_audit(&store, None).await.unwrap().seq, 1);
}

/// Nobody is told that it took place, and there is the change, its entry and its answer all the same: never one of them.
#[tokio::test]
async fn a_change_without_any_answer_is_whole() {
    let (store, proxy) = faulty_store().await;
    let kept =
        KeptAnswer { id: [1; 32], request: [2; 32], status: 201, body: sealed('A'), until_ms: u64::MAX };
    let by = By { answer: Some(kept.clone()), ..by(Action::Create) };
    proxy.plan(READS, Fault::LostAnswer);
    let error = store.put_key(&key(1), None, &by).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    proxy.plan([], Fault::None);
    assert_eq!(store.keys().await.unwrap().keys.len(), 1);
    assert_eq!(verify_audit(&store, None).await.unwrap().seq, 1);
    assert_eq!(store.kept_answer([1; 32], 0).await.unwrap(), Some(kept));

    // A request that never arrives leaves none of them.
    proxy.plan(READS, Fault::HangUp);
    store.put_key(&key(2), None, &by).await.unwrap_err();
    proxy.plan([], Fault::None);
    assert_eq!(store.keys().await.unwrap().keys.len(), 1);
    assert_eq!(verify_audit(&store, None).await.unwrap().seq, 1);
    assert_eq!(key_writes(&store).await, 1);
}

/// The place in the log is taken: the head is read again, and the change goes behind the other one.
#[tokio::test]
async fn a_change_that_comes_second_follows_the_first() {
    let (store, proxy) = faulty_store().await;
    let second = answer(
        400,
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","CancellationReasons":[
            {"Code":"None"},{"Code":"None"},{"Code":"ConditionalCheckFailed"},{"Code":"ConditionalCheckFailed"}]}"#,
    );
    proxy.plan(READS.into_iter().chain([second]), Fault::None);
    assert_eq!(store.seed_key(&key(1), None).await.unwrap(), 1);
    assert_eq!(proxy.requests(), 6);
    assert_eq!(verify_audit(&store, None).await.unwrap().seq, 1);

    proxy.plan([READS[0], READS[1], second, READS[0], READS[1], second], Fault::None);
    assert_eq!(store.seed_key(&key(2), None).await.unwrap(), 1);
    assert_eq!(verify_audit(&store, None).await.unwrap().seq, 2);
}

const COLLISION: Fault = answer(
    400,
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "CancellationReasons":[{"Code":"None"},{"Code":"TransactionConflict"}]}"#,
);

#[tokio::test]
async fn collided_transactions_are_tried_again() {
    let (store, proxy) = faulty_store().await;
    proxy.plan(READS.into_iter().chain([COLLISION, COLLISION]), Fault::None);
    assert_eq!(store.seed_key(&key(1), None).await.unwrap(), 1);
    assert_eq!(proxy.requests(), 5);

    proxy.plan(READS, COLLISION);
    let error = store.seed_key(&key(2), None).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(proxy.requests() > 3);
}

#[tokio::test]
async fn cancelled_transactions_are_told_apart() {
    let (store, proxy) = faulty_store().await;
    let conflict = answer(
        400,
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "CancellationReasons":[{"Code":"ConditionalCheckFailed"},{"Code":"TransactionConflict"}]}"#,
    );
    proxy.plan(READS, conflict);
    let error = store.seed_key(&key(1), None).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert_eq!(proxy.requests(), 3);

    let invalid = answer(
        400,
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "CancellationReasons":[{"Code":"ValidationError"},{"Code":"None"}]}"#,
    );
    proxy.plan(READS, invalid);
    let error = store.seed_key(&key(1), None).await.unwrap_err();
    assert!(matches!(error, StoreError::Broken { .. }), "{error}");
    assert_eq!(proxy.requests(), 3);
}

#[tokio::test]
async fn a_slow_answer_is_waited_for() {
    let (store, proxy) = faulty_store().await;
    proxy.plan([], Fault::Slow(TIMING.attempt / 4));
    assert_eq!(store.seed_key(&key(1), None).await.unwrap(), 1);
    assert_eq!(key_writes(&store).await, 1);
    assert_eq!(proxy.requests(), 4);
}
