//! The scene most tests play in: one fake upstream, one gateway with the standard configuration.

use serde_json::{Value, json};

use crate::clients::{Answer, Client, Clients, Job};
use crate::config::{Config, Provider};
use crate::gateway::Gateway;
use crate::raw::{Connection, Request, Response};
use crate::sse::EventStream;
use crate::upstream::{FakeUpstream, Script};

/// The chat model of the standard configuration, and its name at the upstream.
pub const MODEL: &str = "test-model";
pub const UPSTREAM_MODEL: &str = "upstream-model";
/// A model whose id needs escaping in a URL.
pub const ODD_MODEL: &str = "google/gemini:free";
pub const ODD_UPSTREAM_MODEL: &str = "upstream-gemini";
/// The embedder.
pub const EMBEDDER: &str = "test-embedder";
pub const UPSTREAM_EMBEDDER: &str = "upstream-embedder";
/// A model that is declared unable to embed.
pub const CHAT_ONLY_MODEL: &str = "chat-only";

/// Models whose upstreams refuse something. What a gateway learns of one must not reach other tests,
/// so each test has its own. The upstream calls them `upstream-` and this name.
pub const PICKY_MODELS: [&str; 5] =
    ["picky-effort", "picky-options", "picky-old-limit", "picky-new-limit", "picky-moody"];

/// The configuration that every host of the suites is started with.
pub fn standard_config(upstream_base_url: &str) -> Config {
    let provider = Provider::proxy("fake", upstream_base_url)
        .model(MODEL, UPSTREAM_MODEL)
        .model(ODD_MODEL, ODD_UPSTREAM_MODEL)
        .model(EMBEDDER, UPSTREAM_EMBEDDER)
        .chat_only_model(CHAT_ONLY_MODEL, "upstream-chat-only");
    let picky = |provider: Provider, model: &&str| provider.model(model, &format!("upstream-{model}"));
    Config::new([PICKY_MODELS.iter().fold(provider, picky)])
}

/// A fake upstream, a gateway in front of it, and the client libraries.
#[derive(Debug)]
pub struct Fixture {
    pub gateway: Gateway,
    pub upstream: FakeUpstream,
    pub clients: Clients,
}

impl Fixture {
    /// Starts the host under test with the standard configuration.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts the host under test with a changed configuration.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let upstream = FakeUpstream::start().await;
        let mut config = standard_config(&upstream.base_url());
        change(&mut config);
        let gateway = Gateway::start(&config).await;
        Self { gateway, upstream, clients: Clients::default() }
    }

    /// Sets what the chat model's upstream answers from now on.
    pub fn upstream_answers(&self, script: impl Into<Script>) {
        self.upstream.on(UPSTREAM_MODEL, script);
    }

    /// Every client streams `body` (completed with model and messages).
    pub async fn stream(&self, body: Value) -> Vec<(Client, Answer)> {
        self.clients.all(&Job::chat_stream(&self.gateway, chat_body(body))).await
    }

    /// Every client asks for `body` unstreamed (completed with model and messages).
    pub async fn complete(&self, body: Value) -> Vec<(Client, Answer)> {
        self.clients.all(&Job::chat(&self.gateway, chat_body(body))).await
    }

    /// Sends `body` (completed with model and messages) on a connection of its own.
    pub async fn raw_chat(&self, body: Value) -> Response {
        let mut connection = Connection::open(&self.gateway).await;
        connection.request(&Request::chat(&self.gateway, &chat_body(body))).await
    }

    /// Streams `body` (completed with model and messages) on a connection of its own, to its end.
    pub async fn raw_stream(&self, body: Value) -> EventStream {
        let mut connection = self.open_stream(body).await;
        EventStream::parse(&connection.rest().await)
    }

    /// Starts streaming `body` (completed with model and messages); the head has been read.
    pub async fn open_stream(&self, body: Value) -> Connection {
        let mut connection = Connection::open(&self.gateway).await;
        let mut body = chat_body(body);
        body["stream"] = json!(true);
        connection.send(Request::chat(&self.gateway, &body).bytes()).await;
        let head = connection.head().await;
        assert_eq!(head.status, 200);
        let content_type = head.headers.get("content-type").unwrap_or_default();
        assert!(content_type.starts_with("text/event-stream"), "content-type of a stream: {content_type}");
        connection
    }

    /// Checks that the gateway still answers, on a new connection.
    pub async fn assert_serving(&self) {
        let mut connection = Connection::open(&self.gateway).await;
        let response = connection.request(&Request::new(&self.gateway, "GET", "/v1/models")).await;
        assert_eq!(response.status, 200, "the gateway still answers");
    }
}

/// `members` with `model` and `messages` where it has none.
pub fn chat_body(members: Value) -> Value {
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]});
    let Value::Object(members) = members else { panic!("members of a request are an object") };
    body.as_object_mut().expect("it was just made").extend(members);
    body
}
