//! One secret for all API keys of a store.

use crate::{ApiKeyHasher, By, KeyStore, StoreError};

/// Why an API key must not be stored.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("the store's API keys are hashed under another secret than this gateway has")]
    OtherKeySecret,
    #[error("the check of the key secret cannot be read or written")]
    Store(#[from] StoreError),
}

/// Says in the store under which secret its API keys are hashed, as the first of those who make some; later, checks that
/// it is this one. Call it before an API key is stored: under another secret, no gateway would accept it.
pub async fn claim_key_secret(
    store: &(impl KeyStore + ?Sized),
    hasher: &ApiKeyHasher,
    by: &By,
) -> Result<(), ClaimError> {
    let check = hasher.check();
    let stored = match store.key_secret().await? {
        Some(stored) => Some(stored),
        None => match store.put_key_secret(check, None, by).await {
            Ok(_) => return Ok(()),
            // Somebody else was quicker.
            Err(StoreError::Conflict { .. }) => store.key_secret().await?,
            Err(error) => return Err(error.into()),
        },
    };
    match stored {
        Some(stored) if stored.value != check => Err(ClaimError::OtherKeySecret),
        _ => Ok(()),
    }
}
