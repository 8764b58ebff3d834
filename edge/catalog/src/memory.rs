//! The ports in memory: for tests, and where nothing needs to last.

use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    ApiKeyId, ApiKeyRecord, Ask, AuditEntry, AuditHead, AuditedChange, BoxFuture, By, ConfigSnapshot,
    ConfigVersion, Counter, Day, Held, Hold, KeptAnswer, KeyList, KeySecretCheck, KeyStore, LimitStore,
    ProviderId, ProviderSlug, ProviderStatus, ProviderStore, Store, StoreError, StoredProvider, Taken,
    UsageKey, UsageRow, Versioned,
};

mod reports;

/// The audit log's size, in bytes: changes that would make it larger are refused, as it must not lose anything.
const MAX_AUDIT_BYTES: usize = 32 << 20;
/// Of kept answers; the next one takes the place of the one that ends first.
const MAX_ANSWERS: usize = 1_000;
/// Of rows of usage, keys that were used, and states of providers, each.
const MAX_ROWS: usize = 100_000;

/// Behaves as the durable stores do, and refuses what they refuse. What grows by itself is bounded: it refuses more.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    providers: BTreeMap<ProviderSlug, Versioned<StoredProvider>>,
    keys: BTreeMap<ApiKeyId, Versioned<ApiKeyRecord>>,
    /// One at most.
    key_secret: BTreeMap<(), Versioned<KeySecretCheck>>,
    version: ConfigVersion,
    /// In the order of their numbers, which begin at 1.
    audit: Vec<AuditEntry>,
    audit_bytes: usize,
    answers: BTreeMap<[u8; 32], KeptAnswer>,
    usage: BTreeMap<UsageKey, UsageRow>,
    last_used: BTreeMap<ApiKeyId, u64>,
    statuses: BTreeMap<ProviderId, ProviderStatus>,
    counters: BTreeMap<Counter, u64>,
    /// By key and holder.
    slots: BTreeMap<ApiKeyId, BTreeMap<String, Held>>,
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProviderStore for MemoryStore {
    fn provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
    ) -> BoxFuture<'a, Result<Option<Versioned<StoredProvider>>, StoreError>> {
        answer(Ok(self.state().providers.get(slug).cloned()))
    }

    fn put_provider<'a>(
        &'a self,
        provider: &'a StoredProvider,
        expected: Option<u64>,
        by: &'a By,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        if let Err(refused) = provider.to_stored() {
            return answer(Err(refused));
        }
        let slug = &provider.provider.slug;
        let mut state = self.state();
        let before = state.providers.get(slug).map(|stored| stored.value.clone());
        answer(state.write(
            by,
            || StoreError::provider_conflict(slug),
            |state| {
                let version = put(&mut state.providers, slug, provider, expected)?;
                state.version.providers += 1;
                Ok((version, AuditedChange::of_provider(before.as_ref(), Some(provider))))
            },
        ))
    }

    fn delete_provider<'a>(
        &'a self,
        slug: &'a ProviderSlug,
        expected: u64,
        by: &'a By,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut state = self.state();
        answer(state.write(
            by,
            || StoreError::provider_conflict(slug),
            |state| {
                let is_expected = |stored: &&Versioned<StoredProvider>| stored.version == expected;
                let before = state.providers.get(slug).filter(is_expected).cloned().ok_or(Changed)?;
                state.providers.remove(slug);
                state.version.providers += 1;
                Ok(((), AuditedChange::of_provider(Some(&before.value), None)))
            },
        ))
    }
}

impl KeyStore for MemoryStore {
    fn find_key<'a>(
        &'a self,
        id: &'a ApiKeyId,
    ) -> BoxFuture<'a, Result<Option<Versioned<ApiKeyRecord>>, StoreError>> {
        answer(Ok(self.state().keys.get(id).cloned()))
    }

    fn keys(&self) -> BoxFuture<'_, Result<KeyList, StoreError>> {
        let keys = self.state().keys.values().cloned().collect();
        answer(Ok(KeyList { keys, left_out: Vec::new() }))
    }

    fn put_key<'a>(
        &'a self,
        key: &'a ApiKeyRecord,
        expected: Option<u64>,
        by: &'a By,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        if let Err(violations) = key.check() {
            return answer(Err(StoreError::Refused { reason: violations.to_string() }));
        }
        let mut state = self.state();
        let before = state.keys.get(&key.id).map(|stored| stored.value.clone());
        answer(state.write(
            by,
            || StoreError::key_conflict(&key.id),
            |state| {
                let version = put(&mut state.keys, &key.id, key, expected)?;
                state.version.keys[key.id.group()] += 1;
                Ok((version, AuditedChange::of_key(before.as_ref(), key)))
            },
        ))
    }

    fn key_secret(&self) -> BoxFuture<'_, Result<Option<Versioned<KeySecretCheck>>, StoreError>> {
        answer(Ok(self.state().key_secret.get(&()).cloned()))
    }

    fn put_key_secret<'a>(
        &'a self,
        check: KeySecretCheck,
        expected: Option<u64>,
        by: &'a By,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        let mut state = self.state();
        let before = state.key_secret.get(&()).map(|stored| stored.value);
        answer(state.write(by, StoreError::key_secret_conflict, |state| {
            let version = put(&mut state.key_secret, &(), &check, expected)?;
            state.version.providers += 1;
            Ok((version, AuditedChange::of_key_secret(before, check)))
        }))
    }
}

impl Store for MemoryStore {
    fn config(&self) -> BoxFuture<'_, Result<ConfigSnapshot, StoreError>> {
        let state = self.state();
        answer(Ok(ConfigSnapshot {
            version: Some(state.version.clone()),
            providers: state.providers.values().cloned().collect(),
            key_secret: state.key_secret.get(&()).map(|check| check.value),
            left_out: Vec::new(),
        }))
    }

    fn config_version(&self) -> BoxFuture<'_, Result<ConfigVersion, StoreError>> {
        answer(Ok(self.state().version.clone()))
    }
}

impl LimitStore for MemoryStore {
    fn take<'a>(
        &'a self,
        counter: &'a Counter,
        ask: Ask,
        limit: u64,
    ) -> BoxFuture<'a, Result<Taken, StoreError>> {
        let mut state = self.state();
        state.forget_counters_before(counter);
        let taken = state.counters.entry(counter.clone()).or_default();
        let answered = Taken::from_counter(*taken, ask, limit);
        *taken = taken.saturating_add(answered.counted);
        answer(Ok(answered))
    }

    fn charge<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut state = self.state();
        let taken = state.counters.entry(counter.clone()).or_default();
        *taken = taken.saturating_add(amount);
        answer(Ok(()))
    }

    fn give_back<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut state = self.state();
        if let Some(taken) = state.counters.get_mut(counter).filter(|taken| **taken >= amount) {
            *taken -= amount;
        }
        answer(Ok(()))
    }

    fn hold<'a>(&'a self, hold: Hold<'a>) -> BoxFuture<'a, Result<u32, StoreError>> {
        let mut state = self.state();
        let holders = state.slots.entry(hold.key.clone()).or_default();
        holders.retain(|holder, held| holder == hold.holder || held.until_ms > hold.now_ms);
        let others = holders.iter().filter(|(holder, _)| *holder != hold.holder);
        let others = others.map(|(_, held)| held.slots).fold(0, u32::saturating_add);
        let own = holders.get(hold.holder).map_or(0, |held| held.slots);
        let slots = hold.wanted.slots.min(hold.limit.saturating_sub(others).max(own));
        if slots == 0 {
            holders.remove(hold.holder);
        } else {
            holders.insert(hold.holder.to_owned(), Held { slots, ..hold.wanted });
        }
        if holders.is_empty() {
            state.slots.remove(hold.key);
        }
        answer(Ok(slots))
    }

    /// It has no clock of its own.
    fn clock_offset_ms(&self) -> i64 {
        0
    }
}

impl State {
    /// A change with its audit entry and the answer that is kept, or none of them: `change` changes nothing where it
    /// fails.
    fn write<T>(
        &mut self,
        by: &By,
        conflict: impl FnOnce() -> StoreError,
        change: impl FnOnce(&mut Self) -> Result<(T, AuditedChange), Changed>,
    ) -> Result<T, StoreError> {
        by.check()?;
        self.answers.retain(|_, kept| kept.until_ms > by.at_ms);
        if by.answer.as_ref().is_some_and(|kept| self.answers.contains_key(&kept.id)) {
            return Err(conflict());
        }
        if self.audit_bytes > MAX_AUDIT_BYTES {
            return Err(full("the audit log"));
        }
        let Ok((written, change)) = change(self) else { return Err(conflict()) };
        let head = self.audit.last().map_or_else(AuditHead::default, AuditEntry::head);
        let entry = head.next(by, change);
        self.audit_bytes += size_of::<AuditEntry>()
            + [&entry.before, &entry.after].into_iter().flatten().map(String::len).sum::<usize>();
        self.audit.push(entry);
        if let Some(kept) = &by.answer {
            if self.answers.len() == MAX_ANSWERS {
                let first = self.answers.values().min_by_key(|kept| kept.until_ms).map(|kept| kept.id);
                first.map(|id| self.answers.remove(&id));
            }
            self.answers.insert(kept.id, kept.clone());
        }
        Ok(written)
    }

    /// Drops the rows of days that are long over.
    fn forget_usage_before(&mut self, today: Day) {
        let is_over = |row: &UsageKey| row.day.0.saturating_add(Day::KEPT) < today.0;
        while let Some(first) = self.usage.first_entry().filter(|first| is_over(first.key())) {
            first.remove();
        }
    }

    /// Drops the counters of windows that are long over, of the same key and kind.
    fn forget_counters_before(&mut self, counter: &Counter) {
        let first = Counter { start_ms: 0, ..counter.clone() };
        let is_over = |old: &Counter| old.end_ms().saturating_add(Counter::KEPT_MS) < counter.start_ms;
        while let Some(old) = self.counters.range(&first..counter).next().map(|(old, _)| old.clone())
            && is_over(&old)
        {
            self.counters.remove(&old);
        }
    }
}

/// The record is not at the expected version.
struct Changed;

fn full(what: &str) -> StoreError {
    StoreError::Refused { reason: format!("{what} has as much as memory is for; a durable store takes more") }
}

fn put<K: Clone + Ord, V: Clone + fmt::Debug>(
    records: &mut BTreeMap<K, Versioned<V>>,
    key: &K,
    value: &V,
    expected: Option<u64>,
) -> Result<u64, Changed> {
    if records.get(key).map(|stored| stored.version) != expected {
        return Err(Changed);
    }
    let version = expected.unwrap_or(0) + 1;
    records.insert(key.clone(), Versioned { value: value.clone(), version });
    Ok(version)
}

fn answer<'a, T: Send + 'a>(result: Result<T, StoreError>) -> BoxFuture<'a, Result<T, StoreError>> {
    Box::pin(ready(result))
}

#[cfg(all(test, feature = "testing"))]
mod tests;
