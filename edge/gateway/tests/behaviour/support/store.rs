//! A store that can fail.

use std::future::{pending, poll_fn, ready};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use catalog::{
    ApiKeyId, ApiKeyRecord, Ask, BoxFuture, ConfigVersion, Counter, Hold, KeyStore, LimitStore, MemoryStore,
    Provider, ProviderSlug, ProviderStore, Store, StoreError, Taken, Versioned,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Every call fails at once.
    Down,
    /// No call ever answers.
    Hangs,
    /// Answers once [`FaultyStore::go`] was called.
    Slow,
}

#[derive(Default)]
pub(crate) struct FaultyStore {
    /// Without faults: for the test's own writes.
    pub(super) inner: MemoryStore,
    mood: Mutex<Mood>,
    key_look_ups: AtomicUsize,
    limit_calls: Mutex<Vec<String>>,
    offset_ms: AtomicI64,
    waiting: Arc<Mutex<Vec<Waker>>>,
}

impl FaultyStore {
    /// Lets the calls that were begun while it was slow go on.
    pub(crate) fn go(&self) {
        self.waiting.lock().unwrap().drain(..).for_each(Waker::wake);
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
            Mood::Down | Mood::Hangs => self.faulty(Box::pin(pending())),
        }
    }

    fn faulty<'a, T: Send + 'a>(
        &self,
        answer: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        match *self.mood.lock().unwrap() {
            Mood::Well => answer,
            Mood::Down => Box::pin(ready(Err(StoreError::Unavailable { reason: "it is down".to_owned() }))),
            Mood::Hangs => Box::pin(pending()),
            Mood::Slow => {
                let waiting = self.waiting.clone();
                Box::pin(async move {
                    let mut begun = false;
                    poll_fn(|cx| {
                        if begun {
                            return Poll::Ready(());
                        }
                        begun = true;
                        waiting.lock().unwrap().push(cx.waker().clone());
                        Poll::Pending
                    })
                    .await;
                    answer.await
                })
            }
        }
    }
}

impl ProviderStore for FaultyStore {
    fn providers(&self) -> BoxFuture<'_, Result<Vec<Versioned<Provider>>, StoreError>> {
        self.faulty(self.inner.providers())
    }

    fn provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
    ) -> BoxFuture<'a, Result<Option<Versioned<Provider>>, StoreError>> {
        self.faulty(self.inner.provider(slug))
    }

    fn put_provider<'a>(
        &'a self,
        provider: &'a Provider,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.faulty(self.inner.put_provider(provider, expected))
    }

    fn delete_provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
        expected: u64,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.faulty(self.inner.delete_provider(slug, expected))
    }
}

impl KeyStore for FaultyStore {
    fn find_key<'a>(
        &'a self,
        id: &'a ApiKeyId,
    ) -> BoxFuture<'a, Result<Option<Versioned<ApiKeyRecord>>, StoreError>> {
        self.key_look_ups.fetch_add(1, Ordering::SeqCst);
        self.faulty(self.inner.find_key(id))
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<Versioned<ApiKeyRecord>>, StoreError>> {
        self.faulty(self.inner.keys())
    }

    fn put_key<'a>(
        &'a self,
        key: &'a ApiKeyRecord,
        expected: Option<u64>,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.faulty(self.inner.put_key(key, expected))
    }
}

impl Store for FaultyStore {
    fn config_version(&self) -> BoxFuture<'_, Result<ConfigVersion, StoreError>> {
        self.faulty(self.inner.config_version())
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
