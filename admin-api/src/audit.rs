//! `/admin/audit`: who changed what, and whether the log is what was written.

use std::sync::Arc;

use axum::extract::State;
use catalog::{Action, AuditEntry, AuditError, AuditHead, AuditQuery, hex32, verify_audit};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::answer::Answer;
use crate::error::AdminError;
use crate::moment::Moment;
use crate::query::{List, Query};
use crate::service::Admin;

/// One change.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub(crate) struct ShownEntry {
    /// 1 for the first, and one more for each.
    #[schema(minimum = 1)]
    seq: u64,
    at: Moment,
    /// The subject of the administrator's token, or `program:NAME`.
    #[schema(example = "ada@example.com")]
    actor: String,
    /// Of the request that asked for it; empty where there was none.
    request_id: String,
    action: AuditAction,
    /// `provider/SLUG`, `key/ID` or `key-secret`.
    #[schema(example = "provider/ollama")]
    object: String,
    /// The object as it was stored, without anything secret; null where there was none.
    #[schema(required)]
    before: Option<Map<String, Value>>,
    /// Null where there is none any more.
    #[schema(required)]
    after: Option<Map<String, Value>>,
    /// SHA-256 of all the others and of the entry before.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    hash: String,
    #[schema(pattern = "^[0-9a-f]{64}$")]
    previous_hash: String,
}

/// What was done to an object.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AuditAction {
    Create,
    Update,
    Delete,
    Revoke,
    Rotate,
    Rewrap,
    Import,
}

/// Whether the log is what was written.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum AuditVerdict {
    #[schema(title = "Whole")]
    Whole {
        /// true
        ok: bool,
        entries: u64,
        head: ShownHead,
    },
    #[schema(title = "Broken")]
    Broken {
        /// false
        ok: bool,
        /// Of the first entry that is missing, or is not what was written.
        seq: u64,
        reason: String,
    },
}

/// The last entry's place in the chain. Noted elsewhere, it proves later that nothing up to it was changed.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditHead)]
pub(crate) struct ShownHead {
    /// 0 where nothing was ever written.
    seq: u64,
    #[schema(pattern = "^[0-9a-f]{64}$")]
    hash: String,
}

/// Query the audit log
///
/// Every change of providers, credentials and API keys, the latest first. A page reads so much of the log and no more: it
/// may have fewer entries than were asked for, even none, and others behind `nextCursor`.
#[utoipa::path(
    get, path = "/admin/audit", tag = "audit",
    params(
        ("from" = Option<Moment>, Query, description = "At this time or later"),
        ("until" = Option<Moment>, Query, description = "Before this time"),
        ("actor" = Option<String>, Query, description = "By this one alone"),
        ("object" = Option<String>, Query, description = "Of this object alone, such as `provider/ollama`"),
        ("action" = Option<AuditAction>, Query, description = "Of this kind alone"),
        crate::openapi::PageParams,
    ),
    responses((status = 200, body = List<ShownEntry>)),
)]
pub(crate) async fn list_audit(
    State(admin): State<Arc<Admin>>,
    mut query: Query,
) -> Result<Answer, AdminError> {
    let wanted = Action::ALL.map(Action::as_str).join(", ");
    let mut asked = AuditQuery {
        from_ms: query.moment("from").map(|at| at.0),
        until_ms: query.moment("until").map(|at| at.0),
        actor: query.text("actor").map(str::to_owned),
        object: query.text("object").map(str::to_owned),
        action: query.read("action", format!("one of {wanted}"), |name| {
            Action::ALL.into_iter().find(|action| action.as_str() == name)
        }),
        ..AuditQuery::default()
    };
    let page = query.page();
    query.finish()?;
    asked.limit = page.limit;
    asked.before_seq = match page.cursor {
        Some(cursor) => Some(cursor.parse().map_err(|_| AdminError::InvalidCursor)?),
        None => None,
    };
    let found = admin.parts.store.audit(&asked).await?;
    for left_out in &found.left_out {
        tracing::error!(name = left_out.name, reason = left_out.reason, "an audit entry cannot be read");
    }
    let entries = found.entries.into_iter().map(ShownEntry::from).collect();
    Answer::ok(&List::new(entries, found.next.map(|seq| seq.to_string())))
}

/// Verify the audit log
///
/// Reads all of it and checks that no entry was removed, altered or put in. Whoever could change the whole log could also
/// cut it off or write it anew: give a head that was noted elsewhere, and that is found too.
#[utoipa::path(
    get, path = "/admin/audit/verify", tag = "audit",
    params(
        ("anchorSeq" = Option<u64>, Query, description = "Of a head that was noted; with `anchorHash`"),
        ("anchorHash" = Option<String>, Query, pattern = "^[0-9a-fA-F]{64}$",
         description = "Of the same head; with `anchorSeq`"),
    ),
    responses((status = 200, body = AuditVerdict)),
)]
pub(crate) async fn verify_log(
    State(admin): State<Arc<Admin>>,
    mut query: Query,
) -> Result<Answer, AdminError> {
    let seq: Option<u64> = query.read("anchorSeq", "a whole number", |text| text.parse().ok());
    let hash = query.read("anchorHash", "64 hexadecimal digits", hex32::parse);
    query.finish()?;
    let anchor = match (seq, hash) {
        (Some(seq), Some(hash)) => Some(AuditHead { seq, hash }),
        (None, None) => None,
        (Some(_), None) => return Err(AdminError::invalid("/anchorHash", "is required with anchorSeq")),
        (None, Some(_)) => return Err(AdminError::invalid("/anchorSeq", "is required with anchorHash")),
    };
    let _turn = admin.long_read().await?;
    let verdict = match verify_audit(&*admin.parts.store, anchor).await {
        Ok(AuditHead { seq, hash }) => {
            AuditVerdict::Whole { ok: true, entries: seq, head: ShownHead { seq, hash: hex32::text(&hash) } }
        }
        Err(AuditError::Broken(broken)) => {
            tracing::error!(
                seq = broken.seq,
                reason = broken.reason,
                "the audit log is not what was written"
            );
            AuditVerdict::Broken { ok: false, seq: broken.seq, reason: broken.reason.to_owned() }
        }
        Err(AuditError::Store(error)) => return Err(error.into()),
    };
    Answer::ok(&verdict)
}

impl From<AuditEntry> for ShownEntry {
    fn from(entry: AuditEntry) -> Self {
        Self {
            seq: entry.seq,
            at: Moment(entry.at_ms),
            actor: entry.actor,
            request_id: entry.request_id,
            action: entry.action.into(),
            object: entry.object,
            before: entry.before.as_deref().map(shown_side),
            after: entry.after.as_deref().map(shown_side),
            hash: hex32::text(&entry.hash),
            previous_hash: hex32::text(&entry.previous_hash),
        }
    }
}

/// An object as an entry has it. What is no object was not written by a store: it is shown as it is.
fn shown_side(text: &str) -> Map<String, Value> {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => members,
        _ => Map::from_iter([("text".to_owned(), json!(text))]),
    }
}

impl From<Action> for AuditAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Create => Self::Create,
            Action::Update => Self::Update,
            Action::Delete => Self::Delete,
            Action::Revoke => Self::Revoke,
            Action::Rotate => Self::Rotate,
            Action::Rewrap => Self::Rewrap,
            Action::Import => Self::Import,
        }
    }
}

#[cfg(test)]
mod tests;
