//! A gateway with everything around it under control.

mod host;
mod keys;
mod log;
mod registry;
mod run;
mod store;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catalog::testing::SeedStore as _;
use catalog::{
    ApiKey, ApiKeyHasher, ApiKeyLimits, ApiKeyRecord, KeyStore as _, LimitStore, Provider, Secret, Versioned,
};
use gateway::{Body, Gateway, GatewayParts, Settings, full};
use http::{HeaderMap, Method, StatusCode};
use runner_api::{NodeRecord, Registry as _};
use serde_json::{Value, json};

pub(crate) use self::host::{FakeHost, Recorded, START_MS};
pub(crate) use self::keys::{FakeKeys, Reach};
pub(crate) use self::log::Log;
pub(crate) use self::registry::{FaultyRegistry, node};
pub(crate) use self::run::{Read, Reading, Task, ready};
pub(crate) use self::store::{FaultyStore, Mood};
pub(crate) use self::upstream::{Feed, Gate, Reply, run_lines};

/// A provider at `https://<slug>.example/v1` with the model `m`, called `up-m` there; `changes` go over that.
pub(crate) fn provider(slug: &str, changes: &Value) -> Provider {
    let mut raw = json!({
        "name": slug, "slug": slug, "type": "proxy", "base_url": format!("https://{slug}.example/v1"),
        "credential": format!("env:KEY_OF_{}", slug.to_uppercase()),
        "models": [{"id": "m", "upstream_id": "up-m"}],
    });
    for (name, value) in changes.as_object().unwrap() {
        raw[name] = value.clone();
    }
    Provider::check(&raw.into()).unwrap()
}

/// A provider of the CLI `claude` with the model `m`, called `opus` there; `changes` go over that.
pub(crate) fn cli_provider(slug: &str, changes: &Value) -> Provider {
    let mut raw = json!({
        "name": slug, "slug": slug, "type": "spawn-cli", "cli": "claude",
        "models": [{"id": "m", "upstream_id": "opus"}],
    });
    for (name, value) in changes.as_object().unwrap() {
        raw[name] = value.clone();
    }
    Provider::check(&raw.into()).unwrap()
}

/// The credential that the gateway has for a provider of [`provider`].
pub(crate) fn credential_of(slug: &str) -> String {
    format!("sk-secret-of-{slug}-0123456789")
}

/// A gateway in the making.
pub(crate) struct Setup {
    providers: Vec<Provider>,
    limits: ApiKeyLimits,
    allowed_models: Option<Vec<String>>,
    settings: Settings,
    mood: Mood,
}

pub(crate) fn setup() -> Setup {
    Setup {
        providers: Vec::new(),
        limits: ApiKeyLimits::default(),
        allowed_models: None,
        settings: Settings::default(),
        mood: Mood::Well,
    }
}

impl Setup {
    pub(crate) fn provider(mut self, slug: &str, changes: &Value) -> Self {
        self.providers.push(provider(slug, changes));
        self
    }

    pub(crate) fn cli(mut self, slug: &str, changes: &Value) -> Self {
        self.providers.push(cli_provider(slug, changes));
        self
    }

    pub(crate) fn limits(mut self, limits: ApiKeyLimits) -> Self {
        self.limits = limits;
        self
    }

    pub(crate) fn allowed(mut self, models: &[&str]) -> Self {
        self.allowed_models = Some(models.iter().map(|&m| m.to_owned()).collect());
        self
    }

    pub(crate) fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// How the store is from the start, after everything was written to it.
    pub(crate) fn store(mut self, mood: Mood) -> Self {
        self.mood = mood;
        self
    }

    /// The configuration is not loaded yet: the first request does it.
    pub(crate) fn build(self) -> TestGateway {
        let host = FakeHost::new();
        let store = Arc::new(FaultyStore::default());
        let runners = Arc::new(FaultyRegistry::default());
        let master_keys = Arc::new(FakeKeys::default());
        let hasher = ApiKeyHasher::new(&Secret::new("hash key"));
        let gateway = Gateway::new(GatewayParts {
            host: host.clone(),
            store: store.clone(),
            hasher: hasher.clone(),
            limits: store.clone(),
            runners: runners.clone(),
            master_keys: master_keys.clone(),
            usage: store.clone(),
            settings: self.settings.clone(),
        });
        let settings = self.settings;
        let key = String::new();
        let mut test = TestGateway { host, store, runners, master_keys, gateway, settings, hasher, key };
        for provider in &self.providers {
            test.put_provider(provider, None);
        }
        let key = ApiKey::from_random(&[1; 32]);
        key.expose().clone_into(&mut test.key);
        test.put_key(&key, |record| {
            record.limits = self.limits;
            record.allowed_models = self.allowed_models;
        });
        test.store.is(self.mood);
        test
    }
}

pub(crate) struct TestGateway {
    pub(crate) host: Arc<FakeHost>,
    pub(crate) store: Arc<FaultyStore>,
    pub(crate) runners: Arc<FaultyRegistry>,
    pub(crate) master_keys: Arc<FakeKeys>,
    pub(crate) gateway: Gateway,
    settings: Settings,
    pub(crate) hasher: ApiKeyHasher,
    /// A valid API key.
    pub(crate) key: String,
}

/// An answer whose body may still be under way.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Reading,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(mut self) -> String {
        self.body.rest()
    }

    pub(crate) fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Status, `error.type` and `error.code`; panics unless it is an error of OpenAI's shape.
    pub(crate) fn error(self) -> (u16, String, String) {
        let status = self.status.as_u16();
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(self.headers.contains_key("x-request-id"));
        let json = self.json();
        let error = json["error"].as_object().unwrap();
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error:?}");
        let mut names: Vec<_> = error.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["code", "message", "param", "type"]);
        (status, error["type"].as_str().unwrap().to_owned(), error["code"].as_str().unwrap().to_owned())
    }

    /// As [`error`](Self::error), in one string: `404 invalid_request_error model_not_found`.
    pub(crate) fn error_line(self) -> String {
        let (status, kind, code) = self.error();
        format!("{status} {kind} {code}")
    }
}

impl TestGateway {
    /// Another instance on the same store, on a machine whose clock is ahead by so much; `limits` may be another way to
    /// the store's.
    pub(crate) fn another(&self, mark: u8, ahead_ms: i64, limits: Option<Arc<dyn LimitStore>>) -> Self {
        let host = self.host.another(mark, ahead_ms);
        let gateway = Gateway::new(GatewayParts {
            host: host.clone(),
            store: self.store.clone(),
            hasher: self.hasher.clone(),
            limits: limits.unwrap_or_else(|| self.store.clone()),
            runners: self.runners.clone(),
            master_keys: self.master_keys.clone(),
            usage: self.store.clone(),
            settings: self.settings.clone(),
        });
        Self {
            host,
            store: self.store.clone(),
            runners: self.runners.clone(),
            master_keys: self.master_keys.clone(),
            gateway,
            settings: self.settings.clone(),
            hasher: self.hasher.clone(),
            key: self.key.clone(),
        }
    }

    /// Changes the limits of the valid key.
    pub(crate) fn set_limits(&self, limits: ApiKeyLimits) {
        self.put_key(&ApiKey::parse(&self.key).unwrap(), |record| record.limits = limits);
    }

    pub(crate) fn put_provider(&self, provider: &Provider, expected: Option<u64>) {
        run::ready(self.store.inner.seed_provider(provider, expected)).unwrap();
    }

    pub(crate) fn key_record(&self, key: &ApiKey) -> Versioned<ApiKeyRecord> {
        run::ready(self.store.inner.find_key(key.id())).unwrap().unwrap()
    }

    /// Stores a key, changed as the test wants.
    pub(crate) fn put_key(&self, key: &ApiKey, change: impl FnOnce(&mut ApiKeyRecord)) {
        let known = run::ready(self.store.inner.find_key(key.id())).unwrap();
        let mut record = ApiKeyRecord {
            id: key.id().clone(),
            hash: self.hasher.hash(key),
            label: "test".to_owned(),
            created_at_ms: START_MS,
            expires_at_ms: None,
            revoked_at_ms: None,
            owner: String::new(),
            previous: None,
            allowed_models: None,
            limits: ApiKeyLimits::default(),
        };
        change(&mut record);
        run::ready(self.store.inner.seed_key(&record, known.map(|k| k.version))).unwrap();
    }

    /// Begins a request; nothing happens before it is polled.
    pub(crate) fn start(&self, request: http::Request<Body>) -> Task<Answer> {
        let gateway = self.gateway.clone();
        Task::new(async move {
            let (parts, body) = gateway.handle(request).await.into_parts();
            Answer { status: parts.status, headers: parts.headers, body: Reading::new(body) }
        })
    }

    /// The answer to a request that has nothing to wait for.
    pub(crate) fn send(&self, request: http::Request<Body>) -> Answer {
        self.start(request).finish()
    }

    pub(crate) fn request(&self, method: Method, path: &str, body: impl Into<Bytes>) -> http::Request<Body> {
        http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .body(full(body))
            .unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path, ""))
    }

    /// `GET /v1/models` with another token than the valid one.
    pub(crate) fn models_with(&self, authorization: Option<&str>) -> Answer {
        let mut request = self.request(Method::GET, "/v1/models", "");
        match authorization {
            Some(value) => request.headers_mut().insert("authorization", value.parse().unwrap()),
            None => request.headers_mut().remove("authorization"),
        };
        self.send(request)
    }

    /// Announces a node.
    pub(crate) fn announce(&self, node: &NodeRecord) {
        run::ready(self.runners.inner.announce(node)).unwrap();
    }

    /// The ids of `GET /v1/models`.
    pub(crate) fn listed(&self) -> Vec<String> {
        let answer = self.get("/v1/models").json();
        let data = answer["data"].as_array().unwrap();
        data.iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
    }

    /// A chat completion for the model `m`; `changes` go over the plainest body.
    pub(crate) fn start_chat(&self, changes: &Value) -> Task<Answer> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.start(self.request(Method::POST, "/v1/chat/completions", body.to_string()))
    }

    pub(crate) fn chat(&self, changes: &Value) -> Answer {
        self.start_chat(changes).finish()
    }

    pub(crate) fn stream(&self) -> Answer {
        self.chat(&json!({"stream": true}))
    }

    /// Lets time pass, and what waits in the background for it act.
    pub(crate) fn advance(&self, by: Duration) {
        self.host.advance(by);
        self.host.run_spawned();
    }
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A whole completion, as OpenAI answers it.
pub(crate) fn completion(text: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "up-m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    })
}

/// One SSE frame with a chunk of a conformant stream.
pub(crate) fn chunk(delta: &Value, finish_reason: Option<&str>) -> String {
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "up-m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    });
    format!("data: {chunk}\n\n")
}

pub(crate) fn text_chunk(text: &str) -> String {
    chunk(&json!({"role": "assistant", "content": text}), None)
}

pub(crate) const DONE: &str = "data: [DONE]\n\n";

/// The end of a conformant stream: finish reason and usage in one chunk, `[DONE]`.
pub(crate) fn ending() -> String {
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "up-m",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    });
    format!("data: {chunk}\n\n{DONE}")
}
