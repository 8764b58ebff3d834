//! Changes, each in one transaction with its count, its audit entry and the answer that is kept for it.

use std::time::Duration;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem, Update};
use aws_smithy_async::rt::sleep::AsyncSleep as _;
use catalog::{AuditEntry, AuditHead, AuditedChange, By, KeptAnswer, StoreError, Versioned, hex32};

use crate::DynamoStore;
use crate::error::{broken, unavailable, unmet_conditions, write_error};
use crate::item::{self, Item, ItemError, Key, PK, RECORD_VERSION, SCHEMA_VERSION};

/// How often a change is tried whose place in the audit log somebody else takes first.
const TRIES: u32 = 30;
/// Longest pause before a change is tried again: doubled with each try, up to sixteen times as much.
const PAUSE: Duration = Duration::from_millis(20);

/// The places in the transaction.
const CHANGE: usize = 0;
const AUDIT_ENTRY: usize = 2;
const AUDIT_HEAD: usize = 3;
const ANSWER: usize = 4;

/// A record that is to change, and what it must be for that.
pub(crate) struct Target<'a, T> {
    pub(crate) key: Key,
    pub(crate) read: fn(&Item) -> Result<Versioned<T>, ItemError>,
    /// Its version; `None`: it must not be there.
    pub(crate) expected: Option<u64>,
    /// The count of changes that it belongs to.
    pub(crate) count: &'a str,
    /// What the error is if it is something else.
    pub(crate) conflict: &'a (dyn Fn() -> StoreError + Sync),
}

impl DynamoStore {
    /// One change: `after` takes the record's place, or nothing does. `change` says it for the audit log, given the record
    /// before. A conflict too if an answer is kept under the same id already.
    pub(crate) async fn write<T>(
        &self,
        target: Target<'_, T>,
        after: Option<Item>,
        by: &By,
        change: impl Fn(Option<&T>) -> AuditedChange,
    ) -> Result<(), StoreError> {
        by.check()?;
        let changing = self.changing(&target, after)?;
        let counting = self.counting(target.count)?;
        let answer = by.answer.as_ref().map(|kept| self.keeping(kept, by.at_ms)).transpose()?;
        // Changes of one process wait for each other here, and do not get into each other's way.
        let _turn = self.changes.lock().await;
        for tried in 0..TRIES {
            // First of all: as long as it stays where it is, nothing that is read after it changes.
            let head = self.read_audit_head().await?;
            let before = self.find(target.key.clone(), target.read).await?;
            if before.as_ref().map(|before| before.version) != target.expected {
                return Err((target.conflict)());
            }
            let entry = head.next(by, change(before.as_ref().map(|before| &before.value)));
            let logging = self.put_new(item::from_audit_entry(&entry))?;
            let moving = self.moving_head(&head, &entry)?;
            let mut parts = vec![changing.clone(), counting.clone(), logging, moving];
            parts.extend(answer.clone());
            // The SDK adds the idempotency token.
            let request = self.client.transact_write_items().set_transact_items(Some(parts));
            let Err(error) = request.send().await else {
                tracing::info!(
                    audit_seq = entry.seq,
                    audit_hash = hex32::text(&entry.hash),
                    actor = entry.actor,
                    action = entry.action.as_str(),
                    object = entry.object,
                    request_id = entry.request_id,
                    "changed"
                );
                return Ok(());
            };
            let unmet = unmet_conditions(&error);
            if unmet.contains(&CHANGE) || unmet.contains(&ANSWER) {
                return Err((target.conflict)());
            }
            match (unmet.contains(&AUDIT_ENTRY), unmet.contains(&AUDIT_HEAD)) {
                (false, false) => return Err(write_error(&error)),
                (true, false) => {
                    let reason = format!("the audit log has an entry {} beyond its head", entry.seq);
                    return Err(broken(reason));
                }
                (_, true) => self.sleep.sleep(pause(&entry, tried)).await,
            }
        }
        Err(unavailable("other changes are in the way"))
    }

    fn changing<T>(
        &self,
        target: &Target<'_, T>,
        after: Option<Item>,
    ) -> Result<TransactWriteItem, StoreError> {
        let part = TransactWriteItem::builder();
        let (condition, version) = ("#version = :expected", item::number(target.expected.unwrap_or(0)));
        Ok(match (after, target.expected) {
            (Some(item), None) => return self.put_new(item),
            (Some(item), Some(_)) => {
                let put = Put::builder()
                    .table_name(&self.table)
                    .set_item(Some(item))
                    .condition_expression(condition)
                    .expression_attribute_names("#version", RECORD_VERSION)
                    .expression_attribute_values(":expected", version);
                part.put(built(put.build())?).build()
            }
            (None, _) => {
                let delete = Delete::builder()
                    .table_name(&self.table)
                    .set_key(Some(target.key.to_item()))
                    .condition_expression(condition)
                    .expression_attribute_names("#version", RECORD_VERSION)
                    .expression_attribute_values(":expected", version);
                part.delete(built(delete.build())?).build()
            }
        })
    }

    /// Writes an item that must not be there yet.
    fn put_new(&self, item: Item) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(#pk)")
            .expression_attribute_names("#pk", PK)
            .build();
        Ok(TransactWriteItem::builder().put(built(put)?).build())
    }

    fn counting(&self, count: &str) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(Key::version().to_item()))
            .update_expression("SET #schema = :schema ADD #count :one")
            .expression_attribute_names("#schema", SCHEMA_VERSION)
            .expression_attribute_names("#count", count)
            .expression_attribute_values(":schema", item::schema())
            .expression_attribute_values(":one", item::number(1))
            .build();
        Ok(TransactWriteItem::builder().update(built(update)?).build())
    }

    /// Keeps an answer, unless there is one under its id that is still to be given at `now_ms`.
    fn keeping(&self, kept: &KeptAnswer, now_ms: u64) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item::from_answer(kept)))
            .condition_expression("attribute_not_exists(#pk) OR #until <= :now")
            .expression_attribute_names("#pk", PK)
            .expression_attribute_names("#until", item::UNTIL_MS)
            .expression_attribute_values(":now", item::number(now_ms))
            .build();
        Ok(TransactWriteItem::builder().put(built(put)?).build())
    }

    /// Moves the audit log's head to the entry, if it is still where it was.
    fn moving_head(&self, head: &AuditHead, entry: &AuditEntry) -> Result<TransactWriteItem, StoreError> {
        if head.seq == 0 {
            return self.put_new(item::from_audit_head(&entry.head()));
        }
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item::from_audit_head(&entry.head())))
            .condition_expression("#hash = :hash")
            .expression_attribute_names("#hash", item::AUDIT_HASH)
            .expression_attribute_values(":hash", item::string(hex32::text(&head.hash)))
            .build();
        Ok(TransactWriteItem::builder().put(built(put)?).build())
    }

    pub(crate) async fn read_audit_head(&self) -> Result<AuditHead, StoreError> {
        Ok(self.find(Key::audit_head(), item::to_audit_head).await?.unwrap_or_default())
    }
}

fn built<T>(part: Result<T, BuildError>) -> Result<T, StoreError> {
    part.map_err(|error| broken(format!("the request could not be made: {error}")))
}

/// The version after `expected`. A version that has none was never written.
pub(crate) fn next_version(
    expected: Option<u64>,
    conflict: impl FnOnce() -> StoreError,
) -> Result<u64, StoreError> {
    expected.unwrap_or(0).checked_add(1).ok_or_else(conflict)
}

/// Before a change is tried again: random, so that those who collided do not do so for ever. The hash is the die: it is of
/// who writes what, after which entry.
fn pause(entry: &AuditEntry, tried: u32) -> Duration {
    let longest = PAUSE * (1 << tried.min(4));
    longest * u32::from(entry.hash[0]) / 256
}
