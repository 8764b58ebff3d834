//! Whether the log is what was written.

use super::{AuditEntry, AuditHead, BrokenChain};
use crate::{AuditStore, StoreError};

/// Entries that are asked for at once.
const PAGE: usize = 500;
/// How often the head is looked at before it is believed that it does not fit: a change becomes visible part by part.
const LOOKS: usize = 5;

/// Why the log was not found to be whole.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Something was removed, altered or put in.
    #[error(transparent)]
    Broken(#[from] BrokenChain),
    /// It could not be read to its end, so nothing is known.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads the whole log and checks that every entry follows the one before, and that the head is the last one's. `anchor`
/// is a head that was noted earlier, elsewhere: only that shows that the log was not cut off or written anew together
/// with its head. Answers the head as it is now. Changes may go on meanwhile.
pub async fn verify_audit(
    store: &dyn AuditStore,
    anchor: Option<AuditHead>,
) -> Result<AuditHead, AuditError> {
    let mut head = AuditHead::default();
    check_anchor(head, anchor)?;
    let mut looks = 0;
    loop {
        let entries = match store.audit_from(head.seq + 1, PAGE).await {
            Ok(entries) => entries,
            Err(StoreError::Unreadable(_)) => return Err(broken(head.seq + 1, "it cannot be read")),
            Err(error) => return Err(error.into()),
        };
        if !entries.is_empty() {
            looks = 0;
            head = follow(head, &entries, anchor)?;
            continue;
        }
        let kept = match store.audit_head().await {
            Ok(kept) => kept,
            Err(StoreError::Unreadable(_)) => return Err(broken(head.seq, "the log's head cannot be read")),
            Err(error) => return Err(error.into()),
        };
        if kept == head {
            break;
        }
        looks += 1;
        if looks == LOOKS {
            let (seq, reason) = if kept.seq > head.seq {
                (head.seq + 1, "the entry is missing")
            } else {
                (head.seq, "the log's head does not fit it")
            };
            return Err(broken(seq, reason));
        }
    }
    match anchor {
        Some(anchor) if anchor.seq > head.seq => Err(broken(head.seq + 1, "the entry is missing")),
        _ => Ok(head),
    }
}

fn follow(
    mut head: AuditHead,
    entries: &[AuditEntry],
    anchor: Option<AuditHead>,
) -> Result<AuditHead, AuditError> {
    for entry in entries {
        head = head.follow(entry)?;
        check_anchor(head, anchor)?;
    }
    Ok(head)
}

fn check_anchor(head: AuditHead, anchor: Option<AuditHead>) -> Result<(), AuditError> {
    match anchor {
        Some(anchor) if anchor.seq == head.seq && anchor.hash != head.hash => {
            Err(broken(head.seq, "it is not the one that was noted"))
        }
        _ => Ok(()),
    }
}

fn broken(seq: u64, reason: &'static str) -> AuditError {
    AuditError::Broken(BrokenChain { seq, reason })
}
