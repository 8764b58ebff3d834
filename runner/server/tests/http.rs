//! The node's listener over real connections, with runs that do what the test says.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dyad_runner::metrics::Metrics;
use dyad_runner::server::{Handshake, Plain, Runs, Server, ServerLimits, api, probes};
use futures_util::Stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use runner_api::{
    Capacity, CliInfo, ErrorClass, FinishReason, Isolation, Refusal, RefusalCode, RunEvent, RunRequest,
    RunUsage, VERSION, VERSION_HEADER,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(20);

/// A request that waits for its answer from the test.
struct Submitted {
    request: RunRequest,
    answer: oneshot::Sender<Result<Events, Refusal>>,
}

struct Events(mpsc::Receiver<RunEvent>);

impl Stream for Events {
    type Item = RunEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<RunEvent>> {
        self.0.poll_recv(context)
    }
}

struct FakeRuns {
    submitted: mpsc::Sender<Submitted>,
    live: Mutex<BTreeSet<String>>,
    draining: AtomicBool,
    sick: AtomicBool,
    queued: AtomicU32,
}

impl Runs for FakeRuns {
    type Stream = Events;

    async fn submit(&self, request: RunRequest, _arrived: Instant) -> Result<Events, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.submitted.send(Submitted { request, answer }).await.unwrap();
        answered.await.unwrap()
    }

    fn cancel(&self, id: &str) -> bool {
        self.live.lock().unwrap().remove(id)
    }

    fn capacity(&self) -> Capacity {
        let draining = self.draining.load(Ordering::Relaxed);
        let queued = self.queued.load(Ordering::Relaxed);
        Capacity { slots: 8, running: 3, queued, queue_limit: 64, parked: 1, draining }
    }

    fn clis(&self) -> Vec<CliInfo> {
        vec![CliInfo {
            name: "cli-echo".to_owned(),
            parameters: std::collections::BTreeMap::new(),
            images: false,
            isolation: Isolation::Container,
        }]
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn ready(&self) -> Result<(), String> {
        if self.sick.load(Ordering::Relaxed) { Err("the engine does not answer".to_owned()) } else { Ok(()) }
    }
}

struct Node {
    server: Server,
    runs: Arc<FakeRuns>,
    metrics: Arc<Metrics>,
    submitted: mpsc::Receiver<Submitted>,
}

type Client = hyper::client::conn::http2::SendRequest<
    http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>,
>;

impl Node {
    async fn start() -> Self {
        Self::with_limits(ServerLimits::default()).await
    }

    async fn with_limits(limits: ServerLimits) -> Self {
        let (sender, submitted) = mpsc::channel(8);
        let runs = Arc::new(FakeRuns {
            submitted: sender,
            live: Mutex::default(),
            draining: AtomicBool::new(false),
            sick: AtomicBool::new(false),
            queued: AtomicU32::new(2),
        });
        let metrics = Metrics::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let router = api(Arc::clone(&runs), Arc::clone(&metrics));
        let server = Server::start(listener, Arc::new(Plain), router, Arc::clone(&metrics), limits).unwrap();
        Self { server, runs, metrics, submitted }
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.addr()).await.unwrap();
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (client, connection) = handshake.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The next request that reached the runs.
    async fn next(&mut self) -> Submitted {
        timeout(SOON, self.submitted.recv()).await.unwrap().unwrap()
    }

    /// Answers it with a stream.
    async fn accept(&mut self) -> mpsc::Sender<RunEvent> {
        let (sender, receiver) = mpsc::channel(8);
        assert!(self.next().await.answer.send(Ok(Events(receiver))).is_ok());
        sender
    }

    /// One request on a connection of its own, its answer as a whole.
    async fn ask(&self, request: Request<Bytes>) -> (StatusCode, http::HeaderMap, String) {
        let mut client = self.client().await;
        let response = timeout(SOON, client.send_request(request.map(whole))).await.unwrap().unwrap();
        let (head, body) = response.into_parts();
        let body = timeout(SOON, body.collect()).await.unwrap().unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn metrics(&self) -> String {
        self.ask(request(Method::GET, "/metrics")).await.2
    }
}

fn whole(body: Bytes) -> http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error> {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

fn request(method: Method, path: &str) -> Request<Bytes> {
    Request::builder()
        .method(method)
        .uri(format!("http://node{path}"))
        .header(VERSION_HEADER, VERSION)
        .body(Bytes::new())
        .unwrap()
}

fn run_json(id: &str) -> Value {
    json!({
        "id": id,
        "cli": "cli-echo",
        "caller": "key",
        "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hello"}]}],
        "from_a_newer_minor_version": {"a": 1},
    })
}

fn run(id: &str) -> Request<Bytes> {
    let mut request = request(Method::POST, "/v1/runs");
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    *request.body_mut() = run_json(id).to_string().into();
    request
}

fn text(text: &str) -> RunEvent {
    RunEvent::Text { text: text.to_owned() }
}

async fn line(response: &mut Response<Incoming>) -> Option<String> {
    let frame = timeout(SOON, response.body_mut().frame()).await.unwrap()?;
    Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn events_come_as_they_happen() {
    let mut node = Node::start().await;
    let mut client = node.client().await;
    let sending = tokio::spawn(async move { client.send_request(run("r1").map(whole)).await.unwrap() });
    let submitted = node.next().await;
    assert_eq!((submitted.request.id.as_str(), submitted.request.cli.as_str()), ("r1", "cli-echo"));
    let (events, receiver) = mpsc::channel(8);
    assert!(submitted.answer.send(Ok(Events(receiver))).is_ok());
    let mut response = timeout(SOON, sending).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], runner_api::CONTENT_TYPE);
    assert_eq!(response.headers()[VERSION_HEADER], VERSION);
    assert_eq!(response.headers()["cache-control"], "no-store");
    for piece in ["a", "b\nc", "ü\u{2028}"] {
        events.send(text(piece)).await.unwrap();
        let line = line(&mut response).await.unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<RunEvent>(&line).unwrap(), text(piece));
    }
    events.send(RunEvent::Finished { reason: FinishReason::Stop }).await.unwrap();
    assert!(line(&mut response).await.unwrap().contains("finished"));
    assert_eq!(line(&mut response).await, None);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_run() {
    let mut node = Node::start().await;
    // HTTP/2: the stream alone is closed, the connection lives on.
    let client = node.client().await;
    let mut sender = client.clone();
    let sending = tokio::spawn(async move { sender.send_request(run("r1").map(whole)).await.unwrap() });
    let events = node.accept().await;
    drop(timeout(SOON, sending).await.unwrap().unwrap());
    timeout(SOON, events.closed()).await.expect("the run's stream is dropped");
    assert!(!client.is_closed());
    // HTTP/1.1: the connection is.
    let mut stream = TcpStream::connect(node.addr()).await.unwrap();
    let body = run_json("r2").to_string();
    let head = format!(
        "POST /v1/runs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{VERSION_HEADER}: {VERSION}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let events = node.accept().await;
    stream.read_u8().await.unwrap();
    drop(stream);
    timeout(SOON, events.closed()).await.expect("the run's stream is dropped");
    let metrics = node.metrics().await;
    assert!(metrics.contains("dyad_runner_runs_total{cli=\"cli-echo\",class=\"cancelled\"} 2"), "{metrics}");
}

#[tokio::test]
async fn a_client_that_leaves_while_its_request_waits_takes_it_back() {
    let mut node = Node::start().await;
    let mut client = node.client().await;
    let sending = tokio::spawn(async move { client.send_request(run("r1").map(whole)).await });
    let mut submitted = node.next().await;
    sending.abort();
    timeout(SOON, submitted.answer.closed()).await.expect("the request is taken back");
}

#[tokio::test]
async fn refusals_of_the_runs_are_passed_on() {
    let mut node = Node::start().await;
    for (refusal, status, retry_after) in [
        (Refusal::new(RefusalCode::Saturated, "full").retry_after_ms(1_001), 429, Some("2")),
        (Refusal::new(RefusalCode::Replayed, "seen"), 409, None),
        (Refusal::new(RefusalCode::NotFound, "no such CLI").at("cli"), 404, None),
        (Refusal::new(RefusalCode::Unavailable, "no engine"), 503, None),
    ] {
        let mut client = node.client().await;
        let sending = tokio::spawn(async move { client.send_request(run("r1").map(whole)).await.unwrap() });
        assert!(node.next().await.answer.send(Err(refusal.clone())).is_ok());
        let response = timeout(SOON, sending).await.unwrap().unwrap();
        assert_eq!(response.status().as_u16(), status);
        let told = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(told.as_deref(), retry_after);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(Refusal::from_json(&body), Some(refusal));
    }
    let metrics = node.metrics().await;
    assert!(metrics.contains("dyad_runner_refusals_total{code=\"saturated\"} 1"), "{metrics}");
    assert!(!metrics.contains("dyad_runner_runs_total{"), "none of them was a run: {metrics}");
    // What asks for no run is not counted.
    node.ask(request(Method::GET, "/nowhere")).await;
    node.runs.sick.store(true, Ordering::Relaxed);
    assert_eq!(node.ask(request(Method::GET, "/ready")).await.0, 503);
    let metrics = node.metrics().await;
    assert!(metrics.contains("dyad_runner_refusals_total{code=\"unavailable\"} 1"), "{metrics}");
    assert!(metrics.contains("dyad_runner_refusals_total{code=\"not_found\"} 1"), "{metrics}");
}

#[tokio::test]
async fn what_is_no_request_never_reaches_the_runs() {
    let node = Node::start().await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = run_json("r1");
        change(&mut body);
        let mut request = run("r1");
        *request.body_mut() = body.to_string().into();
        request
    };
    let with_body = |body: &'static [u8]| {
        let mut request = run("r1");
        *request.body_mut() = Bytes::from_static(body);
        request
    };
    let with_header = |name: &'static str, value: Option<&'static str>| {
        let mut request = run("r1");
        request.headers_mut().remove(name);
        if let Some(value) = value {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        request
    };
    for (what, request, status, code, param) in [
        ("no version", with_header(VERSION_HEADER, None), 400, RefusalCode::Version, Some(VERSION_HEADER)),
        (
            "another version",
            with_header(VERSION_HEADER, Some("2.0")),
            400,
            RefusalCode::Version,
            Some(VERSION_HEADER),
        ),
        (
            "no content type",
            with_header("content-type", None),
            400,
            RefusalCode::InvalidRequest,
            Some("content-type"),
        ),
        (
            "a form",
            with_header("content-type", Some("text/plain")),
            400,
            RefusalCode::InvalidRequest,
            Some("content-type"),
        ),
        ("no body", with_body(b""), 400, RefusalCode::InvalidRequest, None),
        (
            "a list",
            with_body(b"[\"r1\", \"cli-echo\", {}, \"key\", null, null, []]"),
            400,
            RefusalCode::InvalidRequest,
            None,
        ),
        ("half of it", with_body(b"{\"id\": \"r1\""), 400, RefusalCode::InvalidRequest, None),
        ("no UTF-8", with_body(b"{\"id\": \"\xff\"}"), 400, RefusalCode::InvalidRequest, None),
        ("no id", with(&|body| body["id"] = json!("../r1")), 400, RefusalCode::InvalidRequest, Some("id")),
        (
            "no caller",
            with(&|body| body["caller"] = json!("")),
            400,
            RefusalCode::InvalidRequest,
            Some("caller"),
        ),
        (
            "no messages",
            with(&|body| body["messages"] = json!([])),
            400,
            RefusalCode::InvalidRequest,
            Some("messages"),
        ),
    ] {
        let (got, _, body) = node.ask(request).await;
        let refusal = Refusal::from_json(body.as_bytes()).unwrap_or_else(|| panic!("{what}: {body}"));
        assert_eq!(
            (got.as_u16(), refusal.code, refusal.param.as_deref()),
            (status, code, param),
            "{what}: {body}"
        );
    }
}

#[tokio::test]
async fn a_newer_minor_version_is_understood() {
    let mut node = Node::start().await;
    let mut client = node.client().await;
    let mut request = run("r1");
    request.headers_mut().insert(VERSION_HEADER, "1.99".parse().unwrap());
    request.headers_mut().insert("content-type", "Application/JSON; charset=utf-8".parse().unwrap());
    let sending = tokio::spawn(async move { client.send_request(request.map(whole)).await.unwrap() });
    let _events = node.accept().await;
    assert_eq!(timeout(SOON, sending).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn every_path_but_the_listed_ones_is_refused() {
    let node = Node::start().await;
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/run",
        "/v1/runs/",
        "/v1/runs/a/b",
        "/v1/runs//",
        "//v1/runs",
        "/V1/clis",
        "/v1/clis/",
        "/metrics/x",
        "/v1/runs/../clis",
        "/v1/runs/%2e%2e%2fclis",
        "/healthz/",
        "/debug",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS] {
            let (status, headers, body) = node.ask(request(method.clone(), path)).await;
            let refusal =
                Refusal::from_json(body.as_bytes()).unwrap_or_else(|| panic!("{method} {path}: {body}"));
            let is_missing_run = path == "/v1/runs/%2e%2e%2fclis" && method != Method::DELETE;
            let expected = if is_missing_run { RefusalCode::MethodNotAllowed } else { RefusalCode::NotFound };
            assert_eq!((status.as_u16(), refusal.code), (expected.status(), expected), "{method} {path}");
            assert_eq!(headers[VERSION_HEADER], VERSION);
        }
    }
}

#[tokio::test]
async fn every_path_has_its_methods_alone() {
    let node = Node::start().await;
    for (path, allowed) in [
        ("/v1/runs", "POST"),
        ("/v1/runs/r1", "DELETE"),
        ("/v1/clis", "GET,HEAD"),
        ("/v1/capacity", "GET,HEAD"),
        ("/v1/drain", "POST"),
        ("/healthz", "GET,HEAD"),
        ("/ready", "GET,HEAD"),
        ("/metrics", "GET,HEAD"),
    ] {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE] {
            if allowed.split(',').any(|allowed| allowed == method.as_str()) {
                continue;
            }
            let (status, headers, body) = node.ask(request(method.clone(), path)).await;
            let refusal = Refusal::from_json(body.as_bytes()).unwrap();
            assert_eq!(
                (status.as_u16(), refusal.code),
                (405, RefusalCode::MethodNotAllowed),
                "{method} {path}"
            );
            assert_eq!(headers["allow"], allowed, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_body_has_a_limit_whether_or_not_it_says_its_length() {
    const LIMIT: usize = 32 << 20;
    let mut node = Node::start().await;
    // The longest that is taken.
    let mut longest = run_json("r1");
    let rest = LIMIT - longest.to_string().len();
    longest["messages"][0]["parts"][0]["text"] = json!("x".repeat(rest + "Hello".len()));
    let mut request = run("r1");
    *request.body_mut() = longest.to_string().into();
    assert_eq!(request.body().len(), LIMIT);
    let mut client = node.client().await;
    let sending = tokio::spawn(async move { client.send_request(request.map(whole)).await.unwrap() });
    let submitted = node.next().await;
    let refusal = Refusal::new(RefusalCode::Saturated, "full");
    assert!(submitted.answer.send(Err(refusal)).is_ok());
    assert_eq!(timeout(SOON, sending).await.unwrap().unwrap().status(), 429);

    let mut request = run("r1");
    *request.body_mut() = vec![b' '; LIMIT + 1].into();
    let (status, _, body) = node.ask(request).await;
    assert_eq!(
        (status.as_u16(), Refusal::from_json(body.as_bytes()).unwrap().code),
        (413, RefusalCode::TooLarge)
    );

    let endless = futures_util::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[b' '; 8_192])))
    });
    let mut client = node.client().await;
    let request = run("r1").map(|_| StreamBody::new(endless).boxed_unsync());
    let response = timeout(SOON, client.send_request(request)).await.unwrap().unwrap();
    assert_eq!(response.status(), 413);
}

#[tokio::test]
async fn runs_are_ended_by_their_id() {
    let node = Node::start().await;
    node.runs.live.lock().unwrap().insert("r1".to_owned());
    let delete = |id: &str| node.ask(request(Method::DELETE, &format!("/v1/runs/{id}")));
    assert_eq!(delete("r1").await.0, 204);
    assert_eq!(delete("r1").await.0, 404);
    assert_eq!(delete("a%20b").await.0, 404);
    assert_eq!(delete(&"a".repeat(65)).await.0, 404);
}

#[tokio::test]
async fn what_the_node_has_is_told() {
    let node = Node::start().await;
    let (status, headers, body) = node.ask(request(Method::GET, "/v1/clis")).await;
    assert_eq!((status.as_u16(), headers["content-type"].to_str().unwrap()), (200, "application/json"));
    let clis: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(clis["clis"][0]["name"], "cli-echo");
    let (_, _, body) = node.ask(request(Method::GET, "/v1/capacity")).await;
    assert_eq!(serde_json::from_str::<Capacity>(&body).unwrap(), node.runs.capacity());
    assert_eq!(node.ask(request(Method::GET, "/healthz")).await.0, 200);
    assert_eq!(node.ask(request(Method::GET, "/ready")).await.0, 200);
    node.runs.sick.store(true, Ordering::Relaxed);
    let (status, _, body) = node.ask(request(Method::GET, "/ready")).await;
    assert!(status == 503 && body.contains("the engine does not answer"), "{body}");
    assert_eq!(node.ask(request(Method::GET, "/healthz")).await.0, 200, "the process is well");
}

#[tokio::test]
async fn a_draining_node_says_so_and_takes_nothing_new() {
    let mut node = Node::start().await;
    let mut client = node.client().await;
    let sending = tokio::spawn(async move { client.send_request(run("r1").map(whole)).await.unwrap() });
    let events = node.accept().await;
    let mut response = timeout(SOON, sending).await.unwrap().unwrap();
    let (status, _, body) = node.ask(request(Method::POST, "/v1/drain")).await;
    assert_eq!(status, 202);
    assert!(serde_json::from_str::<Capacity>(&body).unwrap().draining);
    let (status, _, body) = node.ask(run("r2")).await;
    assert_eq!(
        (status.as_u16(), Refusal::from_json(body.as_bytes()).unwrap().code),
        (503, RefusalCode::Draining)
    );
    let (status, _, body) = node.ask(request(Method::GET, "/ready")).await;
    assert_eq!(
        (status.as_u16(), Refusal::from_json(body.as_bytes()).unwrap().code),
        (503, RefusalCode::Draining)
    );
    // What runs goes on.
    events.send(text("still here")).await.unwrap();
    assert!(line(&mut response).await.unwrap().contains("still here"));
}

#[tokio::test]
async fn metrics_tell_of_runs_by_cli_and_class() {
    let mut node = Node::start().await;
    let usage = RunUsage { input_tokens: Some(7), output_tokens: Some(5), ..RunUsage::default() };
    for last in [
        RunEvent::Finished { reason: FinishReason::Stop },
        RunEvent::error(ErrorClass::RateLimited, "slow down"),
    ] {
        let mut client = node.client().await;
        let sending = tokio::spawn(async move { client.send_request(run("r1").map(whole)).await.unwrap() });
        let events = node.accept().await;
        for event in [RunEvent::Started { waited_ms: 3, warm: true }, text("a"), RunEvent::Usage(usage), last]
        {
            events.send(event).await.unwrap();
        }
        let response = timeout(SOON, sending).await.unwrap().unwrap();
        timeout(SOON, response.into_body().collect()).await.unwrap().unwrap();
    }
    let metrics = node.metrics().await;
    for line in [
        "dyad_runner_runs_total{cli=\"cli-echo\",class=\"finished\"} 1",
        "dyad_runner_runs_total{cli=\"cli-echo\",class=\"rate_limited\"} 1",
        "dyad_runner_tokens_total{cli=\"cli-echo\",direction=\"input\"} 14",
        "dyad_runner_tokens_total{cli=\"cli-echo\",direction=\"output\"} 10",
        "dyad_runner_wait_seconds_bucket{le=\"0.005\",cli=\"cli-echo\",warm=\"true\"} 2",
        "dyad_runner_first_text_seconds_count{cli=\"cli-echo\"} 2",
        "dyad_runner_run_seconds_count{cli=\"cli-echo\"} 2",
        "dyad_runner_slots 8",
        "dyad_runner_running 3",
        "dyad_runner_queued 2",
        "dyad_runner_draining 0",
        "# EOF",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in {metrics}");
    }
}

#[tokio::test]
async fn probes_have_no_api() {
    let node = Node::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let router = probes(Arc::clone(&node.runs), Arc::clone(&node.metrics));
    let metrics = Arc::clone(&node.metrics);
    let server = Server::start(listener, Arc::new(Plain), router, metrics, ServerLimits::default()).unwrap();
    for (line, status) in [
        ("GET /metrics", "200"),
        ("GET /ready", "200"),
        ("GET /healthz", "200"),
        ("GET /v1/clis", "404"),
        ("POST /v1/runs", "404"),
        ("POST /v1/drain", "404"),
        ("DELETE /v1/runs/r1", "404"),
    ] {
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        stream
            .write_all(format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
    }
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_not_waited_for() {
    let limits = ServerLimits {
        greeting: Duration::from_millis(100),
        head: Duration::from_millis(100),
        ..ServerLimits::default()
    };
    let node = Node::with_limits(limits).await;
    for words in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-slow: "] {
        let mut stream = TcpStream::connect(node.addr()).await.unwrap();
        stream.write_all(words).await.unwrap();
        let mut answer = Vec::new();
        // Closed, perhaps with a word about it.
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the connection is closed");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{words:?}");
    }
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_a_place() {
    let node = Node::with_limits(ServerLimits { connections: 1, ..ServerLimits::default() }).await;
    let mut first = TcpStream::connect(node.addr()).await.unwrap();
    let ask = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    first.write_all(ask).await.unwrap();
    assert_eq!(timeout(SOON, first.read_u8()).await.unwrap().unwrap(), b'H');
    let mut second = TcpStream::connect(node.addr()).await.unwrap();
    second.write_all(ask).await.unwrap();
    let too_early = timeout(Duration::from_millis(200), second.read_u8()).await;
    assert!(too_early.is_err(), "the second is served beside the first");
    drop(first);
    assert_eq!(timeout(SOON, second.read_u8()).await.unwrap().unwrap(), b'H');
}

#[tokio::test]
async fn no_body_is_read_while_the_queue_is_full() {
    let node = Node::start().await;
    node.runs.queued.store(64, Ordering::Relaxed);
    let mut client = node.client().await;
    // A body that never comes.
    let (_body, chunks) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    let chunks =
        futures_util::stream::unfold(chunks, async |mut chunks| Some((chunks.recv().await?, chunks)));
    let request = run("r1").map(|_| StreamBody::new(Box::pin(chunks)).boxed_unsync());
    let response = timeout(Duration::from_secs(4), client.send_request(request)).await.unwrap().unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "2");
}

/// Lets in who says one word.
struct Password;

impl Handshake for Password {
    type Stream = TcpStream;

    async fn accept(&self, mut stream: TcpStream) -> Result<(TcpStream, Arc<str>), &'static str> {
        stream.read_u8().await.map_err(|_| "closed")?;
        Ok((stream, Arc::from("client")))
    }
}

#[tokio::test]
async fn peers_that_are_not_let_in_shut_nobody_out() {
    let node = Node::start().await;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = api(Arc::clone(&node.runs), Arc::clone(&node.metrics));
    let limits = ServerLimits { connections: 2, handshakes: 8, ..ServerLimits::default() };
    let metrics = Arc::clone(&node.metrics);
    let _server = Server::start(listener, Arc::new(Password), router, metrics, limits).unwrap();
    // The first to come, from an address of its own, and slow.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
    let mut client = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap());
    }
    for dropped in &mut silent[..24] {
        assert!(timeout(SOON, dropped.read_u8()).await.expect("it made room").is_err());
    }
    client.write_all(b"!GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(timeout(SOON, client.read_u8()).await.unwrap().unwrap(), b'H');
}

#[tokio::test]
async fn closing_lets_answers_end_within_the_grace() {
    let mut node = Node::start().await;
    let mut client = node.client().await;
    let sending = tokio::spawn(async move { client.send_request(run("r1").map(whole)).await.unwrap() });
    let events = node.accept().await;
    let mut response = timeout(SOON, sending).await.unwrap().unwrap();
    let addr = node.addr();
    let closing = tokio::spawn(node.server.close(SOON));
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    events.send(text("to the end")).await.unwrap();
    assert!(line(&mut response).await.unwrap().contains("to the end"));
    events.send(RunEvent::Finished { reason: FinishReason::Stop }).await.unwrap();
    assert!(line(&mut response).await.unwrap().contains("finished"));
    assert_eq!(line(&mut response).await, None);
    timeout(SOON, closing).await.expect("nothing is left to wait for").unwrap();
}

#[tokio::test]
async fn after_the_grace_what_is_left_is_cut_off() {
    let mut node = Node::start().await;
    let mut client = node.client().await;
    let sending = tokio::spawn(async move { client.send_request(run("r1").map(whole)).await.unwrap() });
    let events = node.accept().await;
    let mut response = timeout(SOON, sending).await.unwrap().unwrap();
    node.server.close(Duration::from_millis(50)).await;
    timeout(SOON, events.closed()).await.expect("the run's stream is dropped");
    let frame = timeout(SOON, response.body_mut().frame()).await.unwrap();
    assert!(frame.is_none_or(|frame| frame.is_err()), "an event came from a run that was cut off");
}
