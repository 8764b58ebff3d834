//! Records as items of the table, and back. The crate's documentation lists the attributes.

mod audit;
pub(crate) mod node;
mod reports;

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use catalog::{
    ApiKeyId, ApiKeyLimits, ApiKeyRecord, ConfigVersion, KeySecretCheck, LeftOut, PreviousHash, Provider,
    ProviderId, ProviderSlug, RawProvider, StoreError, StoredProvider, UsageKey, Versioned, hex32,
};
use sha2::{Digest as _, Sha256};

pub(crate) use audit::{
    AUDIT_HASH, UNTIL_MS, audit_seq, from_answer, from_audit_entry, from_audit_head, to_answer,
    to_audit_entry, to_audit_head,
};
pub(crate) use reports::{
    STATUS, USED, forget_status_after, forget_usage_after, status_parts, to_status, to_usage, to_used_key,
    usage_counts, usage_partition,
};

pub(crate) type Item = HashMap<String, AttributeValue>;

pub(crate) const PK: &str = "pk";
pub(crate) const SK: &str = "sk";
pub(crate) const SCHEMA_VERSION: &str = "schema_version";
/// Seconds since the Unix epoch after which whoever sweeps the table may remove the item. Nobody relies on it.
pub(crate) const TTL: &str = "ttl";
pub(crate) const RECORD_VERSION: &str = "record_version";

const THIS_SCHEMA: u64 = 1;

/// An item's key in the table.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) pk: String,
    pub(crate) sk: String,
}

/// The partition of what every instance reads at its start.
pub(crate) const CONFIG: &str = "CONFIG";
const VERSION: &str = "VERSION";
/// As [`left_out`] calls it.
pub(crate) const VERSION_NAME: &str = "CONFIG/VERSION";
const PROVIDER: &str = "PROVIDER#";
pub(crate) const AUDIT: &str = "AUDIT";
const AUDIT_HEAD: &str = "HEAD";
const KEY_SECRET: &str = "KEY_SECRET";

impl Key {
    pub(crate) fn version() -> Self {
        Self { pk: CONFIG.to_owned(), sk: VERSION.to_owned() }
    }

    pub(crate) fn key_secret() -> Self {
        Self { pk: CONFIG.to_owned(), sk: KEY_SECRET.to_owned() }
    }

    pub(crate) fn provider(slug: &ProviderSlug) -> Self {
        Self { pk: CONFIG.to_owned(), sk: format!("{PROVIDER}{slug}") }
    }

    pub(crate) fn api_key(id: &ApiKeyId) -> Self {
        Self { pk: key_partition(id.group()), sk: id.as_str().to_owned() }
    }

    pub(crate) fn audit_head() -> Self {
        Self { pk: AUDIT.to_owned(), sk: AUDIT_HEAD.to_owned() }
    }

    pub(crate) fn audit_entry(seq: u64) -> Self {
        Self { pk: AUDIT.to_owned(), sk: audit_sort_key(seq) }
    }

    pub(crate) fn answer(id: &[u8; 32]) -> Self {
        Self { pk: format!("ANSWER#{}", hex32::text(id)), sk: "ANSWER".to_owned() }
    }

    pub(crate) fn usage(of: &UsageKey) -> Self {
        // A model may have any name, and a longer one than fits.
        let model = hex32::text(&Sha256::digest(&of.model).into());
        Self { pk: usage_partition(of.day), sk: format!("{}#{}#{model}", of.key, of.provider) }
    }

    pub(crate) fn used(id: &ApiKeyId) -> Self {
        Self { pk: USED.to_owned(), sk: id.as_str().to_owned() }
    }

    pub(crate) fn status(id: &ProviderId) -> Self {
        Self { pk: STATUS.to_owned(), sk: id.as_str().to_owned() }
    }

    pub(crate) fn to_item(&self) -> Item {
        Item::from([(PK.to_owned(), string(&self.pk)), (SK.to_owned(), string(&self.sk))])
    }
}

/// In the order of their numbers, before the head.
pub(crate) fn audit_sort_key(seq: u64) -> String {
    format!("{seq:020}")
}

/// The partition of a group's keys.
pub(crate) fn key_partition(group: usize) -> String {
    format!("KEY#{}", group_name(group))
}

/// The attribute of the version item that counts writes of providers, and of the key secret's check.
pub(crate) const PROVIDER_CHANGES: &str = "providers";

/// The attribute of the version item that counts writes of a group's keys.
pub(crate) fn key_changes(group: usize) -> String {
    format!("keys_{}", group_name(group))
}

fn group_name(group: usize) -> char {
    char::from(ApiKeyId::FIRST_CHARACTERS[group])
}

/// Why an item cannot be read. Names attributes, never their content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ItemError {
    #[error("attribute {0} is missing or of the wrong kind")]
    Attribute(&'static str),
    #[error("its counts are not numbers")]
    Counts,
    #[error("it is nothing that belongs here")]
    Unknown,
    #[error("it was written by another version, with schema {0}")]
    Schema(u64),
    #[error("attribute body is not JSON")]
    Json,
    #[error("it breaks rules: {0}")]
    Rules(#[from] catalog::Violations),
    #[error("its slug is not its key")]
    Slug,
    #[error("it is kept under another key than its own")]
    Place,
    #[error("{0}")]
    Node(String),
}

/// What is told of an item that cannot be read.
pub(crate) fn left_out(item: &Item, error: &ItemError) -> LeftOut {
    let text = |name| item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str);
    LeftOut::new(&format!("{}/{}", text(PK), text(SK)), &error.to_string())
}

pub(crate) fn string(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(crate) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn schema() -> AttributeValue {
    number(THIS_SCHEMA)
}

fn record(key: &Key, version: u64) -> Item {
    let mut item = key.to_item();
    item.insert(SCHEMA_VERSION.to_owned(), schema());
    item.insert(RECORD_VERSION.to_owned(), number(version));
    item
}

pub(crate) fn from_provider(stored: &StoredProvider, version: u64) -> Result<Item, StoreError> {
    let (body, history) = stored.to_stored()?;
    let mut item = record(&Key::provider(&stored.provider.slug), version);
    item.insert("id".to_owned(), string(stored.id.as_str()));
    item.insert("body".to_owned(), string(body));
    item.insert("history".to_owned(), string(history));
    Ok(item)
}

pub(crate) fn to_provider(item: &Item) -> Result<Versioned<StoredProvider>, ItemError> {
    check_schema(item)?;
    let raw: RawProvider = serde_json::from_str(get_string(item, "body")?).map_err(|_| ItemError::Json)?;
    let provider = Provider::check(&raw)?;
    if get_string(item, SK)?.strip_prefix(PROVIDER) != Some(provider.slug.as_str()) {
        return Err(ItemError::Slug);
    }
    let id = ProviderId::parse(get_string(item, "id")?).map_err(|_| ItemError::Attribute("id"))?;
    let history = serde_json::from_str(get_string(item, "history")?);
    let history = history.map_err(|_| ItemError::Attribute("history"))?;
    let value = StoredProvider { id, provider, history };
    Ok(Versioned { value, version: get_number(item, RECORD_VERSION)? })
}

pub(crate) fn from_key(key: &ApiKeyRecord, version: u64) -> Result<Item, StoreError> {
    key.check().map_err(|violations| StoreError::Refused { reason: violations.to_string() })?;
    let mut item = record(&Key::api_key(&key.id), version);
    item.insert("key_hash".to_owned(), AttributeValue::B(Blob::new(key.hash)));
    item.insert("label".to_owned(), string(&key.label));
    item.insert("created_at_ms".to_owned(), number(key.created_at_ms));
    if !key.owner.is_empty() {
        item.insert("owner".to_owned(), string(&key.owner));
    }
    if let Some(previous) = &key.previous {
        item.insert("previous_hash".to_owned(), AttributeValue::B(Blob::new(previous.hash)));
        item.insert("previous_until_ms".to_owned(), number(previous.until_ms));
    }
    if let Some(models) = &key.allowed_models {
        item.insert("allowed_models".to_owned(), AttributeValue::L(models.iter().map(string).collect()));
    }
    for (name, value) in [
        ("expires_at_ms", key.expires_at_ms),
        ("revoked_at_ms", key.revoked_at_ms),
        ("requests_per_minute", key.limits.requests_per_minute.map(u64::from)),
        ("concurrent_requests", key.limits.concurrent_requests.map(u64::from)),
        ("tokens_per_minute", key.limits.tokens_per_minute),
        ("tokens_per_day", key.limits.tokens_per_day),
        ("tokens_per_month", key.limits.tokens_per_month),
    ] {
        if let Some(value) = value {
            item.insert(name.to_owned(), number(value));
        }
    }
    Ok(item)
}

pub(crate) fn to_key(item: &Item) -> Result<Versioned<ApiKeyRecord>, ItemError> {
    check_schema(item)?;
    let allowed_models = match item.get("allowed_models") {
        None => None,
        Some(AttributeValue::L(models)) => {
            let models = models.iter().map(|model| model.as_s().cloned()).collect::<Result<_, _>>();
            Some(models.map_err(|_| ItemError::Attribute("allowed_models"))?)
        }
        Some(_) => return Err(ItemError::Attribute("allowed_models")),
    };
    let value = ApiKeyRecord {
        id: ApiKeyId::parse(get_string(item, SK)?).map_err(|_| ItemError::Attribute(SK))?,
        hash: get_hash(item, "key_hash")?,
        label: get_string(item, "label")?.to_owned(),
        created_at_ms: get_number(item, "created_at_ms")?,
        expires_at_ms: get_optional_number(item, "expires_at_ms")?,
        revoked_at_ms: get_optional_number(item, "revoked_at_ms")?,
        owner: match item.get("owner") {
            None => String::new(),
            Some(_) => get_string(item, "owner")?.to_owned(),
        },
        previous: match item.get("previous_hash") {
            None => None,
            Some(_) => Some(PreviousHash {
                hash: get_hash(item, "previous_hash")?,
                until_ms: get_number(item, "previous_until_ms")?,
            }),
        },
        allowed_models,
        limits: ApiKeyLimits {
            requests_per_minute: get_limit(item, "requests_per_minute")?,
            concurrent_requests: get_limit(item, "concurrent_requests")?,
            tokens_per_minute: get_optional_number(item, "tokens_per_minute")?,
            tokens_per_day: get_optional_number(item, "tokens_per_day")?,
            tokens_per_month: get_optional_number(item, "tokens_per_month")?,
        },
    };
    value.check()?;
    Ok(Versioned { value, version: get_number(item, RECORD_VERSION)? })
}

pub(crate) fn from_key_secret(check: KeySecretCheck, version: u64) -> Item {
    let mut item = record(&Key::key_secret(), version);
    item.insert("check".to_owned(), AttributeValue::B(Blob::new(check.0)));
    item
}

pub(crate) fn to_key_secret(item: &Item) -> Result<Versioned<KeySecretCheck>, ItemError> {
    check_schema(item)?;
    let value = KeySecretCheck(get_hash(item, "check")?);
    Ok(Versioned { value, version: get_number(item, RECORD_VERSION)? })
}

pub(crate) fn to_config_version(item: &Item) -> Result<ConfigVersion, ItemError> {
    check_schema(item)?;
    let count = |name: &str| match item.get(name) {
        None => Ok(0),
        Some(AttributeValue::N(digits)) => digits.parse().map_err(|_| ItemError::Counts),
        Some(_) => Err(ItemError::Counts),
    };
    let mut version = ConfigVersion { providers: count(PROVIDER_CHANGES)?, ..ConfigVersion::default() };
    for (group, changes) in version.keys.iter_mut().enumerate() {
        *changes = count(&key_changes(group))?;
    }
    Ok(version)
}

/// What an item of the configuration's partition is.
pub(crate) enum ConfigItem {
    Version(Box<ConfigVersion>),
    Provider(Box<Versioned<StoredProvider>>),
    KeySecret(KeySecretCheck),
}

pub(crate) fn to_config_item(item: &Item) -> Result<ConfigItem, ItemError> {
    match get_string(item, SK)? {
        VERSION => to_config_version(item).map(|version| ConfigItem::Version(Box::new(version))),
        KEY_SECRET => to_key_secret(item).map(|check| ConfigItem::KeySecret(check.value)),
        sk if sk.starts_with(PROVIDER) => {
            to_provider(item).map(|provider| ConfigItem::Provider(Box::new(provider)))
        }
        _ => Err(ItemError::Unknown),
    }
}

/// First of all: nothing is known of the other attributes under another schema.
fn check_schema(item: &Item) -> Result<(), ItemError> {
    match get_number(item, SCHEMA_VERSION)? {
        THIS_SCHEMA => Ok(()),
        other => Err(ItemError::Schema(other)),
    }
}

fn get_string<'a>(item: &'a Item, name: &'static str) -> Result<&'a str, ItemError> {
    match item.get(name) {
        Some(AttributeValue::S(text)) => Ok(text),
        _ => Err(ItemError::Attribute(name)),
    }
}

fn get_hash(item: &Item, name: &'static str) -> Result<[u8; 32], ItemError> {
    let hash = item.get(name).and_then(|hash| hash.as_b().ok()).map(Blob::as_ref);
    hash.and_then(|hash| hash.try_into().ok()).ok_or(ItemError::Attribute(name))
}

fn get_optional_number(item: &Item, name: &'static str) -> Result<Option<u64>, ItemError> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::N(digits)) => digits.parse().map(Some).map_err(|_| ItemError::Attribute(name)),
        Some(_) => Err(ItemError::Attribute(name)),
    }
}

fn get_number(item: &Item, name: &'static str) -> Result<u64, ItemError> {
    get_optional_number(item, name)?.ok_or(ItemError::Attribute(name))
}

fn get_limit(item: &Item, name: &'static str) -> Result<Option<u32>, ItemError> {
    get_optional_number(item, name)?.map(u32::try_from).transpose().map_err(|_| ItemError::Attribute(name))
}

#[cfg(test)]
mod tests;
