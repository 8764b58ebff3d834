//! Limits with a store that is slow, or that fails for some keys only.

use std::future::ready;
use std::sync::{Arc, Mutex};

use catalog::{
    ApiKey, ApiKeyId, ApiKeyLimits, Ask, BoxFuture, Counter, Hold, LimitStore, MemoryStore, StoreError, Taken,
};
use futures_util::FutureExt as _;
use gateway::Host as _;
use http::StatusCode;
use serde_json::json;

use crate::support::{Answer, FakeHost, Reply, Setup, TestGateway, completion, millis, secs, setup};

fn with(limits: ApiKeyLimits) -> Setup {
    setup().provider("alpha", &json!({})).limits(limits)
}

fn requests(limit: u32) -> ApiKeyLimits {
    ApiKeyLimits { requests_per_minute: Some(limit), ..ApiKeyLimits::default() }
}

fn ask(test: &TestGateway) -> StatusCode {
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    let status = test.chat(&json!({})).status;
    test.host.forget_replies();
    test.host.run_spawned();
    status
}

/// Does at once what it is asked for, and says so late.
struct Late {
    store: Arc<MemoryStore>,
    host: Arc<FakeHost>,
    delay_ms: u64,
    charged: Mutex<Vec<u64>>,
}

impl Late {
    fn new(base: &TestGateway, store: &Arc<MemoryStore>, delay_ms: u64) -> Arc<Self> {
        let (store, host) = (store.clone(), base.host.clone());
        Arc::new(Self { store, host, delay_ms, charged: Mutex::default() })
    }

    fn late<'a, T: Send + 'a>(
        &'a self,
        done: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let result = done.now_or_never().expect("the memory store answers at once");
        let sleep = self.host.sleep(millis(self.delay_ms));
        Box::pin(async move {
            sleep.await;
            result
        })
    }
}

impl LimitStore for Late {
    fn take<'a>(
        &'a self,
        counter: &'a Counter,
        ask: Ask,
        limit: u64,
    ) -> BoxFuture<'a, Result<Taken, StoreError>> {
        self.late(self.store.take(counter, ask, limit))
    }

    fn charge<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        self.charged.lock().unwrap().push(amount);
        self.late(self.store.charge(counter, amount))
    }

    fn give_back<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        self.late(self.store.give_back(counter, amount))
    }

    fn hold<'a>(&'a self, hold: Hold<'a>) -> BoxFuture<'a, Result<u32, StoreError>> {
        self.late(self.store.hold(hold))
    }

    fn clock_offset_ms(&self) -> i64 {
        0
    }
}

/// Those of a burst that are admitted, with as much time as they want.
fn burst(test: &TestGateway, count: usize) -> Vec<Answer> {
    let mut tasks: Vec<_> = (0..count)
        .map(|_| {
            test.host.reply("alpha", Reply::json(200, &completion("ok")));
            test.start_chat(&json!({}))
        })
        .collect();
    let mut admitted = Vec::new();
    for _ in 0..250 {
        tasks.retain_mut(|task| match task.step() {
            Some(answer) => {
                admitted.extend((answer.status == StatusCode::OK).then_some(answer));
                false
            }
            None => true,
        });
        test.advance(millis(20));
    }
    assert!(tasks.is_empty(), "{} still wait", tasks.len());
    admitted
}

#[test]
fn a_slow_store_lifts_no_limit() {
    let base = with(requests(10)).build();
    let store = Arc::new(MemoryStore::default());
    let quick = base.another(1, 0, Some(store.clone()));
    for _ in 0..9 {
        assert_eq!(ask(&quick), StatusCode::OK);
    }
    let slow = base.another(2, 0, Some(Late::new(&base, &store, 600)));
    assert_eq!(slow.get("/v1/models").status, StatusCode::OK);
    assert_eq!(burst(&slow, 10).len(), 1);
}

#[test]
fn a_slow_store_lifts_no_limit_of_concurrent_requests() {
    let limits = ApiKeyLimits { concurrent_requests: Some(3), ..ApiKeyLimits::default() };
    let base = with(limits).build();
    let store = Arc::new(MemoryStore::default());
    let one = base.another(1, 0, Some(Late::new(&base, &store, 600)));
    let two = base.another(2, 0, Some(Late::new(&base, &store, 600)));
    for test in [&one, &two] {
        assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    }
    let running = burst(&one, 2);
    assert_eq!(running.len(), 2);
    assert_eq!(burst(&two, 5).len(), 1);
}

/// Throttles one key, as a table does whose partition is hot.
struct HotKey {
    store: Arc<MemoryStore>,
    hot: ApiKeyId,
}

impl HotKey {
    fn unless_hot<'a, T: Send + 'a>(
        &'a self,
        key: &ApiKeyId,
        answer: impl FnOnce() -> BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        if *key == self.hot {
            let reason = "ProvisionedThroughputExceededException".to_owned();
            return Box::pin(ready(Err(StoreError::Unavailable { reason })));
        }
        answer()
    }
}

impl LimitStore for HotKey {
    fn take<'a>(
        &'a self,
        counter: &'a Counter,
        ask: Ask,
        limit: u64,
    ) -> BoxFuture<'a, Result<Taken, StoreError>> {
        self.unless_hot(&counter.key, || self.store.take(counter, ask, limit))
    }

    fn charge<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        self.unless_hot(&counter.key, || self.store.charge(counter, amount))
    }

    fn give_back<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        self.unless_hot(&counter.key, || self.store.give_back(counter, amount))
    }

    fn hold<'a>(&'a self, hold: Hold<'a>) -> BoxFuture<'a, Result<u32, StoreError>> {
        self.unless_hot(hold.key, || self.store.hold(hold))
    }

    fn clock_offset_ms(&self) -> i64 {
        0
    }
}

#[test]
fn a_key_that_is_throttled_is_nobody_elses_business() {
    let base = with(requests(5)).build();
    let hot = ApiKey::from_random(&[9; 32]);
    base.put_key(&hot, |record| record.limits = requests(100_000));
    let store = Arc::new(MemoryStore::default());
    let mut instances: Vec<_> = (1..=4)
        .map(|mark| {
            let way = HotKey { store: store.clone(), hot: hot.id().clone() };
            base.another(mark, 0, Some(Arc::new(way)))
        })
        .collect();
    let mut admitted = 0;
    for _ in 0..20 {
        for instance in &mut instances {
            hot.expose().clone_into(&mut instance.key);
            assert_eq!(ask(instance), StatusCode::OK);
            base.key.clone_into(&mut instance.key);
            admitted += usize::from(ask(instance) == StatusCode::OK);
        }
        base.host.advance(secs(1));
    }
    assert_eq!(admitted, 5);
}
