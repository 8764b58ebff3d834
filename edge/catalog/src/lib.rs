//! What the gateway knows: providers and their models, API keys, and the ports through which both are stored.
//!
//! Raw values (from a file, a request or a store) become validated types here and nowhere else. No I/O, no clock.

mod key;
mod memory;
mod provider;
mod secret;
mod store;

pub use key::{ApiKey, ApiKeyHasher, ApiKeyId, ApiKeyLimits, ApiKeyRecord, ApiKeyError};
pub use memory::MemoryStore;
pub use provider::{
    Capabilities, CredentialRef, HttpAdapterConfig, Model, Provider, ProviderKind, ProviderSlug, RawModel,
    RawProvider, TimeoutsMs, Violation, Violations,
};
pub use secret::Secret;
pub use store::{BoxFuture, ConfigVersion, KeyStore, ProviderStore, Store, StoreError, Versioned};
