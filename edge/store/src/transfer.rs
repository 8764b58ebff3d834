//! All configuration and API keys as lines of JSON: to keep them, or to move from one store to another.
//!
//! ```text
//! {"format":"dyad-gateway-store","version":2}
//! {"key_secret":"…"}                            the check of the keys' secret, in hexadecimal digits, if it is known
//! {"provider":{"id":…,"history":{…},"provider":{…}}}   the last in the form of catalog::RawProvider; by slug
//! {"key":{"id":…,"hash":…,"label":…,…}}         by id; the hash in hexadecimal digits
//! {"end":{"providers":2,"keys":17}}
//! ```
//!
//! **Revocations outlive an import.** A key that was revoked after the export stays revoked, and one that was rotated keeps its secret, whatever the file says of the
//! rest of it: [`Existing::Replace`] keeps the moment, and [`Imported::kept_revoked`] counts such keys.
//!
//! There is no secret in it but the hashes of the keys, which are of use only with the secret under which they were
//! made (whoever imports them needs the same one, and a store of another one does not take them), and sealed credentials,
//! which open only with the master keys. The audit log stays where it is: an import has its own entries in that of the
//! other store. So do usage, limits that were used, the states of providers and the registry of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read as _, Write};

use catalog::{
    ApiKeyId, ApiKeyLimits, ApiKeyRecord, By, History, KeySecretCheck, LeftOut, PreviousHash, Provider,
    ProviderId, RawProvider, Store, StoreError, StoredProvider, Violations, hex32,
};
use serde::{Deserialize, Serialize};

const FORMAT: &str = "dyad-gateway-store";
const VERSION: u32 = 2;
/// No record that a store keeps is longer.
const MAX_LINE_BYTES: u64 = 2 << 20;
/// What is read before anything is written is held in memory. Two hundred thousand keys, or all that any store lists.
const MAX_FILE_BYTES: u64 = 128 << 20;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    pub providers: usize,
    pub keys: usize,
    /// What the store keeps and this version cannot read: it is not in the file.
    pub left_out: Vec<LeftOut>,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub created: usize,
    pub replaced: usize,
    /// It was there already, and the same.
    pub unchanged: usize,
    /// Keys, counted above too, that are revoked in the store and not in the file: they stay revoked.
    pub kept_revoked: usize,
    /// Keys, counted above too, that have another secret in the store than in the file: they keep the store's.
    pub kept_rotated: usize,
}

/// What becomes of records that the store has, and that differ from those of the file. Records that are not in the
/// file are left alone in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing is written at all.
    Refuse,
    /// They are as in the file from then on; but a key that is revoked stays so.
    Replace,
}

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("the file cannot be read or written")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing was written.
    #[error("line {line}: {reason}")]
    Line { line: usize, reason: String },
    /// Nothing was written.
    #[error("the store has others than the file: {}", .0.join(", "))]
    Differs(Vec<String>),
    /// Nothing was written.
    #[error("the file's API keys were hashed under another secret than the store's")]
    OtherKeySecret,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    KeySecret(String),
    Provider(Box<ProviderLine>),
    Key(Box<KeyLine>),
    End(Counts),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    providers: usize,
    keys: usize,
}

/// An API key; members as in `catalog::ApiKeyRecord`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyLine {
    id: ApiKeyId,
    hash: String,
    label: String,
    created_at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    owner: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<PreviousLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allowed_models: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    concurrent_requests: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens_per_minute: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens_per_day: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens_per_month: Option<u64>,
}

/// The secret before, while it is accepted.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PreviousLine {
    hash: String,
    until_ms: u64,
}

/// A provider: its configuration, sealed credential included, and where it comes from.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderLine {
    id: ProviderId,
    history: History,
    provider: serde_json::Value,
}

impl From<ApiKeyRecord> for KeyLine {
    fn from(record: ApiKeyRecord) -> Self {
        let ApiKeyRecord {
            id,
            hash,
            label,
            created_at_ms,
            expires_at_ms,
            revoked_at_ms,
            owner,
            previous,
            allowed_models,
            limits,
        } = record;
        Self {
            id,
            hash: hex32::text(&hash),
            label,
            created_at_ms,
            expires_at_ms,
            revoked_at_ms,
            owner,
            previous: previous.map(|previous| PreviousLine {
                hash: hex32::text(&previous.hash),
                until_ms: previous.until_ms,
            }),
            allowed_models,
            requests_per_minute: limits.requests_per_minute,
            concurrent_requests: limits.concurrent_requests,
            tokens_per_minute: limits.tokens_per_minute,
            tokens_per_day: limits.tokens_per_day,
            tokens_per_month: limits.tokens_per_month,
        }
    }
}

impl KeyLine {
    fn into_record(self) -> Result<ApiKeyRecord, String> {
        let previous = self.previous.map(|previous| {
            let hash =
                hex32::parse(&previous.hash).ok_or("key.previous.hash: is not 64 hexadecimal digits")?;
            Ok::<_, String>(PreviousHash { hash, until_ms: previous.until_ms })
        });
        let record = ApiKeyRecord {
            hash: hex32::parse(&self.hash).ok_or("key.hash: is not 64 hexadecimal digits")?,
            id: self.id,
            label: self.label,
            created_at_ms: self.created_at_ms,
            expires_at_ms: self.expires_at_ms,
            revoked_at_ms: self.revoked_at_ms,
            owner: self.owner,
            previous: previous.transpose()?,
            allowed_models: self.allowed_models,
            limits: ApiKeyLimits {
                requests_per_minute: self.requests_per_minute,
                concurrent_requests: self.concurrent_requests,
                tokens_per_minute: self.tokens_per_minute,
                tokens_per_day: self.tokens_per_day,
                tokens_per_month: self.tokens_per_month,
            },
        };
        record.check().map_err(|violations| named(violations, "key"))?;
        Ok(record)
    }
}

fn named(violations: Violations, member: &str) -> String {
    violations.under(member).to_string().replace('\n', "; ")
}

/// Writes everything that can be read.
pub async fn export(store: &dyn Store, out: &mut (dyn Write + Send)) -> Result<Exported, TransferError> {
    let config = store.config().await?;
    let list = store.keys().await?;
    let counts = Counts { providers: config.providers.len(), keys: list.keys.len() };
    write_line(out, &Header { format: FORMAT.to_owned(), version: VERSION })?;
    // Providers alone fit everywhere.
    if let (Some(check), 1..) = (config.key_secret, counts.keys) {
        write_line(out, &Line::KeySecret(hex32::text(&check.0)))?;
    }
    for provider in config.providers {
        let StoredProvider { id, provider, history } = provider.value;
        let raw = provider.to_raw().map_err(|error| StoreError::Refused { reason: error.to_string() })?;
        write_line(out, &Line::Provider(Box::new(ProviderLine { id, history, provider: raw })))?;
    }
    for key in list.keys {
        write_line(out, &Line::Key(Box::new(key.value.into())))?;
    }
    write_line(out, &Line::End(counts))?;
    out.flush()?;
    let left_out = [config.left_out, list.left_out].concat();
    Ok(Exported { providers: counts.providers, keys: counts.keys, left_out })
}

fn write_line(out: &mut (dyn Write + Send), line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// What is in a file.
#[derive(Default)]
struct Content {
    key_secret: Option<KeySecretCheck>,
    providers: Vec<StoredProvider>,
    keys: Vec<ApiKeyRecord>,
}

/// Writes what the file has, once all of it has been read and found to be in order. Each record is written on the
/// condition that it is still as it was at the start; an import that broke off can be repeated.
pub async fn import(
    store: &dyn Store,
    file: &mut (dyn BufRead + Send),
    existing: Existing,
    by: &By,
) -> Result<Imported, TransferError> {
    let content = read(file)?;
    let stored: BTreeMap<_, _> = {
        let providers = store.config().await?.providers.into_iter();
        providers.map(|provider| (provider.value.provider.slug.clone(), provider)).collect()
    };
    let stored_keys: BTreeMap<_, _> = {
        let keys = store.keys().await?.keys.into_iter();
        keys.map(|key| (key.value.id.clone(), key)).collect()
    };
    let stored_key_secret = store.key_secret().await?.map(|check| check.value);
    if let (Some(known), Some(given)) = (stored_key_secret, content.key_secret)
        && known != given
    {
        return Err(TransferError::OtherKeySecret);
    }
    if existing == Existing::Refuse {
        let providers = content
            .providers
            .iter()
            .filter(|given| stored.get(&given.provider.slug).is_some_and(|stored| stored.value != **given));
        let providers = providers.map(|given| format!("provider {}", given.provider.slug));
        let keys = content
            .keys
            .iter()
            .filter(|key| stored_keys.get(&key.id).is_some_and(|stored| stored.value != **key));
        let differing: Vec<_> = providers.chain(keys.map(|key| format!("API key {}", key.id))).collect();
        if !differing.is_empty() {
            return Err(TransferError::Differs(differing));
        }
    }
    let mut imported = Imported::default();
    if let (None, Some(check)) = (stored_key_secret, content.key_secret) {
        store.put_key_secret(check, None, by).await?;
    }
    for provider in &content.providers {
        let known = stored.get(&provider.provider.slug);
        if known.is_some_and(|known| known.value == *provider) {
            imported.unchanged += 1;
            continue;
        }
        store.put_provider(provider, known.map(|known| known.version), by).await?;
        *if known.is_some() { &mut imported.replaced } else { &mut imported.created } += 1;
    }
    for mut key in content.keys {
        let known = stored_keys.get(&key.id);
        if key.revoked_at_ms.is_none()
            && let Some(revoked_at_ms) = known.and_then(|known| known.value.revoked_at_ms)
        {
            key.revoked_at_ms = Some(revoked_at_ms);
            imported.kept_revoked += 1;
        }
        // A secret that was rotated out after the export is not to be good again.
        if let Some(known) = known
            && known.value.hash != key.hash
        {
            (key.hash, key.previous) = (known.value.hash, known.value.previous);
            imported.kept_rotated += 1;
        }
        if known.is_some_and(|known| known.value == key) {
            imported.unchanged += 1;
            continue;
        }
        store.put_key(&key, known.map(|known| known.version), by).await?;
        *if known.is_some() { &mut imported.replaced } else { &mut imported.created } += 1;
    }
    Ok(imported)
}

fn read(file: &mut (dyn BufRead + Send)) -> Result<Content, TransferError> {
    let mut content = Content::default();
    let (mut slugs, mut ids) = (BTreeSet::new(), BTreeSet::new());
    let (mut number, mut bytes) = (0, 0);
    let mut line = Vec::new();
    let mut end = None;
    loop {
        number += 1;
        line.clear();
        (&mut *file).take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        let refused = |reason: String| TransferError::Line { line: number, reason };
        if line.is_empty() {
            break;
        }
        if line.len() as u64 == MAX_LINE_BYTES {
            return Err(refused(format!("it has {MAX_LINE_BYTES} bytes or more")));
        }
        bytes += line.len() as u64;
        if bytes > MAX_FILE_BYTES {
            return Err(refused(format!(
                "the file has more than {MAX_FILE_BYTES} bytes; import it in parts"
            )));
        }
        if number == 1 {
            let header: Header = serde_json::from_slice(&line)
                .ok()
                .filter(|header: &Header| header.format == FORMAT)
                .ok_or_else(|| refused("this is no export of a store".to_owned()))?;
            if header.version != VERSION {
                let reason =
                    format!("it is of version {}; this program reads version {VERSION}", header.version);
                return Err(refused(reason));
            }
            continue;
        }
        if end.is_some() {
            return Err(refused("there is something after the end".to_owned()));
        }
        let parsed: Line = serde_json::from_slice(&line).map_err(|error| refused(error.to_string()))?;
        match parsed {
            Line::KeySecret(_) if content.key_secret.is_some() => {
                return Err(refused("key_secret is there twice".to_owned()));
            }
            Line::KeySecret(check) => {
                let check = hex32::parse(&check)
                    .ok_or_else(|| refused("key_secret: is not 64 hexadecimal digits".to_owned()))?;
                content.key_secret = Some(KeySecretCheck(check));
            }
            Line::Provider(line) => {
                let ProviderLine { id, history, provider } = *line;
                let provider = Provider::check(&RawProvider::from(provider))
                    .map_err(|violations| refused(named(violations, "provider.provider")))?;
                if !slugs.insert(provider.slug.clone()) {
                    return Err(refused(format!("provider {} is there twice", provider.slug)));
                }
                content.providers.push(StoredProvider { id, provider, history });
            }
            Line::Key(key) => {
                let key = key.into_record().map_err(refused)?;
                if !ids.insert(key.id.clone()) {
                    return Err(refused(format!("API key {} is there twice", key.id)));
                }
                content.keys.push(key);
            }
            Line::End(counts) => end = Some(counts),
        }
    }
    let found = Counts { providers: content.providers.len(), keys: content.keys.len() };
    if end != Some(found) {
        let reason = "the file was cut off: its last line does not count what is in it".to_owned();
        return Err(TransferError::Line { line: number, reason });
    }
    Ok(content)
}
