//! The OpenAPI 3.1 document, made from the handlers.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use utoipa::openapi::{Info, OpenApi};

/// The document, as it is served.
#[derive(Clone)]
pub(crate) struct Document(Bytes);

impl Document {
    pub(crate) fn new(mut document: OpenApi) -> Self {
        document.info = Info::new("Dyad CLI Gateway", env!("CARGO_PKG_VERSION"));
        let json = serde_json::to_vec(&document).expect("it has string keys and finite numbers alone");
        Self(json.into())
    }

    pub(crate) fn answer(&self) -> Response {
        let mut response = self.0.clone().into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
