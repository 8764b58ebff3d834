//! What the gateway knows: providers and their models, API keys, and the ports through which both are stored.
//!
//! Raw values (from a file, a request or a store) become validated types here and nowhere else. No I/O, no clock.

mod audit;
pub mod hex32;
mod host_list;
mod key;
mod key_secret;
mod limits;
mod memory;
mod provider;
mod record;
mod report;
mod seal;
mod secret;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
mod upstream_hosts;
mod usage;
mod violation;

pub use audit::{
    Action, AuditEntry, AuditError, AuditHead, AuditPage, AuditQuery, AuditedChange, BrokenChain, By,
    KeptAnswer, verify_audit,
};
pub use host_list::HostList;
pub use key::{
    ApiKey, ApiKeyError, ApiKeyHasher, ApiKeyId, ApiKeyIdError, ApiKeyLimits, ApiKeyRecord, KeySecretCheck,
    PreviousHash,
};
pub use key_secret::{ClaimError, claim_key_secret};
pub use limits::{Ask, Counter, Held, Hold, LimitStore, Period, Quantity, Taken, Window};
pub use memory::MemoryStore;
pub use provider::{
    Adapter, Capabilities, CredentialRef, HttpAdapterConfig, InlineCredentialError, Model, Provider,
    ProviderKind, ProviderSlug, ProviderSlugError, RawProvider, SpawnCliConfig, TimeoutsMs,
};
pub use record::{History, PreviousCredential, ProviderId, ProviderIdError, StoredProvider};
pub use report::{
    CheckReport, ExplainedError, ExplainedLimit, ExplainedTarget, Explanation, Failure, Health, HealthState,
    ProviderStatus, TestReport, TestRequest, TestTiming, TestUsage,
};
pub use seal::{DataKey, KeyId, KeyRing, MAX_SEALED_BYTES, MasterKeys, SealContext, SealError, SealedSecret};
pub use secret::Secret;
pub use store::{
    AdminStore, AnswerStore, AuditStore, BoxFuture, ConfigSnapshot, ConfigVersion, KeyList, KeyStore,
    LeftOut, ProviderStore, StatusStore, Store, StoreError, Versioned,
};
pub use upstream_hosts::{Reach, UpstreamHosts};
pub use usage::{Day, UsageCounts, UsageKey, UsageRow, UsageStore};
pub use violation::{Violation, Violations};
