//! Nodes of runners, and what they run, as items.

use aws_sdk_dynamodb::types::AttributeValue;
use catalog::StoreError;
use runner_api::{Capacity, CliInfo, NodeRecord, is_node_url};
use sha2::{Digest as _, Sha256};

use super::{
    Item, ItemError, Key, PK, SCHEMA_VERSION, SK, TTL, check_schema, get_limit, get_number, get_string,
    number, schema, string,
};

/// Nodes are spread over so many partitions.
pub(crate) const PARTITIONS: usize = 4;

const MAX_ID_BYTES: usize = 256;
const MAX_VERSION_BYTES: usize = 64;
/// Of a set of CLIs, as JSON.
const MAX_CLIS_BYTES: usize = 256 * 1024;
/// How long after its end a node's record is forgotten, by whoever sweeps.
const KEPT_MS: u64 = 3_600_000;
/// How long after it was last written a set of CLIs is forgotten.
const CLIS_KEPT_MS: u64 = 7 * 86_400_000;

const CLIS: &str = "CLIS";

/// A node as it is kept: what it runs is elsewhere, under its hash.
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) url: String,
    pub(crate) version: String,
    pub(crate) capacity: Capacity,
    pub(crate) clis: String,
    /// By the store's clock.
    pub(crate) expires_ms: u64,
}

/// A set of CLIs as it is kept.
pub(crate) struct Clis {
    /// 32 hexadecimal digits.
    pub(crate) hash: String,
    json: String,
}

impl Clis {
    pub(crate) fn new(clis: &[CliInfo]) -> Result<Self, StoreError> {
        let refused = |reason: String| StoreError::Refused { reason };
        let json = serde_json::to_string(clis).map_err(|error| refused(error.to_string()))?;
        if json.len() > MAX_CLIS_BYTES {
            return Err(refused(format!("the node's CLIs have more than {MAX_CLIS_BYTES} bytes")));
        }
        Ok(Self { hash: hash_of(&json), json })
    }
}

fn hash_of(text: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(text).into();
    let (half, _) = digest.split_first_chunk().expect("32 bytes have a first half");
    format!("{:032x}", u128::from_be_bytes(*half))
}

pub(crate) fn partition(number: usize) -> String {
    format!("NODE#{number}")
}

impl Key {
    pub(crate) fn node(id: &str) -> Self {
        let spread = Sha256::digest(id)[0];
        Self { pk: partition(usize::from(spread) % PARTITIONS), sk: id.to_owned() }
    }

    pub(crate) fn clis(hash: &str) -> Self {
        Self { pk: format!("{CLIS}#{hash}"), sk: CLIS.to_owned() }
    }
}

/// The rules that a record obeys before it is written and after it was read. `Err` says which it breaks.
pub(crate) fn check(record: &NodeRecord) -> Result<(), String> {
    check_node(&record.id, &record.url, &record.version)
}

fn check_node(id: &str, url: &str, version: &str) -> Result<(), String> {
    let is_plain =
        |text: &str, max| (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain(id, MAX_ID_BYTES) {
        return Err(format!("a node's id has 1 to {MAX_ID_BYTES} visible ASCII characters"));
    }
    if !is_node_url(url) {
        return Err("a node's url is https://HOST[:PORT], without anything else".to_owned());
    }
    if !is_plain(version, MAX_VERSION_BYTES) {
        return Err(format!("a node's version has 1 to {MAX_VERSION_BYTES} visible ASCII characters"));
    }
    Ok(())
}

pub(crate) fn from_record(record: &NodeRecord, clis_hash: &str, expires_ms: u64) -> Item {
    let mut item = Key::node(&record.id).to_item();
    let Capacity { slots, running, queued, queue_limit, parked, draining } = record.capacity;
    let numbers = [slots, running, queued, queue_limit, parked].map(u64::from);
    let names = ["slots", "running", "queued", "queue_limit", "parked"];
    item.extend(names.into_iter().zip(numbers).map(|(name, value)| (name.to_owned(), number(value))));
    for (name, value) in [
        (SCHEMA_VERSION, schema()),
        ("url", string(&record.url)),
        ("version", string(&record.version)),
        ("clis", string(clis_hash)),
        ("draining", AttributeValue::Bool(draining)),
        ("expires_unix_ms", number(expires_ms)),
        (TTL, number(expires_ms.saturating_add(KEPT_MS) / 1_000)),
    ] {
        item.insert(name.to_owned(), value);
    }
    item
}

pub(crate) fn to_stored(item: &Item) -> Result<Stored, ItemError> {
    check_schema(item)?;
    let count = |name| get_limit(item, name)?.ok_or(ItemError::Attribute(name));
    let draining = match item.get("draining") {
        Some(AttributeValue::Bool(draining)) => *draining,
        _ => return Err(ItemError::Attribute("draining")),
    };
    let node = Stored {
        id: get_string(item, SK)?.to_owned(),
        url: get_string(item, "url")?.to_owned(),
        version: get_string(item, "version")?.to_owned(),
        capacity: Capacity {
            slots: count("slots")?,
            running: count("running")?,
            queued: count("queued")?,
            queue_limit: count("queue_limit")?,
            parked: count("parked")?,
            draining,
        },
        clis: get_string(item, "clis")?.to_owned(),
        expires_ms: get_number(item, "expires_unix_ms")?,
    };
    check_node(&node.id, &node.url, &node.version).map_err(ItemError::Node)?;
    // It becomes part of a key.
    if node.clis.len() != 32 || !node.clis.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ItemError::Attribute("clis"));
    }
    Ok(node)
}

pub(crate) fn from_clis(clis: &Clis, now_ms: u64) -> Item {
    let mut item = Key::clis(&clis.hash).to_item();
    item.insert(SCHEMA_VERSION.to_owned(), schema());
    item.insert("body".to_owned(), string(&clis.json));
    item.insert(TTL.to_owned(), number(now_ms.saturating_add(CLIS_KEPT_MS) / 1_000));
    item
}

pub(crate) fn to_clis(item: &Item) -> Result<Vec<CliInfo>, ItemError> {
    check_schema(item)?;
    let body = get_string(item, "body")?;
    // Whoever may write one node's could otherwise change what others are thought to run.
    if body.len() > MAX_CLIS_BYTES || get_string(item, PK)? != Key::clis(&hash_of(body)).pk {
        return Err(ItemError::Attribute("body"));
    }
    serde_json::from_str(body).map_err(|_| ItemError::Json)
}
