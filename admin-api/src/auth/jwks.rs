//! A set of public keys (JWKS, RFC 7517) that somebody else looks after: fetched, kept, and fetched again when it is old
//! or does not have the key of a token.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use serde_json::Value;
use tokio::sync::Mutex;

use super::key::VerifyingKey;
use super::{Algorithm, AuthError};
use crate::engine::Engine;

const MAX_BYTES: usize = 256 * 1024;
const MAX_KEYS: usize = 100;
/// A set is asked for again when it is older.
const FRESH_MS: u64 = 10 * 60 * 1_000;
/// Without an answer, an old set serves on for so long.
const MAX_AGE_MS: u64 = 24 * 60 * 60 * 1_000;
/// Between two fetches, whatever tokens come in between.
const MIN_INTERVAL_MS: u64 = 30 * 1_000;
/// The same while there is no set at all.
const MIN_INTERVAL_WITHOUT_MS: u64 = 5 * 1_000;

/// Where a JWKS is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    /// `https`; `http` on this machine alone.
    Url(String),
    File(PathBuf),
}

pub(super) struct KeySet {
    algorithm: Algorithm,
    source: JwksSource,
    known: ArcSwapOption<Fetched>,
    /// When it was last asked for, by the engine's clock.
    tried_ms: AtomicU64,
    /// Whoever has it is fetching. Nobody else needs it: with a set that will do, nobody waits.
    turn: Mutex<()>,
}

pub(super) struct Fetched {
    keys: Vec<(Option<String>, VerifyingKey)>,
    at_ms: u64,
}

/// There is no set that may be used.
#[derive(Debug)]
pub(super) struct NoKeySet;

impl KeySet {
    pub(super) fn new(algorithm: Algorithm, source: JwksSource) -> Result<Self, AuthError> {
        if algorithm == Algorithm::Hs256 {
            return Err(AuthError::SecretAlgorithm);
        }
        if let JwksSource::Url(url) = &source {
            let parsed = url::Url::parse(url).map_err(|_| AuthError::JwksUrl)?;
            let is_here = || match parsed.host() {
                Some(url::Host::Domain(name)) => name == "localhost",
                Some(url::Host::Ipv4(address)) => address.is_loopback(),
                Some(url::Host::Ipv6(address)) => address.is_loopback(),
                None => false,
            };
            if parsed.scheme() != "https" && !(parsed.scheme() == "http" && is_here()) {
                return Err(AuthError::JwksUrl);
            }
        }
        Ok(Self {
            algorithm,
            source,
            known: ArcSwapOption::empty(),
            tried_ms: AtomicU64::new(0),
            turn: Mutex::new(()),
        })
    }

    /// A set for a token with this key id: fetched, if the one that is known has no such key or is old.
    pub(super) async fn current(
        &self,
        key_id: Option<&str>,
        engine: &dyn Engine,
    ) -> Result<Arc<Fetched>, NoKeySet> {
        let now_ms = engine.unix_ms();
        let known = self.usable(now_ms);
        match &known {
            Some(set) if set.find(key_id).is_none() => {
                let _turn = self.turn.lock().await;
                self.refresh(MIN_INTERVAL_MS, engine).await;
            }
            Some(set) if now_ms.abs_diff(set.at_ms) > FRESH_MS => {
                // One request asks for a new set; all others do with the old one.
                if let Ok(_turn) = self.turn.try_lock() {
                    self.refresh(MIN_INTERVAL_MS, engine).await;
                }
            }
            Some(_) => {}
            None => {
                let _turn = self.turn.lock().await;
                self.refresh(MIN_INTERVAL_WITHOUT_MS, engine).await;
            }
        }
        self.usable(engine.unix_ms()).ok_or(NoKeySet)
    }

    fn usable(&self, now_ms: u64) -> Option<Arc<Fetched>> {
        self.known.load_full().filter(|set| now_ms.abs_diff(set.at_ms) < MAX_AGE_MS)
    }

    /// Fetches the set, unless that was tried just now: maybe by whoever had the turn before.
    async fn refresh(&self, min_interval_ms: u64, engine: &dyn Engine) {
        let now_ms = engine.unix_ms();
        if now_ms.abs_diff(self.tried_ms.load(Ordering::Relaxed)) < min_interval_ms {
            return;
        }
        let bytes = match &self.source {
            JwksSource::Url(url) => {
                let fetched = engine.fetch(url, MAX_BYTES).await;
                fetched.map(|bytes| bytes.to_vec()).map_err(|error| error.to_string())
            }
            // Small and local: not worth another thread.
            JwksSource::File(path) => read_file(path).map_err(|error| error.to_string()),
        };
        // Only now: an attempt whose client has left before its end was none, and whoever waited for this one makes no
        // other.
        self.tried_ms.store(engine.unix_ms(), Ordering::Relaxed);
        match bytes.and_then(|bytes| parse(&bytes, self.algorithm)) {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "the keys of administrators' tokens were read");
                self.known.store(Some(Arc::new(Fetched { keys, at_ms: now_ms })));
            }
            Err(reason) => {
                tracing::warn!(source = ?self.source, reason, "the keys of administrators' tokens cannot be read");
            }
        }
    }
}

impl Fetched {
    /// The key of that id. A set of one key may do without ids.
    pub(super) fn find(&self, key_id: Option<&str>) -> Option<&VerifyingKey> {
        if let [(only_id, only)] = self.keys.as_slice()
            && (only_id.is_none() || key_id.is_none())
        {
            return Some(only);
        }
        let key_id = key_id?;
        self.keys.iter().find(|(id, _)| id.as_deref() == Some(key_id)).map(|(_, key)| key)
    }
}

fn read_file(path: &PathBuf) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The keys of the set that are for this algorithm; others are passed over, as are damaged ones.
fn parse(bytes: &[u8], algorithm: Algorithm) -> Result<Vec<(Option<String>, VerifyingKey)>, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    let mut set: Value = serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON: {error}"))?;
    let keys = set.get_mut("keys").and_then(Value::as_array_mut);
    let keys = keys.ok_or("it is no JWKS: it has no list \"keys\"")?;
    if keys.len() > MAX_KEYS {
        return Err(format!("it has more than {MAX_KEYS} keys"));
    }
    let usable = keys.iter_mut().filter_map(|key| {
        // Certificates make a key longer than anybody reads.
        key.as_object_mut()?.remove("x5c");
        let id = key.get("kid").and_then(Value::as_str).map(str::to_owned);
        VerifyingKey::public(algorithm, &key.to_string()).ok().map(|key| (id, key))
    });
    Ok(usable.collect())
}

#[cfg(test)]
mod tests;
