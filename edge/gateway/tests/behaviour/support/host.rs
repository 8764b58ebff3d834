//! The host.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use catalog::{CredentialRef, Secret};
use gateway::{Body, BoxFuture, CallError, CallTrace, Host, Origin, Reach};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::run::{Task, ready};
use super::upstream::Reply;

/// The wall clock of the beginning, Unix milliseconds: a full minute.
pub(crate) const START_MS: u64 = 1_700_000_040_000;

pub(crate) struct FakeHost {
    clock: Arc<Mutex<Clock>>,
    /// How far its wall clock is ahead of the truth.
    ahead_ms: i64,
    /// What the gateway's own mark is made of.
    mark: u8,
    state: Mutex<State>,
}

#[derive(Default)]
struct Clock {
    now: Duration,
    sleepers: Vec<(Duration, Waker)>,
}

#[derive(Default)]
struct State {
    /// By the upstream's host name.
    replies: HashMap<String, VecDeque<Reply>>,
    calls: Vec<Recorded>,
    spawned: Vec<Task<()>>,
    randomness: u64,
    /// The gateway has its mark.
    is_marked: bool,
}

/// A request that went to an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// `https://alpha.example/v1/chat/completions`
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    /// Whether it went the way to runners.
    pub(crate) by_runner: bool,
    pub(crate) body: String,
    /// Of one that went to an upstream.
    pub(crate) reach: Option<Reach>,
}

impl Recorded {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl FakeHost {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { clock: Arc::default(), ahead_ms: 0, mark: 7, state: Mutex::default() })
    }

    /// Another machine, on which time passes as on this one.
    pub(crate) fn another(&self, mark: u8, ahead_ms: i64) -> Arc<Self> {
        Arc::new(Self { clock: self.clock.clone(), ahead_ms, mark, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The provider's next call that has no reply yet ends this way.
    pub(crate) fn reply(&self, slug: &str, reply: Reply) {
        self.state().replies.entry(format!("{slug}.example")).or_default().push_back(reply);
    }

    /// What was to be answered, and was not asked.
    pub(crate) fn forget_replies(&self) {
        self.state().replies.clear();
    }

    /// All calls so far.
    pub(crate) fn calls(&self) -> Vec<Recorded> {
        self.state().calls.clone()
    }

    pub(crate) fn last_call(&self) -> Recorded {
        self.state().calls.last().unwrap().clone()
    }

    pub(crate) fn advance(&self, by: Duration) {
        let due: Vec<Waker> = {
            let mut clock = self.clock.lock().unwrap();
            clock.now += by;
            let now = clock.now;
            clock.sleepers.extract_if(.., |(at, _)| *at <= now).map(|(_, waker)| waker).collect()
        };
        due.into_iter().for_each(Waker::wake);
    }

    /// What was spawned is gone, and nobody is told: so it ends on a Worker.
    pub(crate) fn forget_spawned(&self) {
        self.state().spawned.drain(..).for_each(std::mem::forget);
    }

    /// Runs what was spawned as far as it goes. Gives how many futures are left.
    pub(crate) fn run_spawned(&self) -> usize {
        let tasks = std::mem::take(&mut self.state().spawned);
        let mut waiting: Vec<_> =
            tasks.into_iter().filter_map(|mut task| task.step().is_none().then_some(task)).collect();
        let mut state = self.state();
        state.spawned.append(&mut waiting);
        state.spawned.len()
    }
}

impl FakeHost {
    fn answer(
        &self,
        request: http::Request<Body>,
        by_runner: bool,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        let (head, body) = request.into_parts();
        let host = head.uri.host().unwrap().to_owned();
        let body = ready(body.collect()).unwrap().to_bytes();
        // Connections take no time.
        if let Some(trace) = head.extensions.get::<Arc<CallTrace>>() {
            trace.resolved(self.monotonic());
            trace.connected(self.monotonic());
        }
        let mut state = self.state();
        state.calls.push(Recorded {
            url: head.uri.to_string(),
            headers: head.headers,
            by_runner,
            body: String::from_utf8(body.to_vec()).unwrap(),
            reach: head.extensions.get().copied(),
        });
        let reply = state.replies.get_mut(&host).and_then(VecDeque::pop_front);
        Box::pin(reply.unwrap_or_else(|| panic!("{host} was not expected to be called")).settle())
    }
}

impl Host for FakeHost {
    fn unix_ms(&self) -> u64 {
        let now_ms = START_MS + u64::try_from(self.monotonic().as_millis()).unwrap();
        now_ms.saturating_add_signed(self.ahead_ms)
    }

    fn monotonic(&self) -> Duration {
        self.clock.lock().unwrap().now
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(Sleep { clock: self.clock.clone(), until: self.monotonic() + duration })
    }

    /// One number over and over for the gateway's own mark, and then something else each time, always the same in a test.
    fn fill_random(&self, bytes: &mut [u8]) {
        let mut state = self.state();
        for byte in bytes.iter_mut() {
            // An LCG of Knuth's; its upper bits are as good as a test needs.
            state.randomness = state.randomness.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = if state.is_marked { state.randomness.to_be_bytes()[0] } else { self.mark };
        }
        state.is_marked = true;
    }

    fn call(
        &self,
        request: http::Request<Body>,
        _: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        self.answer(request, false)
    }

    fn call_runner(
        &self,
        request: http::Request<Body>,
        _: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        self.answer(request, true)
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.state().spawned.push(Task::new(future));
    }

    /// `env:KEY_OF_<SLUG>` is there, and what is given; nothing else is.
    fn credential(&self, reference: &CredentialRef, _: Origin) -> Result<Option<Secret>, String> {
        match reference {
            CredentialRef::None => Ok(None),
            CredentialRef::Env(name) => match name.strip_prefix("KEY_OF_") {
                Some(slug) => Ok(Some(Secret::new(super::credential_of(&slug.to_lowercase())))),
                None => Err(format!("{name} is not set")),
            },
            CredentialRef::File(_) | CredentialRef::Sealed(_) => {
                Err("a host opens nothing that is sealed".to_owned())
            }
            CredentialRef::Inline(secret) => Ok(Some(secret.clone())),
        }
    }
}

struct Sleep {
    clock: Arc<Mutex<Clock>>,
    until: Duration,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut clock = self.clock.lock().unwrap();
        if clock.now >= self.until {
            return Poll::Ready(());
        }
        clock.sleepers.push((self.until, cx.waker().clone()));
        Poll::Pending
    }
}
