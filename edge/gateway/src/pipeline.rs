//! The way of a request through the gateway.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;
use catalog::{
    ApiKeyHasher, ApiKeyLimits, Capabilities, LimitStore, MasterKeys, Provider, ProviderSlug, Store,
    StoreError, UsageStore,
};
use futures_util::future::join;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use openai_wire::request::{ChatScan, EmbeddingsScan, MediaKind};
use runner_api::Registry;
use serde::Serialize;

use crate::adapter::{Call, ChatCall, Completed, EmbeddingsCall, read_conversation};
use crate::admit::{self, Estimate, Limits};
use crate::attempt::{Streamed, Whole, try_targets};
use crate::authenticate::{authenticate, presented_key};
use crate::body::RequestBody;
use crate::body_memory::BodyMemory;
use crate::config::{CachedKey, Config};
use crate::cors;
use crate::credentials::CredentialSource;
use crate::error::{ApiError, UpstreamFailure};
use crate::estimate;
use crate::health::HealthChecks;
use crate::host::{Body, BoxFuture, Host, REQUEST_ID, full};
use crate::metrics::{CountedLimits, GatewayMetrics, Metrics};
use crate::nodes::Nodes;
use crate::normalize::Seed;
use crate::relay::Wanted;
use crate::route::{Route, route};
use crate::routes::Target;
use crate::settings::Settings;
use crate::settle::{Answer, Operation, Settlement};
use crate::stream::{ChatStream, Live, State};
use crate::timer::LazyTimer;
use crate::usage::UsageCounter;

const USAGE_ESTIMATED: HeaderName = HeaderName::from_static("x-usage-estimated");
const MAX_REQUEST_ID_BYTES: usize = 128;
/// What is reserved for an answer whose length the client leaves open.
const USUAL_COMPLETION_TOKENS: u64 = 1_024;

/// The gateway. Cloning it is cheap and shares everything.
#[derive(Clone)]
pub struct Gateway(pub(crate) Arc<Inner>);

/// What a gateway is made of.
pub struct GatewayParts {
    pub host: Arc<dyn Host>,
    pub store: Arc<dyn Store>,
    pub hasher: ApiKeyHasher,
    /// Limits that hold across instances: the store, where it is shared.
    pub limits: Arc<dyn LimitStore>,
    /// Where the runners' nodes announce themselves. A [`MemoryRegistry`](runner_api::node::MemoryRegistry) that stays
    /// empty where there are none.
    pub runners: Arc<dyn Registry>,
    /// Open what credentials are sealed under. An empty [`KeyRing`](catalog::KeyRing) where nothing is sealed.
    pub master_keys: Arc<dyn MasterKeys>,
    /// Where it is added what requests used.
    pub usage: Arc<dyn UsageStore>,
    pub settings: Settings,
}

pub(crate) struct Inner {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) config: Arc<Config>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) metrics: Arc<Metrics>,
    hasher: ApiKeyHasher,
    pub(crate) limits: Arc<Limits>,
    pub(crate) health: HealthChecks,
    pub(crate) usage: Arc<UsageCounter>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) memory: BodyMemory,
    /// Ids of requests and answers: random per instance, counted within it.
    instance: u64,
    ids: AtomicU64,
}

/// A model that is served, with the provider that comes first for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedModel {
    pub id: String,
    pub provider: ProviderSlug,
}

impl Gateway {
    pub fn new(parts: GatewayParts) -> Self {
        let GatewayParts { host, store, hasher, limits, runners, master_keys, usage, settings } = parts;
        let mut random = [0; 8];
        host.fill_random(&mut random);
        let metrics = Arc::new(Metrics::default());
        let instance = u64::from_le_bytes(random);
        let limits = Arc::new(CountedLimits { limits, host: host.clone(), metrics: metrics.clone() });
        let limits = Arc::new(Limits::new(limits, host.clone(), settings.limits_on_store_failure, instance));
        let credentials = CredentialSource::new(host.clone(), master_keys, limits.clone());
        let check = hasher.check();
        let config =
            Arc::new(Config::new(store, host.clone(), metrics.clone(), check, credentials, &settings));
        let nodes =
            Arc::new(Nodes::new(runners, host.clone(), metrics.clone(), settings.runner_hosts.clone()));
        let usage = UsageCounter::new(usage, host.clone(), metrics.clone(), settings.usage_flush);
        Self(Arc::new(Inner {
            usage: Arc::new(usage),
            config,
            nodes,
            hasher,
            limits,
            metrics,
            health: HealthChecks::default(),
            memory: BodyMemory::new(settings.max_held_bytes),
            settings: Arc::new(settings),
            instance,
            ids: AtomicU64::new(0),
            host,
        }))
    }

    /// Reads the configuration now. Hosts that can refuse to start call it first.
    pub async fn load(&self) -> Result<(), StoreError> {
        self.0.config.refresh().await
    }

    /// Providers that come from elsewhere than the store: a file, the command line, the surroundings.
    pub fn set_providers(&self, providers: Vec<Provider>) {
        self.0.config.set_given(providers);
    }

    pub fn models(&self) -> Vec<ServedModel> {
        let routes = self.0.config.routes();
        routes
            .all()
            .map(|(id, target)| ServedModel { id: id.to_owned(), provider: target.upstream.slug.clone() })
            .collect()
    }

    /// Adds to the store what requests used, as a host that shuts down wants it. Gives the number of rows that could not
    /// be added: they are tried again later. Takes ten seconds at most.
    pub async fn flush_usage(&self) -> usize {
        self.0.usage.flush().await
    }

    /// What the gateway counts, for a host that can be scraped.
    pub fn metrics(&self) -> GatewayMetrics {
        GatewayMetrics::new(self.clone())
    }

    /// Answers one request. Every route passes through here.
    pub async fn handle(&self, request: http::Request<Body>) -> http::Response<Body> {
        let (head, body) = request.into_parts();
        let body = RequestBody::new(body, self.0.settings.max_refused_body_bytes, self.0.host.clone());
        let request_id = self.request_id(&head.headers);
        let origin = head.headers.get(header::ORIGIN).cloned();
        let answered = match cors::preflight(&head, &self.0.settings.cors) {
            Some(response) => Ok(response),
            None => self.answer(head, body, &request_id).await,
        };
        let mut response = answered.unwrap_or_else(|error| self.error_response(error));
        if let Some(origin) = origin {
            cors::expose(&origin, &self.0.settings.cors, response.headers_mut());
        }
        response.headers_mut().insert(REQUEST_ID, request_id);
        response
    }

    async fn answer(
        &self,
        head: Parts,
        mut body: RequestBody,
        id: &HeaderValue,
    ) -> Result<http::Response<Body>, ApiError> {
        // Two lengths for one body are how requests are smuggled.
        if head.headers.contains_key(header::CONTENT_LENGTH)
            && head.headers.contains_key(header::TRANSFER_ENCODING)
        {
            return Err(ApiError::invalid_request(
                "ambiguous_length",
                "Send Content-Length or Transfer-Encoding, not both.",
            ));
        }
        let route = route(head.uri.path()).ok_or_else(|| ApiError::unknown_route(head.uri.path()))?;
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        if *method != route.method() {
            return Err(ApiError::wrong_method(&head.method, route.method()));
        }
        match route {
            // Whether this instance lives has nothing to do with the store.
            Route::Health => return Ok(json_response(StatusCode::OK, &serde_json::json!({"status": "ok"}))),
            Route::Ready => {
                self.0.config.ensure_fresh().await;
                return Ok(self.ready());
            }
            Route::ChatCompletions | Route::Embeddings | Route::Models | Route::Model(_) => {}
        }
        let key = self.authenticate(&head.headers).await.inspect_err(|error| log_refusal(id, None, error))?;
        body.is_of_a_key();
        self.0.limits.heal();
        let answered = match route {
            Route::Models => return Ok(self.list_models(&key)),
            Route::Model(id) => return self.show_model(&id, &key),
            Route::Embeddings => self.embeddings(head, body, &key, id).await,
            Route::ChatCompletions => self.chat_completions(head, body, &key, id).await,
            Route::Health | Route::Ready => unreachable!("answered above, without a key"),
        };
        let mut response = answered.unwrap_or_else(|error| self.error_response(error));
        // On refusals and failures too: a client may want to slow down.
        admit::write_headers(&key, &self.0.limits, response.headers_mut());
        Ok(response)
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<CachedKey>, ApiError> {
        let config = &self.0.config;
        let key = presented_key(headers)?;
        if config.freshness().is_loaded() {
            config.ensure_fresh().await;
        } else {
            // A cold instance reads both at once. What comes of the key is looked at below.
            let (_, ()) = join(config.key(key.id()), config.ensure_fresh()).await;
            if !config.freshness().is_loaded() {
                let class = config.freshness().failure().unwrap_or("unavailable");
                return Err(ApiError::store_unavailable(class));
            }
        }
        authenticate(&key, config, &self.0.hasher, self.0.limits.fleet_ms()).await
    }

    fn error_response(&self, error: ApiError) -> http::Response<Body> {
        self.0.metrics.error_answered(&error);
        error.into_response()
    }

    async fn chat_completions(
        &self,
        head: Parts,
        mut body: RequestBody,
        key: &CachedKey,
        id: &HeaderValue,
    ) -> Result<http::Response<Body>, ApiError> {
        // Refusals come before the body is read.
        let mut settlement = self.admit(key, Operation::ChatCompletion, id).await?;
        let body = self.read(&mut body, &mut settlement).await?;
        // One pass over the bytes: everything that decides is known after it.
        let scan = ChatScan::scan(&body).map_err(ApiError::from).inspect_err(|e| settlement.refused(e))?;
        settlement.model(&scan.model, scan.stream);
        let mut targets = self.resolve(&scan.model, key, &mut settlement)?;
        can_answer(&scan, &targets).inspect_err(|e| settlement.refused(e))?;
        let conversation =
            read_conversation(&scan, &body, &mut targets).inspect_err(|e| settlement.refused(e))?;
        let estimate = estimate_chat(&scan, &body, &targets, &key.record.limits);
        self.reserve(key, estimate, &mut settlement).await?;
        let wanted = Wanted {
            model: json_string(&scan.model),
            include_usage: scan.include_usage,
            choices: u64::from(scan.n),
            seed: self.seed(),
            created: self.0.host.unix_ms() / 1000,
        };
        let stream = scan.stream;
        let call = self.call(head, id, key, body);
        let chat = ChatCall { call, scan, wanted, conversation, nodes: self.0.nodes.clone() };
        if !stream {
            let answer = settlement.permit().keeping(try_targets(&Whole(chat), &targets)).await;
            return settled(answer, settlement);
        }
        let opening: BoxFuture<'static, _> =
            Box::pin(async move { try_targets(&Streamed(chat), &targets).await.map(|(live, _)| live) });
        // The status is kept open until the first content, but not longer than a client bears silence.
        let opened = settlement.permit().keeping(self.open_within_keepalive(opening)).await;
        let (state, live) = opened.map_err(|failure| given_up(failure, &mut settlement))?;
        settlement.begun_with(StatusCode::OK);
        let mut response = http::Response::new(full(Bytes::new()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // nginx in front of us must not gather the stream.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        if let Some(target) = live {
            settlement.target(target);
        }
        let stream = ChatStream::new(state, self.0.host.clone(), self.0.settings.keepalive, settlement);
        Ok(response.map(|_| stream.boxed_unsync()))
    }

    async fn embeddings(
        &self,
        head: Parts,
        mut body: RequestBody,
        key: &CachedKey,
        id: &HeaderValue,
    ) -> Result<http::Response<Body>, ApiError> {
        let mut settlement = self.admit(key, Operation::Embeddings, id).await?;
        let body = self.read(&mut body, &mut settlement).await?;
        let scan =
            EmbeddingsScan::scan(&body).map_err(ApiError::from).inspect_err(|e| settlement.refused(e))?;
        settlement.model(&scan.model, false);
        let mut targets = self.resolve(&scan.model, key, &mut settlement)?;
        targets.retain(|target| !target.is_cli() && target.model.capabilities.embeddings != Some(false));
        if targets.is_empty() {
            let error = ApiError::cannot_embed(&scan.model);
            settlement.refused(&error);
            return Err(error);
        }
        let estimate = Estimate { prompt: prompt_tokens(&body, &key.record.limits), ..Estimate::default() };
        self.reserve(key, estimate, &mut settlement).await?;
        let embed = EmbeddingsCall { call: self.call(head, id, key, body), scan };
        let answer = settlement.permit().keeping(try_targets(&embed, &targets)).await;
        settled(answer, settlement)
    }

    async fn admit(
        &self,
        key: &CachedKey,
        operation: Operation,
        id: &HeaderValue,
    ) -> Result<Settlement, ApiError> {
        let permit =
            admit::admit(key, &self.0.limits).await.inspect_err(|error| log_refusal(id, Some(key), error))?;
        let id = id.to_str().unwrap_or_default().into();
        let (host, metrics, usage) = (self.0.host.clone(), self.0.metrics.clone(), self.0.usage.clone());
        Ok(Settlement::new(host, metrics, usage, id, operation, key.record.id.clone(), permit))
    }

    async fn read(&self, body: &mut RequestBody, settlement: &mut Settlement) -> Result<Bytes, ApiError> {
        let read = settlement.permit().keeping(body.read(&self.0.settings, &self.0.memory)).await;
        read.inspect_err(|error| settlement.refused(error))
    }

    /// Sets the tokens aside that a request may use. After it, the request goes to an upstream.
    async fn reserve(
        &self,
        key: &CachedKey,
        estimate: Estimate,
        settlement: &mut Settlement,
    ) -> Result<(), ApiError> {
        let reserved = admit::reserve(settlement.permit(), key, estimate).await;
        reserved.inspect_err(|error| settlement.refused(error))?;
        settlement.sends(estimate.prompt);
        Ok(())
    }

    /// Model → ordered targets.
    fn resolve(
        &self,
        model: &str,
        key: &CachedKey,
        settlement: &mut Settlement,
    ) -> Result<Vec<Arc<Target>>, ApiError> {
        let routes = self.0.config.routes();
        let Some(targets @ [first, ..]) = routes.resolve(model, &key.record) else {
            return Err(ApiError::model_not_found(model)).inspect_err(|e| settlement.refused(e));
        };
        // Whose request it is until somebody answers.
        settlement.target(first.clone());
        Ok(targets.to_vec())
    }

    async fn open_within_keepalive(
        &self,
        mut opening: BoxFuture<'static, Result<Live, UpstreamFailure>>,
    ) -> Result<(State, Option<Arc<Target>>), UpstreamFailure> {
        let deadline = self.0.host.monotonic() + self.0.settings.keepalive;
        let mut timer = LazyTimer::default();
        let opened = poll_fn(|cx| match opening.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => timer.poll(deadline, self.0.host.monotonic(), &*self.0.host, cx).map(|()| None),
        })
        .await;
        match opened {
            Some(Ok(live)) => {
                let target = live.target().clone();
                Ok((State::Live(Box::new(live)), Some(target)))
            }
            Some(Err(failure)) => Err(failure),
            None => Ok((State::Opening(opening), None)),
        }
    }

    fn call(&self, head: Parts, id: &HeaderValue, key: &CachedKey, body: Bytes) -> Call {
        Call {
            host: self.0.host.clone(),
            settings: self.0.settings.clone(),
            memory: self.0.memory.clone(),
            headers: head.headers,
            request_id: id.clone(),
            overlap_at_ms: Some(self.0.limits.fleet_ms()),
            caller: key.record.id.as_str().to_owned(),
            body,
            trace: None,
        }
    }

    fn list_models(&self, key: &CachedKey) -> http::Response<Body> {
        let routes = self.0.config.routes();
        let data: Vec<_> = routes.listed(&key.record).map(|(id, target)| model_object(id, target)).collect();
        json_response(StatusCode::OK, &serde_json::json!({"object": "list", "data": data}))
    }

    fn show_model(&self, id: &str, key: &CachedKey) -> Result<http::Response<Body>, ApiError> {
        let routes = self.0.config.routes();
        let first = routes.resolve(id, &key.record).and_then(<[_]>::first);
        let target = first.ok_or_else(|| ApiError::model_not_found(id))?;
        Ok(json_response(StatusCode::OK, &model_object(id, target)))
    }

    /// Ready as long as there is a configuration to serve, even while the store is away or its API keys are not for
    /// this gateway's key secret; the body tells.
    fn ready(&self) -> http::Response<Body> {
        let status = self.status();
        let is_well =
            status.store_failure.is_none() && status.limits_failure.is_none() && !status.key_secret_differs;
        let (code, word) = match (status.is_loaded, is_well) {
            (true, true) => (StatusCode::OK, "ready"),
            (true, false) => (StatusCode::OK, "degraded"),
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        let mut response = json_response(
            code,
            &serde_json::json!({
                "status": word,
                "store": status.store_failure.unwrap_or("ok"),
                "limits": status.limits_failure.unwrap_or("ok"),
                "key_secret": if status.key_secret_differs { "mismatch" } else { "ok" },
                "models": status.models,
                "left_out": status.left_out.len(),
            }),
        );
        if !status.is_loaded {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }

    /// The client's own id where it is sane, so that its log and ours can be laid side by side.
    pub(crate) fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        let sane = |value: &&HeaderValue| {
            (1..=MAX_REQUEST_ID_BYTES).contains(&value.len())
                && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        if let Some(given) = headers.get(REQUEST_ID).filter(sane) {
            return given.clone();
        }
        let Seed { instance, count } = self.seed();
        let mut id = *b"req_000000000000000000000000";
        write_hex(&mut id[4..20], instance);
        write_hex(&mut id[20..], count);
        HeaderValue::from_bytes(&id).expect("hexadecimal digits are fit for a header")
    }

    pub(crate) fn seed(&self) -> Seed {
        Seed { instance: self.0.instance, count: self.0.ids.fetch_add(1, Ordering::Relaxed) }
    }
}

/// The line of a request that was refused before there was anything to settle.
fn log_refusal(id: &HeaderValue, key: Option<&CachedKey>, error: &ApiError) {
    tracing::info!(
        request_id = id.to_str().unwrap_or_default(),
        key_id = key.map(|key| key.record.id.as_str()),
        status = error.status.as_u16(),
        outcome = error.label(),
        "refused"
    );
}

/// As many hexadecimal digits as there is room for, the lowest last.
fn write_hex(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// Refuses what no target can do, as far as their providers say so; what they leave open is tried.
pub(crate) fn can_answer(scan: &ChatScan, targets: &[Arc<Target>]) -> Result<(), ApiError> {
    let none = |able: fn(&Capabilities) -> Option<bool>| {
        targets.iter().all(|target| able(&target.model.capabilities) == Some(false))
    };
    if none(|able| able.chat) {
        return Err(ApiError::cannot_chat(&scan.model));
    }
    match &scan.first_media {
        Some(part) if part.kind == MediaKind::Image && none(|able| able.images) => {
            Err(ApiError::cannot_see(&scan.model, &part.path))
        }
        _ => Ok(()),
    }
}

/// What a chat may use: the answer as long as the client allows, as the model gives, or as answers mostly are.
pub(crate) fn estimate_chat(
    scan: &ChatScan,
    body: &[u8],
    targets: &[Arc<Target>],
    limits: &ApiKeyLimits,
) -> Estimate {
    let asked = scan.max_completion_tokens.or(scan.max_tokens);
    // Some clients send -1 for "no limit".
    let asked = asked.and_then(|tokens| u64::try_from(tokens).ok()).filter(|tokens| *tokens > 0);
    // Unless one of them does not say.
    let longest = targets.iter().map(|target| target.model.max_tokens).collect::<Option<Vec<_>>>();
    let longest = longest.and_then(|all| all.into_iter().max()).map(u64::from);
    let choice = asked.or(longest).unwrap_or(USUAL_COMPLETION_TOKENS).min(longest.unwrap_or(u64::MAX));
    Estimate {
        prompt: prompt_tokens(body, limits),
        completion: choice.saturating_mul(scan.n.into()),
        completion_may_shrink: asked.is_none(),
    }
}

/// Counted with care where it counts.
fn prompt_tokens(body: &[u8], limits: &ApiKeyLimits) -> u64 {
    if admit::limits_tokens(limits) {
        estimate::prompt_tokens(body)
    } else {
        estimate::rough_prompt_tokens(body)
    }
}

/// No target has an answer.
fn given_up(failure: UpstreamFailure, settlement: &mut Settlement) -> ApiError {
    settlement.failed(&failure);
    let error = ApiError::from(failure);
    settlement.begun_with(error.status);
    error
}

fn settled(
    answer: Result<(Completed, Arc<Target>), UpstreamFailure>,
    mut settlement: Settlement,
) -> Result<http::Response<Body>, ApiError> {
    let (completed, target) = match answer {
        Ok(answer) => answer,
        Err(failure) => return Err(given_up(failure, &mut settlement)),
    };
    settlement.target(target);
    settlement.begun_with(StatusCode::OK);
    settlement.first_output();
    settlement.usage(completed.usage, completed.estimated);
    let mut response = http::Response::new(full(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if completed.estimated {
        headers.insert(USAGE_ESTIMATED, HeaderValue::from_static("true"));
    }
    Ok(response.map(|_| Answer::new(completed.body, settlement).boxed_unsync()))
}

#[derive(Serialize)]
struct ModelObject<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_window: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
}

fn model_object<'a>(id: &'a str, target: &'a Target) -> ModelObject<'a> {
    let model = &target.model;
    ModelObject {
        id,
        object: "model",
        created: model.created,
        owned_by: model.owned_by.as_deref().unwrap_or(target.upstream.slug.as_str()),
        context_window: model.context_window,
        max_tokens: model.max_tokens,
    }
}

fn json_response(status: StatusCode, body: &impl Serialize) -> http::Response<Body> {
    let json = serde_json::to_vec(body).expect("these types have string keys only");
    let mut response = http::Response::new(full(json));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn json_string(text: &str) -> Bytes {
    serde_json::to_vec(text).expect("a string is always JSON").into()
}
