//! Makes the table where nobody else does.

use std::time::Duration;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};
use aws_smithy_async::rt::sleep::AsyncSleep;
use catalog::{BoxFuture, StoreError};

use crate::DynamoStore;
use crate::error::{broken, store_error};
use crate::item::{PK, SK, TTL};

const POLL: Duration = Duration::from_millis(200);

impl DynamoStore {
    /// Makes the table if it is not there, waits until it can be used, and lets its items expire. For one machine and for tests: on AWS the
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
            self.let_items_expire().await
        })
    }

    async fn let_items_expire(&self) -> Result<(), StoreError> {
        if self.items_expire().await? {
            return Ok(());
        }
        let specification = TimeToLiveSpecification::builder().attribute_name(TTL).enabled(true).build();
        let specification = specification.map_err(|error| broken(error.to_string()))?;
        let request = self.client.update_time_to_live().table_name(&self.table);
        match request.time_to_live_specification(specification).send().await {
            Ok(_) => Ok(()),
            // Somebody else may have been faster.
            Err(error) => match self.items_expire().await {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(store_error(&error)),
            },
        }
    }

    pub(crate) async fn items_expire(&self) -> Result<bool, StoreError> {
        let answer = self.client.describe_time_to_live().table_name(&self.table).send().await;
        let description = answer.map_err(|error| store_error(&error))?.time_to_live_description;
        Ok(description.is_some_and(|ttl| {
            let enabled = [TimeToLiveStatus::Enabled, TimeToLiveStatus::Enabling];
            ttl.attribute_name() == Some(TTL)
                && ttl.time_to_live_status().is_some_and(|it| enabled.contains(it))
        }))
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
