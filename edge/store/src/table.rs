//! Makes the table where nobody else does.

use std::time::Duration;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
};
use aws_smithy_async::rt::sleep::AsyncSleep;
use catalog::{BoxFuture, StoreError};

use crate::DynamoStore;
use crate::error::{broken, store_error};
use crate::item::{PK, SK};

const POLL: Duration = Duration::from_millis(200);

impl DynamoStore {
    /// Makes the table if it is not there, and waits until it can be used. For one machine and for tests: on AWS the
    /// table is made with the rest of the infrastructure.
    pub fn create_table(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(async {
            let request = self.create_request().map_err(|error| broken(error.to_string()))?;
            match request.send().await {
                Ok(_) => {}
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(CreateTableError::is_resource_in_use_exception) => {}
                Err(error) => return Err(store_error(&error)),
            }
            while !self.is_active().await? {
                self.sleep.sleep(POLL).await;
            }
            Ok(())
        })
    }

    fn create_request(&self) -> Result<CreateTableFluentBuilder, BuildError> {
        let mut request =
            self.client.create_table().table_name(&self.table).billing_mode(BillingMode::PayPerRequest);
        for (name, key_type) in [(PK, KeyType::Hash), (SK, KeyType::Range)] {
            let attribute = AttributeDefinition::builder().attribute_name(name);
            request = request
                .attribute_definitions(attribute.attribute_type(ScalarAttributeType::S).build()?)
                .key_schema(KeySchemaElement::builder().attribute_name(name).key_type(key_type).build()?);
        }
        Ok(request)
    }

    async fn is_active(&self) -> Result<bool, StoreError> {
        let answer = self.client.describe_table().table_name(&self.table).send().await;
        let answer = answer.map_err(|error| store_error(&error))?;
        Ok(answer.table.and_then(|table| table.table_status) == Some(TableStatus::Active))
    }
}
