//! The whole router on a memory store, and a gateway of which every answer is made up.

mod robustness;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use catalog::{
    ApiKeyHasher, ApiKeyRecord, BoxFuture, CheckReport, CredentialRef, Explanation, Health, KeyRing,
    MemoryStore, Provider, ProviderSlug, Secret, TestReport, TestRequest, UpstreamHosts,
};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::{
    AdminParts, Authenticator, Engine, FetchError, Role, RunnerInfo, TokenRules, local_router, mint, router,
};

/// The secret of [`TestApp`]'s tokens.
pub(crate) const TOKEN_SECRET: &str = "a secret of tests, of more than 32 bytes";

/// What [`FakeEngine`] begins at: 2027-01-15T08:00:00Z.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

/// A gateway whose answers tests set.
pub(crate) struct FakeEngine {
    pub(crate) now_ms: AtomicU64,
    pub(crate) answers: Mutex<EngineAnswers>,
}

pub(crate) struct EngineAnswers {
    pub(crate) given: Vec<Provider>,
    pub(crate) test: TestReport,
    pub(crate) check: CheckReport,
    pub(crate) health: Vec<(ProviderSlug, Health)>,
    pub(crate) explanation: Explanation,
    pub(crate) runners: Result<Vec<RunnerInfo>, String>,
    pub(crate) drained: Result<(), String>,
    pub(crate) fetched: Result<Bytes, FetchError>,
    /// How often something was fetched.
    pub(crate) fetches: usize,
    /// What was tested, the last.
    pub(crate) tested: Option<TestRequest>,
    /// What was checked, the last.
    pub(crate) checked: Option<Provider>,
    /// What was explained, the last: body and key.
    pub(crate) explained: Option<(Vec<u8>, ApiKeyRecord)>,
}

impl Default for FakeEngine {
    fn default() -> Self {
        let answers = EngineAnswers {
            given: Vec::new(),
            test: TestReport { ok: true, at_ms: NOW_MS, ..TestReport::default() },
            check: CheckReport { at_ms: NOW_MS, duration_ms: 3, outcome: Ok(2) },
            health: Vec::new(),
            explanation: Explanation::default(),
            runners: Ok(Vec::new()),
            drained: Ok(()),
            fetched: Err(FetchError("there is nothing".to_owned())),
            fetches: 0,
            tested: None,
            checked: None,
            explained: None,
        };
        Self { now_ms: AtomicU64::new(NOW_MS), answers: Mutex::new(answers) }
    }
}

impl FakeEngine {
    pub(crate) fn set<T>(&self, change: impl FnOnce(&mut EngineAnswers) -> T) -> T {
        change(&mut self.answers.lock().unwrap())
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Engine for FakeEngine {
    fn given(&self) -> Vec<Provider> {
        self.set(|answers| answers.given.clone())
    }

    fn unreadable(&self, reference: &CredentialRef) -> Option<String> {
        let missing = |name: &String| name == "MISSING";
        matches!(reference, CredentialRef::Env(name) if missing(name))
            .then(|| "MISSING is not set".to_owned())
    }

    fn test(&self, test: TestRequest) -> BoxFuture<'_, TestReport> {
        ready(self.set(|answers| {
            answers.tested = Some(test);
            answers.test.clone()
        }))
    }

    fn check<'a>(&'a self, provider: &'a Provider) -> BoxFuture<'a, CheckReport> {
        ready(self.set(|answers| {
            answers.checked = Some(provider.clone());
            answers.check.clone()
        }))
    }

    fn health(&self) -> Vec<(ProviderSlug, Health)> {
        self.set(|answers| answers.health.clone())
    }

    fn explain<'a>(&'a self, body: &'a [u8], key: &'a ApiKeyRecord) -> BoxFuture<'a, Explanation> {
        ready(self.set(|answers| {
            answers.explained = Some((body.to_vec(), key.clone()));
            answers.explanation.clone()
        }))
    }

    fn runners(&self) -> BoxFuture<'_, Result<Vec<RunnerInfo>, String>> {
        ready(self.set(|answers| answers.runners.clone()))
    }

    fn drain_runner<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        ready(self.set(|answers| answers.drained.clone()))
    }

    fn fetch<'a>(&'a self, _: &'a str, max_bytes: usize) -> BoxFuture<'a, Result<Bytes, FetchError>> {
        ready(self.set(|answers| {
            answers.fetches += 1;
            let fetched = answers.fetched.clone()?;
            if fetched.len() > max_bytes { Err(FetchError("it is too long".to_owned())) } else { Ok(fetched) }
        }))
    }

    fn unix_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }
}

/// The API as clients see it.
pub(crate) struct TestApp {
    pub(crate) router: Router,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) engine: Arc<FakeEngine>,
    /// Sent with every request that has no other.
    token: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Null if it is empty.
    pub(crate) body: Value,
    pub(crate) bytes: Bytes,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The error's code; empty if it is none.
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    /// Where the violations are.
    pub(crate) fn pointers(&self) -> Vec<&str> {
        let details = self.body["error"]["details"].as_array().map(Vec::as_slice).unwrap_or_default();
        details.iter().map(|detail| detail["pointer"].as_str().unwrap()).collect()
    }
}

impl TestApp {
    /// Whoever asks is an administrator, `ada`, if they send nothing else.
    pub(crate) fn new() -> Self {
        Self::made(|parts| {
            let secret = Secret::new(TOKEN_SECRET);
            router(parts, Authenticator::hs256(&secret, TokenRules::default()).unwrap())
        })
    }

    /// With another authenticator; requests have no token but their own.
    pub(crate) fn with_authenticator(authenticator: Authenticator) -> Self {
        let app = Self::made(|parts| router(parts, authenticator));
        Self { token: String::new(), ..app }
    }

    pub(crate) fn local(actor: crate::Actor) -> Self {
        Self { token: String::new(), ..Self::made(|parts| local_router(parts, actor)) }
    }

    fn made(router: impl FnOnce(AdminParts) -> Router) -> Self {
        let (store, engine) = (Arc::new(MemoryStore::default()), Arc::new(FakeEngine::default()));
        let master_key = format!("test:{}", "A".repeat(43));
        let router = router(parts(store.clone(), engine.clone(), &master_key));
        Self { router, store, engine, token: token("ada", Role::Admin) }
    }

    /// The same store and gateway with other master keys, as [`KeyRing::parse`] reads them.
    pub(crate) fn with_master_keys(&self, keys: &str) -> Self {
        let parts = parts(self.store.clone(), self.engine.clone(), keys);
        let authenticator = Authenticator::hs256(&Secret::new(TOKEN_SECRET), TokenRules::default()).unwrap();
        let (store, engine) = (self.store.clone(), self.engine.clone());
        Self { router: router(parts, authenticator), store, engine, token: self.token.clone() }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(request(Method::GET, path, Value::Null)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(request(Method::POST, path, body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.send(request(Method::PUT, path, body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.send(request(Method::PATCH, path, body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(request(Method::DELETE, path, Value::Null)).await
    }

    pub(crate) async fn send(&self, mut request: Request<axum::body::Body>) -> Reply {
        let headers = request.headers_mut();
        if !headers.contains_key(AUTHORIZATION) && !self.token.is_empty() {
            headers.insert(AUTHORIZATION, format!("Bearer {}", self.token).parse().unwrap());
        }
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Reply { status: parts.status, headers: parts.headers, body, bytes }
    }
}

fn parts(store: Arc<MemoryStore>, engine: Arc<FakeEngine>, master_keys: &str) -> AdminParts {
    AdminParts {
        store,
        engine,
        master_keys: Arc::new(KeyRing::parse(master_keys).unwrap()),
        hasher: ApiKeyHasher::new(&Secret::new("the key secret of tests")),
        upstream_hosts: UpstreamHosts::default(),
    }
}

/// A request with a JSON body, or with none if it is null.
pub(crate) fn request(method: Method, path: &str, body: Value) -> Request<axum::body::Body> {
    let request = Request::builder().method(method).uri(path);
    match body {
        Value::Null => request.body(axum::body::Body::empty()).unwrap(),
        body => request.header(CONTENT_TYPE, "application/json").body(body.to_string().into()).unwrap(),
    }
}

/// A request with one more header.
pub(crate) fn with_header(
    mut request: Request<axum::body::Body>,
    name: &'static str,
    value: &str,
) -> Request<axum::body::Body> {
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

/// A token of [`TestApp::new`], for an hour.
pub(crate) fn token(actor: &str, role: Role) -> String {
    let hour = Duration::from_secs(3_600);
    mint(&Secret::new(TOKEN_SECRET), actor, role, NOW_MS, hour).unwrap().expose().to_owned()
}
