//! What the gateway knows: providers and their models, API keys, and the ports through which both are stored.
//!
//! Raw values (from a file, a request or a store) become validated types here and nowhere else. No I/O, no clock.

mod key;
mod limits;
mod memory;
mod provider;
mod secret;
mod store;
mod text;
mod violation;

pub use key::{
    ApiKey, ApiKeyError, ApiKeyHasher, ApiKeyId, ApiKeyIdError, ApiKeyLimits, ApiKeyRecord, KeySecretCheck,
};
pub use limits::{Ask, Counter, Held, Hold, LimitStore, Period, Quantity, Taken, Window};
pub use memory::MemoryStore;
pub use provider::{
    Adapter, Capabilities, CredentialRef, HttpAdapterConfig, InlineCredentialError, Model, Provider,
    ProviderKind, ProviderSlug, ProviderSlugError, RawProvider, SpawnCliConfig, TimeoutsMs,
};
pub use secret::Secret;
pub use store::{
    BoxFuture, ConfigSnapshot, ConfigVersion, KeyList, KeyStore, LeftOut, ProviderStore, Store, StoreError,
    Versioned,
};
pub use violation::{Violation, Violations};
