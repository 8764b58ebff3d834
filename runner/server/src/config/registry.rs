//! `[registry]`: where the node announces itself.

use store::{AccessPart, StoreAccess};

use super::Fields;
use super::fields::text;

pub(super) fn registry(fields: &mut Fields<'_>) -> Option<StoreAccess> {
    let owned = |value| text(value).map(str::to_owned);
    let table = fields.required("table", "the DynamoDB table of the edges", owned);
    let region = fields.required("region", "the AWS region of the table, such as \"eu-central-1\"", owned);
    let endpoint_url = fields.parsed("endpoint", owned);
    let access = StoreAccess { table: table?, region: region?, endpoint_url };
    for (part, message) in access.violations() {
        let name = match part {
            AccessPart::Table => "table",
            AccessPart::Region => "region",
            AccessPart::Endpoint => "endpoint",
        };
        fields.violation(name, message);
    }
    Some(access)
}
