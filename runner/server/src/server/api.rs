//! The routes. Every path that is not here is refused, and every refusal is a [`Refusal`] in JSON.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use runner_api::request::is_run_id;
use runner_api::{
    CAPACITY_PATH, CLIS_PATH, DRAIN_PATH, RUNS_PATH, Refusal, RefusalCode, RunRequest, VERSION,
    VERSION_HEADER, understands,
};
use serde::Serialize;
use tokio::time::Instant;

use super::body::{Upload, Uploads};
use super::event_body::EventBody;
use super::{Client, Runs};
use crate::metrics::Metrics;

/// For a client that comes while the queue is full.
const RETRY_AFTER_MS: u64 = 2_000;

struct Api<R> {
    runs: Arc<R>,
    metrics: Arc<Metrics>,
    uploads: Uploads,
}

/// Everything: for listeners that let in nobody unknown.
pub fn api<R: Runs>(runs: Arc<R>, metrics: Arc<Metrics>) -> Router {
    let api = Arc::new(Api { runs, metrics, uploads: Uploads::new() });
    let versioned = Router::new()
        .route(RUNS_PATH, post(start_run::<R>))
        .route(&format!("{RUNS_PATH}/{{id}}"), delete(cancel_run::<R>))
        .route(CLIS_PATH, get(clis::<R>))
        .route(CAPACITY_PATH, get(capacity::<R>))
        .route(DRAIN_PATH, post(drain::<R>))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(check_version));
    finish(versioned.merge(probe_routes()), api)
}

/// `/healthz`, `/ready` and `/metrics` alone: for a listener on loopback.
pub fn probes<R: Runs>(runs: Arc<R>, metrics: Arc<Metrics>) -> Router {
    finish(probe_routes(), Arc::new(Api { runs, metrics, uploads: Uploads::new() }))
}

fn probe_routes<R: Runs>() -> Router<Arc<Api<R>>> {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/ready", get(ready::<R>))
        .route("/metrics", get(metrics::<R>))
        .method_not_allowed_fallback(method_not_allowed)
}

fn finish<R: Runs>(routes: Router<Arc<Api<R>>>, api: Arc<Api<R>>) -> Router {
    routes
        .fallback(async || Answer(Refusal::new(RefusalCode::NotFound, "there is no such path")))
        .layer(middleware::map_response(mark))
        .with_state(api)
}

/// A refusal, as an answer.
#[derive(Clone, Debug)]
struct Answer(Refusal);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let Self(refusal) = &self;
        let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, [(CONTENT_TYPE, "application/json")], refusal.to_json()).into_response();
        if let Some(ms) = refusal.retry_after_ms {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
        }
        response
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

async fn method_not_allowed() -> Answer {
    Answer(Refusal::new(RefusalCode::MethodNotAllowed, "this path has other methods; see 'allow'"))
}

/// What every answer has.
async fn mark(mut response: Response) -> Response {
    response.headers_mut().insert(VERSION_HEADER, HeaderValue::from_static(VERSION));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn check_version(request: Request, next: Next) -> Response {
    let version = request.headers().get(VERSION_HEADER).map(HeaderValue::to_str);
    match version {
        Some(Ok(version)) if understands(version) => next.run(request).await,
        _ => {
            let message =
                format!("the header {VERSION_HEADER} must name a version that {VERSION} understands");
            Answer(Refusal::new(RefusalCode::Version, message).at(VERSION_HEADER)).into_response()
        }
    }
}

async fn start_run<R: Runs>(
    State(api): State<Arc<Api<R>>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Answer> {
    run_response(&api, &client, &headers, body).await.map_err(|refusal| {
        api.metrics.refused(refusal.code);
        Answer(refusal)
    })
}

async fn run_response<R: Runs>(
    api: &Api<R>,
    Client(client): &Client,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    // Before megabytes come in for nothing.
    let capacity = api.runs.capacity();
    if capacity.draining {
        return Err(Refusal::new(RefusalCode::Draining, "this node takes no new runs"));
    }
    // Without a queue, whether there is a slot is seen later.
    if capacity.queued >= capacity.queue_limit.max(1) {
        return Err(Refusal::new(RefusalCode::Saturated, "the queue of this node is full")
            .retry_after_ms(RETRY_AFTER_MS));
    }
    check_content_type(headers)?;
    // Until the CLI has the request, or it is refused, its bytes count.
    let Upload { bytes, share: _share } = api.uploads.read(client, body).await?;
    let request = parse(&bytes)?;
    drop(bytes);
    let (id, cli) = (request.id.clone(), request.cli.clone());
    let refused = |refusal: &Refusal| {
        // What is wrong with a request may be told in the request's own words.
        let is_callers = refusal.code == RefusalCode::InvalidRequest;
        let (code, reason) = (refusal.code.as_str(), (!is_callers).then_some(refusal.message.as_str()));
        tracing::info!(run = id, code, reason, "a run was refused");
    };
    let events = api.runs.submit(request, arrived).await.inspect_err(refused)?;
    let record = api.metrics.run(id, cli, arrived);
    let body = Body::new(EventBody::new(events, record));
    Ok(([(CONTENT_TYPE, runner_api::CONTENT_TYPE)], body).into_response())
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Refusal::new(RefusalCode::InvalidRequest, "must be application/json").at("content-type"))
    }
}

fn parse(body: &[u8]) -> Result<RunRequest, Refusal> {
    // serde would take a list for a struct.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::new(RefusalCode::InvalidRequest, "the body must be a JSON object"));
    }
    let request: RunRequest = serde_json::from_slice(body).map_err(|error| {
        // Its own words may repeat parts of the conversation, which belong in no log.
        let place = format!("line {}, column {}", error.line(), error.column());
        Refusal::new(RefusalCode::InvalidRequest, format!("the body is no run request, from {place} on"))
    })?;
    request
        .check()
        .map_err(|error| Refusal::new(RefusalCode::InvalidRequest, error.message).at(error.param))?;
    Ok(request)
}

async fn cancel_run<R: Runs>(
    State(api): State<Arc<Api<R>>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Answer> {
    if is_run_id(&id) && api.runs.cancel(&id) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::new(RefusalCode::NotFound, "there is no such run, or it has ended").into())
    }
}

async fn clis<R: Runs>(State(api): State<Arc<Api<R>>>) -> Response {
    json(StatusCode::OK, &serde_json::json!({"clis": api.runs.clis()}))
}

async fn capacity<R: Runs>(State(api): State<Arc<Api<R>>>) -> Response {
    json(StatusCode::OK, &api.runs.capacity())
}

async fn drain<R: Runs>(State(api): State<Arc<Api<R>>>) -> Response {
    tracing::info!("draining, as a client asks");
    api.runs.drain();
    json(StatusCode::ACCEPTED, &api.runs.capacity())
}

async fn ready<R: Runs>(State(api): State<Arc<Api<R>>>) -> Result<&'static str, Answer> {
    if api.runs.capacity().draining {
        return Err(Refusal::new(RefusalCode::Draining, "draining").into());
    }
    api.runs.ready().map_err(|reason| Refusal::new(RefusalCode::Unavailable, reason))?;
    Ok("ready\n")
}

async fn metrics<R: Runs>(State(api): State<Arc<Api<R>>>) -> Result<Response, Answer> {
    let text = api.metrics.encode(&api.runs.capacity());
    let text = text.map_err(|_| Refusal::new(RefusalCode::Internal, "the metrics cannot be written"))?;
    Ok(([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let text = serde_json::to_vec(value).expect("these types have string keys only");
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}
