//! The store ports of `catalog` on DynamoDB's API, whoever serves it: AWS, a compatible server, or (feature
//! `embedded`) an engine in this process that keeps its data in one file.
//!
//! # The table
//!
//! One table, partition key `pk` and sort key `sk` (both strings), on-demand capacity, no index, no time to live.
//! Every item has `schema_version` (number): this crate writes 1 and reads 1. A list leaves out an item of another
//! schema version, or one that it cannot read, and logs its key; one bad item must not take all the others away. A
//! read of that one item alone fails as `Broken`.
//!
//! | item | `pk` | `sk` | attributes |
//! |---|---|---|---|
//! | configuration version | `CONFIG` | `VERSION` | `config_version` N: how many writes there were |
//! | provider | `PROVIDER` | its slug | `record_version` N, `body` S: JSON in the form of `catalog::RawProvider` |
//! | API key | `KEY` | its id | `record_version` N, `key_hash` B (32 bytes), `label` S, `created_at_ms` N, and where set: `expires_at_ms` N, `revoked_at_ms` N, `allowed_models` L of S, `requests_per_minute` N, `concurrent_requests` N |
//!
//! | port call | requests |
//! |---|---|
//! | `config_version` | `GetItem` of the configuration version |
//! | `providers`, `keys` | `Query` of one `pk`, page by page (1 MB each) |
//! | `provider`, `find_key` | `GetItem` |
//! | `put_provider`, `put_key` | `TransactWriteItems`: `Put` if the record is at the expected `record_version` (or absent), and `ADD` 1 to `config_version` |
//! | `delete_provider` | `TransactWriteItems`: `Delete` on the same condition, and the same `ADD` |
//!
//! **Consistency.** All reads are strongly consistent. A reader that sees a configuration version must also see the
//! writes that it counts, or it would keep an old list under a new version until the next write; and a revoked key is
//! refused from its next look-up on.
//!
//! **Why a partition per kind.** Lists come ordered and consistent from the base table; an index would be neither
//! consistent nor free. The partitions do not run hot: requests are served from the gateway's cache, so that what
//! arrives here is one small read per instance and refresh, single reads of keys that no cache knows, and an
//! administrator's writes. A partition gives 3,000 consistent reads and 1,000 writes a second, the transactional
//! counter 500 writes, and DynamoDB splits a partition that stays busy by sort key.
//!
//! # Failures
//!
//! An attempt may take [`Timing::attempt`], a whole call with all its pages and retries [`Timing::call`]. Throttling,
//! 5xx answers, lost connections and transactions that collided are tried up to 6 times in all, after random pauses
//! of up to 50, 100, 200, 400 and 800 ms, as long as the SDK's budget for retries lasts (a long outage empties it,
//! answers fill it again). A write that is tried again carries the same idempotency token, so it takes place once.
//! Then:
//!
//! - `Conflict`: the record was not at the expected version;
//! - `Unavailable`: no answer in time, no connection, throttled, or a 5xx. A write may have taken place all the same;
//! - `Refused`: the record breaks a rule of `catalog`; nothing was sent;
//! - `Broken`: everything else, such as no such table, no permission, or an answer that cannot be read.
//!
//! Messages carry error codes and our own words, never what the other side wrote.

mod access;
mod clock;
mod dynamo;
#[cfg(feature = "embedded")]
mod embedded;
#[cfg(feature = "emulator")]
mod emulator;
mod error;
mod inspect;
mod item;
mod limits;
#[cfg(feature = "native")]
mod native;
mod registry;
mod table;

pub use access::{AccessPart, StoreAccess};
pub use dynamo::{DynamoOptions, DynamoStore, HostPorts, Timing};
#[cfg(feature = "embedded")]
pub use embedded::{EMBEDDED_TABLE, OpenError};
#[cfg(feature = "emulator")]
pub use emulator::{Emulator, EmulatorError};
pub use inspect::TableState;
#[cfg(feature = "native")]
pub use native::NoCredentials;

/// The AWS SDK's types that a host needs to make a [`DynamoStore`].
pub mod sdk {
    pub use aws_credential_types::Credentials;
    pub use aws_credential_types::provider::SharedCredentialsProvider;
    pub use aws_smithy_async::rt::sleep::{AsyncSleep, SharedAsyncSleep, Sleep};
    pub use aws_smithy_async::time::{SharedTimeSource, TimeSource};
    pub use aws_smithy_runtime_api::client::http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    };
    pub use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    pub use aws_smithy_runtime_api::client::result::ConnectorError;
    pub use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
    pub use aws_smithy_types::body::SdkBody;
}
