//! Who a token is of.

use serde::Serialize;
use utoipa::ToSchema;

use crate::actor::Caller;
use crate::answer::Answer;
use crate::error::AdminError;
use crate::moment::Moment;
use crate::query::Query;

/// Whose token it is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Whoami {
    /// As the audit log has it.
    #[schema(example = "ada@example.com")]
    actor: String,
    #[schema(pattern = "^(admin|viewer)$", example = "admin")]
    role: &'static str,
    /// When the token ends; null without one.
    #[schema(required)]
    expires_at: Option<Moment>,
}

/// Who I am
///
/// The actor and role of the token that the request has.
#[utoipa::path(get, path = "/admin/whoami", tag = "access", responses((status = 200, body = Whoami)))]
pub(crate) async fn show_whoami(Caller(actor): Caller, query: Query) -> Result<Answer, AdminError> {
    query.finish()?;
    Answer::ok(&Whoami {
        actor: actor.name,
        role: actor.role.map_or("", |role| role.as_str()),
        expires_at: actor.expires_at_ms.map(Moment),
    })
}
