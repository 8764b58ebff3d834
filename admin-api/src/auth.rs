//! Tokens of administrators: JWT (RFC 7519), signed in a way that the configuration pins and no token chooses.

mod jwks;
mod key;

use std::collections::HashSet;
use std::time::Duration;

use catalog::{By, Secret};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jwt_simple::JWTError;
use jwt_simple::claims::{Audiences, Claims, JWTClaims};
use jwt_simple::common::VerificationOptions;
use jwt_simple::prelude::{MACLike as _, Token, UnixTimeStamp};
use serde_json::{Map, Value};

use crate::actor::{Actor, Role};
use crate::engine::Engine;
use crate::error::AdminError;
use jwks::{KeySet, NoKeySet};
use key::VerifyingKey;

pub use jwks::JwksSource;

/// Longest token; longer ones are refused before anything of them is read.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256: who can check a token can make one.
    Hs256,
    /// ECDSA on P-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSA with PKCS #1 v1.5, of 2,048 to 4,096 bits.
    Rs256,
}

impl Algorithm {
    pub const ALL: [Self; 4] = [Self::Hs256, Self::Es256, Self::EdDsa, Self::Rs256];

    /// As `alg` of RFC 7518 calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text)
    }
}

/// What a token must say, besides being signed and not over (`exp` is required).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// Its `iss`, if it matters.
    pub issuer: Option<String>,
    /// In its `aud`, if it matters.
    pub audience: Option<String>,
    /// How far the clocks of issuer and gateway may be apart.
    pub leeway: Duration,
    /// The claim that has the role, `admin` or `viewer`: a string or a list of them. One inside an object is named with
    /// dots, such as `realm_access.roles`.
    pub role_claim: String,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(60),
            role_claim: DEFAULT_ROLE_CLAIM.to_owned(),
        }
    }
}

const DEFAULT_ROLE_CLAIM: &str = "role";

/// A key or its source cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("a secret for HS256 must have at least 32 bytes (RFC 7518, section 3.2); this one has {0}")]
    ShortSecret(usize),
    #[error(
        "this is a key file, not a secret: choose the algorithm that the key is for, and give it as a public key"
    )]
    KeyAsSecret,
    #[error("the URL of a JWKS must be https, or http on this machine")]
    JwksUrl,
    #[error("HS256 has a secret and no public key")]
    SecretAlgorithm,
    #[error("it is no public key for {algorithm}: {reason}")]
    Key { algorithm: &'static str, reason: String },
}

/// Tells from a request's token who sent it.
pub struct Authenticator {
    keys: Keys,
    rules: TokenRules,
}

enum Keys {
    One(Box<VerifyingKey>),
    Set(KeySet),
}

impl Authenticator {
    /// Tokens that [`mint`] made, or somebody else who has the secret.
    pub fn hs256(secret: &Secret, rules: TokenRules) -> Result<Self, AuthError> {
        Ok(Self { keys: Keys::One(Box::new(VerifyingKey::secret(secret)?)), rules })
    }

    /// `key` is a public key in PEM (SPKI) or as a JWK.
    pub fn public_key(algorithm: Algorithm, key: &str, rules: TokenRules) -> Result<Self, AuthError> {
        Ok(Self { keys: Keys::One(Box::new(VerifyingKey::public(algorithm, key)?)), rules })
    }

    /// Keys that somebody else publishes. They are read at the first token, and again every ten minutes or when a token
    /// names one that is not among them.
    pub fn jwks(algorithm: Algorithm, source: JwksSource, rules: TokenRules) -> Result<Self, AuthError> {
        Ok(Self { keys: Keys::Set(KeySet::new(algorithm, source)?), rules })
    }

    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        engine: &dyn Engine,
    ) -> Result<Actor, AdminError> {
        let token = bearer(headers)?;
        let options = self.options(engine.unix_ms());
        let claims = match &self.keys {
            Keys::One(key) => key.verify(token, options),
            Keys::Set(set) => {
                let header = Token::decode_metadata(token).map_err(|error| refused(&error))?;
                let set = set.current(header.key_id(), engine).await.map_err(|NoKeySet| {
                    AdminError::Unavailable(
                        "the keys that tokens are checked with cannot be had; try again".to_owned(),
                    )
                })?;
                let key = set.find(header.key_id()).ok_or_else(|| {
                    AdminError::InvalidToken("it is signed with a key that is not known here".to_owned())
                })?;
                key.verify(token, options)
            }
        };
        self.actor(claims.map_err(|error| refused(&error))?)
    }

    fn options(&self, now_ms: u64) -> VerificationOptions {
        let one = |text: &String| HashSet::from([text.clone()]);
        VerificationOptions {
            allowed_issuers: self.rules.issuer.as_ref().map(one),
            allowed_audiences: self.rules.audience.as_ref().map(one),
            time_tolerance: Some(self.rules.leeway.into()),
            max_token_length: Some(MAX_TOKEN_BYTES),
            artificial_time: Some(UnixTimeStamp::from_millis(now_ms)),
            ..VerificationOptions::default()
        }
    }

    fn actor(&self, claims: JWTClaims<Map<String, Value>>) -> Result<Actor, AdminError> {
        let invalid = |why: &str| AdminError::InvalidToken(why.to_owned());
        let expires_at = claims.expires_at.ok_or_else(|| invalid("it has no exp, so it would never end"))?;
        let name = claims.subject.ok_or_else(|| invalid("it has no sub, which says whose it is"))?;
        let is_name = (1..=By::MAX_ACTOR_CHARS).contains(&name.chars().count())
            && !name.chars().any(char::is_control)
            && name.trim() == name
            // Who acts by themselves must not be taken for somebody's token, nor the other way round.
            && !["program:", "cli:"].iter().any(|own| name.starts_with(own));
        if !is_name {
            return Err(invalid(
                "its sub must have 1 to 128 characters, no control characters, no white space at its ends, \
                 and must not begin with program: or cli:",
            ));
        }
        let role = claim(&claims.custom, &self.rules.role_claim).and_then(highest_role);
        Ok(Actor { name, role, expires_at_ms: Some(expires_at.as_millis()) })
    }
}

/// The claim of that name, or the one that it leads to.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let (object, rest) = name.split_once('.')?;
        claim(claims.get(object)?.as_object()?, rest)
    })
}

fn highest_role(claim: &Value) -> Option<Role> {
    match claim {
        Value::String(role) => Role::parse(role),
        Value::Array(roles) => roles.iter().filter_map(Value::as_str).filter_map(Role::parse).max(),
        _ => None,
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750, section 2.1), given once.
fn bearer(headers: &HeaderMap) -> Result<&str, AdminError> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let given = all.next().ok_or(AdminError::MissingToken)?;
    if all.next().is_some() {
        return Err(AdminError::InvalidToken("there are several Authorization headers".to_owned()));
    }
    let (scheme, token) = given.to_str().ok().and_then(|text| text.split_once(' ')).unwrap_or_default();
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(AdminError::MissingToken);
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(AdminError::InvalidToken("it is too long".to_owned()));
    }
    Ok(token)
}

/// Why, as far as it helps whoever has the token and nobody who guesses.
fn refused(error: &jwt_simple::Error) -> AdminError {
    let why = match error.downcast_ref::<JWTError>() {
        Some(JWTError::TokenHasExpired) => "it has expired",
        Some(JWTError::TokenNotValidYet | JWTError::ClockDrift) => "it is not valid yet",
        Some(JWTError::RequiredIssuerMismatch | JWTError::RequiredIssuerMissing) => {
            "it is of another issuer than the one that is configured here"
        }
        Some(JWTError::RequiredAudienceMismatch | JWTError::RequiredAudienceMissing) => {
            "it is for another audience than the one that is configured here"
        }
        Some(JWTError::AlgorithmMismatch) => {
            "it is signed with another algorithm than the one that is configured here"
        }
        _ => "it is no JWT that is signed with a key that is known here",
    };
    AdminError::InvalidToken(why.to_owned())
}

/// Makes a token for [`Authenticator::hs256`] with the same secret and the default rules.
pub fn mint(
    secret: &Secret,
    actor: &str,
    role: Role,
    now_ms: u64,
    valid_for: Duration,
) -> Result<Secret, AuthError> {
    TokenRules::default().mint(secret, actor, role, now_ms, valid_for)
}

impl TokenRules {
    /// Makes a token for [`Authenticator::hs256`] with the same secret and these rules.
    pub fn mint(
        &self,
        secret: &Secret,
        actor: &str,
        role: Role,
        now_ms: u64,
        valid_for: Duration,
    ) -> Result<Secret, AuthError> {
        let key = key::hs256(secret)?;
        let now = UnixTimeStamp::from_millis(now_ms);
        let custom = Map::from_iter([(self.role_claim.clone(), Value::from(role.as_str()))]);
        let mut claims = Claims::with_custom_claims(custom, valid_for.into()).with_subject(actor);
        claims.issued_at = Some(now);
        claims.invalid_before = Some(now);
        claims.expires_at = Some(now + valid_for.into());
        claims.issuer.clone_from(&self.issuer);
        claims.audiences = self.audience.as_ref().map(|audience| Audiences::AsString(audience.clone()));
        let token = key.authenticate(claims).expect("claims are JSON, and HMAC takes every message");
        Ok(Secret::new(token))
    }
}

#[cfg(test)]
mod tests;
