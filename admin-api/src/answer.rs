//! Answers: a JSON value, the version of what it shows, and where that is.

use axum::response::{IntoResponse, Response};
use http::header::{ETAG, LOCATION};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::AdminError;

/// What a handler answers if all went well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    status: u16,
    /// `None` for an answer without a body.
    body: Option<Value>,
    /// For `ETag`: the version of the object.
    version: Option<u64>,
    /// The path of an object that was made.
    location: Option<String>,
}

impl Answer {
    pub(crate) fn new(status: StatusCode, body: &impl Serialize) -> Result<Self, AdminError> {
        let body = serde_json::to_value(body).map_err(|error| AdminError::Internal(error.to_string()))?;
        Ok(Self { status: status.as_u16(), body: Some(body), version: None, location: None })
    }

    pub(crate) fn ok(body: &impl Serialize) -> Result<Self, AdminError> {
        Self::new(StatusCode::OK, body)
    }

    pub(crate) fn no_content() -> Self {
        Self { status: StatusCode::NO_CONTENT.as_u16(), body: None, version: None, location: None }
    }

    #[must_use]
    pub(crate) fn with_version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    #[must_use]
    pub(crate) fn with_location(mut self, path: String) -> Self {
        self.location = Some(path);
        self
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        // Kept answers come from the store.
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = match self.body {
            Some(body) => (status, axum::Json(body)).into_response(),
            None => status.into_response(),
        };
        let headers = response.headers_mut();
        if let Some(version) = self.version {
            let tag = HeaderValue::from_str(&format!("\"{version}\"")).expect("digits are visible ASCII");
            headers.insert(ETAG, tag);
        }
        if let Some(location) = self.location.and_then(|path| HeaderValue::from_str(&path).ok()) {
            headers.insert(LOCATION, location);
        }
        response
    }
}
