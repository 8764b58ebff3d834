//! Cross-origin rules, for clients that run in a browser.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};

use crate::host::{Body, full};
use crate::settings::Cors;

/// Answers a browser's question whether it may send a request. It carries no key, so it comes before authentication.
pub(crate) fn preflight(head: &Parts, cors: &Cors) -> Option<http::Response<Body>> {
    if head.method != Method::OPTIONS
        || *cors == Cors::Off
        || !head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    {
        return None;
    }
    let mut response = http::Response::new(full(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
    // `*` would not cover Authorization; what is asked for is allowed by name, since none of it is dangerous here.
    let asked = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let allowed = asked.cloned().unwrap_or_else(|| HeaderValue::from_static("authorization, content-type"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    Some(response)
}

/// Lets the page that asked read the answer, if its origin may.
pub(crate) fn expose(origin: &HeaderValue, cors: &Cors, answer: &mut HeaderMap) {
    let allowed = match cors {
        Cors::Off => return,
        Cors::Any => HeaderValue::from_static("*"),
        Cors::Origins(origins) => {
            answer.insert(header::VARY, HeaderValue::from_static("origin"));
            if !origins.contains(origin) {
                return;
            }
            origin.clone()
        }
    };
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    answer.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "x-request-id, x-usage-estimated, retry-after, retry-after-ms, x-ratelimit-limit-requests, \
             x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, \
             x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens",
        ),
    );
}
