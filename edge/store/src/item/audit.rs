//! The audit log's entries, its head, and kept answers.

use catalog::{AuditEntry, AuditHead, KeptAnswer, hex32};

use super::{
    Item, ItemError, Key, SCHEMA_VERSION, TTL, check_schema, get_number, get_string, number, schema, string,
};

/// The attribute of the head that every change is conditional on.
pub(crate) const AUDIT_HASH: &str = "hash";
const SEQ: &str = "seq";

pub(crate) fn from_audit_entry(entry: &AuditEntry) -> Item {
    let mut item = Key::audit_entry(entry.seq).to_item();
    item.insert(SCHEMA_VERSION.to_owned(), schema());
    let body = serde_json::to_string(entry).expect("an entry has string keys only");
    item.insert("body".to_owned(), string(body));
    item
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
    let hash = hex32::parse(get_string(item, AUDIT_HASH)?).ok_or(ItemError::Attribute(AUDIT_HASH))?;
    Ok(AuditHead { seq: get_number(item, SEQ)?, hash })
}

pub(crate) fn from_answer(kept: &KeptAnswer) -> Item {
    let mut item = Key::answer(&kept.id).to_item();
    item.insert(SCHEMA_VERSION.to_owned(), schema());
    let body = serde_json::to_string(kept).expect("an answer has string keys only");
    item.insert("body".to_owned(), string(body));
    item.insert(TTL.to_owned(), number(kept.until_ms / 1_000 + 1));
    item
}
