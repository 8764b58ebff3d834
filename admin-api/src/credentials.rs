//! The credentials of providers: sealed before they are stored, opened only to be tried.

use catalog::{
    CredentialRef, PreviousCredential, Provider, SealContext, SealError, SealedSecret, Secret, StoredProvider,
};

use crate::change::fill_random;
use crate::error::AdminError;
use crate::providers::parse::WrittenCredential;
use crate::service::Admin;

/// Where bodies have it.
pub(crate) const POINTER: &str = "/credentials/apiKey";

/// Gives a record the credential that a request wrote; the one before is gone. What it had of another one stays if the
/// request says nothing.
pub(crate) async fn replace(
    admin: &Admin,
    stored: &mut StoredProvider,
    written: &WrittenCredential,
    at_ms: u64,
) -> Result<(), AdminError> {
    let credential = match written {
        WrittenCredential::Unsaid => return Ok(()),
        WrittenCredential::Removed => {
            stored.provider.credential = CredentialRef::None;
            stored.history.credential_set_at_ms = None;
            stored.history.credential_fingerprint = None;
            stored.history.previous = None;
            return Ok(());
        }
        WrittenCredential::Reference(reference) if *reference == stored.provider.credential => {
            // Given again, it may be for another host, where the one before must not go.
            stored.history.previous = None;
            return Ok(());
        }
        WrittenCredential::Reference(reference) => NewCredential::Reference(reference),
        WrittenCredential::Given(secret) => NewCredential::Given(secret),
    };
    set(admin, stored, credential, at_ms, POINTER).await?;
    stored.history.previous = None;
    Ok(())
}

/// Gives a record a new credential and keeps the one before until `until_ms`; not at all if that is now.
pub(crate) async fn rotate(
    admin: &Admin,
    stored: &mut StoredProvider,
    credential: NewCredential<'_>,
    at_ms: u64,
    until_ms: u64,
) -> Result<(), AdminError> {
    let previous = PreviousCredential {
        credential: stored.provider.credential.clone(),
        version: stored.history.credential_version,
        until_ms,
        fingerprint: stored.history.credential_fingerprint.clone(),
    };
    set(admin, stored, credential, at_ms, "/apiKey").await?;
    let is_kept = until_ms > at_ms && previous.credential != CredentialRef::None;
    stored.history.previous = is_kept.then_some(previous);
    Ok(())
}

/// A credential that takes the place of another.
#[derive(Clone, Copy)]
pub(crate) enum NewCredential<'a> {
    Reference(&'a CredentialRef),
    Given(&'a Secret),
}

async fn set(
    admin: &Admin,
    stored: &mut StoredProvider,
    credential: NewCredential<'_>,
    at_ms: u64,
    pointer: &str,
) -> Result<(), AdminError> {
    let version = stored.history.credential_version.saturating_add(1);
    let (credential, fingerprint) = match credential {
        NewCredential::Reference(reference) => (reference.clone(), None),
        NewCredential::Given(secret) => {
            let context = SealContext::credential(&stored.id, StoredProvider::CREDENTIAL_FIELD, version);
            let keys = &*admin.parts.master_keys;
            let sealed = SealedSecret::seal(secret, &context, keys, &fill_random).await;
            let sealed = sealed.map_err(|error| not_sealed(&error, pointer))?;
            (CredentialRef::Sealed(sealed), Some(stored.id.fingerprint(secret)))
        }
    };
    stored.provider.credential = credential;
    stored.history.credential_version = version;
    stored.history.credential_set_at_ms = Some(at_ms);
    stored.history.credential_fingerprint = fingerprint;
    Ok(())
}

fn not_sealed(error: &SealError, pointer: &str) -> AdminError {
    match error {
        SealError::NoKey => AdminError::invalid(
            pointer,
            "cannot be kept: there is no master key here to seal it under (DYAD_MASTER_KEYS); refer to it as \
             env:NAME or file:PATH",
        ),
        SealError::TooLong(_) => AdminError::invalid(pointer, error.to_string()),
        SealError::Unavailable(_) => AdminError::Unavailable(error.to_string()),
        SealError::UnknownKey(_) | SealError::DoesNotOpen | SealError::Malformed => {
            AdminError::Internal(format!("a credential is not sealed: {error}"))
        }
    }
}

/// The provider as it can be tried: with its credential in the open, if that is sealed. `Err` says why it does not open.
pub(crate) async fn opened(admin: &Admin, stored: &StoredProvider) -> Result<Provider, SealError> {
    let mut provider = stored.provider.clone();
    if let CredentialRef::Sealed(sealed) = &provider.credential {
        let version = stored.history.credential_version;
        let context = SealContext::credential(&stored.id, StoredProvider::CREDENTIAL_FIELD, version);
        let secret = sealed.open(&context, &*admin.parts.master_keys).await?;
        provider.credential = CredentialRef::Inline(secret);
    }
    Ok(provider)
}

/// The provider as it can be tried with a credential that is not stored yet.
pub(crate) fn with_credential(provider: &Provider, credential: NewCredential<'_>) -> Provider {
    let credential = match credential {
        NewCredential::Reference(reference) => reference.clone(),
        NewCredential::Given(secret) => CredentialRef::Inline(secret.clone()),
    };
    Provider { credential, ..provider.clone() }
}
