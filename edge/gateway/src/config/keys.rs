//! The API keys of the cache: read when they are first used, and again when their group has changed.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::{ApiKeyId, ApiKeyRecord, LeftOut, StoreError, Versioned};
use futures_util::future::{Either, select};

use super::{Config, log_left_out};
use crate::admit::Usage;
use crate::freshness::Failure;
use crate::metrics::StoreCall;

/// Keys held in memory; beyond it an arbitrary one makes room.
const MAX_CACHED_KEYS: usize = 100_000;
/// What keys have in use, likewise; so many that those whose records are held, and those with requests, fit in.
const MAX_USAGES: usize = 2 * MAX_CACHED_KEYS;
/// Records that are being read again, likewise.
const MAX_READING: usize = 10_000;
/// Between two looks at whether another request has read a record.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Ids that were looked up and do not exist, likewise.
const MAX_CACHED_MISSES: usize = 10_000;
/// Reads of the store on behalf of keys that are not known, per instance.
const MAX_UNKNOWN_LOOKUPS_PER_SECOND: u32 = 200;
/// How long a request waits for the record of its key: where an older one is known, and where none is.
const KNOWN_KEY_WAIT: Duration = Duration::from_secs(1);
const UNKNOWN_KEY_WAIT: Duration = Duration::from_secs(3);

/// A key's record with what it has used on this instance.
pub(crate) struct CachedKey {
    pub record: ApiKeyRecord,
    generation: u64,
    pub usage: Arc<Usage>,
}

/// There is no such key, or none that can be read.
pub(super) struct Miss {
    generation: u64,
    pub(super) left_out: Option<LeftOut>,
}

impl Config {
    /// The record of a key; `Ok(None)` if there is none. With the store down, the last known record.
    pub(crate) async fn key(&self, id: &ApiKeyId) -> Result<Option<Arc<CachedKey>>, StoreError> {
        loop {
            let generation = self.key_generations[id.group()].load(Ordering::Acquire);
            let known = self.keys.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
            if let Some(known) = &known
                && known.generation == generation
            {
                return Ok(Some(known.clone()));
            }
            if let Some(missing) = self.missing(id, generation) {
                return missing;
            }
            let Some(known) = known else { return self.read_unknown(id, generation).await };
            // It will be read again once the store answers the next check.
            if self.freshness.failure().is_some() {
                return Ok(Some(known));
            }
            if let Some(_reading) = self.begin_reading(id) {
                return self.read_known(id, known, generation).await;
            }
            // One reads for all, and nobody waits for another's future; see `freshness`.
            if self.is_confirmed(id) {
                return Ok(Some(known));
            }
            self.host.sleep(LOOK_AGAIN).await;
        }
    }

    async fn read_known(
        &self,
        id: &ApiKeyId,
        known: Arc<CachedKey>,
        generation: u64,
    ) -> Result<Option<Arc<CachedKey>>, StoreError> {
        match self.find_key(id, KNOWN_KEY_WAIT).await {
            Ok(found) => Ok(self.remember(id, found, generation)),
            Err(StoreError::Unreadable(left_out)) => Err(self.leave_out(id, left_out, generation)),
            Err(error) => {
                self.freshness.fails(Failure::from(&error), &*self.host);
                Ok(Some(known))
            }
        }
    }

    async fn read_unknown(
        &self,
        id: &ApiKeyId,
        generation: u64,
    ) -> Result<Option<Arc<CachedKey>>, StoreError> {
        if !self.may_look_up() {
            let reason = "too many unknown API keys are being tried".to_owned();
            return Err(StoreError::Unavailable { reason });
        }
        match self.find_key(id, UNKNOWN_KEY_WAIT).await {
            Ok(found) => Ok(self.remember(id, found, generation)),
            Err(StoreError::Unreadable(left_out)) => Err(self.leave_out(id, left_out, generation)),
            Err(error) => Err(error),
        }
    }

    /// Whether what was known before the last change is no older than it may be.
    fn is_confirmed(&self, id: &ApiKeyId) -> bool {
        let confirmed_ms = self.keys_confirmed_ms[id.group()].load(Ordering::Relaxed);
        let age = self.host.monotonic().saturating_sub(Duration::from_millis(confirmed_ms));
        age < self.freshness.max_age()
    }

    /// `None` while another request reads the record. One that has done so for longer than it may is gone.
    fn begin_reading(&self, id: &ApiKeyId) -> Option<Reading<'_>> {
        let now = self.host.monotonic();
        let mut reading = self.reading();
        if reading.get(id).is_some_and(|since| now.saturating_sub(*since) < KNOWN_KEY_WAIT) {
            return None;
        }
        insert_bounded(&mut reading, MAX_READING, id, now);
        Some(Reading { config: self, id: id.clone(), since: now })
    }

    fn reading(&self) -> MutexGuard<'_, HashMap<ApiKeyId, Duration>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find_key(
        &self,
        id: &ApiKeyId,
        wait: Duration,
    ) -> Result<Option<Versioned<ApiKeyRecord>>, StoreError> {
        let found = async {
            match select(self.store.find_key(id), self.host.sleep(wait)).await {
                Either::Left((found, _)) => found,
                Either::Right(_) => {
                    let reason = format!("no answer within {} s", wait.as_secs());
                    Err(StoreError::Unavailable { reason })
                }
            }
        };
        self.ask(StoreCall::Key, found).await
    }

    /// `None` if it is not known to be missing. One that is there and cannot be read is not for the client to mend.
    fn missing(&self, id: &ApiKeyId, generation: u64) -> Option<Result<Option<Arc<CachedKey>>, StoreError>> {
        let misses = self.misses.read().unwrap_or_else(PoisonError::into_inner);
        let miss = misses.get(id).filter(|miss| miss.generation == generation)?;
        Some(miss.left_out.clone().map_or(Ok(None), |left_out| Err(StoreError::Unreadable(left_out))))
    }

    fn leave_out(&self, id: &ApiKeyId, left_out: LeftOut, generation: u64) -> StoreError {
        log_left_out(&left_out);
        self.forget(id, Miss { generation, left_out: Some(left_out.clone()) });
        StoreError::Unreadable(left_out)
    }

    fn forget(&self, id: &ApiKeyId, miss: Miss) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        let mut misses = self.misses.write().unwrap_or_else(PoisonError::into_inner);
        insert_bounded(&mut misses, MAX_CACHED_MISSES, id, miss);
    }

    /// A well-formed key with any id is easily made up, and each costs a read before it is refused.
    fn may_look_up(&self) -> bool {
        let second = self.host.monotonic().as_secs();
        let mut lookups = self.unknown_lookups.lock().unwrap_or_else(PoisonError::into_inner);
        if lookups.0 != second {
            *lookups = (second, 0);
        }
        lookups.1 += 1;
        lookups.1 <= MAX_UNKNOWN_LOOKUPS_PER_SECOND
    }

    /// Keeps what a key has in use: look-ups of the same key may run side by side, and must count as one.
    fn remember(
        &self,
        id: &ApiKeyId,
        found: Option<Versioned<ApiKeyRecord>>,
        generation: u64,
    ) -> Option<Arc<CachedKey>> {
        let Some(Versioned { value: record, .. }) = found else {
            self.forget(id, Miss { generation, left_out: None });
            return None;
        };
        self.misses.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        let entry = Arc::new(CachedKey { record, generation, usage: self.usage(id) });
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        insert_bounded(&mut keys, MAX_CACHED_KEYS, id, entry.clone());
        Some(entry)
    }

    fn usage(&self, id: &ApiKeyId) -> Arc<Usage> {
        let mut usages = self.usages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = usages.get(id) {
            return known.clone();
        }
        if usages.len() >= MAX_USAGES {
            // Those that neither a record nor a request has any more.
            usages.retain(|_, usage| Arc::strong_count(usage) > 1);
        }
        let usage = Arc::new(Usage::new(id.clone()));
        insert_bounded(&mut usages, MAX_USAGES, id, usage.clone());
        usage
    }

    /// What a key has in use on this instance, if it was ever seen here.
    pub(crate) fn known_usage(&self, id: &ApiKeyId) -> Option<Arc<Usage>> {
        self.usages.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

/// A record is being read again, until this is dropped.
struct Reading<'a> {
    config: &'a Config,
    id: ApiKeyId,
    since: Duration,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut reading = self.config.reading();
        if reading.get(&self.id) == Some(&self.since) {
            reading.remove(&self.id);
        }
    }
}

fn insert_bounded<V>(map: &mut HashMap<ApiKeyId, V>, max: usize, id: &ApiKeyId, value: V) {
    if map.len() >= max
        && !map.contains_key(id)
        && let Some(victim) = map.keys().next().cloned()
    {
        map.remove(&victim);
    }
    map.insert(id.clone(), value);
}
