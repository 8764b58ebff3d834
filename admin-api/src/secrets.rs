//! `POST /admin/secrets/rewrap`: everything that is sealed goes under the active master key.

use std::sync::Arc;

use axum::extract::State;
use catalog::{Action, CredentialRef, SealContext, SealError, StoreError, StoredProvider, Versioned};
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::Answer;
use crate::change::{Change, fill_random};
use crate::error::AdminError;
use crate::query::Query;
use crate::service::Admin;

/// How often a record is tried that somebody else changes at the same time.
const TRIES: usize = 5;

/// What became of the sealed values: a provider may have two, while a rotated credential is kept.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the name of the member on the wire")]
pub(crate) struct Rewrapped {
    /// Under which they are sealed now.
    active_key_id: String,
    rewrapped: usize,
    /// Those that were under it already.
    unchanged: usize,
    /// Those that are as they were, each with the reason. Run it again when that is mended.
    failed: Vec<NotRewrapped>,
}

/// A provider with a sealed value that is still under another master key.
#[derive(Serialize, ToSchema)]
pub(crate) struct NotRewrapped {
    provider: String,
    reason: String,
}

/// Rewrap the secrets
///
/// Every sealed credential goes under the active master key, one record after the other, while the gateway serves; the
/// values stay the same. When nothing has failed, the old master key can go. Answers that are kept for `Idempotency-Key`
/// end after 24 hours by themselves.
#[utoipa::path(
    post, path = "/admin/secrets/rewrap", tag = "operation",
    responses((status = 200, body = Rewrapped)),
)]
pub(crate) async fn rewrap_secrets(
    State(admin): State<Arc<Admin>>,
    change: Change,
    query: Query,
) -> Result<Answer, AdminError> {
    query.finish()?;
    let active = admin.parts.master_keys.active().await.map_err(|error| match error {
        SealError::Unavailable(_) => AdminError::Unavailable(error.to_string()),
        _ => AdminError::invalid("", format!("{error}; see DYAD_MASTER_KEYS")),
    })?;
    let snapshot = admin.parts.store.config().await?;
    let unreadable =
        snapshot.left_out.into_iter().map(|out| NotRewrapped { provider: out.name, reason: out.reason });
    let mut done = Rewrapped {
        active_key_id: active.to_string(),
        rewrapped: 0,
        unchanged: 0,
        failed: unreadable.collect(),
    };
    for stored in snapshot.providers {
        let provider = stored.value.provider.slug.to_string();
        match rewrap(&admin, &change, stored).await {
            Ok((rewrapped, unchanged)) => {
                done.rewrapped += rewrapped;
                done.unchanged += unchanged;
            }
            Err(NotDone::Store(error @ StoreError::Unavailable { .. })) => return Err(error.into()),
            Err(NotDone::Store(error)) => {
                done.failed.push(NotRewrapped { provider, reason: error.to_string() });
            }
            Err(NotDone::Seal(error)) => {
                done.failed.push(NotRewrapped { provider, reason: error.to_string() });
            }
        }
    }
    Answer::ok(&done)
}

/// Why a record was not rewrapped.
enum NotDone {
    Store(StoreError),
    Seal(SealError),
}

/// One record. Answers how many of its values were rewrapped, and how many did not need it.
async fn rewrap(
    admin: &Admin,
    change: &Change,
    mut stored: Versioned<StoredProvider>,
) -> Result<(usize, usize), NotDone> {
    let mut tries = 0;
    loop {
        let (mut rewrapped, mut unchanged) = (0, 0);
        let StoredProvider { id, provider, history } = &mut stored.value;
        let current = (history.credential_version, &mut provider.credential);
        let previous = history.previous.as_mut().map(|previous| (previous.version, &mut previous.credential));
        for (version, credential) in std::iter::once(current).chain(previous) {
            let CredentialRef::Sealed(sealed) = credential else { continue };
            let context = SealContext::credential(id, StoredProvider::CREDENTIAL_FIELD, version);
            match sealed.rewrap(&context, &*admin.parts.master_keys, &fill_random).await {
                Ok(Some(again)) => {
                    *sealed = again;
                    rewrapped += 1;
                }
                Ok(None) => unchanged += 1,
                Err(error) => return Err(NotDone::Seal(error)),
            }
        }
        if rewrapped == 0 {
            return Ok((0, unchanged));
        }
        tries += 1;
        let by = change.unanswered(Action::Rewrap);
        match admin.parts.store.put_provider(&stored.value, Some(stored.version), &by).await {
            Ok(_) => return Ok((rewrapped, unchanged)),
            Err(StoreError::Conflict { .. }) if tries < TRIES => {}
            Err(error) => return Err(NotDone::Store(error)),
        }
        // Somebody else has changed it; perhaps it is gone.
        let again = admin.parts.store.provider(&stored.value.provider.slug).await.map_err(NotDone::Store)?;
        let Some(again) = again else { return Ok((0, 0)) };
        stored = again;
    }
}
