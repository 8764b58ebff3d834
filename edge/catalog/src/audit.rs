//! The audit log: one entry for each change, written with the change or not at all, each bound to the one before by its
//! hash.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::text::check_text;
use crate::{
    ApiKeyRecord, KeySecretCheck, LeftOut, SealedSecret, StoreError, StoredProvider, Violations, hex32,
};

mod verify;

pub use verify::{AuditError, verify_audit};

/// What was done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Create,
    Update,
    Delete,
    /// An API key is refused from then on.
    Revoke,
    /// A credential or an API key got a successor.
    Rotate,
    /// A sealed credential went under another master key; its value is the same.
    Rewrap,
    /// Taken from a file.
    Import,
}

impl Action {
    pub const ALL: [Self; 7] =
        [Self::Create, Self::Update, Self::Delete, Self::Revoke, Self::Rotate, Self::Rewrap, Self::Import];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Revoke => "revoke",
            Self::Rotate => "rotate",
            Self::Rewrap => "rewrap",
            Self::Import => "import",
        }
    }
}

/// Who changes something, when, and on which request: what a store writes beside every change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// The subject of the administrator's token, or `program:NAME` where a program acts by itself. 1 to 128 characters.
    pub actor: String,
    /// Of the request that asked for it, up to 256 characters; empty where there was none.
    pub request_id: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub action: Action,
    /// Kept with the change, so that a request that is sent again gets the same answer. See [`KeptAnswer`].
    pub answer: Option<KeptAnswer>,
}

impl By {
    pub const MAX_ACTOR_CHARS: usize = 128;
    pub const MAX_REQUEST_ID_CHARS: usize = 256;

    /// A program, without a request of anybody.
    pub fn program(name: &str, action: Action, at_ms: u64) -> Self {
        Self { actor: format!("program:{name}"), request_id: String::new(), at_ms, action, answer: None }
    }

    /// The rules of the members' documentation, which every store holds its writers to. Fails as
    /// [`StoreError::Refused`].
    pub fn check(&self) -> Result<(), StoreError> {
        let mut violations = Violations(Vec::new());
        check_text(&mut violations, "actor", &self.actor, 1..=Self::MAX_ACTOR_CHARS);
        check_text(&mut violations, "request_id", &self.request_id, 0..=Self::MAX_REQUEST_ID_CHARS);
        violations.or(()).map_err(|violations| StoreError::Refused { reason: violations.to_string() })
    }
}

/// An answer that is kept, so that whoever sends its request again gets the same one and changes nothing twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptAnswer {
    /// A hash of who asked, what for, and the idempotency key.
    #[serde(with = "hex32")]
    pub id: [u8; 32],
    /// A hash of the request's body: another request must not get this answer.
    #[serde(with = "hex32")]
    pub request: [u8; 32],
    pub status: u16,
    /// Sealed, since it may show a secret for the one time; see [`SealContext::answer`](crate::SealContext::answer).
    pub body: SealedSecret,
    /// Until then it is kept, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// One change. Its hash binds every member, and the entry before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// 1 for the first, and one more for each.
    pub seq: u64,
    /// By the clock of whoever wrote it, in milliseconds since the Unix epoch; not always in the order of `seq`.
    pub at_ms: u64,
    pub actor: String,
    pub request_id: String,
    pub action: Action,
    /// `provider/SLUG`, `key/ID` or `key-secret`.
    pub object: String,
    /// The object as JSON, without anything secret; `None` where there was none before.
    pub before: Option<String>,
    /// `None` where there is none after.
    pub after: Option<String>,
    /// The entry's before this one; zeros before the first.
    #[serde(with = "hex32")]
    pub previous_hash: [u8; 32],
    #[serde(with = "hex32")]
    pub hash: [u8; 32],
}

/// The last entry's place in the chain. Whoever notes it elsewhere can prove later that nothing up to it was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditHead {
    /// 0 where nothing was ever written.
    pub seq: u64,
    pub hash: [u8; 32],
}

/// An object, as it was and as it is to be: what an entry says of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditedChange {
    pub object: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

impl AuditedChange {
    pub fn of_provider(before: Option<&StoredProvider>, after: Option<&StoredProvider>) -> Self {
        let slug = after.or(before).map_or("", |stored| stored.provider.slug.as_str());
        let text = |stored: &StoredProvider| audited_text(stored.audit_view());
        Self { object: format!("provider/{slug}"), before: before.map(text), after: after.map(text) }
    }

    pub fn of_key(before: Option<&ApiKeyRecord>, after: &ApiKeyRecord) -> Self {
        let text = |key: &ApiKeyRecord| audited_text(key.audit_view());
        Self { object: format!("key/{}", after.id), before: before.map(text), after: Some(text(after)) }
    }

    /// The check says nothing of the secret.
    pub fn of_key_secret(before: Option<KeySecretCheck>, after: KeySecretCheck) -> Self {
        let text = |check: KeySecretCheck| json!({ "check": hex32::text(&check.0) }).to_string();
        Self { object: "key-secret".to_owned(), before: before.map(text), after: Some(text(after)) }
    }
}

/// Longest text of an object that an entry has, in bytes: two of them and the rest fit into any store's item.
const MAX_AUDITED_BYTES: usize = 160 * 1024;
/// Members up to this length are kept whole in any case.
const MAX_SHORT_MEMBER_BYTES: usize = 4 * 1024;

/// An object's view as text. Of one that is too long, long members (lists of more than a thousand models, say) become
/// their length and hash: what they were can be proved, and not be read.
fn audited_text(mut view: Value) -> String {
    let whole = view.to_string();
    if whole.len() <= MAX_AUDITED_BYTES {
        return whole;
    }
    for member in view.as_object_mut().into_iter().flat_map(|members| members.values_mut()) {
        let text = member.to_string();
        if text.len() > MAX_SHORT_MEMBER_BYTES {
            let hash = hex32::text(&Sha256::digest(&text).into());
            *member = json!({ "left_out": { "bytes": text.len(), "sha256": hash } });
        }
    }
    view.to_string()
}

impl AuditHead {
    /// The entry that follows.
    pub fn next(&self, by: &By, change: AuditedChange) -> AuditEntry {
        let mut entry = AuditEntry {
            seq: self.seq + 1,
            at_ms: by.at_ms,
            actor: by.actor.clone(),
            request_id: by.request_id.clone(),
            action: by.action,
            object: change.object,
            before: change.before,
            after: change.after,
            previous_hash: self.hash,
            hash: [0; 32],
        };
        entry.hash = entry.computed_hash();
        entry
    }

    /// The head after an entry, if it follows this one and was not changed.
    pub fn follow(&self, entry: &AuditEntry) -> Result<Self, BrokenChain> {
        let broken = |reason| BrokenChain { seq: self.seq + 1, reason };
        if entry.seq != self.seq + 1 {
            return Err(broken("the entry is missing"));
        }
        if entry.previous_hash != self.hash {
            return Err(broken("it does not follow the entry before"));
        }
        if entry.computed_hash() != entry.hash {
            return Err(broken("it was changed after it was written"));
        }
        Ok(Self { seq: entry.seq, hash: entry.hash })
    }
}

/// Where the log is not what was written, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("audit entry {seq}: {reason}")]
pub struct BrokenChain {
    pub seq: u64,
    pub reason: &'static str,
}

impl AuditEntry {
    pub fn head(&self) -> AuditHead {
        AuditHead { seq: self.seq, hash: self.hash }
    }

    /// SHA-256 of every member but itself, each with its length before it, so that none can pass for another.
    fn computed_hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(b"dyad-gateway audit 1");
        part(&self.previous_hash);
        part(&self.seq.to_be_bytes());
        part(&self.at_ms.to_be_bytes());
        part(self.actor.as_bytes());
        part(self.request_id.as_bytes());
        part(self.action.as_str().as_bytes());
        part(self.object.as_bytes());
        for side in [&self.before, &self.after] {
            part(&[u8::from(side.is_some())]);
            part(side.as_deref().unwrap_or_default().as_bytes());
        }
        hash.finalize().into()
    }
}

/// Which entries are wanted. Everything if nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Of those at this time or later.
    pub from_ms: Option<u64>,
    /// Of those before this time.
    pub until_ms: Option<u64>,
    pub actor: Option<String>,
    /// The whole name, such as `provider/ollama`.
    pub object: Option<String>,
    pub action: Option<Action>,
    /// Of those before this entry.
    pub before_seq: Option<u64>,
    /// At most as many; 1 to 1,000.
    pub limit: usize,
}

impl AuditQuery {
    pub const MAX_LIMIT: usize = 1_000;

    /// Whether it asks for some entries only, wherever they are.
    pub fn is_filtered(&self) -> bool {
        let Self { from_ms, until_ms, actor, object, action, before_seq: _, limit: _ } = self;
        from_ms.is_some() || until_ms.is_some() || actor.is_some() || object.is_some() || action.is_some()
    }

    pub fn matches(&self, entry: &AuditEntry) -> bool {
        self.from_ms.is_none_or(|from| entry.at_ms >= from)
            && self.until_ms.is_none_or(|until| entry.at_ms < until)
            && self.actor.as_ref().is_none_or(|actor| *actor == entry.actor)
            && self.object.as_ref().is_none_or(|object| *object == entry.object)
            && self.action.is_none_or(|action| action == entry.action)
            && self.before_seq.is_none_or(|before| entry.seq < before)
    }
}

/// Entries, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPage {
    pub entries: Vec<AuditEntry>,
    /// Entries that are there and cannot be read. [`verify_audit`] fails at them.
    pub left_out: Vec<LeftOut>,
    /// [`AuditQuery::before_seq`] for the next page; `None` where there are no more. A page may have fewer entries than
    /// were asked for, even none, and others after it.
    pub next: Option<u64>,
}

#[cfg(test)]
mod tests;
