//! Bearer token → API key record.

use std::sync::Arc;

use catalog::{ApiKey, ApiKeyHasher, ApiKeyRecord};
use http::{HeaderMap, header};

use crate::config::{CachedKey, Config};
use crate::error::ApiError;

/// The key that a request presents. Form and checksum are right: a mistyped key costs no look-up.
pub(crate) fn presented_key(headers: &HeaderMap) -> Result<ApiKey, ApiError> {
    ApiKey::parse(bearer(headers)?).map_err(|error| ApiError::invalid_key(error.to_string()))
}

/// `fleet_ms`: the time by the store's clock. Whether a key is good does not depend on how right an instance's own is.
pub(crate) async fn authenticate(
    key: &ApiKey,
    config: &Config,
    hasher: &ApiKeyHasher,
    fleet_ms: u64,
) -> Result<Arc<CachedKey>, ApiError> {
    let known = config.key(key.id()).await.map_err(|error| {
        tracing::warn!(%error, key_id = %key.id(), "an API key could not be looked up");
        ApiError::store_unavailable(error.code())
    })?;
    // An unknown id and a wrong secret are told apart by nobody.
    let refused = || ApiError::invalid_key("This API key is not valid.");
    let known = known.ok_or_else(refused)?;
    let previous = known.record.previous.filter(|previous| fleet_ms < previous.until_ms);
    // Both are looked at, whichever fits.
    let is_previous = previous.is_some_and(|previous| hasher.verify(key, &previous.hash));
    if !(hasher.verify(key, &known.record.hash) | is_previous) {
        return Err(refused());
    }
    check_validity(&known.record, fleet_ms)?;
    Ok(known)
}

/// Whether the key is good at this time by the store's clock.
pub(crate) fn check_validity(key: &ApiKeyRecord, fleet_ms: u64) -> Result<(), ApiError> {
    // Whenever that was, by whoever's clock.
    if key.revoked_at_ms.is_some() {
        return Err(ApiError::invalid_key("This API key was revoked."));
    }
    if key.expires_at_ms.is_some_and(|at| at <= fleet_ms) {
        return Err(ApiError::invalid_key("This API key has expired."));
    }
    Ok(())
}

/// The scheme's case and the number of spaces vary between clients.
fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(ApiError::missing_key)?;
    if values.next().is_some() {
        return Err(ApiError::invalid_key("There is more than one Authorization header."));
    }
    let unreadable = || ApiError::invalid_key("The Authorization header is not 'Bearer <API key>'.");
    let text = value.to_str().map_err(|_| unreadable())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(unreadable)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(unreadable());
    }
    Ok(token)
}
