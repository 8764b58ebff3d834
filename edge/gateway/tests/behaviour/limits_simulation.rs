//! Many instances on one store, for some minutes of a clock that the test moves: they come and go, their clocks are
//! off, answers of the store get lost and requests to it are sent twice. Real gateways, so that what is true here is
//! true of them.

use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard};

use catalog::{
    ApiKeyLimits, Ask, BoxFuture, Counter, Hold, LimitStore, MemoryStore, Period, Quantity, StoreError, Taken,
};
use gateway::{Host as _, OnStoreFailure};
use http::StatusCode;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{Answer, Feed, Reply, TestGateway, ending, millis, setup, text_chunk};

/// What the store saw, whoever asked.
#[derive(Default)]
struct Ledger {
    /// Requests to the store.
    calls: usize,
    /// By counter: what was granted, or kept back by a lost giving back, and nobody knows of.
    lost: HashMap<Counter, u64>,
    /// Faults: the numbers decide, one after the other, over and over.
    dice: Vec<u8>,
    thrown: usize,
}

/// What happens to one request to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// Sent again by the client in between, because the first answer was lost.
    Twice,
    /// It takes effect, and nobody hears of it.
    AnswerLost,
    /// Nothing takes effect.
    Lost,
}

impl Ledger {
    fn fate(&mut self) -> Fate {
        self.calls += 1;
        self.thrown += 1;
        match self.dice.get(self.thrown % self.dice.len().max(1)) {
            Some(0..8) => Fate::Twice,
            Some(8..16) => Fate::AnswerLost,
            Some(16..24) => Fate::Lost,
            _ => Fate::Answered,
        }
    }

    fn lose(&mut self, counter: &Counter, amount: u64) {
        *self.lost.entry(counter.clone()).or_default() += amount;
    }
}

/// One instance's way to the store.
struct Way {
    store: Arc<MemoryStore>,
    ledger: Arc<Mutex<Ledger>>,
    /// What the instance knows of its clock.
    offset_ms: i64,
}

impl Way {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    fn no_answer<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, StoreError>> {
        Box::pin(ready(Err(StoreError::Unavailable { reason: "the answer is lost".to_owned() })))
    }
}

impl LimitStore for Way {
    fn take<'a>(
        &'a self,
        counter: &'a Counter,
        ask: Ask,
        limit: u64,
    ) -> BoxFuture<'a, Result<Taken, StoreError>> {
        let fate = self.ledger().fate();
        let take = || self.store.take(counter, ask, limit);
        let granted = |taken: Result<Taken, StoreError>| taken.unwrap().granted;
        match fate {
            Fate::Answered => take(),
            Fate::Twice => {
                self.ledger().lose(counter, granted(now(take())));
                take()
            }
            Fate::AnswerLost => {
                self.ledger().lose(counter, granted(now(take())));
                Self::no_answer()
            }
            Fate::Lost => Self::no_answer(),
        }
    }

    fn charge<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        let fate = self.ledger().fate();
        match fate {
            Fate::Answered => self.store.charge(counter, amount),
            Fate::Twice => {
                now(self.store.charge(counter, amount)).unwrap();
                self.ledger().lose(counter, amount);
                self.store.charge(counter, amount)
            }
            Fate::AnswerLost => {
                now(self.store.charge(counter, amount)).unwrap();
                self.ledger().lose(counter, amount);
                Self::no_answer()
            }
            Fate::Lost => Self::no_answer(),
        }
    }

    /// Never sent twice.
    fn give_back<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        let fate = self.ledger().fate();
        match fate {
            Fate::Answered | Fate::Twice => self.store.give_back(counter, amount),
            Fate::AnswerLost => {
                now(self.store.give_back(counter, amount)).unwrap();
                Self::no_answer()
            }
            Fate::Lost => {
                self.ledger().lose(counter, amount);
                Self::no_answer()
            }
        }
    }

    fn hold<'a>(&'a self, hold: Hold<'a>) -> BoxFuture<'a, Result<u32, StoreError>> {
        let fate = self.ledger().fate();
        match fate {
            Fate::Answered => self.store.hold(hold),
            Fate::Twice => {
                now(self.store.hold(hold)).unwrap();
                self.store.hold(hold)
            }
            Fate::AnswerLost => {
                now(self.store.hold(hold)).unwrap();
                Self::no_answer()
            }
            Fate::Lost => Self::no_answer(),
        }
    }

    fn clock_offset_ms(&self) -> i64 {
        self.offset_ms
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(future).expect("the memory store answers at once")
}

/// One thing that happens, and how long before it nothing did.
#[derive(Clone, Debug)]
struct Event {
    after_ms: u64,
    instance: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// So many requests, one after the other.
    Requests(u8),
    OpenStream,
    /// The oldest of the instance ends, or is left by its client.
    EndStream {
        left: bool,
    },
    /// The instance is gone with all that it has, and another takes its place.
    Crash,
}

#[derive(Clone, Debug)]
struct Plan {
    limits: ApiKeyLimits,
    /// By instance: how far its clock is ahead of the truth, and whether it learns so from the store.
    clocks: Vec<(i64, bool)>,
    dice: Vec<u8>,
    events: Vec<Event>,
    /// From this event on.
    other_limits: Option<(usize, ApiKeyLimits)>,
}

struct Instance {
    gateway: TestGateway,
    offset_ms: i64,
    streams: Vec<(Answer, Feed)>,
}

impl Instance {
    fn window(&self, period: Period) -> u64 {
        period.window(self.gateway.host.unix_ms().saturating_add_signed(self.offset_ms)).start_ms
    }
}

/// Tokens that every answer in one piece is said to have used: no more than was reserved.
const USED: u64 = 40;
/// That a stream uses at least: what its end says.
const USED_BY_STREAM: u64 = 7;
const MAX_TOKENS: u64 = 50;

fn completion() -> Value {
    let mut answer = crate::support::completion("ok");
    answer["usage"] = json!({"prompt_tokens": 10, "completion_tokens": USED - 10, "total_tokens": USED});
    answer
}

struct Simulation {
    base: TestGateway,
    store: Arc<MemoryStore>,
    ledger: Arc<Mutex<Ledger>>,
    instances: Vec<Instance>,
    clocks: Vec<(i64, bool)>,
    born: u8,
    /// By window.
    admitted: BTreeMap<u64, u64>,
    /// Requests that the store left without an answer, by window.
    unanswered: BTreeMap<u64, u64>,
    tokens: BTreeMap<(Period, u64), u64>,
    /// Windows in which a request was refused for want of requests.
    refused: Vec<u64>,
    /// What was admitted when the first one was refused.
    admitted_at_refusal: BTreeMap<u64, u64>,
}

impl Simulation {
    fn new(plan: &Plan) -> Self {
        let base = setup()
            // Streams say nothing for as long as they are open.
            .provider("alpha", &json!({"timeouts": {"idle_ms": 86_400_000, "total_ms": 86_400_000}}))
            .limits(plan.limits)
            .settings(|settings| {
                // What would be counted by nobody cannot be compared with a limit.
                settings.limits_on_store_failure = OnStoreFailure::FailClosed;
            })
            .build();
        let ledger = Ledger { dice: plan.dice.clone(), ..Ledger::default() };
        let mut simulation = Self {
            base,
            store: Arc::default(),
            ledger: Arc::new(Mutex::new(ledger)),
            instances: Vec::new(),
            clocks: plan.clocks.clone(),
            born: 0,
            admitted: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            tokens: BTreeMap::new(),
            refused: Vec::new(),
            admitted_at_refusal: BTreeMap::new(),
        };
        for index in 0..plan.clocks.len() {
            let instance = simulation.start(index);
            simulation.instances.push(instance);
        }
        simulation
    }

    fn start(&mut self, index: usize) -> Instance {
        let (ahead_ms, is_known) = self.clocks[index];
        let offset_ms = if is_known { -ahead_ms } else { 0 };
        let way = Way { store: self.store.clone(), ledger: self.ledger.clone(), offset_ms };
        self.born += 1;
        let gateway = self.base.another(self.born, ahead_ms, Some(Arc::new(way)));
        Instance { gateway, offset_ms, streams: Vec::new() }
    }

    /// Whether it was let in; `None` if the store did not answer.
    fn request(&mut self, index: usize, stream: bool) -> Option<bool> {
        let instance = &mut self.instances[index];
        let gateway = &instance.gateway;
        let feed = Feed::default();
        if stream {
            feed.push(text_chunk("x"));
            gateway.host.reply("alpha", Reply::feed(&feed));
        } else {
            gateway.host.reply("alpha", Reply::json(200, &completion()));
        }
        let answer = gateway.chat(&json!({"stream": stream, "max_tokens": MAX_TOKENS}));
        gateway.host.forget_replies();
        let minute = instance.window(Period::Minute);
        match answer.status {
            StatusCode::OK => {
                *self.admitted.entry(minute).or_default() += 1;
                let used = if stream { USED_BY_STREAM } else { USED };
                for period in [Period::Minute, Period::Day] {
                    *self.tokens.entry((period, instance.window(period))).or_default() += used;
                }
                if stream {
                    instance.streams.push((answer, feed));
                }
                Some(true)
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                // Perhaps only for its tokens, and then its request counts.
                *self.unanswered.entry(minute).or_default() += 1;
                None
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::FORBIDDEN => {
                let message = answer.json()["error"]["message"].to_string();
                if message.contains("This one may need") {
                    // Its request counts, though there are no tokens for it.
                    *self.admitted.entry(minute).or_default() += 1;
                }
                if message.contains("requests per minute") && !self.refused.contains(&minute) {
                    self.refused.push(minute);
                    let admitted = self.admitted.get(&minute).copied().unwrap_or_default();
                    self.admitted_at_refusal.insert(minute, admitted);
                }
                Some(false)
            }
            other => panic!("{other}: {:?}", answer.json()),
        }
    }

    fn happen(&mut self, event: &Event) {
        // In steps, so that what is due happens when it is.
        let mut left = event.after_ms;
        while left > 0 {
            let step = left.min(1_000);
            left -= step;
            self.base.host.advance(millis(step));
            for instance in &mut self.instances {
                instance.gateway.host.run_spawned();
                // Every other client does not read.
                for (answer, _) in instance.streams.iter_mut().step_by(2) {
                    answer.body.available();
                }
            }
        }
        let index = event.instance % self.instances.len();
        match event.kind {
            Kind::Requests(count) => {
                for _ in 0..count {
                    self.request(index, false);
                    self.instances[index].gateway.host.run_spawned();
                }
            }
            Kind::OpenStream => {
                self.request(index, true);
            }
            Kind::EndStream { left } => {
                if let Some((mut answer, feed)) = self.instances[index].streams.pop()
                    && !left
                {
                    feed.push(ending());
                    answer.body.available();
                }
            }
            Kind::Crash => {
                let new = self.start(index);
                let gone = std::mem::replace(&mut self.instances[index], new);
                // Its spawned work goes with it, and what would be done on dropping is not done.
                for (answer, _) in gone.streams {
                    std::mem::forget(answer);
                }
            }
        }
        self.instances[index].gateway.host.run_spawned();
    }

    fn running(&self) -> usize {
        self.instances.iter().map(|instance| instance.streams.len()).sum()
    }
}

fn limits() -> impl Strategy<Value = ApiKeyLimits> {
    let of = |range: std::ops::Range<u32>| proptest::option::weighted(0.7, range);
    (of(1..300), of(1..12), of(1..300), of(1..600)).prop_map(|(requests, concurrent, minute, day)| {
        ApiKeyLimits {
            requests_per_minute: requests,
            concurrent_requests: concurrent,
            // In answers, so that the numbers are of the size of what happens.
            tokens_per_minute: minute.map(|answers| u64::from(answers) * USED + 60),
            tokens_per_day: day.map(|answers| u64::from(answers) * USED + 60),
            tokens_per_month: None,
        }
    })
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![
        8 => (1..30_u8).prop_map(Kind::Requests),
        4 => Just(Kind::OpenStream),
        3 => any::<bool>().prop_map(|left| Kind::EndStream { left }),
        1 => Just(Kind::Crash),
    ];
    let after_ms = prop_oneof![6 => 0..300_u64, 3 => 300..5_000_u64, 1 => 5_000..40_000_u64];
    (after_ms, any::<prop::sample::Index>(), kind).prop_map(|(after_ms, instance, kind)| Event {
        after_ms,
        instance: instance.index(1 << 16),
        kind,
    })
}

fn plan(faults: bool) -> impl Strategy<Value = Plan> {
    let dice = if faults { 30..60 } else { 0..1_usize };
    (3..20_usize)
        .prop_flat_map(move |instances| {
            (
                limits(),
                proptest::collection::vec((-300_000..300_000_i64, any::<bool>()), instances),
                proptest::collection::vec(any::<u8>(), dice.clone()),
                proptest::collection::vec(event(), 40..80),
                proptest::option::weighted(0.3, (0..40_usize, limits())),
            )
        })
        .prop_map(move |(limits, clocks, dice, events, other_limits)| {
            // Slots are a matter of time: they are exact as far as clocks are.
            let know = limits.concurrent_requests.is_some();
            let clocks =
                clocks.into_iter().map(|(ahead_ms, is_known)| (ahead_ms, is_known || know)).collect();
            Plan { limits, clocks, dice, events, other_limits: other_limits.filter(|_| faults) }
        })
}

/// Runs it, and checks after everything that happens.
fn check(plan: &Plan) -> Result<(), TestCaseError> {
    let mut simulation = Simulation::new(plan);
    let highest = |limit: fn(&ApiKeyLimits) -> Option<u64>| {
        let other = plan.other_limits.map_or(Some(0), |(_, limits)| limit(&limits));
        Some(limit(&plan.limits)?.max(other?))
    };
    let requests = highest(|limits| limits.requests_per_minute.map(u64::from));
    let concurrent = highest(|limits| limits.concurrent_requests.map(u64::from));
    let minute = highest(|limits| limits.tokens_per_minute);
    let day = highest(|limits| limits.tokens_per_day);
    for (index, event) in plan.events.iter().enumerate() {
        if let Some((at, limits)) = &plan.other_limits
            && *at == index
        {
            simulation.base.set_limits(*limits);
        }
        simulation.happen(event);
        for (window, admitted) in &simulation.admitted {
            let limit = requests.unwrap_or(u64::MAX);
            prop_assert!(*admitted <= limit, "{admitted} of {limit} requests in {window}");
        }
        for ((period, window), tokens) in &simulation.tokens {
            let limit = if *period == Period::Day { day } else { minute }.unwrap_or(u64::MAX);
            prop_assert!(*tokens <= limit, "{tokens} of {limit} tokens in {period:?} {window}");
        }
        let running = simulation.running() as u64;
        let limit = concurrent.unwrap_or(u64::MAX);
        prop_assert!(running <= limit, "{running} of {limit} requests at once");
    }
    if plan.other_limits.is_none()
        && let Some(limit) = requests
    {
        let ledger = simulation.ledger.lock().unwrap();
        let lost = |window: u64| {
            let of_window = |counter: &&Counter| {
                counter.start_ms == window
                    && (counter.quantity, counter.period) == (Quantity::Requests, Period::Minute)
            };
            ledger.lost.iter().filter(|(counter, _)| of_window(counter)).map(|(_, lost)| lost).sum::<u64>()
        };
        for (window, admitted) in &simulation.admitted_at_refusal {
            // The bound that edge/gateway/src/admit/lease.rs derives.
            let unanswered = simulation.unanswered.get(window).copied().unwrap_or_default();
            let used = admitted + unanswered + lost(*window);
            prop_assert!(70 * used >= 61 * limit, "refused after {used} of {limit} requests in {window}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn no_limit_is_passed_and_little_is_wasted(plan in plan(false)) {
        check(&plan)?;
    }

    #[test]
    fn no_limit_is_passed_whatever_the_store_does(plan in plan(true)) {
        check(&plan)?;
    }
}

/// Fifty instances that all want as much as they can get, minute after minute.
#[test]
fn fifty_greedy_instances_use_the_whole_limit() {
    const LIMIT: u64 = 1_000;
    let plan = Plan {
        limits: ApiKeyLimits { requests_per_minute: Some(1_000), ..ApiKeyLimits::default() },
        clocks: (0..50).map(|index| (i64::from(index - 25) * 12_000, true)).collect(),
        dice: Vec::new(),
        events: Vec::new(),
        other_limits: None,
    };
    let mut simulation = Simulation::new(&plan);
    for _ in 0..3 {
        let before = simulation.ledger.lock().unwrap().calls;
        let mut refused = 0;
        for round in 0..28 {
            for index in 0..50 {
                refused += usize::from(simulation.request(index, false) == Some(false));
            }
            let wait = Event { after_ms: 1_000, instance: round, kind: Kind::EndStream { left: true } };
            simulation.happen(&wait);
        }
        assert_eq!(simulation.admitted.values().last(), Some(&LIMIT));
        assert_eq!(refused, 28 * 50 - 1_000);
        let calls = simulation.ledger.lock().unwrap().calls - before;
        // Twenty requests of each are too few for reserves: one call each, and one for what is refused in a second.
        assert!(calls <= 28 * 50, "{calls}");
        let rest = Event { after_ms: 32_000, instance: 0, kind: Kind::EndStream { left: true } };
        simulation.happen(&rest);
    }
}
