//! How providers stand.

use catalog::{BoxFuture, ProviderId, ProviderStatus, StatusStore, StoreError};

use crate::DynamoStore;
use crate::error::store_error;
use crate::item::{self, Key, STATUS};
use crate::usage::{REPORT, warn_of};

impl StatusStore for DynamoStore {
    fn put_status<'a>(
        &'a self,
        id: &'a ProviderId,
        status: &'a ProviderStatus,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.call(async move {
            let parts = item::status_parts(status)?;
            let mut request =
                self.update_report(&Key::status(id), item::forget_status_after(self.fleet_ms()));
            let mut update = format!("SET {REPORT}");
            for (name, text) in parts {
                update = format!("{update}, #{name} = :{name}");
                request = request
                    .expression_attribute_names(format!("#{name}"), name)
                    .expression_attribute_values(format!(":{name}"), item::string(text));
            }
            // The last word counts, whatever it was before.
            request.update_expression(update).send().await.map_err(|error| store_error(&error))?;
            Ok(())
        })
    }

    fn statuses(&self) -> BoxFuture<'_, Result<Vec<(ProviderId, ProviderStatus)>, StoreError>> {
        self.call(async {
            let (statuses, left_out) = self.list(STATUS, true, item::to_status).await?;
            warn_of(&left_out);
            Ok(statuses)
        })
    }
}
