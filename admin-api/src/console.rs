//! The console at `/console` and the readable page of the API's document at `/openapi`: files that are compiled in.
//!
//! They are static and hold nothing secret, so they are served without a token. What they show, a browser asks of the
//! API with the token that its user gives.

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest as _, Sha256};

/// Scripts and styles come from the pages' own origin and go nowhere else, and no script makes HTML out of text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

struct Asset {
    name: &'static str,
    text: &'static str,
}

macro_rules! assets {
    ($($name:literal),* $(,)?) => {
        &[$(Asset { name: $name, text: include_str!(concat!("../console/", $name)) }),*]
    };
}

/// Everything below `/console/`.
const ASSETS: &[Asset] = assets![
    "api.js",
    "audit.js",
    "chart.js",
    "dialog.js",
    "diff.js",
    "dom.js",
    "example.js",
    "explain.js",
    "fields.js",
    "form.js",
    "format.js",
    "index.html",
    "keys.js",
    "main.js",
    "openapi.html",
    "openapi.js",
    "pages.js",
    "provider.js",
    "provider_form.js",
    "providers.js",
    "runners.js",
    "schema.js",
    "sign_in.js",
    "style.css",
    "usage.js",
    "usage_rows.js",
];

/// `GET /console`, `/console/*` and `/openapi`. The last shows `/openapi.json`, which is served by others.
pub(crate) fn console_routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/console", get(|headers: HeaderMap| async move { page("index.html", &headers) }))
        .route("/console/", get(|headers: HeaderMap| async move { page("index.html", &headers) }))
        .route("/openapi", get(|headers: HeaderMap| async move { page("openapi.html", &headers) }))
        .route(
            "/console/{*name}",
            get(|Path(name): Path<String>, headers: HeaderMap| async move { page(&name, &headers) }),
        )
}

fn page(name: &str, request: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return with_policy((StatusCode::NOT_FOUND, "There is nothing here.\n").into_response());
    };
    let etag = asset.etag();
    // The files change with the program alone: a browser asks each time, and mostly hears that it has them.
    let mut response = if has(request, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, asset.content_type())], asset.text).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    with_policy(response)
}

fn with_policy(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Whether the browser says that it has this version. Weakly, as a proxy that compresses makes the tag weak (RFC 9110,
/// section 13.1.2).
fn has(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let tags = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes()
    })
}

impl Asset {
    fn etag(&self) -> HeaderValue {
        let hash = Sha256::digest(self.text);
        let tag = hash.iter().take(8).fold(0_u64, |tag, byte| tag << 8 | u64::from(*byte));
        HeaderValue::from_str(&format!("\"{tag:016x}\""))
            .expect("hexadecimal digits in quotes are visible ASCII")
    }

    fn content_type(&self) -> &'static str {
        match self.name.rsplit_once('.') {
            Some((_, "html")) => "text/html; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "js")) => "text/javascript; charset=utf-8",
            _ => "text/plain; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests;
