//! Records to store.

use catalog::testing::stored;
use catalog::{
    ApiKey, ApiKeyLimits, ApiKeyRecord, CredentialRef, PreviousCredential, Provider, SealedSecret,
    StoredProvider,
};
use serde_json::json;

/// The record of the key made from `seed`; its id is as random as a real one's.
pub(crate) fn key(seed: u64) -> ApiKeyRecord {
    let mut random = [0; 32];
    random[..8].copy_from_slice(&seed.to_be_bytes());
    ApiKeyRecord {
        id: ApiKey::from_random(&random).id().clone(),
        hash: [7; 32],
        label: format!("key {seed}"),
        created_at_ms: 1_000,
        expires_at_ms: None,
        revoked_at_ms: None,
        owner: String::new(),
        previous: None,
        allowed_models: None,
        limits: ApiKeyLimits::default(),
    }
}

pub(crate) fn provider(name: &str) -> Provider {
    let raw = json!({ "name": name, "type": "local", "base_url": "http://127.0.0.1:11434/v1" });
    Provider::check(&raw.into()).unwrap()
}

pub(crate) fn cli_provider(name: &str) -> Provider {
    let raw = json!({
        "name": name, "type": "spawn-cli", "cli": "claude", "model_parameter": "", "parameters": { "effort": "high" },
        "models": [{ "id": "m", "upstream_id": "opus" }],
    });
    Provider::check(&raw.into()).unwrap()
}

/// About 300 KB: four of them fill more than a page.
pub(crate) fn fat_provider(name: &str) -> Provider {
    let models: Vec<_> = (0..1_200).map(|index| json!({ "id": format!("{index:0>240}") })).collect();
    let raw = json!({ "name": name, "type": "local", "base_url": "http://localhost", "models": models });
    Provider::check(&raw.into()).unwrap()
}

/// About 250 KB.
pub(crate) fn fat_key(seed: u64) -> ApiKeyRecord {
    ApiKeyRecord { allowed_models: Some(vec!["m".repeat(250); 1_000]), ..key(seed) }
}

/// A sealed value that nobody can open; another one for each `fill`, which is a digit of base64.
pub(crate) fn sealed(fill: char) -> SealedSecret {
    let fill = fill.to_string();
    SealedSecret::parse(&format!("sealed:1:key-1:{}:{}", fill.repeat(96), fill.repeat(64))).unwrap()
}

/// With a sealed credential that took the place of another, which may still be used.
pub(crate) fn rotated_provider(name: &str) -> StoredProvider {
    let credential = CredentialRef::Sealed(sealed('B'));
    let mut rotated = stored(&Provider { credential, ..provider(name) });
    rotated.history.credential_version = 2;
    rotated.history.credential_set_at_ms = Some(9);
    rotated.history.credential_fingerprint = Some("0000000b".to_owned());
    rotated.history.previous = Some(PreviousCredential {
        credential: CredentialRef::Sealed(sealed('A')),
        version: 1,
        until_ms: 10,
        fingerprint: Some("0000000a".to_owned()),
    });
    rotated
}
