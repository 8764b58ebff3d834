//! What every change needs: who makes it and why ([`Change`]), on which version ([`IfMatch`]), and the answer that is kept
//! for whoever sends the same request again (`Idempotency-Key`).

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use catalog::{
    Action, By, KeptAnswer, MAX_SEALED_BYTES, SealContext, SealError, SealedSecret, Secret, StoreError,
};
use http::header::IF_MATCH;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use sha2::{Digest as _, Sha256};

use crate::actor::{Caller, Role};
use crate::answer::Answer;
use crate::body;
use crate::error::AdminError;
use crate::observe::RequestId;
use crate::service::Admin;

const KEY_HEADER: &str = "idempotency-key";
const REPLAYED_HEADER: &str = "idempotency-replayed";
const KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// A change that an administrator asks for; an extractor of every handler that writes. Only here does a handler get the
/// [`By`] that stores want.
#[derive(Clone)]
pub(crate) struct Change {
    admin: Arc<Admin>,
    actor: String,
    request_id: String,
    pub(crate) at_ms: u64,
    keeping: Option<Keeping>,
}

/// Under which id the answer of a request is kept, and of which request it is.
#[derive(Clone, Copy)]
struct Keeping {
    id: [u8; 32],
    request: [u8; 32],
}

impl FromRequestParts<Arc<Admin>> for Change {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, AdminError> {
        let Caller(actor) = Caller::from_request_parts(parts, admin).await?;
        // The route's role says so already; a route that said otherwise must not write all the same.
        actor.may(Role::Admin)?;
        Ok(Self {
            admin: admin.clone(),
            actor: actor.name,
            request_id: RequestId::of(&parts.extensions),
            at_ms: admin.now_ms(),
            keeping: parts.extensions.get().copied(),
        })
    }
}

impl Change {
    /// For the write of which `answer` tells: it is kept with it, sealed, where the request has an idempotency key.
    pub(crate) async fn by(&self, action: Action, answer: &Answer) -> Result<By, AdminError> {
        let mut by = self.unanswered(action);
        if let Some(keeping) = self.keeping {
            by.answer = Some(self.kept(keeping, answer).await?);
        }
        Ok(by)
    }

    /// For one of several writes of a request, whose answer is not kept.
    pub(crate) fn unanswered(&self, action: Action) -> By {
        let (actor, request_id) = (self.actor.clone(), self.request_id.clone());
        By { actor, request_id, at_ms: self.at_ms, action, answer: None }
    }

    async fn kept(&self, keeping: Keeping, answer: &Answer) -> Result<KeptAnswer, AdminError> {
        let text = serde_json::to_string(answer).map_err(|error| AdminError::Internal(error.to_string()))?;
        let context = SealContext::answer(&keeping.id);
        let keys = &*self.admin.parts.master_keys;
        let sealed = SealedSecret::seal(&Secret::new(text), &context, keys, &fill_random).await;
        Ok(KeptAnswer {
            id: keeping.id,
            request: keeping.request,
            status: answer.status(),
            body: sealed.map_err(|error| cannot_keep(&error))?,
            until_ms: self.at_ms.saturating_add(KEPT_MS),
        })
    }
}

fn cannot_keep(error: &SealError) -> AdminError {
    match error {
        SealError::Unavailable(_) => AdminError::Unavailable(error.to_string()),
        SealError::NoKey => AdminError::invalid(
            pointer(),
            "cannot be used: there is no master key here under which the answer could be sealed; send the request without it",
        ),
        SealError::TooLong(_) => AdminError::invalid(
            pointer(),
            format!(
                "cannot be used: the answer has more than {MAX_SEALED_BYTES} bytes; send the request without it"
            ),
        ),
        SealError::UnknownKey(_) | SealError::DoesNotOpen | SealError::Malformed => {
            AdminError::Internal(format!("a kept answer: {error}"))
        }
    }
}

fn pointer() -> String {
    format!("/{KEY_HEADER}")
}

/// Cryptographic randomness.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system has randomness once it has booted");
}

/// A layer around every route that changes something: a `POST` with an idempotency key that was answered before gets the
/// same answer again, and changes nothing.
pub(crate) async fn replay_answers(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Result<Response, AdminError> {
    if request.method() != Method::POST {
        return Ok(next.run(request).await);
    }
    let Some(key) = idempotency_key(request.headers())? else { return Ok(next.run(request).await) };
    let (mut parts, body) = request.into_parts();
    let body = body::read(body).await?;
    let Caller(actor) = Caller::from_request_parts(&mut parts, &()).await?;
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    let if_match = parts.headers.get(IF_MATCH).map_or(&b""[..], HeaderValue::as_bytes).to_owned();
    let keeping = Keeping {
        id: hash(&[b"answer 1", actor.name.as_bytes(), path.as_bytes(), key.as_bytes()]),
        request: hash(&[b"request 1", query.as_bytes(), &if_match, &body]),
    };
    if let Some(answer) = replayed(&admin, keeping).await? {
        return Ok(answer);
    }
    parts.extensions.insert(keeping);
    let response = next.run(Request::from_parts(parts, body.into())).await;
    // Sent twice at once, one of the two meets what the other has written.
    if [StatusCode::CONFLICT, StatusCode::PRECONDITION_FAILED].contains(&response.status())
        && let Some(answer) = replayed(&admin, keeping).await?
    {
        return Ok(answer);
    }
    Ok(response)
}

async fn replayed(admin: &Admin, keeping: Keeping) -> Result<Option<Response>, AdminError> {
    let Some(kept) = admin.parts.store.kept_answer(keeping.id, admin.now_ms()).await? else {
        return Ok(None);
    };
    if kept.request != keeping.request {
        return Err(AdminError::IdempotencyMismatch);
    }
    let context = SealContext::answer(&keeping.id);
    let opened = kept.body.open(&context, &*admin.parts.master_keys).await;
    let text = opened.map_err(|error| cannot_keep(&error))?;
    let answer: Answer = serde_json::from_str(text.expose())
        .map_err(|_| AdminError::Internal("a kept answer was written by another version".to_owned()))?;
    let mut response = answer.into_response();
    response.headers_mut().insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    Ok(Some(response))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, AdminError> {
    let mut all = headers.get_all(KEY_HEADER).iter();
    let Some(key) = all.next() else { return Ok(None) };
    let is_sane = (1..=255).contains(&key.len()) && key.as_bytes().iter().all(u8::is_ascii_graphic);
    match key.to_str() {
        Ok(key) if is_sane && all.next().is_none() => Ok(Some(key.to_owned())),
        _ => Err(AdminError::invalid(pointer(), "must be 1 to 255 visible ASCII characters, given once")),
    }
}

/// SHA-256 of parts, each with its length before it, so that none can pass for another.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Which version a change is meant for, as `If-Match` says; an extractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// Whatever is there now: the header is absent, or `*`.
    Any,
    Version(u64),
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AdminError> {
        let mut all = parts.headers.get_all(IF_MATCH).iter();
        let Some(given) = all.next() else { return Ok(Self::Any) };
        let given = given.to_str().unwrap_or_default().trim();
        let version = given.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match (given, version.and_then(|version| version.parse().ok()), all.next()) {
            ("*", _, None) => Ok(Self::Any),
            (_, Some(version), None) => Ok(Self::Version(version)),
            _ => {
                Err(AdminError::invalid("/if-match", "must be one ETag that a GET gave, such as \"3\", or *"))
            }
        }
    }
}

/// How often a change that is meant for no version is tried while others change the same.
const TRIES: u32 = 5;

/// A change that reads a record, checks its version and writes it, as often as it must: where somebody else was quicker,
/// the next attempt sees what they have made of it.
///
/// ```text
/// let mut race = Race::new(if_match);
/// loop {
///     let stored = read it;
///     race.check(stored.version)?;
///     match write it at stored.version { Ok(_) => return …, Err(error) => race.lost(error)? }
/// }
/// ```
pub(crate) struct Race {
    if_match: IfMatch,
    tries: u32,
}

impl Race {
    pub(crate) fn new(if_match: IfMatch) -> Self {
        Self { if_match, tries: 0 }
    }

    /// An error if the change is meant for another version.
    pub(crate) fn check(&self, current: u64) -> Result<(), AdminError> {
        match self.if_match {
            IfMatch::Version(wanted) if wanted != current => {
                Err(AdminError::VersionMismatch { current: Some(current) })
            }
            _ => Ok(()),
        }
    }

    /// `Ok` if the change is worth another attempt.
    pub(crate) fn lost(&mut self, error: StoreError) -> Result<(), AdminError> {
        self.tries += 1;
        match (self.if_match, error) {
            (IfMatch::Version(_), StoreError::Conflict { .. }) => {
                Err(AdminError::VersionMismatch { current: None })
            }
            (IfMatch::Any, StoreError::Conflict { .. }) if self.tries < TRIES => Ok(()),
            (_, error) => Err(error.into()),
        }
    }
}
