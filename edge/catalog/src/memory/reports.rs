//! What is kept beside the configuration: the audit log, answers, usage, and how providers stand.

use std::collections::btree_map::Entry;

use super::{MAX_ROWS, MemoryStore, answer, full};
use crate::{
    AnswerStore, ApiKeyId, AuditEntry, AuditHead, AuditPage, AuditQuery, AuditStore, BoxFuture, Day,
    KeptAnswer, ProviderId, ProviderStatus, StatusStore, StoreError, UsageKey, UsageRow, UsageStore,
};

impl AuditStore for MemoryStore {
    fn audit<'a>(&'a self, query: &'a AuditQuery) -> BoxFuture<'a, Result<AuditPage, StoreError>> {
        let state = self.state();
        let limit = query.limit.clamp(1, AuditQuery::MAX_LIMIT);
        let mut found = state.audit.iter().rev().filter(|entry| query.matches(entry));
        let entries: Vec<AuditEntry> = found.by_ref().take(limit).cloned().collect();
        let next = entries.last().map(|last| last.seq).filter(|_| found.next().is_some());
        answer(Ok(AuditPage { entries, left_out: Vec::new(), next }))
    }

    fn audit_from(&self, first_seq: u64, limit: usize) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreError>> {
        let state = self.state();
        let before = usize::try_from(first_seq.saturating_sub(1)).unwrap_or(usize::MAX);
        answer(Ok(state.audit.iter().skip(before).take(limit).cloned().collect()))
    }

    fn audit_head(&self) -> BoxFuture<'_, Result<AuditHead, StoreError>> {
        answer(Ok(self.state().audit.last().map_or_else(AuditHead::default, AuditEntry::head)))
    }
}

impl AnswerStore for MemoryStore {
    fn kept_answer(
        &self,
        id: [u8; 32],
        now_ms: u64,
    ) -> BoxFuture<'_, Result<Option<KeptAnswer>, StoreError>> {
        let state = self.state();
        answer(Ok(state.answers.get(&id).filter(|kept| kept.until_ms > now_ms).cloned()))
    }
}

impl StatusStore for MemoryStore {
    fn put_status<'a>(
        &'a self,
        id: &'a ProviderId,
        status: &'a ProviderStatus,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        if let Err(refused) = status.to_stored() {
            return answer(Err(refused));
        }
        let mut state = self.state();
        let is_full = state.statuses.len() >= MAX_ROWS;
        let kept = match state.statuses.entry(id.clone()) {
            Entry::Vacant(_) if is_full => return answer(Err(full("the list of states"))),
            entry => entry.or_default(),
        };
        let ProviderStatus { last_test, health } = status.clone();
        kept.last_test = last_test.or(kept.last_test.take());
        kept.health = health.or(kept.health.take());
        answer(Ok(()))
    }

    fn statuses(&self) -> BoxFuture<'_, Result<Vec<(ProviderId, ProviderStatus)>, StoreError>> {
        let state = self.state();
        answer(Ok(state.statuses.iter().map(|(id, status)| (id.clone(), status.clone())).collect()))
    }
}

impl UsageStore for MemoryStore {
    fn add_usage<'a>(&'a self, row: &'a UsageRow) -> BoxFuture<'a, Result<(), StoreError>> {
        if let Err(refused) = row.of.check() {
            return answer(Err(refused));
        }
        let mut state = self.state();
        state.forget_usage_before(row.of.day);
        let is_full = state.usage.len() >= MAX_ROWS || state.last_used.len() >= MAX_ROWS;
        if is_full && !state.usage.contains_key(&row.of) {
            return answer(Err(full("usage")));
        }
        match state.usage.entry(row.of.clone()) {
            Entry::Vacant(place) => {
                place.insert(row.clone());
            }
            Entry::Occupied(mut kept) => kept.get_mut().add(row.counts, row.last_at_ms),
        }
        let last_used = state.last_used.entry(row.of.key.clone()).or_default();
        *last_used = row.last_at_ms.max(*last_used);
        answer(Ok(()))
    }

    fn usage(&self, day: Day) -> BoxFuture<'_, Result<Vec<UsageRow>, StoreError>> {
        let state = self.state();
        let is_of_day = |(of, _): &(&UsageKey, &UsageRow)| of.day == day;
        answer(Ok(state.usage.iter().filter(is_of_day).map(|(_, row)| row.clone()).collect()))
    }

    fn last_used(&self) -> BoxFuture<'_, Result<Vec<(ApiKeyId, u64)>, StoreError>> {
        let state = self.state();
        answer(Ok(state.last_used.iter().map(|(key, at_ms)| (key.clone(), *at_ms)).collect()))
    }
}
