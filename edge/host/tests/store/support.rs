//! An edge on an emulator, with a proxy in between.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use catalog::testing::SeedStore as _;
use catalog::{ApiKey, ApiKeyLimits, ApiKeyRecord, CredentialRef, KeyStore as _, Provider, Secret};
use dynoxide::Database;
use edge_host::{Deployment, DynamoStore, variables};
use gateway::{Body, BoxFuture, CallError, Gateway, Host, Origin, Settings, full};
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::fault_proxy::FaultProxy;

/// Longer than anything that is waited for takes.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A host on tokio whose monotonic clock can be put forward.
pub(crate) struct TestHost {
    client: Client<HttpConnector, Body>,
    began: Instant,
    ahead_ms: AtomicU64,
    background: TaskTracker,
    upstream: Arc<Upstream>,
}

/// Answers every chat at [`UPSTREAM`] with the same, after a while.
#[derive(Default)]
pub(crate) struct Upstream {
    running: AtomicUsize,
    /// The most at once.
    pub(crate) peak: AtomicUsize,
}

pub(crate) const UPSTREAM: &str = "upstream.example";
/// What it says that each answer has used.
pub(crate) const TOKENS: u64 = 7;

impl Upstream {
    async fn answer(&self) -> http::Response<Body> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(running, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        let answer = json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": TOKENS - 5, "total_tokens": TOKENS},
        });
        http::Response::builder()
            .header("content-type", "application/json")
            .body(full(answer.to_string()))
            .unwrap()
    }
}

impl TestHost {
    fn new(upstream: Arc<Upstream>) -> Arc<Self> {
        // Every request has a connection of its own, so that a fault meets it.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        let background = TaskTracker::new();
        background.close();
        let (began, ahead_ms) = (Instant::now(), AtomicU64::new(0));
        Arc::new(Self { client, began, ahead_ms, background, upstream })
    }
}

impl Host for TestHost {
    fn unix_ms(&self) -> u64 {
        u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed() + Duration::from_millis(self.ahead_ms.load(Ordering::SeqCst))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).unwrap();
    }

    fn call(
        &self,
        request: http::Request<Body>,
        _: Duration,
    ) -> BoxFuture<'static, Result<http::Response<Body>, CallError>> {
        let client = self.client.clone();
        if request.uri().host() == Some(UPSTREAM) {
            let upstream = self.upstream.clone();
            return Box::pin(async move { Ok(upstream.answer().await) });
        }
        Box::pin(async move {
            let response = client.request(request).await.map_err(|_| CallError::Connect)?;
            Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.background.spawn(future);
    }

    fn credential(&self, _: &CredentialRef, _: Origin) -> Result<Option<Secret>, String> {
        Ok(None)
    }
}

/// A table, empty or not there yet, and the way to it.
pub(crate) struct Table {
    pub(crate) proxy: FaultProxy,
    address: SocketAddr,
    /// Past the proxy, for what the test does itself.
    pub(crate) store: DynamoStore,
    pub(crate) engine: Database,
    pub(crate) upstream: Arc<Upstream>,
    deployment: Deployment,
}

impl Table {
    pub(crate) async fn to_be_made() -> Self {
        let engine = Database::memory().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(dynoxide::server::serve_on(listener, engine.clone()));
        let proxy = FaultProxy::start(address).await;
        let deployment = deployment(&format!("http://{}", proxy.address));
        let store = self::deployment(&format!("http://{address}")).open_store(TestHost::new(Arc::default()));
        Self { proxy, address, store, engine, upstream: Arc::default(), deployment }
    }

    pub(crate) async fn empty() -> Self {
        let table = Self::to_be_made().await;
        table.store.create_table().await.unwrap();
        table
    }

    pub(crate) async fn put_key(&self, seed: u8, change: impl FnOnce(&mut ApiKeyRecord)) -> ApiKey {
        let key = ApiKey::from_random(&[seed; 32]);
        let known = self.store.find_key(key.id()).await.unwrap();
        let mut record = ApiKeyRecord {
            id: key.id().clone(),
            hash: self.deployment.hasher.hash(&key),
            label: "test".to_owned(),
            created_at_ms: 1,
            expires_at_ms: None,
            revoked_at_ms: None,
            owner: String::new(),
            previous: None,
            allowed_models: None,
            limits: ApiKeyLimits::default(),
        };
        change(&mut record);
        self.store.seed_key(&record, known.map(|known| known.version)).await.unwrap();
        key
    }

    /// One that has not been asked for anything yet.
    pub(crate) fn edge(&self) -> Edge {
        // Who waits until nothing goes on waits for this.
        self.edge_at(self.proxy.address, |settings| settings.usage_flush = Duration::from_secs(2))
    }

    /// The same, past the proxy.
    pub(crate) fn near_edge(&self, change: impl FnOnce(&mut Settings)) -> Edge {
        self.edge_at(self.address, change)
    }

    fn edge_at(&self, address: SocketAddr, change: impl FnOnce(&mut Settings)) -> Edge {
        let host = TestHost::new(self.upstream.clone());
        let mut deployment = deployment(&format!("http://{address}"));
        change(&mut deployment.settings);
        Edge { gateway: deployment.into_gateway(host.clone()), host }
    }
}

fn deployment(endpoint: &str) -> Deployment {
    let get = |name: &str| match name {
        variables::TABLE => Some("dyad-gateway".to_owned()),
        variables::REGION => Some("eu-central-1".to_owned()),
        variables::ENDPOINT => Some(endpoint.to_owned()),
        variables::KEY_SECRET => Some("k".repeat(32)),
        variables::ACCESS_KEY_ID => Some("AKIAEXAMPLE".to_owned()),
        variables::SECRET_ACCESS_KEY => Some("hunter2".to_owned()),
        _ => None,
    };
    Deployment::from_variables(get, Settings::default()).unwrap()
}

/// One instance of an edge.
pub(crate) struct Edge {
    gateway: Gateway,
    host: Arc<TestHost>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<String>,
    pub(crate) json: Value,
}

impl Edge {
    pub(crate) async fn get(&self, path: &str, key: &ApiKey) -> Answer {
        self.send(http::Request::get(path).body(full("")).unwrap(), key).await
    }

    /// A chat with the model `m`.
    pub(crate) async fn chat(&self, key: &ApiKey) -> Answer {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50});
        let request = http::Request::post("/v1/chat/completions").body(full(body.to_string())).unwrap();
        self.send(request, key).await
    }

    async fn send(&self, mut request: http::Request<Body>, key: &ApiKey) -> Answer {
        let bearer = format!("Bearer {}", key.expose()).parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        let response = self.gateway.handle(request).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status,
            retry_after: head.headers.get("retry-after").map(|value| value.to_str().unwrap().to_owned()),
            json: serde_json::from_slice(&body).unwrap(),
        }
    }

    /// The ids of the models that are served; panics if the key is not accepted.
    pub(crate) async fn models(&self, key: &ApiKey) -> Vec<String> {
        let answer = self.get("/v1/models", key).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
        let models = answer.json["data"].as_array().unwrap();
        models.iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The class of what is wrong with the store, or `ok`.
    pub(crate) async fn store_state(&self, key: &ApiKey) -> String {
        self.get("/ready", key).await.json["store"].as_str().unwrap().to_owned()
    }

    /// Puts its clock forward.
    pub(crate) fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.host.ahead_ms.fetch_add(by, Ordering::SeqCst);
    }

    /// Until nothing goes on in the background.
    pub(crate) async fn at_rest(&self) {
        tokio::time::timeout(SOON, self.host.background.wait())
            .await
            .expect("the background comes to an end");
    }
}

/// A provider with one model.
pub(crate) fn provider(name: &str, model: &str) -> Provider {
    provider_at("http://127.0.0.1:1/v1", name, model)
}

pub(crate) fn provider_at(base_url: &str, name: &str, model: &str) -> Provider {
    let raw = json!({"name": name, "type": "local", "base_url": base_url, "models": [{"id": model}]});
    Provider::check(&raw.into()).unwrap()
}
