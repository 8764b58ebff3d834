//! Keys that tokens are checked with, each for one algorithm.

use catalog::Secret;
use jwt_simple::claims::JWTClaims;
use jwt_simple::common::VerificationOptions;
use jwt_simple::prelude::{
    ECDSAP256PublicKeyLike as _, ES256PublicKey, Ed25519PublicKey, EdDSAPublicKeyLike as _, HS256Key,
    MACLike as _, RS256PublicKey, RSAPublicKeyLike as _,
};
use serde_json::{Map, Value};

use super::{Algorithm, AuthError};

const MIN_SECRET_BYTES: usize = 32;

/// The type is the algorithm: nothing that a token says can make another of it.
pub(super) enum VerifyingKey {
    Hs256(HS256Key),
    Es256(ES256PublicKey),
    EdDsa(Ed25519PublicKey),
    Rs256(RS256PublicKey),
}

pub(super) fn hs256(secret: &Secret) -> Result<HS256Key, AuthError> {
    let text = secret.expose();
    if text.trim_start().starts_with("-----BEGIN") {
        return Err(AuthError::KeyAsSecret);
    }
    if text.len() < MIN_SECRET_BYTES {
        return Err(AuthError::ShortSecret(text.len()));
    }
    Ok(HS256Key::from_bytes(text.as_bytes()))
}

impl VerifyingKey {
    pub(super) fn secret(secret: &Secret) -> Result<Self, AuthError> {
        hs256(secret).map(Self::Hs256)
    }

    /// In PEM, or as a JWK.
    pub(super) fn public(algorithm: Algorithm, text: &str) -> Result<Self, AuthError> {
        let is_jwk = text.trim_start().starts_with('{');
        let key = match algorithm {
            Algorithm::Hs256 => return Err(AuthError::SecretAlgorithm),
            Algorithm::Es256 if is_jwk => ES256PublicKey::from_jwk(text).map(Self::Es256),
            Algorithm::Es256 => ES256PublicKey::from_pem(text).map(Self::Es256),
            Algorithm::EdDsa if is_jwk => Ed25519PublicKey::from_jwk(text).map(Self::EdDsa),
            Algorithm::EdDsa => Ed25519PublicKey::from_pem(text).map(Self::EdDsa),
            Algorithm::Rs256 if is_jwk => RS256PublicKey::from_jwk(text).map(Self::Rs256),
            Algorithm::Rs256 => RS256PublicKey::from_pem(text).map(Self::Rs256),
        };
        key.map_err(|error| AuthError::Key { algorithm: algorithm.as_str(), reason: error.to_string() })
    }

    pub(super) fn verify(
        &self,
        token: &str,
        options: VerificationOptions,
    ) -> Result<JWTClaims<Map<String, Value>>, jwt_simple::Error> {
        match self {
            Self::Hs256(key) => key.verify_token(token, Some(options)),
            Self::Es256(key) => key.verify_token(token, Some(options)),
            Self::EdDsa(key) => key.verify_token(token, Some(options)),
            Self::Rs256(key) => key.verify_token(token, Some(options)),
        }
    }
}
