//! API keys: `dgw_<id>_<secret><checksum>`.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// 12 characters of `[0-9A-Za-z]`. Public: it goes into logs, metrics and listings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ApiKeyId(String);

/// A whole key, as its holder sends it. 
#[derive(Clone, Debug)]
pub struct ApiKey {
    id: ApiKeyId,
    whole: Secret,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    #[error("this is not an API key of this gateway; its keys begin with dgw_")]
    NotOurs,
    #[error("this API key is mistyped or cut off: its checksum does not fit")]
    Mistyped,
}

impl ApiKeyId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ApiKey {
    /// Makes a key from 32 random bytes.
    pub fn from_random(_bytes: &[u8; 32]) -> Self {
        unimplemented!()
    }

    /// Checks form and checksum; no look-up. Any input is allowed, of any length.
    pub fn parse(_text: &str) -> Result<Self, ApiKeyError> {
        unimplemented!()
    }

    pub fn id(&self) -> &ApiKeyId {
        &self.id
    }

    /// For the one time that it is shown.
    pub fn expose(&self) -> &str {
        self.whole.expose()
    }
}

/// HMAC-SHA-256 under a key that the deployment keeps outside the store, so that a stolen store opens nothing.
#[derive(Clone, Debug)]
pub struct ApiKeyHasher {
    secret: Secret,
}

impl ApiKeyHasher {
    pub fn new(secret: Secret) -> Self {
        Self { secret }
    }

    pub fn hash(&self, _key: &ApiKey) -> [u8; 32] {
        let _ = &self.secret;
        unimplemented!()
    }

    /// In constant time.
    pub fn verify(&self, _key: &ApiKey, _hash: &[u8; 32]) -> bool {
        unimplemented!()
    }
}

/// What is stored of a key. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRecord {
    pub id: ApiKeyId,
    pub hash: [u8; 32],
    /// For people; 1 to 100 characters, no control characters.
    pub label: String,
    pub created_at_ms: u64,
    pub expires_at_ms: Option<u64>,
    pub revoked_at_ms: Option<u64>,
    /// `None`: every model. Otherwise public model names.
    pub allowed_models: Option<Vec<String>>,
    pub limits: ApiKeyLimits,
}

/// `None` means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiKeyLimits {
    pub requests_per_minute: Option<u32>,
    pub concurrent_requests: Option<u32>,
}
