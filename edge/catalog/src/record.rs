//! What a store keeps of a provider besides its configuration.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{By, CredentialRef, Provider, Secret, StoreError, hex32};

/// `prv_` and 16 characters of `[0-9a-z]`. Never given twice: a provider that is deleted and made again has another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ProviderId(String);

/// The text is not `prv_` and 16 characters of `[0-9a-z]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a provider's id is prv_ and 16 characters of 0-9 and a-z")]
pub struct ProviderIdError;

impl ProviderId {
    const PREFIX: &str = "prv_";
    const CHARS: usize = 16;

    /// From bytes of a cryptographic random source; the same bytes give the same id.
    pub fn from_random(bytes: &[u8; Self::CHARS]) -> Self {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        // 256 is no multiple of 36, so some characters are a little more frequent: an id is no secret.
        let characters = bytes.iter().map(|byte| char::from(DIGITS[usize::from(byte % 36)]));
        Self(Self::PREFIX.chars().chain(characters).collect())
    }

    pub fn parse(text: &str) -> Result<Self, ProviderIdError> {
        let rest = text.strip_prefix(Self::PREFIX).ok_or(ProviderIdError)?;
        let is_id = rest.len() == Self::CHARS
            && rest.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        if is_id { Ok(Self(text.to_owned())) } else { Err(ProviderIdError) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells one credential of this provider from another: the first eight hexadecimal digits of a hash, too few to guess
    /// a credential by. The same credential of two providers has two.
    pub fn fingerprint(&self, credential: &Secret) -> String {
        let hash = Sha256::new()
            .chain_update("dyad-gateway credential fingerprint\n")
            .chain_update(self.as_str())
            .chain_update("\n")
            .chain_update(credential.expose());
        let mut text = hex32::text(&hash.finalize().into());
        text.truncate(8);
        text
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ProviderId {
    type Error = ProviderIdError;

    fn try_from(text: String) -> Result<Self, ProviderIdError> {
        Self::parse(&text)
    }
}

/// A provider as a store keeps it. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredProvider {
    pub id: ProviderId,
    pub provider: Provider,
    pub history: History,
}

/// Where a stored provider and its credential come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Who made it, as [`By::actor`] says.
    pub created_by: String,
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
    /// Of the credential in use, [`Provider::credential`]; 0 where there never was one. What is sealed is bound to it.
    pub credential_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_set_at_ms: Option<u64>,
    /// Tells one credential from another: the first eight hexadecimal digits of a hash. Of sealed ones only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_fingerprint: Option<String>,
    /// The credential before, for an overlap after it was rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousCredential>,
}

/// A credential that was rotated out, and may still be used for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousCredential {
    pub credential: CredentialRef,
    pub version: u32,
    /// From then on it is not used any more.
    pub until_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

impl StoredProvider {
    /// The only field that providers of type proxy and local have a credential in.
    pub const CREDENTIAL_FIELD: &str = "apiKey";

    /// A new one. Its credential, if it has one, is the first.
    pub fn new(id: ProviderId, provider: Provider, by: &By) -> Self {
        let has_credential = provider.credential != CredentialRef::None;
        let history = History {
            created_by: by.actor.clone(),
            created_at_ms: by.at_ms,
            updated_at_ms: by.at_ms,
            credential_version: u32::from(has_credential),
            credential_set_at_ms: has_credential.then_some(by.at_ms),
            credential_fingerprint: None,
            previous: None,
        };
        Self { id, provider, history }
    }

    /// The texts that a store keeps, of the provider ([`Provider::to_stored`]) and of the history. Fails as
    /// [`StoreError::Refused`], also where both together have more than [`Provider::MAX_STORED_BYTES`].
    pub fn to_stored(&self) -> Result<(String, String), StoreError> {
        let refused = |reason: String| StoreError::Refused { reason };
        let provider = self.provider.to_stored()?;
        let history = serde_json::to_string(&self.history).map_err(|error| refused(error.to_string()))?;
        let (bytes, most) = (provider.len() + history.len(), Provider::MAX_STORED_BYTES);
        if bytes > most {
            return Err(refused(format!("the provider has {bytes} bytes; at most {most} are kept")));
        }
        Ok((provider, history))
    }

    /// For the audit log: all of it, with a sealed credential told by its version and fingerprint alone.
    pub fn audit_view(&self) -> Value {
        let shown = |credential: &CredentialRef, version: u32, fingerprint: Option<&String>| match credential
        {
            CredentialRef::None => Value::Null,
            CredentialRef::Env(name) => json!(format!("env:{name}")),
            CredentialRef::File(path) => json!(format!("file:{path}")),
            CredentialRef::Sealed(sealed) => {
                json!({"sealed_under": sealed.key_id().as_str(), "version": version, "fingerprint": fingerprint})
            }
            CredentialRef::Inline(_) => json!("given"),
        };
        let history = &self.history;
        let without = Provider { credential: CredentialRef::None, ..self.provider.clone() };
        let mut view = without.to_raw().unwrap_or_default();
        view["id"] = json!(self.id);
        let current = &self.provider.credential;
        view["credential"] =
            shown(current, history.credential_version, history.credential_fingerprint.as_ref());
        if let Some(previous) = &history.previous {
            view["previous_credential"] =
                shown(&previous.credential, previous.version, previous.fingerprint.as_ref());
            view["previous_credential_until_ms"] = json!(previous.until_ms);
        }
        view
    }
}
