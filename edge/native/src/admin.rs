//! The administration beside the gateway, and alone: `admin-api` with what only this host can do.

mod config;
mod engine;
mod routes;

use axum::Router;
use gateway::Gateway;

use crate::embedded::{EmbeddedGateway, OpenError};

pub(crate) use config::{Access, AdminSection, check, settle};
pub(crate) use engine::NativeEngine;
pub(crate) use routes::{bounded, is_administration};

/// Who is served by the administration's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServedTo {
    /// There are no routes.
    Nobody,
    /// The routes say what has to be set first.
    NobodyYet,
    /// Whoever has a token of `dyad-gateway admin token`.
    OwnTokens,
    /// Whoever has a token of the kind that is configured.
    ConfiguredTokens,
}

/// The routes of the administration, and for whom they are.
pub(crate) fn routes(
    opened: &EmbeddedGateway,
    access: Access,
) -> Result<(Option<Router>, ServedTo), OpenError> {
    Ok(match access {
        Access::Off => (None, ServedTo::Nobody),
        Access::Tokens(authenticator) => {
            (Some(opened.admin_router(*authenticator)), ServedTo::ConfiguredTokens)
        }
        Access::Own => match opened.token_authenticator()? {
            Some(authenticator) => (Some(opened.admin_router(authenticator)), ServedTo::OwnTokens),
            None => (Some(routes::not_set_up()), ServedTo::NobodyYet),
        },
    })
}

/// Checks the providers over and over, each in its own time.
pub(crate) async fn check_health(gateway: Gateway) {
    loop {
        let pause = gateway.check_health().await;
        tokio::time::sleep(pause).await;
    }
}
