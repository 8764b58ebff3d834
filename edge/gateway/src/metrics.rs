//! What the gateway counts. Hosts that can be scraped hand it out as [`GatewayMetrics`](exposition::GatewayMetrics).
//!
//! Counting costs a request a few atomic additions: each target holds what is counted for it. Only what happens rarely
//! (a target's first request, an error answer) takes a lock.

mod exposition;
mod histogram;
mod limits;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use openai_wire::Usage;

use crate::error::{ApiError, FailureClass};
use crate::freshness::Failure;
use crate::host::Host;
use crate::routes::Target;
use crate::settle::{Operation, Outcome};

pub use exposition::GatewayMetrics;
use histogram::Histogram;
pub(crate) use limits::CountedLimits;
use limits::LimitUnits;

/// Pairs of provider and model that are told apart; what comes later counts as `other`.
const MAX_SERIES: usize = 200;

const REQUEST_BOUNDS: &[Duration] = &[
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(180),
    Duration::from_secs(600),
];
const STORE_BOUNDS: &[Duration] = &[
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

#[derive(Debug)]
pub(crate) struct Metrics {
    /// Requests that were admitted.
    begun: Count,
    /// What ended before it had a target.
    unresolved: Arc<Series>,
    series: Mutex<BTreeMap<(String, String), Arc<Series>>>,
    /// Error answers by code.
    errors: Mutex<BTreeMap<&'static str, u64>>,
    /// Those among them for a limit, by which.
    limit_refusals: Mutex<BTreeMap<&'static str, u64>>,
    store_calls: [StoreCalls; StoreCall::ALL.len()],
    node_failures: Count,
    limit_units: LimitUnits,
    /// Requests whose usage was counted and could not be kept.
    usage_lost: Count,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            begun: Count::default(),
            unresolved: Arc::new(Series::new(String::new(), String::new())),
            series: Mutex::default(),
            errors: Mutex::default(),
            limit_refusals: Mutex::default(),
            store_calls: std::array::from_fn(|_| StoreCalls::default()),
            node_failures: Count::default(),
            limit_units: LimitUnits::default(),
            usage_lost: Count::default(),
        }
    }
}

/// A request that has ended.
pub(crate) struct Ended<'a> {
    pub operation: Operation,
    pub streamed: bool,
    /// Who answered; where nobody did, the first that was to.
    pub target: Option<&'a Target>,
    pub outcome: Outcome,
    pub duration: Duration,
    /// After its beginning.
    pub first_output: Option<Duration>,
    pub usage: Option<Usage>,
}

impl Metrics {
    pub(crate) fn request_began(&self) {
        self.begun.add(1);
    }

    pub(crate) fn request_ended(&self, ended: &Ended<'_>) {
        let series = ended.target.map_or(&*self.unresolved, |target| target.series.get(target));
        let requests = &series.requests[Kind::of(ended.operation, ended.streamed) as usize];
        requests.outcomes[ended.outcome.index()].add(1);
        // How long it takes to be refused says nothing of how long answers take.
        if ended.outcome == Outcome::Ok {
            requests.duration.observe(ended.duration);
        }
        if let Some(first_output) = ended.first_output.filter(|_| ended.streamed) {
            series.first_output.observe(first_output);
        }
        if let Some(usage) = ended.usage {
            series.prompt_tokens.add(usage.prompt_tokens);
            series.completion_tokens.add(usage.completion_tokens);
        }
    }

    pub(crate) fn error_answered(&self, error: &ApiError) {
        *locked(&self.errors).entry(error.label()).or_default() += 1;
        if let Some(limit) = error.limit {
            *locked(&self.limit_refusals).entry(limit.as_str()).or_default() += 1;
        }
    }

    pub(crate) fn node_failed(&self) {
        self.node_failures.add(1);
    }

    pub(crate) fn usage_lost(&self, requests: u64) {
        self.usage_lost.add(requests);
    }

    /// Times a call to the store and counts how it went.
    pub(crate) async fn store_call<T, E>(
        &self,
        call: StoreCall,
        host: &dyn Host,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        Failure: for<'a> From<&'a E>,
    {
        let begun = host.monotonic();
        let result = future.await;
        let calls = &self.store_calls[call as usize];
        calls.duration.observe(host.monotonic().saturating_sub(begun));
        let outcome = result.as_ref().err().map_or("ok", |error| Failure::from(error).class);
        *locked(&calls.outcomes).entry(outcome).or_default() += 1;
        result
    }

    fn series(&self, provider: &str, model: &str) -> Arc<Series> {
        let mut all = locked(&self.series);
        let mut name = (provider.to_owned(), model.to_owned());
        if all.len() >= MAX_SERIES && !all.contains_key(&name) {
            name = ("other".to_owned(), "other".to_owned());
        }
        let (provider, model) = name.clone();
        all.entry(name).or_insert_with(|| Arc::new(Series::new(provider, model))).clone()
    }
}

/// What is counted for a target: found at its first request, and kept.
#[derive(Debug)]
pub(crate) struct TargetSeries {
    metrics: Arc<Metrics>,
    found: OnceLock<Arc<Series>>,
}

impl TargetSeries {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, found: OnceLock::new() }
    }

    pub(crate) fn get(&self, target: &Target) -> &Series {
        self.found.get_or_init(|| self.metrics.series(target.upstream.slug.as_str(), &target.model.id))
    }
}

/// What is counted for one model of one provider.
#[derive(Debug)]
pub(crate) struct Series {
    provider: String,
    model: String,
    requests: [Requests; Kind::ALL.len()],
    /// Of streams.
    first_output: Histogram,
    prompt_tokens: Count,
    completion_tokens: Count,
    /// Calls that committed, and then those that failed before, by class.
    calls_ok: Count,
    calls_failed: [Count; FailureClass::ALL.len()],
    corrections: Count,
    reconnections: Count,
    previous_credentials: Count,
    fallbacks: Count,
}

impl Series {
    fn new(provider: String, model: String) -> Self {
        Self {
            provider,
            model,
            requests: std::array::from_fn(|_| Requests::default()),
            first_output: Histogram::new(REQUEST_BOUNDS),
            prompt_tokens: Count::default(),
            completion_tokens: Count::default(),
            calls_ok: Count::default(),
            calls_failed: Default::default(),
            corrections: Count::default(),
            reconnections: Count::default(),
            previous_credentials: Count::default(),
            fallbacks: Count::default(),
        }
    }

    /// A call came to its first content, or to its end.
    pub(crate) fn call_committed(&self) {
        self.calls_ok.add(1);
    }

    pub(crate) fn call_failed(&self, class: FailureClass) {
        self.calls_failed[class as usize].add(1);
    }

    /// The same request is sent again without what was refused of it.
    pub(crate) fn corrected(&self) {
        self.corrections.add(1);
    }

    /// The same request is sent again on another connection.
    pub(crate) fn reconnected(&self) {
        self.reconnections.add(1);
    }

    /// The same request is sent again with the credential before the current one.
    pub(crate) fn fell_back_to_previous_credential(&self) {
        self.previous_credentials.add(1);
    }

    /// A request comes here because another target failed.
    pub(crate) fn fallback(&self) {
        self.fallbacks.add(1);
    }
}

#[derive(Debug)]
struct Requests {
    outcomes: [Count; Outcome::COUNT],
    duration: Histogram,
}

impl Default for Requests {
    fn default() -> Self {
        Self { outcomes: Default::default(), duration: Histogram::new(REQUEST_BOUNDS) }
    }
}

/// What is asked for, and whether as a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Completion,
    Stream,
    Embeddings,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Completion, Self::Stream, Self::Embeddings];

    fn of(operation: Operation, streamed: bool) -> Self {
        match operation {
            Operation::ChatCompletion if streamed => Self::Stream,
            Operation::ChatCompletion => Self::Completion,
            Operation::Embeddings => Self::Embeddings,
        }
    }

    fn operation(self) -> Operation {
        match self {
            Self::Completion | Self::Stream => Operation::ChatCompletion,
            Self::Embeddings => Operation::Embeddings,
        }
    }
}

/// What the store is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreCall {
    Version,
    Config,
    Key,
    Nodes,
    LimitTake,
    LimitCharge,
    LimitGiveBack,
    LimitHold,
    Usage,
}

impl StoreCall {
    const ALL: [Self; 9] = [
        Self::Version,
        Self::Config,
        Self::Key,
        Self::Nodes,
        Self::LimitTake,
        Self::LimitCharge,
        Self::LimitGiveBack,
        Self::LimitHold,
        Self::Usage,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Config => "config",
            Self::Key => "key",
            Self::Nodes => "nodes",
            Self::LimitTake => "limit_take",
            Self::LimitCharge => "limit_charge",
            Self::LimitGiveBack => "limit_give_back",
            Self::LimitHold => "limit_hold",
            Self::Usage => "usage",
        }
    }
}

#[derive(Debug)]
struct StoreCalls {
    /// `ok`, or the class of the error. A lock does: these calls are few.
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
    duration: Histogram,
}

impl Default for StoreCalls {
    fn default() -> Self {
        Self { outcomes: Mutex::default(), duration: Histogram::new(STORE_BOUNDS) }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that only grows.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
