//! Limits with a store that is slow, or that fails for some keys only.

use std::future::ready;
use std::sync::{Arc, Mutex};

use catalog::{
    ApiKey, ApiKeyId, ApiKeyLimits, Ask, BoxFuture, Counter, Hold, LimitStore, MemoryStore, Period, Quantity,
    StoreError, Taken,
};
use futures_util::FutureExt as _;
use gateway::Host as _;
use http::StatusCode;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use serde_json::json;

use crate::support::{
    Answer, FakeHost, Feed, Mood, Reply, Setup, TestGateway, completion, millis, secs, setup, text_chunk,
};

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

/// What a counter stands at.
fn counted(store: &MemoryStore, test: &TestGateway, quantity: Quantity, period: Period) -> u64 {
    const LIMIT: u64 = 1 << 60;
    let key = ApiKey::parse(&test.key).unwrap().id().clone();
    let start_ms = period.window(test.host.unix_ms()).start_ms;
    let ask = Ask { need: 1, extra: 0 };
    let counter = Counter { key, quantity, period, start_ms };
    let taken = store.take(&counter, ask, LIMIT).now_or_never().unwrap().unwrap();
    LIMIT - taken.left - 1
}

/// The store takes every write, and answers after requests have lost their patience.
#[test]
fn what_a_store_answers_too_late_is_not_counted_again() {
    let month = ApiKeyLimits { tokens_per_month: Some(1_000_000), ..ApiKeyLimits::default() };
    let base = with(month).build();
    let store = Arc::new(MemoryStore::default());
    let late = Late::new(&base, &store, 1_500);
    let test = base.another(2, 0, Some(late.clone()));
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    let mut used = 0;
    for _ in 0..200 {
        test.host.reply("alpha", Reply::json(200, &completion("ok")));
        let mut task = test.start_chat(&json!({}));
        let mut answer = None;
        for _ in 0..30 {
            answer = answer.or_else(|| task.step());
            test.advance(millis(100));
        }
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        drop(answer);
        used += 7;
    }
    for _ in 0..60 {
        test.advance(secs(1));
    }
    let counted = counted(&store, &test, Quantity::Tokens, Period::Month);
    assert!((used..=used + 20).contains(&counted), "{used} used, {counted} counted");
    let charged: u64 = late.charged.lock().unwrap().iter().sum();
    assert!(charged <= used, "{charged}");
}

#[test]
fn a_client_that_leaves_while_the_store_is_asked_wastes_nothing() {
    let month = ApiKeyLimits { tokens_per_month: Some(1_000_000), ..ApiKeyLimits::default() };
    let base = with(month).build();
    let store = Arc::new(MemoryStore::default());
    let test = base.another(2, 0, Some(Late::new(&base, &store, 500)));
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    for _ in 0..5 {
        let mut gone = test.start_chat(&json!({}));
        gone.must_wait();
        drop(gone);
        for _ in 0..20 {
            test.advance(millis(500));
        }
    }
    assert_eq!(counted(&store, &test, Quantity::Tokens, Period::Month), 0);
}

#[test]
fn what_an_outage_left_uncharged_is_charged_though_the_key_is_silent() {
    let day = ApiKeyLimits { tokens_per_day: Some(100_000), ..ApiKeyLimits::default() };
    let test = with(day).build();
    assert_eq!(test.get("/v1/models").status, StatusCode::OK);
    test.store.is(Mood::Down);
    for _ in 0..10 {
        assert_eq!(ask(&test), StatusCode::OK);
    }
    for _ in 0..40 {
        test.advance(secs(1));
        test.get("/v1/models");
    }
    let calls = test.store.limit_calls();
    assert!(calls.len() <= 30, "{} in 40 s", calls.len());
    test.store.is(Mood::Well);
    for _ in 0..5 {
        test.advance(secs(1));
        test.get("/v1/models");
    }
    assert_eq!(test.store.limit_calls(), ["charge 70"]);
}

#[test]
fn readiness_and_metrics_tell_of_limits_that_are_not_counted() {
    let base = with(requests(1)).build();
    let hot = ApiKey::parse(&base.key).unwrap().id().clone();
    let test = base.another(1, 0, Some(Arc::new(HotKey { store: Arc::default(), hot })));
    assert_eq!(test.get("/ready").json()["limits"], "ok");
    assert_eq!(ask(&test), StatusCode::OK);
    let ready = test.get("/ready").json();
    assert_eq!((&ready["status"], &ready["limits"]), (&json!("degraded"), &json!("unavailable")));
    assert_eq!(ready["store"], "ok");
    let status = test.gateway.status();
    assert_eq!((status.limits_failure, status.limits_failing_keys), (Some("unavailable"), 1));
    // Nobody has tried again since.
    test.advance(secs(10));
    assert_eq!(test.get("/ready").json()["status"], "ready");
}

/// Those that nobody waits for any more are counted when they end, as are those that never would.
#[test]
fn calls_that_are_given_up_are_counted() {
    let base = with(requests(10)).build();
    let outcomes = |delay_ms: u64, wait: u64| {
        let way = Late::new(&base, &Arc::default(), delay_ms);
        let test = base.another(2, 0, Some(way));
        assert_eq!(test.get("/v1/models").status, StatusCode::OK);
        test.host.reply("alpha", Reply::json(200, &completion("ok")));
        let mut task = test.start_chat(&json!({}));
        task.must_wait();
        test.advance(secs(1));
        assert_eq!(task.finish().status, StatusCode::OK);
        assert_eq!(test.gateway.status().limits_failure, Some("unavailable"));
        test.advance(secs(wait));
        let text = metrics(&test);
        let outcome = text.lines().find(|line| line.contains("call=\"limit_take\"")).map(str::to_owned);
        outcome.unwrap_or_else(|| panic!("{text}"))
    };
    let late = outcomes(5_000, 4);
    assert!(late.contains("outcome=\"ok\"") && late.ends_with(" 1"), "{late}");
    let never = outcomes(500_000, 19);
    assert!(never.contains("outcome=\"unavailable\"") && never.ends_with(" 1"), "{never}");
}

fn open_stream(test: &TestGateway) -> (Answer, Feed) {
    let feed = Feed::default();
    feed.push(text_chunk("x"));
    test.host.reply("alpha", Reply::feed(&feed));
    let answer = test.stream();
    test.host.forget_replies();
    (answer, feed)
}

fn concurrent(limit: u32) -> ApiKeyLimits {
    ApiKeyLimits { concurrent_requests: Some(limit), ..ApiKeyLimits::default() }
}

#[test]
fn a_client_that_does_not_read_keeps_its_slot() {
    let one = with(concurrent(2)).build();
    let two = one.another(1, 0, None);
    let open = [open_stream(&one), open_stream(&one)];
    assert!(open.iter().all(|(answer, _)| answer.status == StatusCode::OK));
    for _ in 0..100 {
        one.advance(secs(1));
        two.host.run_spawned();
    }
    assert_eq!(ask(&two), StatusCode::TOO_MANY_REQUESTS);
    drop(open);
    for _ in 0..5 {
        one.advance(secs(1));
    }
    assert_eq!(ask(&two), StatusCode::OK);
    one.advance(secs(15));
    assert_eq!(one.host.run_spawned(), 0, "nothing is left to renew");
}

#[test]
fn an_answer_that_was_overtaken_says_nothing() {
    let one = with(concurrent(5)).build();
    let two = one.another(1, 0, None);
    assert_eq!(two.get("/v1/models").status, StatusCode::OK);
    let mut open: Vec<_> = (0..5).map(|_| open_stream(&one)).collect();
    for (answer, _) in &mut open {
        assert_eq!(answer.status, StatusCode::OK);
        answer.body.available();
    }
    one.host.advance(secs(10));
    one.store.is(Mood::Slow);
    // Begins to renew five, and is not read for a while.
    open[0].0.body.available();
    one.store.is(Mood::Well);
    one.store.go();
    one.host.advance(millis(1_500));
    open.truncate(1);
    for _ in 0..6 {
        one.advance(secs(1));
        two.host.run_spawned();
    }
    let others: Vec<_> =
        (0..4).map(|_| open_stream(&two)).filter(|(answer, _)| answer.status == StatusCode::OK).collect();
    assert_eq!(others.len(), 4, "they were let go");
    open[0].0.body.available();
    assert_eq!(ask(&one), StatusCode::TOO_MANY_REQUESTS);
}

fn metrics(test: &TestGateway) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(test.gateway.metrics()));
    let mut page = String::new();
    text::encode(&mut page, &registry).unwrap();
    page
}
