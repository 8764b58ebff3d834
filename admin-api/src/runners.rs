//! `/admin/runners`: the nodes that run CLIs.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::actor::Caller;
use crate::answer::Answer;
use crate::engine::RunnerInfo;
use crate::error::AdminError;
use crate::path::Named;
use crate::query::{List, Query};
use crate::service::Admin;

/// A node, as it announced itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Runner {
    pub(crate) id: String,
    url: String,
    version: String,
    /// Runs at once.
    slots: u32,
    running: u32,
    queued: u32,
    /// Sandboxes that wait ready.
    parked: u32,
    /// Whether it takes no more runs and finishes those that it has.
    draining: bool,
    /// Whether runs are sent there now.
    up: bool,
    /// The CLIs that it offers.
    clis: Vec<String>,
}

/// A node that was told to take no more runs.
#[derive(Serialize, ToSchema)]
pub(crate) struct Draining {
    id: String,
    draining: bool,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the schema of what `Named` reads")]
pub(crate) struct RunnerIdParam {
    /// The node's id
    id: String,
}

/// List the runners
#[utoipa::path(
    get, path = "/admin/runners", tag = "operation",
    params(crate::openapi::PageParams),
    responses((status = 200, body = List<Runner>)),
)]
pub(crate) async fn list_runners(
    State(admin): State<Arc<Admin>>,
    mut query: Query,
) -> Result<Answer, AdminError> {
    let page = query.page();
    query.finish()?;
    let mut runners: Vec<Runner> = known(&admin).await?.into_iter().map(Runner::from).collect();
    runners.sort_by(|a, b| a.id.cmp(&b.id));
    Answer::ok(&List::page_of(runners, &page, |runner| runner.id.clone()))
}

/// Drain a runner
///
/// It takes no more runs and finishes those that it has.
#[utoipa::path(
    post, path = "/admin/runners/{id}/drain", tag = "operation",
    params(RunnerIdParam),
    responses((status = 202, body = Draining)),
)]
pub(crate) async fn drain_runner(
    State(admin): State<Arc<Admin>>,
    Caller(actor): Caller,
    Named(id): Named,
    query: Query,
) -> Result<Answer, AdminError> {
    query.finish()?;
    if !known(&admin).await?.iter().any(|runner| runner.id == id) {
        return Err(AdminError::NotFound("such runner".to_owned()));
    }
    let drained = admin.parts.engine.drain_runner(&id).await;
    drained.map_err(|why| AdminError::Unavailable(format!("the runner is not drained: {why}")))?;
    tracing::info!(runner = id, actor = actor.name, "a runner is drained");
    Answer::new(StatusCode::ACCEPTED, &Draining { id, draining: true })
}

async fn known(admin: &Admin) -> Result<Vec<RunnerInfo>, AdminError> {
    let unknown = |why| AdminError::Unavailable(format!("the runners are not known: {why}"));
    admin.parts.engine.runners().await.map_err(unknown)
}

impl From<RunnerInfo> for Runner {
    fn from(runner: RunnerInfo) -> Self {
        let RunnerInfo { id, url, version, slots, running, queued, parked, draining, up, clis } = runner;
        Self { id, url, version, slots, running, queued, parked, draining, up, clis }
    }
}
