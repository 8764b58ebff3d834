//! What every answer has: a request id, headers that keep browsers and caches from doing anything with it, and one line
//! in the log.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Extensions, HeaderMap, HeaderValue};

use crate::actor::Actor;
use crate::change::fill_random;
use crate::error::Logged;
use crate::service::Admin;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The id under which a request is in the log, in the audit log and in its answer.
#[derive(Clone)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// The client's own if it is sane, as the gateway takes it.
    fn of_headers(headers: &HeaderMap) -> Self {
        let sane = |value: &&HeaderValue| {
            (1..=MAX_REQUEST_ID_BYTES).contains(&value.len())
                && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        let given = headers.get(REQUEST_ID).filter(sane).cloned();
        Self(given.unwrap_or_else(|| {
            let mut bytes = [0; 16];
            fill_random(&mut bytes);
            let id = format!("req_{:032x}", u128::from_be_bytes(bytes));
            HeaderValue::from_str(&id).expect("hexadecimal digits are visible ASCII")
        }))
    }

    pub(crate) fn of(extensions: &Extensions) -> String {
        let id = extensions.get::<Self>().and_then(|id| id.0.to_str().ok());
        id.unwrap_or_default().to_owned()
    }
}

/// The outermost layer.
pub(crate) async fn observe(State(admin): State<Arc<Admin>>, mut request: Request, next: Next) -> Response {
    let started_ms = admin.now_ms();
    let id = RequestId::of_headers(request.headers());
    request.extensions_mut().insert(id.clone());
    let method = request.method().clone();
    // Not the path itself: what is in it may be anything, and what is in a query may be a secret in the wrong place.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    let mut response = next.run(request).await;

    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.0.clone());
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        // The console's pages bring their own.
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }

    let actor = response.extensions().get::<Actor>().map_or("", |actor| &actor.name);
    let outcome = response.extensions().get::<Logged>();
    let code = outcome.map_or("", |outcome| outcome.code);
    let cause = outcome.and_then(|outcome| outcome.cause.as_deref());
    let request_id = id.0.to_str().unwrap_or_default();
    let status = response.status().as_u16();
    let duration_ms = admin.now_ms().saturating_sub(started_ms);
    let method = method.as_str();
    if response.status().is_server_error() {
        tracing::error!(
            request_id,
            actor,
            method,
            route,
            status,
            code,
            cause,
            duration_ms,
            "administration failed"
        );
    } else {
        tracing::info!(request_id, actor, method, route, status, code, duration_ms, "administration");
    }
    response
}
