//! The audit log's entries, its head, and kept answers.

use catalog::{Action, AuditEntry, AuditHead, KeptAnswer, hex32};

use super::{
    Item, ItemError, Key, SCHEMA_VERSION, SK, TTL, audit_sort_key, check_schema, get_number, get_string,
    number, schema, string,
};

/// The attribute of the head that every change is conditional on.
pub(crate) const AUDIT_HASH: &str = "hash";
/// The attribute of an answer that says when another one may take its place.
pub(crate) const UNTIL_MS: &str = "until_ms";
const SEQ: &str = "seq";

pub(crate) fn from_audit_entry(entry: &AuditEntry) -> Item {
    let AuditEntry { seq, at_ms, actor, request_id, action, object, before, after, previous_hash, hash } =
        entry;
    let mut item = Key::audit_entry(*seq).to_item();
    let mut insert = |name: &str, value| item.insert(name.to_owned(), value);
    insert(SCHEMA_VERSION, schema());
    insert("at_ms", number(*at_ms));
    insert("actor", string(actor));
    if !request_id.is_empty() {
        insert("request_id", string(request_id));
    }
    insert("action", string(action.as_str()));
    insert("object", string(object));
    for (name, side) in [("before", before), ("after", after)] {
        if let Some(side) = side {
            insert(name, string(side));
        }
    }
    insert("previous_hash", string(hex32::text(previous_hash)));
    insert(AUDIT_HASH, string(hex32::text(hash)));
    item
}

/// Whether it is what was written is another question: its hash tells.
pub(crate) fn to_audit_entry(item: &Item) -> Result<AuditEntry, ItemError> {
    check_schema(item)?;
    let text = |name| match item.get(name) {
        None => Ok(None),
        Some(_) => get_string(item, name).map(|text| Some(text.to_owned())),
    };
    let action = get_string(item, "action")?;
    let action = Action::ALL.into_iter().find(|known| known.as_str() == action);
    Ok(AuditEntry {
        seq: audit_seq(item).ok_or(ItemError::Place)?,
        at_ms: get_number(item, "at_ms")?,
        actor: get_string(item, "actor")?.to_owned(),
        request_id: text("request_id")?.unwrap_or_default(),
        action: action.ok_or(ItemError::Attribute("action"))?,
        object: get_string(item, "object")?.to_owned(),
        before: text("before")?,
        after: text("after")?,
        previous_hash: get_hex(item, "previous_hash")?,
        hash: get_hex(item, AUDIT_HASH)?,
    })
}

/// The number by which an entry is kept.
pub(crate) fn audit_seq(item: &Item) -> Option<u64> {
    let sort_key = get_string(item, SK).ok()?;
    sort_key.parse().ok().filter(|seq| sort_key == audit_sort_key(*seq))
}

pub(crate) fn from_audit_head(head: &AuditHead) -> Item {
    let mut item = Key::audit_head().to_item();
    item.insert(SCHEMA_VERSION.to_owned(), schema());
    item.insert(SEQ.to_owned(), number(head.seq));
    item.insert(AUDIT_HASH.to_owned(), string(hex32::text(&head.hash)));
    item
}

pub(crate) fn to_audit_head(item: &Item) -> Result<AuditHead, ItemError> {
    check_schema(item)?;
    Ok(AuditHead { seq: get_number(item, SEQ)?, hash: get_hex(item, AUDIT_HASH)? })
}

pub(crate) fn from_answer(kept: &KeptAnswer) -> Item {
    let mut item = Key::answer(&kept.id).to_item();
    item.insert(SCHEMA_VERSION.to_owned(), schema());
    let body = serde_json::to_string(kept).expect("an answer has string keys only");
    item.insert("body".to_owned(), string(body));
    item.insert(UNTIL_MS.to_owned(), number(kept.until_ms));
    item.insert(TTL.to_owned(), number(kept.until_ms / 1_000 + 1));
    item
}

pub(crate) fn to_answer(item: &Item) -> Result<KeptAnswer, ItemError> {
    check_schema(item)?;
    serde_json::from_str(get_string(item, "body")?).map_err(|_| ItemError::Json)
}

fn get_hex(item: &Item, name: &'static str) -> Result<[u8; 32], ItemError> {
    hex32::parse(get_string(item, name)?).ok_or(ItemError::Attribute(name))
}
