//! `/admin/keys`: API keys, whose secret is shown once and stored nowhere.

mod input;
mod view;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use catalog::{
    Action, ApiKey, ApiKeyId, ApiKeyRecord, ClaimError, PreviousHash, Versioned, claim_key_secret,
};
use http::StatusCode;
use serde_json::Value;

use crate::answer::Answer;
use crate::body::{Body, OptionalBody};
use crate::change::{Change, IfMatch, Race, fill_random};
use crate::error::AdminError;
use crate::members::merge;
use crate::path::Named;
use crate::query::{List, Query};
use crate::service::Admin;
pub(crate) use input::{KeyPatch, NewKey, Rotation};
pub(crate) use view::{Key, KeyState, KeyWithSecret};

/// Longest time that a secret is accepted after it was rotated out.
const MAX_GRACE_SECONDS: u64 = 7 * 24 * 60 * 60;
const DEFAULT_GRACE_SECONDS: u64 = 60 * 60;

/// Create an API key
///
/// The answer has the key itself, this once: only a hash of it is stored.
#[utoipa::path(
    post, path = "/admin/keys", tag = "keys",
    request_body = NewKey,
    responses((status = 201, body = KeyWithSecret)),
)]
pub(crate) async fn create_key(
    State(admin): State<Arc<Admin>>,
    change: Change,
    query: Query,
    Body(body): Body,
) -> Result<Answer, AdminError> {
    query.finish()?;
    let key = ApiKey::from_random(&random());
    let record = ApiKeyRecord {
        id: key.id().clone(),
        hash: admin.parts.hasher.hash(&key),
        created_at_ms: change.at_ms,
        revoked_at_ms: None,
        previous: None,
        ..input::read(&body, change.at_ms)?
    };
    claim(&admin, &change).await?;
    let answer = with_secret(StatusCode::CREATED, &key, &record, None, 1, change.at_ms)?
        .with_location(format!("/admin/keys/{}", record.id));
    let by = change.by(Action::Create, &answer).await?;
    admin.parts.store.put_key(&record, None, &by).await?;
    Ok(answer)
}

/// List the API keys
///
/// Revoked and expired ones too, by id.
#[utoipa::path(
    get, path = "/admin/keys", tag = "keys",
    params(
        ("state" = Option<KeyState>, Query, description = "Of this state alone"),
        ("owner" = Option<String>, Query, description = "Of this owner alone"),
        crate::openapi::PageParams,
    ),
    responses((status = 200, body = List<Key>)),
)]
pub(crate) async fn list_keys(
    State(admin): State<Arc<Admin>>,
    mut query: Query,
) -> Result<Answer, AdminError> {
    let state = query.read("state", "active, expired or revoked", KeyState::parse);
    let owner = query.text("owner").map(str::to_owned);
    let page = query.page();
    query.finish()?;
    if page.cursor.as_deref().is_some_and(|cursor| ApiKeyId::parse(cursor).is_err()) {
        return Err(AdminError::InvalidCursor);
    }
    let now_ms = admin.now_ms();
    let listed = admin.parts.store.keys().await?;
    for left_out in &listed.left_out {
        tracing::warn!(name = left_out.name, reason = left_out.reason, "an API key cannot be read");
    }
    let last_used: HashMap<ApiKeyId, u64> = admin.parts.store.last_used().await?.into_iter().collect();
    let all = listed.keys.into_iter().map(|stored| {
        let last_used = last_used.get(&stored.value.id).copied();
        Key::new(&stored.value, stored.version, last_used, now_ms)
    });
    let wanted = all.filter(|key| {
        state.is_none_or(|state| key.state == state) && owner.as_ref().is_none_or(|owner| key.owner == *owner)
    });
    Answer::ok(&List::page_of(wanted.collect(), &page, |key| key.id.clone()))
}

/// Show an API key
#[utoipa::path(
    get, path = "/admin/keys/{id}", tag = "keys",
    params(crate::openapi::KeyIdParam),
    responses((status = 200, body = Key)),
)]
pub(crate) async fn show_key(
    State(admin): State<Arc<Admin>>,
    Named(id): Named,
    query: Query,
) -> Result<Answer, AdminError> {
    query.finish()?;
    let stored = find(&admin, &id).await?;
    shown(&admin, &stored.value, stored.version, admin.now_ms()).await
}

/// Change an API key
///
/// A merge patch (RFC 7396): members that are not given stay as they are, and null takes a limit, an expiry or the list of
/// models away.
#[utoipa::path(
    patch, path = "/admin/keys/{id}", tag = "keys",
    params(crate::openapi::KeyIdParam, crate::openapi::IfMatchParam),
    request_body(content((KeyPatch = "application/json"), (KeyPatch = "application/merge-patch+json"))),
    responses((status = 200, body = Key)),
)]
pub(crate) async fn change_key(
    State(admin): State<Arc<Admin>>,
    Named(id): Named,
    change: Change,
    if_match: IfMatch,
    query: Query,
    Body(patch): Body,
) -> Result<Answer, AdminError> {
    query.finish()?;
    if !patch.is_object() {
        return Err(AdminError::invalid("", "must be an object"));
    }
    let mut race = Race::new(if_match);
    loop {
        let Versioned { value: before, version } = find(&admin, &id).await?;
        race.check(version)?;
        let after = changed(before, &patch, change.at_ms)?;
        let answer = shown(&admin, &after, version + 1, change.at_ms).await?;
        let by = change.by(Action::Update, &answer).await?;
        match admin.parts.store.put_key(&after, Some(version), &by).await {
            Ok(_) => return Ok(answer),
            Err(error) => race.lost(error)?,
        }
    }
}

fn changed(before: ApiKeyRecord, patch: &Value, now_ms: u64) -> Result<ApiKeyRecord, AdminError> {
    let written = input::written(&before);
    let mut merged = written.clone();
    merge(&mut merged, patch);
    // An expiry that is over may stay, but not be set.
    let expiry_stays = merged["expiresAt"] == written["expiresAt"];
    let read = input::read(&merged, if expiry_stays { before.created_at_ms } else { now_ms })?;
    Ok(ApiKeyRecord {
        label: read.label,
        owner: read.owner,
        expires_at_ms: if expiry_stays { before.expires_at_ms } else { read.expires_at_ms },
        allowed_models: read.allowed_models,
        limits: read.limits,
        ..before
    })
}

/// Revoke an API key
///
/// Every instance refuses it within ten seconds (`config_max_age`), and it cannot be used again. To revoke
/// one that is revoked changes nothing.
#[utoipa::path(
    delete, path = "/admin/keys/{id}", tag = "keys",
    params(crate::openapi::KeyIdParam, crate::openapi::IfMatchParam),
    responses((status = 200, body = Key)),
)]
pub(crate) async fn revoke_key(
    State(admin): State<Arc<Admin>>,
    Named(id): Named,
    change: Change,
    if_match: IfMatch,
    query: Query,
) -> Result<Answer, AdminError> {
    query.finish()?;
    let mut race = Race::new(if_match);
    loop {
        let Versioned { value: before, version } = find(&admin, &id).await?;
        race.check(version)?;
        if before.revoked_at_ms.is_some() {
            return shown(&admin, &before, version, change.at_ms).await;
        }
        let after = ApiKeyRecord { revoked_at_ms: Some(change.at_ms), previous: None, ..before };
        let answer = shown(&admin, &after, version + 1, change.at_ms).await?;
        let by = change.by(Action::Revoke, &answer).await?;
        match admin.parts.store.put_key(&after, Some(version), &by).await {
            Ok(_) => return Ok(answer),
            Err(error) => race.lost(error)?,
        }
    }
}

/// Rotate an API key
///
/// The same key, with a new secret that the answer has, this once. The old one is accepted for a while longer; of a key
/// that is rotated again within that time, the one before the last is refused at once.
#[utoipa::path(
    post, path = "/admin/keys/{id}/rotate", tag = "keys",
    params(crate::openapi::KeyIdParam, crate::openapi::IfMatchParam),
    request_body = Option<Rotation>,
    responses((status = 200, body = KeyWithSecret)),
)]
pub(crate) async fn rotate_key(
    State(admin): State<Arc<Admin>>,
    Named(id): Named,
    change: Change,
    if_match: IfMatch,
    query: Query,
    OptionalBody(body): OptionalBody,
) -> Result<Answer, AdminError> {
    query.finish()?;
    let grace_ms = input::read_grace_seconds(&body)? * 1_000;
    claim(&admin, &change).await?;
    let mut race = Race::new(if_match);
    loop {
        let Versioned { value: before, version } = find(&admin, &id).await?;
        race.check(version)?;
        if KeyState::of(&before, change.at_ms) != KeyState::Active {
            return Err(AdminError::invalid(
                "",
                "a key that is revoked or expired is not rotated: create another, or change its expiresAt first",
            ));
        }
        let key = ApiKey::with_id(before.id.clone(), &random());
        let until_ms = change.at_ms.saturating_add(grace_ms);
        let previous = (grace_ms > 0).then_some(PreviousHash { hash: before.hash, until_ms });
        let after = ApiKeyRecord { hash: admin.parts.hasher.hash(&key), previous, ..before };
        let last_used = last_used(&admin, &after.id).await;
        let answer = with_secret(StatusCode::OK, &key, &after, last_used, version + 1, change.at_ms)?;
        let by = change.by(Action::Rotate, &answer).await?;
        match admin.parts.store.put_key(&after, Some(version), &by).await {
            Ok(_) => return Ok(answer),
            Err(error) => race.lost(error)?,
        }
    }
}

async fn find(admin: &Admin, id: &str) -> Result<Versioned<ApiKeyRecord>, AdminError> {
    let unknown = || AdminError::NotFound("such API key".to_owned());
    let id = ApiKeyId::parse(id).map_err(|_| unknown())?;
    admin.parts.store.find_key(&id).await?.ok_or_else(unknown)
}

/// `None` where it cannot be read, too: a key can be revoked all the same.
async fn last_used(admin: &Admin, id: &ApiKeyId) -> Option<u64> {
    match admin.parts.store.last_used().await {
        Ok(all) => all.into_iter().find(|(used, _)| used == id).map(|(_, at_ms)| at_ms),
        Err(error) => {
            tracing::warn!(%error, "when API keys were last used cannot be read");
            None
        }
    }
}

async fn shown(
    admin: &Admin,
    record: &ApiKeyRecord,
    version: u64,
    now_ms: u64,
) -> Result<Answer, AdminError> {
    let last_used = last_used(admin, &record.id).await;
    Ok(Answer::ok(&Key::new(record, version, last_used, now_ms))?.with_version(version))
}

fn with_secret(
    status: StatusCode,
    key: &ApiKey,
    record: &ApiKeyRecord,
    last_used: Option<u64>,
    version: u64,
    now_ms: u64,
) -> Result<Answer, AdminError> {
    let shown =
        KeyWithSecret { record: Key::new(record, version, last_used, now_ms), key: key.expose().to_owned() };
    Ok(Answer::new(status, &shown)?.with_version(version))
}

async fn claim(admin: &Admin, change: &Change) -> Result<(), AdminError> {
    let by = change.unanswered(Action::Create);
    claim_key_secret(&*admin.parts.store, &admin.parts.hasher, &by).await.map_err(|error| match error {
        ClaimError::OtherKeySecret => AdminError::Unavailable(format!(
            "{error}: a key made here would be accepted nowhere; start it with the secret that the others have"
        )),
        ClaimError::Store(error) => error.into(),
    })
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    fill_random(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
