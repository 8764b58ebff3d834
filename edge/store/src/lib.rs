//! The store ports of `catalog` on DynamoDB's API, whoever serves it: AWS, a compatible server, or (feature
//! `embedded`) an engine in this process that keeps its data in one file.
//!
//! # The table
//!
//! One table, partition key `pk` and sort key `sk` (both strings), on-demand capacity, no index, time to live by the
//! attribute `ttl`. Every item has `schema_version` (number): this crate writes 1 and reads 1. An item of another
//! schema version, or one that cannot be read, is left out and named: one bad item must not take all the others away.
//! Attributes that are not known are passed over.
//!
//! | item | `pk` | `sk` | attributes |
//! |---|---|---|---|
//! | configuration version | `CONFIG` | `VERSION` | `providers` N: writes of providers and of the key secret's check, `keys_c` N: writes of API keys whose ids begin with the character `c` (none: 0) |
//! | check of the key secret | `CONFIG` | `KEY_SECRET` | `record_version` N, `check` B (32 bytes): see `catalog::ApiKeyHasher::check` |
//! | provider | `CONFIG` | `PROVIDER#` and its slug | `record_version` N, `id` S, `body` S: JSON in the form of `catalog::RawProvider`, `history` S: JSON of `catalog::History`; credentials in both are references or sealed |
//! | API key | `KEY#` and the first character of its id | its id | `record_version` N, `key_hash` B (32 bytes), `label` S, `created_at_ms` N, and where set: `owner` S, `expires_at_ms` N, `revoked_at_ms` N, `previous_hash` B, `previous_until_ms` N, `allowed_models` L of S, `requests_per_minute`, `concurrent_requests`, `tokens_per_minute`, `tokens_per_day`, `tokens_per_month` N |
//! | audit entry | `AUDIT` | its number, with 20 digits | `at_ms` N, `actor`, `action`, `object`, `previous_hash`, `hash` S, and where set: `request_id`, `before`, `after` S: JSON of the object |
//! | the audit log's head | `AUDIT` | `HEAD` | `seq` N, `hash` S: of the last entry |
//! | kept answer | `ANSWER#` and its id | `ANSWER` | `body` S: JSON of `catalog::KeptAnswer`, sealed; `until_ms` N, `ttl` N |
//! | usage of a day | `USAGE#` and the day's number | key id, `#`, provider, `#`, SHA-256 of the model | `model` S, `requests`, `failed`, `prompt_tokens`, `completion_tokens`, `estimated`, `last_at_ms` N, `ttl` N |
//! | last use of an API key | `USED` | its id | `at_ms` N, `ttl` N |
//! | how a provider stands | `STATUS` | its id | where known: `last_test`, `health` S: JSON of `catalog::TestReport` and `Health`; `ttl` N |
//! | limit in a window | `LIMIT#` and the key's id | quantity, period and start: `TOKENS#DAY#1767225600000` | `taken` N, `ttl` N |
//! | slots of concurrent requests | `LIMIT#` and the key's id | `SLOTS` | `held` N: all slots; `holder_x` M for each instance `x`: `slots` N, `until_ms` N; `ttl` N |
//! | node | `NODE#` and 0 to 3, by the hash of its id | its id | `url`, `version` S, `slots`, `running`, `queued`, `queue_limit`, `parked` N, `draining` BOOL, `clis` S: the hash of what it runs, `expires_unix_ms` N by the store's clock, `ttl` N |
//! | what nodes run | `CLIS#` and its hash | `CLIS` | `body` S: JSON of a list of `runner_api::CliInfo`, `ttl` N |
//!
//! `ttl` (seconds since the Unix epoch) is later than the end of what an item says, and nobody relies on it: `DynamoDB`
//! removes such items within days, the embedded engine is swept every five minutes. A table that an unreleased build
//! made has its providers under `PROVIDER` and its keys under `KEY`: nobody reads those any more, and they can go.
//!
//! | port call | requests |
//! |---|---|
//! | `config` | `Query` of `CONFIG`, page by page (1 MB each, 32 at most) |
//! | `config_version`, `provider`, `find_key`, `key_secret` | `GetItem` |
//! | `keys` | `Query` of each of the 62 partitions, four at once: for administrators |
//! | `put_provider`, `delete_provider`, `put_key`, `put_key_secret` | `GetItem` of the audit log's head, then of the record as it is; `TransactWriteItems`: `Put` or `Delete` if the record is still at the expected `record_version` (or absent), `ADD` 1 to its count in the configuration version, `Put` of the audit entry if there is none of its number, `Put` of the head if it is still the one that was read, and `Put` of the kept answer, if the request has one, unless there is one that has not ended |
//! | `audit` | `Query` of `AUDIT`, backwards, page by page (1 MB each, 4 at most): what it has found by then is a page |
//! | `audit_from` | `Query`, one page |
//! | `audit_head`, `kept_answer` | `GetItem` |
//! | `add_usage` | `UpdateItem` of the key's last use and of the row, if neither has a later time; else the row once more without its time |
//! | `usage`, `last_used`, `statuses` | `Query` of a partition, as `config` |
//! | `put_status` | `UpdateItem` |
//! | `announce` | `PutItem` of the node; of what it runs too, the first time and every six hours |
//! | `withdraw` | `DeleteItem` |
//! | `nodes` | `Query` of the four partitions, and a `GetItem` for each hash that is new |
//! | limits | one `UpdateItem` each, see `limits.rs` |
//!
//! # Every change has its entry
//!
//! A change, its count, its audit entry and the answer that is kept for it are one transaction. It is conditional on the
//! head that was read first of all: as long as the head stays, no other change came between, so an entry's `before` is
//! what was there, and the chain of hashes has no gap and no fork. Whoever comes second reads again, after a random pause,
//! up to 30 times; those of one process wait for each other instead. A log that goes on beyond its head takes no more
//! entries (`Broken`), and one whose head cannot be read neither (`Unreadable`): nothing is written over.
//!
//! That entries are not changed or removed later is beyond what a table can promise. The chain tells it
//! (`catalog::verify_audit`), also of the end of the log if its head was noted elsewhere: each change is logged with its
//! hash. On AWS the policies of `infra/terraform` let nobody update or delete an entry; to write over one is a `PutItem` like any
//! other to them, and breaks the chain.
//!
//! # Consistency
//!
//! Strongly consistent are the version (or nobody could promise that a revocation is effective within seconds), the
//! configuration, keys, the audit log, answers, and lists for administrators. Eventually consistent, at half the price, are nodes: the next
//! announcement is seconds away, and a node that has gone refuses by itself.
//!
//! A transaction's parts become visible one by one: between a [`Query` or several `GetItem`s and a
//! transaction][isolation] there is no more than read-committed isolation, so a reader may see the new count and the
//! old record. That is why the gateway reads what a new count concerns once more when it has seen that count again, a
//! second or more later.
//!
//! [isolation]: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html#transaction-isolation
//!
//! # What it costs
//!
//! In `DynamoDB`'s units: a strongly consistent read of up to 4 KB is one read unit, an eventually consistent one half, a
//! write of up to 1 KB one write unit, twice that in a transaction; a `Query` is rounded up as a whole. On demand, a
//! million read units cost $0.125 and a million write units $0.625 (list price of us-east-1, without storage). The
//! version item stays below 1 KB and a key below 4 KB, so each read of one is a unit.
//!
//! An instance reads the configuration and a key at its start (two requests), every further key when it is first
//! used, all of that once more after its first check, and from then on one unit every two seconds in which it has
//! requests, however many. `edge/host/tests/store/cost.rs` counts that where it goes by. For a million requests by keys
//! without limits, which are written nowhere:
//!
//! | requests a second and instance | read units | |
//! |---|---|---|
//! | 100 | 5,000 | $0.0006 |
//! | 10 | 50,000 | $0.006 |
//! | 1 | 500,000 | $0.06 |
//! | fewer than one in two seconds | 1,000,000 | $0.13 |
//! | each 1,000 cold starts among them, with 20 providers of 2 KB | 22,000 | $0.003 |
//!
//! A node that announces itself every three seconds writes 864,000 units in 30 days: $0.54. An edge that looks for
//! nodes every two seconds reads two units each time for up to 60 nodes (an item has about 250 bytes) and 32 for 1,000.
//!
//! Limits are counted in write units, one for each call (and one more for each KB of a slots item: some 20 instances).
//! `gateway` counts the calls in `tests/behaviour/limits_instances.rs`. For a million requests of one key:
//!
//! | limit | requests of the key a second and instance | write units | |
//! |---|---|---|---|
//! | requests a minute | 90 | 7,400 | $0.005 |
//! | | fewer than one in two seconds | 1,000,000 | $0.63 |
//! | tokens, each window that is limited | fewer than one in two seconds: taken, and what was not used given back | 2,000,000 | $1.25 |
//! | concurrent requests | fewer than one in four seconds: held, and given back | 2,000,000 | $1.25 |
//! | | always one under way | one every ten seconds, however many requests | |
//!
//! A change takes two read units (more where the record has more than 4 KB) and, where the record has up to 1 KB, about
//! twelve write units: two each for record, count and head, six for an entry of 3 KB (before, after, who and when), and
//! two to four more for an answer that is kept. A million changes would cost $8.
//!
//! Usage takes two write units for each row that an instance adds, three where somebody was faster: an instance that
//! adds what it counted every 15 s, with three keys and models in use all the time, 1,040,000 in 30 days: $0.65.
//! A day's usage is read with one read unit for 4 KB, some fourteen rows. The state of a provider takes a unit for each KB
//! whenever a check or a test has something to say.
//!
//! # No partition runs hot
//!
//! A partition gives 3,000 read units and 1,000 write units a second.
//!
//! - `CONFIG`: half a unit a second for each instance with requests, so 6,000 instances; beyond, check less often
//!   (`config_refresh`; 5 s are good for 15,000). A change of a provider makes each instance read the partition
//!   twice, at its own time within two seconds each: with 20 providers of 2 KB, 600 instances at once. More are
//!   throttled, tried again after random pauses, and serve what they know meanwhile.
//! - `AUDIT`: all changes meet at the head, one after the other: as many a second as there are times a process can ask
//!   for two items and have a transaction answered, some 30 at 10 ms each, all processes together. The partition itself
//!   would be good for about 100. Administrators do not come near; whoever makes thousands of keys by a program waits.
//! - `USAGE#d`, `USED`: 1,000 rows added a second: 750 instances that add 20 rows every 15 s.
//! - `STATUS`: 1,000 checks of providers a second.
//! - `KEY#c`: a change of one key moves one of 62 counts. Each instance then reads again, twice, the keys of that group
//!   that it is asked for: no more than one in 62 of its requests, and each key once. 1,000 instances with 1,000 keys
//!   each in use read 16 keys each instead of 1,000, and at 100,000 requests a second no more than 1,600 units in any.
//!   Random ids spread the keys evenly; unknown ones are looked up 200 times a second and instance at most.
//! - `NODE#n`: 1,000 nodes that announce themselves every three seconds are 83 writes a second in each of four
//!   partitions. A look at them reads eight units of each, so 375 looks a second, those of 750 edges that serve CLI
//!   models at that moment; with 60 nodes it is half a unit, and 12,000 edges.
//! - `CLIS#h`: read once by each edge.
//! - `LIMIT#k`: a partition for each key. The busier a key, the larger the slices that instances take: some 35 writes a
//!   minute, instance and limit at a steady rate, and one a second where requests are being refused. 1,000 writes a
//!   second are 1,000 instances that refuse the same key, or 400 that serve it with all five limits. Its slots are one
//!   item, with 51 bytes for each instance that has requests of the key under way (the name of its attribute is 23 of
//!   them), which is renewed every ten seconds: `n` instances write `n / 10` times a second `n * 51 / 1,024` units, so
//!   the partition's 1,000 units are for 450 of them, without those that come and go. The item's 400 KB are not
//!   reached by then. A key that is to have concurrent requests limited on more instances is to be split into several.
//!
//! # Failures
//!
//! An attempt may take [`Timing::attempt`], a whole call with all its pages and retries [`Timing::call`]. Throttling,
//! 5xx answers, lost connections and transactions that collided are tried up to 6 times in all, after random pauses
//! of up to 50, 100, 200, 400 and 800 ms, as long as the SDK's budget for retries lasts (a long outage empties it,
//! answers fill it again). A write that is tried again carries the same idempotency token, so it takes place once.
//! Then:
//!
//! - `Conflict`: the record was not at the expected version, or there is an answer under this id already;
//! - `Unavailable`: no answer in time, no connection, throttled, a 5xx, or too many other changes. A write may have taken
//!   place all the same;
//! - `Refused`: the record breaks a rule of `catalog`; nothing was sent;
//! - `Unreadable`: the one item that was asked for, or is to be changed, cannot be read;
//! - `NotSetUp`: there is no such table;
//! - `Denied`: the credentials are wrong, have expired, or do not allow this;
//! - `Broken`: everything else, such as an answer that cannot be read.
//!
//! Messages carry error codes and our own words, never what the other side wrote.

mod access;
mod audit;
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
mod status;
mod table;
pub mod transfer;
mod usage;
mod write;

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
