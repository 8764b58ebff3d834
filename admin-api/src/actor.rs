//! Who asks, and what they may do.

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::error::AdminError;

/// What somebody may do; more comes later in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads everything but secrets, and changes nothing.
    Viewer,
    /// Does everything.
    Admin,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Viewer, Self::Admin].into_iter().find(|role| role.as_str() == text)
    }
}

/// Whoever sent a request, as their token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// As the audit log has it; 1 to 128 characters, no control characters.
    pub name: String,
    /// `None` if the token gives no role that is known here.
    pub role: Option<Role>,
    /// Until when the token is good, in milliseconds since the Unix epoch; `None` where there is no token.
    pub expires_at_ms: Option<u64>,
}

impl Actor {
    /// Somebody who needs no token, such as whoever may read and write the data directory itself.
    pub fn local_admin(name: impl Into<String>) -> Self {
        Self { name: name.into(), role: Some(Role::Admin), expires_at_ms: None }
    }

    pub(crate) fn may(&self, needed: Role) -> Result<(), AdminError> {
        if self.role >= Some(needed) { Ok(()) } else { Err(AdminError::InsufficientRole { needed }) }
    }
}

/// Who sent the request; an extractor.
pub(crate) struct Caller(pub(crate) Actor);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AdminError> {
        let actor = parts.extensions.get::<Actor>().cloned();
        let unknown = || AdminError::Internal("a route was served without authentication".to_owned());
        actor.map(Self).ok_or_else(unknown)
    }
}
