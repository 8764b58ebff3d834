//! A store that can fail.

use std::future::{pending, poll_fn, ready};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use catalog::{
    ApiKeyId, ApiKeyRecord, Ask, BoxFuture, By, ConfigSnapshot, ConfigVersion, Counter, Day, Hold, KeyList,
    KeySecretCheck, KeyStore, LeftOut, LimitStore, MemoryStore, ProviderSlug, ProviderStore, Store,
    StoreError, StoredProvider, Taken, UsageRow, UsageStore, Versioned,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Every call fails at once, because nobody answers.
    Down,
    /// Likewise, because there is no table.
    NotSetUp,
    /// Likewise, because of the credentials.
    Denied,
    /// No call ever answers.
    Hangs,
    /// Answers once [`FaultyStore::go`] was called.
    Slow,
}

#[derive(Default)]
struct Waiting {
    /// How often those that waited were let go.
    gone: usize,
    wakers: Vec<Waker>,
}

#[derive(Default)]
pub(crate) struct FaultyStore {
    /// Without faults: for the test's own writes.
    pub(crate) inner: MemoryStore,
    mood: Arc<Mutex<Mood>>,
    key_look_ups: AtomicUsize,
    limit_calls: Mutex<Vec<String>>,
    offset_ms: AtomicI64,
    snapshots: AtomicUsize,
    checks: AtomicUsize,
    left_out: Mutex<Vec<LeftOut>>,
    unreadable_key: Mutex<Option<LeftOut>>,
    shown_key: Mutex<Option<Versioned<ApiKeyRecord>>>,
    waiting: Arc<Mutex<Waiting>>,
    keys_are_held: AtomicBool,
    usage_writes: AtomicUsize,
    refused_usage: Mutex<Option<Refusal>>,
}

/// The error that a row of usage gets, if it does.
type Refusal = Box<dyn Fn(&UsageRow) -> Option<StoreError> + Send>;

impl FaultyStore {
    /// Lets the calls that were begun while it was slow go on.
    pub(crate) fn go(&self) {
        let mut waiting = self.waiting.lock().unwrap();
        waiting.gone += 1;
        waiting.wakers.drain(..).for_each(Waker::wake);
    }

    pub(crate) fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// How often a key was looked up.
    pub(crate) fn key_look_ups(&self) -> usize {
        self.key_look_ups.load(Ordering::SeqCst)
    }

    /// What was asked of limits since the last time, failed or not: `take 3+2`, `charge 5`, `give back 1`, `hold 2`.
    pub(crate) fn limit_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.limit_calls.lock().unwrap())
    }

    /// How often a row of usage was to be added.
    pub(crate) fn usage_writes(&self) -> usize {
        self.usage_writes.load(Ordering::SeqCst)
    }

    /// Which rows of usage are refused from now on.
    pub(crate) fn refuses_usage(&self, refusal: impl Fn(&UsageRow) -> Option<StoreError> + Send + 'static) {
        *self.refused_usage.lock().unwrap() = Some(Box::new(refusal));
    }

    /// How far its clock is ahead of the gateway's.
    pub(crate) fn is_ahead_by_ms(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::SeqCst);
    }

    /// A call that takes effect only where the store is well, or slow.
    fn limit<'a, T: Send + 'a>(
        &'a self,
        named: String,
        call: impl FnOnce() -> BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        self.limit_calls.lock().unwrap().push(named);
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Well | Mood::Slow => self.faulty(call()),
            Mood::Down | Mood::NotSetUp | Mood::Denied | Mood::Hangs => self.faulty(Box::pin(pending())),
        }
    }

    /// How often the whole configuration was read.
    pub(crate) fn snapshots(&self) -> usize {
        self.snapshots.load(Ordering::SeqCst)
    }

    /// How often the version was read.
    pub(crate) fn checks(&self) -> usize {
        self.checks.load(Ordering::SeqCst)
    }

    /// What cannot be read of the configuration from now on.
    pub(crate) fn leaves_out(&self, items: &[LeftOut]) {
        *self.left_out.lock().unwrap() = items.to_vec();
    }

    /// Whether the record of any key that is looked up from now on cannot be read.
    pub(crate) fn cannot_read_keys(&self, left_out: Option<LeftOut>) {
        *self.unreadable_key.lock().unwrap() = left_out;
    }

    /// Whether every look-up of a key finds this, whatever is written.
    pub(crate) fn keeps_showing_key(&self, shown: Option<Versioned<ApiKeyRecord>>) {
        *self.shown_key.lock().unwrap() = shown;
    }

    fn faulty<'a, T: Send + 'a>(
        &self,
        answer: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let mood = *self.mood.lock().unwrap();
        if let Some(error) = mood.error() {
            return Box::pin(ready(Err(error)));
        }
        match mood {
            Mood::Hangs => Box::pin(pending()),
            Mood::Slow => self.slow(answer),
            _ => answer,
        }
    }

    /// Answers after the next [`go`](Self::go).
    fn slow<'a, T: Send + 'a>(
        &self,
        answer: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let (waiting, mood) = (self.waiting.clone(), self.mood.clone());
        Box::pin(async move {
            let mut gone_before = None;
            poll_fn(|cx| {
                let mut waiting = waiting.lock().unwrap();
                if *gone_before.get_or_insert(waiting.gone) < waiting.gone {
                    return Poll::Ready(());
                }
                waiting.wakers.push(cx.waker().clone());
                Poll::Pending
            })
            .await;
            let error = mood.lock().unwrap().error();
            match error {
                Some(error) => Err(error),
                None => answer.await,
            }
        })
    }

    /// Whether look-ups of keys, and nothing else, wait for [`go`](Self::go).
    pub(crate) fn hold_keys(&self, held: bool) {
        self.keys_are_held.store(held, Ordering::SeqCst);
    }
}

impl Mood {
    fn error(self) -> Option<StoreError> {
        match self {
            Self::Down => Some(StoreError::Unavailable { reason: "it is down".to_owned() }),
            Self::NotSetUp => Some(StoreError::NotSetUp { reason: "there is no such table".to_owned() }),
            Self::Denied => Some(StoreError::Denied { reason: "AccessDeniedException".to_owned() }),
            Self::Well | Self::Hangs | Self::Slow => None,
        }
    }
}

impl ProviderStore for FaultyStore {
    fn provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
    ) -> BoxFuture<'a, Result<Option<Versioned<StoredProvider>>, StoreError>> {
        self.faulty(self.inner.provider(slug))
    }

    fn put_provider<'a>(
        &'a self,
        provider: &'a StoredProvider,
        expected: Option<u64>,
        by: &'a By,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.faulty(self.inner.put_provider(provider, expected, by))
    }

    fn delete_provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
        expected: u64,
        by: &'a By,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.faulty(self.inner.delete_provider(slug, expected, by))
    }
}

impl KeyStore for FaultyStore {
    fn find_key<'a>(
        &'a self,
        id: &'a ApiKeyId,
    ) -> BoxFuture<'a, Result<Option<Versioned<ApiKeyRecord>>, StoreError>> {
        self.key_look_ups.fetch_add(1, Ordering::SeqCst);
        if self.keys_are_held.load(Ordering::SeqCst) {
            return self.slow(self.inner.find_key(id));
        }
        if let Some(left_out) = self.unreadable_key.lock().unwrap().clone() {
            return Box::pin(ready(Err(StoreError::Unreadable(left_out))));
        }
        if let Some(shown) = self.shown_key.lock().unwrap().clone() {
            return self.faulty(Box::pin(ready(Ok(Some(shown)))));
        }
        self.faulty(self.inner.find_key(id))
    }

    fn keys(&self) -> BoxFuture<'_, Result<KeyList, StoreError>> {
        self.faulty(self.inner.keys())
    }

    fn put_key<'a>(
        &'a self,
        key: &'a ApiKeyRecord,
        expected: Option<u64>,
        by: &'a By,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.faulty(self.inner.put_key(key, expected, by))
    }

    fn key_secret(&self) -> BoxFuture<'_, Result<Option<Versioned<KeySecretCheck>>, StoreError>> {
        self.faulty(self.inner.key_secret())
    }

    fn put_key_secret<'a>(
        &'a self,
        check: KeySecretCheck,
        expected: Option<u64>,
        by: &'a By,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.faulty(self.inner.put_key_secret(check, expected, by))
    }
}

impl Store for FaultyStore {
    fn config(&self) -> BoxFuture<'_, Result<ConfigSnapshot, StoreError>> {
        self.snapshots.fetch_add(1, Ordering::SeqCst);
        let left_out = self.left_out.lock().unwrap().clone();
        self.faulty(Box::pin(async move {
            let snapshot = self.inner.config().await?;
            Ok(ConfigSnapshot { left_out, ..snapshot })
        }))
    }

    fn config_version(&self) -> BoxFuture<'_, Result<ConfigVersion, StoreError>> {
        self.checks.fetch_add(1, Ordering::SeqCst);
        self.faulty(self.inner.config_version())
    }
}

impl UsageStore for FaultyStore {
    fn add_usage<'a>(&'a self, row: &'a UsageRow) -> BoxFuture<'a, Result<(), StoreError>> {
        self.usage_writes.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.refused_usage.lock().unwrap().as_ref().and_then(|refuse| refuse(row)) {
            return Box::pin(ready(Err(error)));
        }
        let added: BoxFuture<'a, _> = Box::pin(async move { self.inner.add_usage(row).await });
        self.faulty(added)
    }

    fn usage(&self, day: Day) -> BoxFuture<'_, Result<Vec<UsageRow>, StoreError>> {
        self.inner.usage(day)
    }

    fn last_used(&self) -> BoxFuture<'_, Result<Vec<(ApiKeyId, u64)>, StoreError>> {
        self.inner.last_used()
    }
}

impl LimitStore for FaultyStore {
    fn take<'a>(
        &'a self,
        counter: &'a Counter,
        ask: Ask,
        limit: u64,
    ) -> BoxFuture<'a, Result<Taken, StoreError>> {
        let named = format!("take {}+{}", ask.need, ask.extra);
        self.limit(named, || self.inner.take(counter, ask, limit))
    }

    fn charge<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        self.limit(format!("charge {amount}"), || self.inner.charge(counter, amount))
    }

    fn give_back<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        self.limit(format!("give back {amount}"), || self.inner.give_back(counter, amount))
    }

    fn hold<'a>(&'a self, hold: Hold<'a>) -> BoxFuture<'a, Result<u32, StoreError>> {
        self.limit(format!("hold {}", hold.wanted.slots), || self.inner.hold(hold))
    }

    fn clock_offset_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::SeqCst)
    }
}
