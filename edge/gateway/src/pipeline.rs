//! The way of a request through the gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use catalog::{ApiKeyHasher, LimitStore, MasterKeys, Provider, Store, StoreError, UsageStore};
use futures_util::future::join;
use http::header;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use runner_api::Registry;
use serde::Serialize;

use crate::adapter::Call;
use crate::admit::{self, Estimate, Limits};
use crate::authenticate::{authenticate, presented_key};
use crate::body::RequestBody;
use crate::body_memory::BodyMemory;
use crate::config::{CachedKey, Config};
use crate::cors;
use crate::credentials::CredentialSource;
use crate::error::ApiError;
use crate::health::HealthChecks;
use crate::host::{Body, Host, REQUEST_ID, full};
use crate::metrics::{CountedLimits, GatewayMetrics, Metrics};
use crate::nodes::Nodes;
use crate::normalize::Seed;
use crate::route::{Route, route};
use crate::settings::Settings;
use crate::settle::{Operation, Settlement};
use crate::usage::UsageCounter;

const MAX_REQUEST_ID_BYTES: usize = 128;
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

    pub(crate) async fn admit(
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

    pub(crate) async fn read(
        &self,
        body: &mut RequestBody,
        settlement: &mut Settlement,
    ) -> Result<Bytes, ApiError> {
        let read = settlement.permit().keeping(body.read(&self.0.settings, &self.0.memory)).await;
        read.inspect_err(|error| settlement.refused(error))
    }

    /// Sets the tokens aside that a request may use. After it, the request goes to an upstream.
    pub(crate) async fn reserve(
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

    pub(crate) fn call(&self, head: Parts, id: &HeaderValue, key: &CachedKey, body: Bytes) -> Call {
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

pub(crate) fn json_response(status: StatusCode, body: &impl Serialize) -> http::Response<Body> {
    let json = serde_json::to_vec(body).expect("these types have string keys only");
    let mut response = http::Response::new(full(json));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn json_string(text: &str) -> Bytes {
    serde_json::to_vec(text).expect("a string is always JSON").into()
}
