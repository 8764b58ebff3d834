//! Changes, each in one transaction with its count, its audit entry and the answer that is kept for it.

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem, Update};
use catalog::{AuditEntry, AuditHead, AuditedChange, By, StoreError, Versioned, hex32};

use crate::DynamoStore;
use crate::error::{broken, unavailable, unmet_conditions, write_error};
use crate::item::{self, Item, Key, PK, RECORD_VERSION, SCHEMA_VERSION};

/// How often a change is tried whose place in the audit log somebody else takes first.
const TRIES: u32 = 20;

/// The places in the transaction.
const CHANGE: usize = 0;
const AUDIT_ENTRY: usize = 2;
const AUDIT_HEAD: usize = 3;
const ANSWER: usize = 4;

/// What is to become of one record.
pub(crate) enum Write {
    /// It is written, if it is at this version; `None`: if it is not there.
    Put(Item, Option<u64>),
    /// It is removed, if it is at this version.
    Delete(Key, u64),
}

impl DynamoStore {
    /// One change, counted under `count`. `conflict` if the record is not at the expected version, or an answer is kept
    /// under the same id already.
    pub(crate) async fn write(
        &self,
        write: Write,
        count: &str,
        by: &By,
        change: AuditedChange,
        conflict: impl Fn() -> StoreError,
    ) -> Result<(), StoreError> {
        let changing = self.changing(write)?;
        let counting = self.counting(count)?;
        let answer = by.answer.as_ref().map(|kept| self.put_new(item::from_answer(kept))).transpose()?;
        for _ in 0..TRIES {
            let head = self.read_audit_head().await?;
            let entry = head.next(by, change.clone());
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
                return Err(conflict());
            }
            if !unmet.contains(&AUDIT_ENTRY) && !unmet.contains(&AUDIT_HEAD) {
                return Err(write_error(&error));
            }
        }
        Err(unavailable("other changes are in the way"))
    }

    fn changing(&self, write: Write) -> Result<TransactWriteItem, StoreError> {
        match write {
            Write::Put(item, None) => self.put_new(item),
            Write::Put(item, Some(version)) => {
                let put = Put::builder()
                    .table_name(&self.table)
                    .set_item(Some(item))
                    .condition_expression("#version = :expected")
                    .expression_attribute_names("#version", RECORD_VERSION)
                    .expression_attribute_values(":expected", item::number(version))
                    .build();
                Ok(TransactWriteItem::builder().put(built(put)?).build())
            }
            Write::Delete(key, version) => {
                let delete = Delete::builder()
                    .table_name(&self.table)
                    .set_key(Some(key.to_item()))
                    .condition_expression("#version = :expected")
                    .expression_attribute_names("#version", RECORD_VERSION)
                    .expression_attribute_values(":expected", item::number(version))
                    .build();
                Ok(TransactWriteItem::builder().delete(built(delete)?).build())
            }
        }
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

/// What was there before, if it is at the version that is expected; `expected` may say that there is nothing.
pub(crate) fn as_expected<T>(
    before: Option<Versioned<T>>,
    expected: Option<u64>,
    conflict: impl FnOnce() -> StoreError,
) -> Result<Option<T>, StoreError> {
    if before.as_ref().map(|before| before.version) != expected {
        return Err(conflict());
    }
    Ok(before.map(|before| before.value))
}
