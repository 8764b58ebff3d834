//! Usage, and when keys were used last: a row is two `UpdateItem`s, and a third where somebody else's later one is there.

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::ReturnValue;
use catalog::{ApiKeyId, BoxFuture, Day, LeftOut, StoreError, UsageRow, UsageStore};

use crate::DynamoStore;
use crate::item::{self, Key, SCHEMA_VERSION, TTL, USED};
use crate::limits::{OF_THIS_SCHEMA, SendConditional as _, Updated};

/// Whether the item has no later time than `:at`.
const NOT_LATER: &str = "(attribute_not_exists(#at) OR #at <= :at)";
/// What every such update sets; see [`DynamoStore::update_report`].
pub(crate) const REPORT: &str = "#schema = :schema, #ttl = :ttl";
const ADD_COUNTS: &str = "ADD #requests :requests, #failed :failed, #prompt_tokens :prompt_tokens, \
    #completion_tokens :completion_tokens, #estimated :estimated";
const USED_AT: &str = "at_ms";
const LAST_AT: &str = "last_at_ms";

impl DynamoStore {
    /// An update of an item that is forgotten one day; its expression sets [`REPORT`].
    pub(crate) fn update_report(&self, key: &Key, forget_after: u64) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key.to_item()))
            .expression_attribute_names("#schema", SCHEMA_VERSION)
            .expression_attribute_values(":schema", item::schema())
            .expression_attribute_names("#ttl", TTL)
            .expression_attribute_values(":ttl", item::number(forget_after))
    }

    /// Moves the key's last use to this time, unless it is later.
    async fn note_use(&self, key: &ApiKeyId, at_ms: u64) -> Result<(), StoreError> {
        let forget_after = item::forget_usage_after(Day::of_ms(at_ms));
        self.update_report(&Key::used(key), forget_after)
            .update_expression(format!("SET {REPORT}, #at = :at"))
            .condition_expression(format!("{OF_THIS_SCHEMA} AND {NOT_LATER}"))
            .expression_attribute_names("#at", USED_AT)
            .expression_attribute_values(":at", item::number(at_ms))
            .send_conditional(ReturnValue::None)
            .await?;
        Ok(())
    }

    /// An update that adds up the counts, as [`ADD_COUNTS`] says.
    fn add_counts(&self, row: &UsageRow) -> UpdateItemFluentBuilder {
        let mut request = self
            .update_report(&Key::usage(&row.of), item::forget_usage_after(row.of.day))
            .expression_attribute_names("#model", "model")
            .expression_attribute_values(":model", item::string(&row.of.model));
        for (name, count) in item::usage_counts(row.counts) {
            request = request
                .expression_attribute_names(format!("#{name}"), name)
                .expression_attribute_values(format!(":{name}"), item::number(count));
        }
        request
    }

    async fn add_row(&self, row: &UsageRow) -> Result<(), StoreError> {
        row.of.check()?;
        // First, as it may be written twice.
        self.note_use(&row.of.key, row.last_at_ms).await?;
        let latest = self
            .add_counts(row)
            .update_expression(format!("SET {REPORT}, #model = :model, #at = :at {ADD_COUNTS}"))
            .condition_expression(format!("{OF_THIS_SCHEMA} AND {NOT_LATER}"))
            .expression_attribute_names("#at", LAST_AT)
            .expression_attribute_values(":at", item::number(row.last_at_ms));
        if let Updated::Done(_) = latest.send_conditional(ReturnValue::None).await? {
            return Ok(());
        }
        let earlier = self
            .add_counts(row)
            .update_expression(format!("SET {REPORT}, #model = :model {ADD_COUNTS}"))
            .condition_expression(OF_THIS_SCHEMA);
        match earlier.send_conditional(ReturnValue::None).await? {
            Updated::Done(_) => Ok(()),
            Updated::Refused(_) => {
                let Key { pk, sk } = Key::usage(&row.of);
                let name = format!("{pk}/{sk}");
                Err(StoreError::Unreadable(LeftOut::new(&name, "it was written by another version")))
            }
        }
    }
}

impl UsageStore for DynamoStore {
    fn add_usage<'a>(&'a self, row: &'a UsageRow) -> BoxFuture<'a, Result<(), StoreError>> {
        self.call(self.add_row(row))
    }

    fn usage(&self, day: Day) -> BoxFuture<'_, Result<Vec<UsageRow>, StoreError>> {
        self.call(async move {
            let (mut rows, left_out) = self.list(&item::usage_partition(day), true, item::to_usage).await?;
            warn_of(&left_out);
            rows.sort_by(|one, other| one.of.cmp(&other.of));
            Ok(rows)
        })
    }

    fn last_used(&self) -> BoxFuture<'_, Result<Vec<(ApiKeyId, u64)>, StoreError>> {
        self.call(async {
            let (keys, left_out) = self.list(USED, true, item::to_used_key).await?;
            warn_of(&left_out);
            Ok(keys)
        })
    }
}

/// What is not handed on with the rest: nobody serves from it.
pub(crate) fn warn_of(left_out: &[LeftOut]) {
    for item in left_out {
        tracing::warn!(item = item.name, reason = item.reason, "an item of the store cannot be read");
    }
}
