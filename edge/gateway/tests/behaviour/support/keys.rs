//! Master keys that can be exchanged, and that can be out of reach.

use std::future::{pending, ready};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use catalog::{BoxFuture, DataKey, KeyId, KeyRing, MasterKeys, SealContext, SealError};

pub(crate) struct FakeKeys {
    state: Mutex<State>,
    unwrapped: AtomicUsize,
}

struct State {
    ring: KeyRing,
    reach: Reach,
}

/// Whether whoever keeps the keys answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Well,
    Down,
    Hangs,
}

impl Default for FakeKeys {
    /// With the one key `k1`.
    fn default() -> Self {
        let ring = ring(&["k1"]);
        Self { state: Mutex::new(State { ring, reach: Reach::Well }), unwrapped: AtomicUsize::new(0) }
    }
}

/// Keys of these ids, the first of them active; the same id has the same key.
fn ring(ids: &[&str]) -> KeyRing {
    let key = |id: &&str| {
        let digits: String = id.bytes().cycle().take(43).map(char::from).collect();
        // The last of 43 digits of base64 has two bits that must be zero.
        format!("{id}:{}A", &digits[..42])
    };
    KeyRing::parse(&ids.iter().map(key).collect::<Vec<_>>().join(",")).unwrap()
}

impl FakeKeys {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn are(&self, ids: &[&str]) {
        self.state().ring = ring(ids);
    }

    pub(crate) fn reach(&self, reach: Reach) {
        self.state().reach = reach;
    }

    /// How often a data key was asked for.
    pub(crate) fn unwrapped(&self) -> usize {
        self.unwrapped.load(Ordering::SeqCst)
    }

    fn answer<T: Send + 'static>(
        &self,
        answer: impl FnOnce(&KeyRing) -> Result<T, SealError>,
    ) -> BoxFuture<'_, Result<T, SealError>> {
        let state = self.state();
        match state.reach {
            Reach::Well => Box::pin(ready(answer(&state.ring))),
            Reach::Down => Box::pin(ready(Err(SealError::Unavailable("it is down".to_owned())))),
            Reach::Hangs => Box::pin(pending()),
        }
    }
}

impl MasterKeys for FakeKeys {
    fn active(&self) -> BoxFuture<'_, Result<KeyId, SealError>> {
        self.answer(KeyRing::active_id)
    }

    fn wrap<'a>(
        &'a self,
        data_key: &'a DataKey,
        context: &'a SealContext,
        nonce: [u8; 24],
    ) -> BoxFuture<'a, Result<(KeyId, Vec<u8>), SealError>> {
        self.answer(|ring| ring.wrap_now(data_key, context, nonce))
    }

    fn unwrap<'a>(
        &'a self,
        key_id: &'a KeyId,
        wrapped: &'a [u8],
        context: &'a SealContext,
    ) -> BoxFuture<'a, Result<DataKey, SealError>> {
        self.unwrapped.fetch_add(1, Ordering::SeqCst);
        self.answer(|ring| ring.unwrap_now(key_id, wrapped, context))
    }
}
