//! The administration's routes as they are served: bounded, and only where it is known whose tokens count.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;

/// Requests at once. Each may hold a body of a megabyte.
const MAX_AT_ONCE: usize = 64;
/// For a whole request. A test of a provider takes up to a minute, and the check of a long audit log more.
const LONGEST: Duration = Duration::from_secs(600);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether a path is the administration's; all others are the gateway's.
pub(crate) fn is_administration(path: &str) -> bool {
    let is_below =
        |root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    is_below("/admin") || is_below("/console") || is_below("/openapi") || path == "/openapi.json"
}

/// Bounds how many requests there are at once, and how long each takes.
pub(crate) fn bounded(routes: Router) -> Router {
    routes.layer(from_fn_with_state(Arc::new(Semaphore::new(MAX_AT_ONCE)), bound))
}

async fn bound(State(permits): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = permits.try_acquire() else {
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "too many requests to the administration are under way; try again in a second",
        );
    };
    let answered = tokio::time::timeout(LONGEST, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        tracing::error!("a request to the administration was given up: it took too long");
        error(
            StatusCode::SERVICE_UNAVAILABLE,
            "timeout",
            "the request took too long; look up whether it was done before you repeat it",
        )
    })
}

/// In the place of the routes where nothing says whose tokens count.
pub(crate) fn not_set_up() -> Router {
    Router::new().fallback(async || {
        error(
            StatusCode::NOT_FOUND,
            "not_set_up",
            "the administration is not served here, as nothing says whose tokens count: set DYAD_ADMIN_JWT_SECRET, DYAD_ADMIN_JWT_PUBLIC_KEY or DYAD_ADMIN_JWKS, or the like in [admin]",
        )
    })
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
    let body = json!({"error": {"message": message, "type": kind, "code": code, "param": null}});
    let mut response = (status, axum::Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status.is_server_error() {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Some(id) =
        crate::random::hex::<16>().ok().and_then(|id| HeaderValue::try_from(format!("req_{id}")).ok())
    {
        headers.insert(REQUEST_ID, id);
    }
    response
}
