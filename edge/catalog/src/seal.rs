//! Sealed values: each encrypted under a data key of its own, which is encrypted under a master key (envelope
//! encryption). Both encryptions are XChaCha20-Poly1305 and bind where the value belongs, so that it opens nowhere else.
//!
//! ```text
//! sealed:1:KEY_ID:WRAPPED_DATA_KEY:VALUE       the last two in base64url, each a nonce of 24 bytes and a ciphertext
//! ```

use std::fmt;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{BoxFuture, ProviderId, Secret, hex32};

const FORMAT: &str = "sealed:1:";
const NONCE: usize = 24;
const TAG: usize = 16;
const WRAPPED: usize = NONCE + 32 + TAG;
/// Longest value, in bytes: as much as a credential file may have.
pub const MAX_SEALED_BYTES: usize = 64 * 1024;

/// Longest data key under a master key, in bytes: key management services add a header of their own.
const MAX_WRAPPED: usize = 1024;

/// A value that only holders of its master key can read. Safe to store, not to show: it is no use to anybody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SealedSecret {
    key_id: KeyId,
    wrapped: Vec<u8>,
    value: Vec<u8>,
}

/// Names a master key: 1 to 64 characters of `[A-Za-z0-9_./-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(String);

/// A key that encrypts one value.
pub struct DataKey(Zeroizing<[u8; 32]>);

/// Where a sealed value belongs: it opens nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealContext(String);

/// Why a value was not sealed or opened. Says nothing of the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("there is no master key {0:?} here: add it to the master keys")]
    UnknownKey(String),
    #[error("there is no master key here: nothing can be sealed")]
    NoKey,
    /// It was changed, moved from another record, or sealed under another key of the same id.
    #[error(
        "it does not open: it was changed, belongs elsewhere, or was sealed under another key of this id"
    )]
    DoesNotOpen,
    #[error("it has {0} bytes; at most {MAX_SEALED_BYTES} can be sealed")]
    TooLong(usize),
    #[error("it is no sealed value")]
    Malformed,
    /// Whoever keeps the master keys does not answer.
    #[error("the master keys cannot be had: {0}")]
    Unavailable(String),
}

/// Wraps and unwraps data keys under master keys, which never leave whoever keeps them: a key ring of this process, or a
/// key management service.
pub trait MasterKeys: Send + Sync {
    /// The key under which new values are sealed.
    fn active(&self) -> BoxFuture<'_, Result<KeyId, SealError>>;

    /// Encrypts a data key under the active key; answers that key's id with it. `nonce` is random.
    fn wrap<'a>(
        &'a self,
        data_key: &'a DataKey,
        context: &'a SealContext,
        nonce: [u8; 24],
    ) -> BoxFuture<'a, Result<(KeyId, Vec<u8>), SealError>>;

    fn unwrap<'a>(
        &'a self,
        key_id: &'a KeyId,
        wrapped: &'a [u8],
        context: &'a SealContext,
    ) -> BoxFuture<'a, Result<DataKey, SealError>>;
}

impl KeyId {
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte));
        is_id.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SealContext {
    /// A credential of a provider: `field` as its API calls it, and the version of that credential.
    pub fn credential(provider: &ProviderId, field: &str, version: u32) -> Self {
        Self(format!("dyad-gateway credential\n{provider}\n{field}\n{version}"))
    }

    /// An answer that is kept for a request that may be sent again.
    pub fn answer(id: &[u8; 32]) -> Self {
        Self(format!("dyad-gateway answer\n{}", hex32::text(id)))
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl DataKey {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    fn encrypt(&self, nonce: [u8; NONCE], plain: &[u8], context: &SealContext) -> Vec<u8> {
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        let payload = Payload { msg: plain, aad: context.bytes() };
        let sealed = cipher.encrypt(&nonce.into(), payload).expect("far below the cipher's limit of 256 GB");
        [nonce.as_slice(), &sealed].concat()
    }

    fn decrypt(&self, sealed: &[u8], context: &SealContext) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(SealError::Malformed)?;
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        let payload = Payload { msg: sealed, aad: context.bytes() };
        let plain = cipher.decrypt(nonce.into(), payload).map_err(|_| SealError::DoesNotOpen)?;
        Ok(Zeroizing::new(plain))
    }
}

impl SealedSecret {
    /// Seals a value under a data key of its own. `fill_random` is a cryptographic source.
    pub async fn seal(
        secret: &Secret,
        context: &SealContext,
        keys: &dyn MasterKeys,
        fill_random: &(dyn Fn(&mut [u8]) + Sync),
    ) -> Result<Self, SealError> {
        let length = secret.expose().len();
        if length > MAX_SEALED_BYTES {
            return Err(SealError::TooLong(length));
        }
        let mut bytes = Zeroizing::new([0; 32]);
        fill_random(&mut *bytes);
        let data_key = DataKey(bytes);
        let value = data_key.encrypt(random_nonce(fill_random), secret.expose().as_bytes(), context);
        let (key_id, wrapped) = keys.wrap(&data_key, context, random_nonce(fill_random)).await?;
        Ok(Self { key_id, wrapped, value })
    }

    pub async fn open(&self, context: &SealContext, keys: &dyn MasterKeys) -> Result<Secret, SealError> {
        let data_key = keys.unwrap(&self.key_id, &self.wrapped, context).await?;
        let plain = data_key.decrypt(&self.value, context)?;
        let text = std::str::from_utf8(&plain).map_err(|_| SealError::DoesNotOpen)?;
        Ok(Secret::new(text))
    }

    /// The same value with its data key under the active master key; `None` where it is so already. The value itself is
    /// not decrypted.
    pub async fn rewrap(
        &self,
        context: &SealContext,
        keys: &dyn MasterKeys,
        fill_random: &(dyn Fn(&mut [u8]) + Sync),
    ) -> Result<Option<Self>, SealError> {
        if keys.active().await? == self.key_id {
            return Ok(None);
        }
        let data_key = keys.unwrap(&self.key_id, &self.wrapped, context).await?;
        let (key_id, wrapped) = keys.wrap(&data_key, context, random_nonce(fill_random)).await?;
        Ok(Some(Self { key_id, wrapped, value: self.value.clone() }))
    }

    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// The form of the module's documentation.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let mut parts = text.strip_prefix(FORMAT).ok_or(SealError::Malformed)?.split(':');
        let (Some(key_id), Some(wrapped), Some(value), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SealError::Malformed);
        };
        let key_id = KeyId::parse(key_id).ok_or(SealError::Malformed)?;
        let wrapped = base64::decode(wrapped).ok_or(SealError::Malformed)?;
        let value = base64::decode(value).ok_or(SealError::Malformed)?;
        if !(1..=MAX_WRAPPED).contains(&wrapped.len())
            || !(NONCE + TAG..=NONCE + TAG + MAX_SEALED_BYTES).contains(&value.len())
        {
            return Err(SealError::Malformed);
        }
        Ok(Self { key_id, wrapped, value })
    }
}

fn random_nonce(fill_random: &(dyn Fn(&mut [u8]) + Sync)) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    fill_random(&mut nonce);
    nonce
}

impl fmt::Display for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wrapped, value) = (base64::encode(&self.wrapped), base64::encode(&self.value));
        write!(f, "{FORMAT}{}:{wrapped}:{value}", self.key_id)
    }
}

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedSecret({})", self.key_id)
    }
}

impl TryFrom<String> for SealedSecret {
    type Error = SealError;

    fn try_from(text: String) -> Result<Self, SealError> {
        Self::parse(&text)
    }
}

impl From<SealedSecret> for String {
    fn from(sealed: SealedSecret) -> Self {
        sealed.to_string()
    }
}

/// Master keys in the memory of this process; the first is the active one. Without any, nothing can be sealed.
#[derive(Default)]
pub struct KeyRing(Vec<(KeyId, DataKey)>);

impl KeyRing {
    /// Keys, with commas or new lines between them, as `ID:KEY` where the key is 32 bytes in base64. `Err` says what is
    /// wrong with which, without the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<(KeyId, DataKey)> = Vec::new();
        for (index, entry) in
            text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()).enumerate()
        {
            let wrong = |what: &str| format!("master key {}: {what}", index + 1);
            let (id, key) = entry.split_once(':').ok_or_else(|| wrong("write ID:KEY"))?;
            let id = KeyId::parse(id)
                .ok_or_else(|| wrong("its id must be 1 to 64 characters of A-Z, a-z, 0-9 and _ . / -"))?;
            let bytes = base64::decode(key).map(Zeroizing::new);
            let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
            let bytes = bytes.ok_or_else(|| wrong("the key must be 32 bytes in base64"))?;
            if keys.iter().any(|(known, _)| *known == id) {
                return Err(wrong("another one has the same id"));
            }
            keys.push((id, DataKey::new(bytes)));
        }
        Ok(Self(keys))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.0.iter().map(|(id, _)| id)
    }

    fn first(&self) -> Result<&(KeyId, DataKey), SealError> {
        self.0.first().ok_or(SealError::NoKey)
    }

    /// As [`MasterKeys::active`], at once.
    pub fn active_id(&self) -> Result<KeyId, SealError> {
        self.first().map(|(id, _)| id.clone())
    }

    /// As [`MasterKeys::wrap`], at once.
    pub fn wrap_now(
        &self,
        data_key: &DataKey,
        context: &SealContext,
        nonce: [u8; 24],
    ) -> Result<(KeyId, Vec<u8>), SealError> {
        let (id, key) = self.first()?;
        Ok((id.clone(), key.encrypt(nonce, &*data_key.0, context)))
    }

    /// As [`MasterKeys::unwrap`], at once.
    pub fn unwrap_now(
        &self,
        key_id: &KeyId,
        wrapped: &[u8],
        context: &SealContext,
    ) -> Result<DataKey, SealError> {
        let known = self.0.iter().find(|(id, _)| id == key_id);
        let (_, key) = known.ok_or_else(|| SealError::UnknownKey(key_id.to_string()))?;
        if wrapped.len() != WRAPPED {
            return Err(SealError::Malformed);
        }
        let plain = key.decrypt(wrapped, context)?;
        <[u8; 32]>::try_from(plain.as_slice()).map(DataKey::new).map_err(|_| SealError::Malformed)
    }
}

impl MasterKeys for KeyRing {
    fn active(&self) -> BoxFuture<'_, Result<KeyId, SealError>> {
        Box::pin(std::future::ready(self.active_id()))
    }

    fn wrap<'a>(
        &'a self,
        data_key: &'a DataKey,
        context: &'a SealContext,
        nonce: [u8; 24],
    ) -> BoxFuture<'a, Result<(KeyId, Vec<u8>), SealError>> {
        Box::pin(std::future::ready(self.wrap_now(data_key, context, nonce)))
    }

    fn unwrap<'a>(
        &'a self,
        key_id: &'a KeyId,
        wrapped: &'a [u8],
        context: &'a SealContext,
    ) -> BoxFuture<'a, Result<DataKey, SealError>> {
        Box::pin(std::future::ready(self.unwrap_now(key_id, wrapped, context)))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

mod base64 {
    use base64::Engine as _;
    use base64::alphabet::{STANDARD, URL_SAFE};
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);
    const USUAL: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);

    pub(super) fn encode(bytes: &[u8]) -> String {
        URL.encode(bytes)
    }

    /// Of either alphabet: people make keys with whatever tool they have.
    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        URL.decode(text).or_else(|_| USUAL.decode(text)).ok()
    }
}

#[cfg(test)]
mod tests;
