//! API keys: `dgw_<id>_<secret><checksum>`.

use std::fmt;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::text::check_text;
use crate::{Secret, Violations};

type HmacSha256 = Hmac<Sha256>;

const PREFIX: &str = "dgw_";
const ID_CHARS: usize = 12;
const SECRET_CHARS: usize = 32;
const CHECKSUM_CHARS: usize = 6;
/// `dgw_`, id, `_`, secret, checksum.
const KEY_CHARS: usize = PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// 12 characters of `[0-9A-Za-z]`. Public: it goes into logs, metrics and listings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ApiKeyId(String);

/// A whole key, as its holder sends it: 55 characters
///
/// ```text
/// dgw_ 12 characters _ 32 characters 6 characters
///      id              secret        checksum      each of [0-9A-Za-z]
/// ```
///
/// The secret carries 190 bits. The checksum is the CRC-32 of everything before it, in base 62, most significant
/// digit first: it tells a mistyped key (and a scanner's false finding) without a look-up, and proves nothing else.
#[derive(Clone, Debug)]
pub struct ApiKey {
    id: ApiKeyId,
    whole: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    #[error("this is not an API key of this gateway; its keys begin with dgw_")]
    NotOurs,
    #[error("this API key is mistyped or cut off: its checksum does not fit")]
    Mistyped,
}

/// The text is not 12 characters of `[0-9A-Za-z]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an API key's id has 12 characters of 0-9, A-Z and a-z")]
pub struct ApiKeyIdError;

impl ApiKeyId {
    /// The number of groups that ids fall into.
    pub const GROUPS: usize = BASE62.len();

    /// The characters that ids begin with, in the order of [`group`](Self::group) and of ids.
    pub const FIRST_CHARACTERS: &[u8; Self::GROUPS] = BASE62;

    /// Which group the id is of, below [`GROUPS`](Self::GROUPS): by its first character, which is random.
    pub fn group(&self) -> usize {
        match self.0.as_bytes()[0] {
            digit @ b'0'..=b'9' => usize::from(digit - b'0'),
            upper @ b'A'..=b'Z' => 10 + usize::from(upper - b'A'),
            lower => 36 + usize::from(lower - b'a'),
        }
    }

    pub fn parse(text: &str) -> Result<Self, ApiKeyIdError> {
        if text.len() == ID_CHARS && is_base62(text) { Ok(Self(text.to_owned())) } else { Err(ApiKeyIdError) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ApiKeyId {
    type Error = ApiKeyIdError;

    fn try_from(text: String) -> Result<Self, ApiKeyIdError> {
        Self::parse(&text)
    }
}

impl ApiKey {
    /// Makes a key from 32 bytes of a cryptographic random source. The same bytes give the same key.
    pub fn from_random(bytes: &[u8; 32]) -> Self {
        let id = random_base62(bytes)[..ID_CHARS].to_owned();
        Self::with_id(ApiKeyId(id), bytes)
    }

    /// The same, with an id that was chosen, so that of several who make it at once only one can store it.
    pub fn with_id(id: ApiKeyId, bytes: &[u8; 32]) -> Self {
        let characters = random_base62(bytes);
        let (_, secret) = characters.split_at(ID_CHARS);
        let mut whole = Zeroizing::new(String::with_capacity(KEY_CHARS));
        whole.push_str(PREFIX);
        whole.push_str(id.as_str());
        whole.push('_');
        whole.push_str(secret);
        let checksum = checksum(&whole);
        whole.extend(checksum.map(char::from));
        Self { id, whole: Secret::new(&**whole) }
    }

    /// Checks form and checksum; no look-up. Any input is allowed, of any length.
    pub fn parse(text: &str) -> Result<Self, ApiKeyError> {
        let rest = text.strip_prefix(PREFIX).ok_or(ApiKeyError::NotOurs)?;
        if text.len() != KEY_CHARS || !text.is_ascii() {
            return Err(ApiKeyError::Mistyped);
        }
        let (body, sum) = text.split_at(KEY_CHARS - CHECKSUM_CHARS);
        let (id, secret) =
            rest[..rest.len() - CHECKSUM_CHARS].split_once('_').ok_or(ApiKeyError::Mistyped)?;
        if sum.as_bytes() != checksum(body) || !is_base62(secret) {
            return Err(ApiKeyError::Mistyped);
        }
        let id = ApiKeyId::parse(id).map_err(|ApiKeyIdError| ApiKeyError::Mistyped)?;
        Ok(Self { id, whole: Secret::new(text) })
    }

    pub fn id(&self) -> &ApiKeyId {
        &self.id
    }

    /// For the one time that it is shown.
    pub fn expose(&self) -> &str {
        self.whole.expose()
    }
}

fn is_base62(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn checksum(text: &str) -> [u8; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut digits = [0; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// The characters of id and secret. Uniform: bytes that would favour some characters are skipped, which is why
/// the 32 bytes are stretched (HMAC-SHA-256 of a counter) instead of used one by one.
fn random_base62(bytes: &[u8; 32]) -> Zeroizing<String> {
    const WANTED: usize = ID_CHARS + SECRET_CHARS;
    const UNBIASED: u8 = 62 * 4;
    let mut characters = Zeroizing::new(String::with_capacity(WANTED));
    let mut counter = 0_u64;
    loop {
        let block = Zeroizing::new(hmac(bytes, &counter.to_be_bytes()));
        for byte in block.iter().filter(|byte| **byte < UNBIASED) {
            characters.push(char::from(BASE62[usize::from(byte % 62)]));
            if characters.len() == WANTED {
                return characters;
            }
        }
        counter += 1;
    }
}

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    keyed(key).chain_update(message).finalize().into_bytes().into()
}

/// HMAC-SHA-256 under a key that the deployment keeps outside the store, so that a stolen store opens nothing.
#[derive(Clone)]
pub struct ApiKeyHasher {
    /// Has taken in the secret already, which is half of the work.
    keyed: HmacSha256,
}

/// What tells one secret of [`ApiKeyHasher`] from another, and says nothing of it: it may be stored and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySecretCheck(pub [u8; 32]);

impl fmt::Debug for ApiKeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHasher(***)")
    }
}

impl ApiKeyHasher {
    pub fn new(secret: &Secret) -> Self {
        Self { keyed: keyed(secret.expose().as_bytes()) }
    }

    pub fn hash(&self, key: &ApiKey) -> [u8; 32] {
        self.keyed.clone().chain_update(key.expose().as_bytes()).finalize().into_bytes().into()
    }

    /// Of the secret: the HMAC of a text that is no API key.
    pub fn check(&self) -> KeySecretCheck {
        let message = b"dyad-gateway: check of the key secret";
        KeySecretCheck(self.keyed.clone().chain_update(message).finalize().into_bytes().into())
    }

    /// In constant time.
    pub fn verify(&self, key: &ApiKey, hash: &[u8; 32]) -> bool {
        self.keyed.clone().chain_update(key.expose().as_bytes()).verify_slice(hash).is_ok()
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
    /// Whom to ask about it; as long as a label, empty if nobody is named.
    pub owner: String,
    /// The secret before, for an overlap after the key was rotated.
    pub previous: Option<PreviousHash>,
    /// `None`: every model. Otherwise public model names, at most 1,000.
    pub allowed_models: Option<Vec<String>>,
    pub limits: ApiKeyLimits,
}

/// A secret that was rotated out, and is still accepted for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousHash {
    pub hash: [u8; 32],
    /// From then on it is refused, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// `None` means unlimited. Windows are aligned to UTC: full minutes, days and calendar months.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiKeyLimits {
    pub requests_per_minute: Option<u32>,
    pub concurrent_requests: Option<u32>,
    /// Tokens of prompts and completions together, 1 to [`ApiKeyLimits::MAX_TOKENS`], as are the other two.
    pub tokens_per_minute: Option<u64>,
    pub tokens_per_day: Option<u64>,
    pub tokens_per_month: Option<u64>,
}

impl ApiKeyLimits {
    /// A quadrillion: nobody's limit, and far from where sums would overflow.
    pub const MAX_TOKENS: u64 = 1_000_000_000_000_000;
}

impl ApiKeyRecord {
    pub const MAX_ALLOWED_MODELS: usize = 1_000;

    /// For the audit log: all of it but the hashes.
    pub fn audit_view(&self) -> Value {
        let limits = &self.limits;
        json!({
            "id": self.id,
            "label": self.label,
            "owner": self.owner,
            "created_at_ms": self.created_at_ms,
            "expires_at_ms": self.expires_at_ms,
            "revoked_at_ms": self.revoked_at_ms,
            "previous_secret_until_ms": self.previous.map(|previous| previous.until_ms),
            "allowed_models": self.allowed_models,
            "limits": {
                "requests_per_minute": limits.requests_per_minute,
                "concurrent_requests": limits.concurrent_requests,
                "tokens_per_minute": limits.tokens_per_minute,
                "tokens_per_day": limits.tokens_per_day,
                "tokens_per_month": limits.tokens_per_month,
            },
        })
    }

    /// The rules of the members' documentation, for whoever makes or reads a record.
    pub fn check(&self) -> Result<(), Violations> {
        let mut violations = Violations(Vec::new());
        check_text(&mut violations, "label", &self.label, 1..=100);
        check_text(&mut violations, "owner", &self.owner, 0..=100);
        if self.expires_at_ms.is_some_and(|at| at <= self.created_at_ms) {
            violations.add("expires_at_ms", "must be later than created_at_ms");
        }
        let limits = &self.limits;
        for (path, limit) in [
            ("limits.requests_per_minute", limits.requests_per_minute.map(u64::from)),
            ("limits.concurrent_requests", limits.concurrent_requests.map(u64::from)),
            ("limits.tokens_per_minute", limits.tokens_per_minute),
            ("limits.tokens_per_day", limits.tokens_per_day),
            ("limits.tokens_per_month", limits.tokens_per_month),
        ] {
            match limit {
                Some(0) => violations.add(path, "must be at least 1; revoke the key to refuse every request"),
                Some(limit) if limit > ApiKeyLimits::MAX_TOKENS => {
                    violations.add(path, format!("must be at most {}", ApiKeyLimits::MAX_TOKENS));
                }
                _ => {}
            }
        }
        let models = self.allowed_models.as_deref().unwrap_or_default();
        if models.len() > Self::MAX_ALLOWED_MODELS {
            let message =
                format!("{} models; at most {} are allowed", models.len(), Self::MAX_ALLOWED_MODELS);
            violations.add("allowed_models", message);
        } else {
            for (index, model) in models.iter().enumerate() {
                check_text(&mut violations, &format!("allowed_models[{index}]"), model, 1..=256);
            }
        }
        violations.or(())
    }
}

#[cfg(test)]
mod tests;
