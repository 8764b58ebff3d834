//! What there is to say of the table itself.

use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{KeyType, ScalarAttributeType, TableDescription, TableStatus};
use catalog::{BoxFuture, StoreError};

use crate::DynamoStore;
use crate::error::store_error;
use crate::item::{PK, SK};

/// A table as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableState {
    /// Whether it can be read and written now.
    pub is_active: bool,
    /// Whether its keys are those that this crate needs.
    pub has_our_keys: bool,
    /// Whether its time to live removes what has expired.
    pub items_expire: bool,
}

impl DynamoStore {
    /// Looks at the table; `None` if there is none. Takes the permissions to describe it and its time to live, which
    /// serving does not need.
    pub fn table_state(&self) -> BoxFuture<'_, Result<Option<TableState>, StoreError>> {
        self.call(async {
            let table = match self.client.describe_table().table_name(&self.table).send().await {
                Ok(answer) => answer.table.unwrap_or_else(|| TableDescription::builder().build()),
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(DescribeTableError::is_resource_not_found_exception) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(store_error(&error)),
            };
            Ok(Some(TableState {
                is_active: table.table_status == Some(TableStatus::Active),
                has_our_keys: has_our_keys(&table),
                items_expire: self.items_expire().await?,
            }))
        })
    }
}

fn has_our_keys(table: &TableDescription) -> bool {
    let keys = [(PK, KeyType::Hash), (SK, KeyType::Range)];
    table.key_schema().len() == keys.len()
        && keys.iter().all(|(name, key_type)| {
            let is_key = table
                .key_schema()
                .iter()
                .any(|key| key.attribute_name() == *name && key.key_type() == key_type);
            let mut definitions = table.attribute_definitions().iter();
            is_key
                && definitions
                    .any(|it| it.attribute_name() == *name && *it.attribute_type() == ScalarAttributeType::S)
        })
}
