//! The audit log, to read, and kept answers.

use catalog::{
    AnswerStore, AuditEntry, AuditHead, AuditPage, AuditQuery, AuditStore, BoxFuture, KeptAnswer, StoreError,
};

use crate::DynamoStore;
use crate::error::store_error;
use crate::item::{self, AUDIT, Item, Key, PK, SK};

/// Pages of 1 MB that a query of the log reads before it answers with what it has found.
const MAX_PAGES: usize = 4;

/// Which entries are read, at most 1 MB of them.
struct Range {
    first_seq: u64,
    last_seq: u64,
    latest_first: bool,
    limit: Option<usize>,
}

impl DynamoStore {
    /// The items, and whether there are more.
    async fn read_audit(&self, range: Range) -> Result<(Vec<Item>, bool), StoreError> {
        let page = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("#pk = :pk AND #sk BETWEEN :first AND :last")
            .expression_attribute_names("#pk", PK)
            .expression_attribute_names("#sk", SK)
            .expression_attribute_values(":pk", item::string(AUDIT))
            .expression_attribute_values(":first", item::string(item::audit_sort_key(range.first_seq)))
            .expression_attribute_values(":last", item::string(item::audit_sort_key(range.last_seq)))
            .scan_index_forward(!range.latest_first)
            .set_limit(range.limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)))
            .send()
            .await
            .map_err(|error| store_error(&error))?;
        let is_more = page.last_evaluated_key.is_some();
        Ok((page.items.unwrap_or_default(), is_more))
    }

    async fn query_audit(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        let limit = query.limit.clamp(1, AuditQuery::MAX_LIMIT);
        let mut page = AuditPage { next: query.before_seq.or(Some(u64::MAX)), ..AuditPage::default() };
        for _ in 0..MAX_PAGES {
            // Numbers begin at 1.
            let Some(before) = page.next.filter(|before| *before > 1) else {
                page.next = None;
                return Ok(page);
            };
            let range = Range {
                first_seq: 1,
                last_seq: before - 1,
                latest_first: true,
                limit: (!query.is_filtered()).then_some(limit),
            };
            let (items, is_more) = self.read_audit(range).await?;
            for item in &items {
                match item::to_audit_entry(item) {
                    Ok(entry) => {
                        page.next = Some(entry.seq);
                        page.entries.extend(Some(entry).filter(|entry| query.matches(entry)));
                    }
                    Err(error) => {
                        page.next = item::audit_seq(item).or(page.next);
                        page.left_out.push(item::left_out(item, &error));
                    }
                }
                if page.entries.len() + page.left_out.len() == limit {
                    page.next = page.next.filter(|before| *before > 1);
                    return Ok(page);
                }
            }
            if !is_more {
                page.next = None;
                return Ok(page);
            }
            // Items that are no entries at all fill pages: whoever asks again would get the same ones.
            if page.next == Some(before) {
                let reason = "the audit log is full of what is no entry".to_owned();
                return Err(StoreError::Broken { reason });
            }
        }
        Ok(page)
    }
}

impl AuditStore for DynamoStore {
    fn audit<'a>(&'a self, query: &'a AuditQuery) -> BoxFuture<'a, Result<AuditPage, StoreError>> {
        self.call(self.query_audit(query))
    }

    fn audit_from(&self, first_seq: u64, limit: usize) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreError>> {
        self.call(async move {
            let limit = Some(limit.clamp(1, AuditQuery::MAX_LIMIT));
            let range = Range { first_seq, last_seq: u64::MAX, latest_first: false, limit };
            let (items, _) = self.read_audit(range).await?;
            let mut entries = Vec::with_capacity(items.len());
            for item in &items {
                match item::to_audit_entry(item) {
                    Ok(entry) => entries.push(entry),
                    Err(error) if entries.is_empty() => {
                        return Err(StoreError::Unreadable(item::left_out(item, &error)));
                    }
                    Err(_) => break,
                }
            }
            Ok(entries)
        })
    }

    fn audit_head(&self) -> BoxFuture<'_, Result<AuditHead, StoreError>> {
        self.call(self.read_audit_head())
    }
}

impl AnswerStore for DynamoStore {
    fn kept_answer(
        &self,
        id: [u8; 32],
        now_ms: u64,
    ) -> BoxFuture<'_, Result<Option<KeptAnswer>, StoreError>> {
        self.call(async move {
            let kept = self.find(Key::answer(&id), item::to_answer).await?;
            Ok(kept.filter(|kept| kept.id == id && kept.until_ms > now_ms))
        })
    }
}
