//! The part of a path that names an object.

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;

use crate::error::AdminError;

/// `{id}` of a route, decoded; an extractor. Anything may be in it.
pub(crate) struct Named(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AdminError> {
        let Path(name) =
            Path::from_request_parts(parts, state).await.map_err(|_| AdminError::UnknownRoute)?;
        Ok(Self(name))
    }
}
