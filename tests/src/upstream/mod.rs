//! An upstream that speaks OpenAI's wire format, remembers what it was sent, and misbehaves as its
//! scripts say. Scripts are keyed by the model named in the request, so one server serves many
//! scenes at once. An unscripted model answers properly.
//!
//! It is written on sockets, because half of its work is what an HTTP library prevents.

mod reply;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use self::reply::{Gate, QUOTED_AUTHORIZATION, Reply, Script, Step};
use crate::http1::{Framing, Headers, Reader, RequestHead};
use crate::turn::{CREATED, Turn};
use crate::within;

/// Vectors of the fake embedder have this many numbers.
pub const EMBEDDING_DIMENSIONS: usize = 4;

/// How far the answer to a request has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    #[default]
    Receiving,
    Answering,
    /// The answer went out as the script wanted.
    Answered,
    /// The peer closed or reset the connection before the answer was complete.
    PeerLeft,
}

/// A request that the upstream received.
#[derive(Debug)]
pub struct ReceivedRequest {
    pub method: String,
    pub target: String,
    pub headers: Headers,
    pub body: Bytes,
    /// Which connection it came on, counted from 0.
    pub connection: u64,
    progress: watch::Sender<Progress>,
    sent_bytes: AtomicU64,
}

impl ReceivedRequest {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the gateway sends JSON")
    }

    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Bytes of the answer that the connection has taken so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Waits until the peer has left before its answer was complete; panics after `limit`.
    pub async fn peer_left(&self, limit: Duration) {
        self.reached(Progress::PeerLeft, limit).await;
    }

    /// Waits until the answer is complete; panics after `limit`.
    pub async fn answered(&self, limit: Duration) {
        self.reached(Progress::Answered, limit).await;
    }

    async fn reached(&self, progress: Progress, limit: Duration) {
        let mut receiver = self.progress.subscribe();
        let what = format!("the upstream's exchange is {progress:?}");
        within(limit, &what, receiver.wait_for(|now| *now == progress)).await.expect("the sender is `self`");
    }
}

#[derive(Debug, Default)]
struct State {
    scripts: Mutex<HashMap<String, Script>>,
    requests: Mutex<Vec<Arc<ReceivedRequest>>>,
    request_count: watch::Sender<usize>,
    body_gate: Option<Gate>,
    /// The credentials that are good; all of them if none is named.
    credentials: Mutex<Vec<String>>,
}

/// The fake upstream. It stops when dropped.
#[derive(Debug)]
pub struct FakeUpstream {
    address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl FakeUpstream {
    /// Starts on a free loopback port.
    pub async fn start() -> Self {
        Self::start_on("127.0.0.1:0", None).await
    }

    /// Starts with a server that reads no request body until `gate` opens.
    pub async fn start_reading_after(gate: Gate) -> Self {
        Self::start_on("127.0.0.1:0", Some(gate)).await
    }

    /// Starts on `address`.
    pub async fn start_on(address: &str, body_gate: Option<Gate>) -> Self {
        let listener = TcpListener::bind(address).await.expect("loopback can be listened on");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State { body_gate, ..State::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state))).abort_handle();
        Self { address, state, accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL to configure.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Sets what requests for `model` get from now on.
    pub fn on(&self, model: &str, script: impl Into<Script>) {
        self.state.scripts.lock().expect("no holder panics").insert(model.to_owned(), script.into());
    }

    /// Takes these credentials from now on, and no others: 401, as a vendor says it.
    pub fn takes_only(&self, credentials: &[&str]) {
        let credentials = credentials.iter().map(|&credential| credential.to_owned()).collect();
        *self.state.credentials.lock().expect("no holder panics") = credentials;
    }

    /// Everything received so far, oldest first, requests that only list models aside.
    pub fn requests(&self) -> Vec<Arc<ReceivedRequest>> {
        self.state.requests.lock().expect("no holder panics").clone()
    }

    /// Forgets what was received.
    pub fn forget(&self) {
        self.state.requests.lock().expect("no holder panics").clear();
        self.state.request_count.send_replace(0);
    }

    /// The last request received.
    pub fn last_request(&self) -> Arc<ReceivedRequest> {
        self.requests().last().cloned().expect("the upstream was called")
    }

    /// Waits until `count` requests have come, and gives the last of them.
    pub async fn request(&self, count: usize) -> Arc<ReceivedRequest> {
        let mut receiver = self.state.request_count.subscribe();
        let what = format!("the upstream has received {count} requests");
        within(crate::SOON, &what, receiver.wait_for(|seen| *seen >= count))
            .await
            .expect("the sender lives in `self`");
        Arc::clone(&self.requests()[count - 1])
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    for number in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let state = Arc::clone(&state);
        // Owned by this task, so that connections end with the upstream.
        connections.spawn(async move {
            // An error is the peer leaving, which the exchange has recorded.
            let _ = serve(stream, number, &state).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, number: u64, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (input, mut output) = stream.split();
    let mut input = Reader::new(input);
    let mut reset = false;
    while let Some(head) = input.request_head().await? {
        if let Some(gate) = &state.body_gate {
            gate.opened().await;
        }
        let framing = match Framing::of(&head.headers) {
            Framing::UntilClose => Framing::Length(0), // a request's body needs an announcement
            announced => announced,
        };
        let body = input.body(framing).await?;
        let request = state.record(head, body, number);
        let reply = state.reply_to(&request);
        request.progress.send_replace(Progress::Answering);
        let outcome = tokio::select! {
            outcome = answer(&mut output, &request, reply) => outcome,
            () = peer_leaves(&mut input) => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let end = outcome.inspect_err(|_| {
            request.progress.send_replace(Progress::PeerLeft);
        })?;
        request.progress.send_replace(Progress::Answered);
        if end != End::KeepAlive {
            reset = end == End::Reset;
            break;
        }
    }
    if reset {
        // Closing with unsent data discarded and no lingering is what sends RST.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    KeepAlive,
    Close,
    Reset,
}

async fn answer(
    output: &mut WriteHalf<'_>,
    request: &ReceivedRequest,
    reply: reply::Rendered,
) -> io::Result<End> {
    for step in reply.before_head {
        if let Some(end) = perform(output, request, step, Framing::UntilClose).await? {
            return Ok(end);
        }
    }
    output.write_all(reply.head.as_bytes()).await?;
    for step in reply.steps {
        if let Some(end) = perform(output, request, step, reply.framing).await? {
            return Ok(end);
        }
    }
    if reply.framing == Framing::Chunked {
        output.write_all(b"0\r\n\r\n").await?;
    }
    Ok(if reply.closes || reply.framing == Framing::UntilClose { End::Close } else { End::KeepAlive })
}

async fn perform(
    output: &mut WriteHalf<'_>,
    request: &ReceivedRequest,
    step: Step,
    framing: Framing,
) -> io::Result<Option<End>> {
    match step {
        Step::Send(bytes) => send(output, request, &bytes, framing).await?,
        Step::SendRaw(bytes) => output.write_all(&bytes).await?,
        Step::Pause(duration) => tokio::time::sleep(duration).await,
        Step::Hold(gate) => gate.opened().await,
        Step::Stall => std::future::pending().await,
        Step::Repeat(bytes) => loop {
            send(output, request, &bytes, framing).await?;
        },
        Step::Reset => return Ok(Some(End::Reset)),
        Step::Close => return Ok(Some(End::Close)),
    }
    Ok(None)
}

async fn send(
    output: &mut WriteHalf<'_>,
    request: &ReceivedRequest,
    bytes: &[u8],
    framing: Framing,
) -> io::Result<()> {
    if framing == Framing::Chunked {
        let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        output.write_all(&chunk).await?;
    } else {
        output.write_all(bytes).await?;
    }
    request.sent_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Ok(())
}

/// Completes when the peer has closed its end. What it pipelines meanwhile stays buffered.
async fn peer_leaves(input: &mut Reader<ReadHalf<'_>>) {
    while let Ok(true) = input.fill().await {}
}

impl State {
    fn record(&self, head: RequestHead, body: Bytes, connection: u64) -> Arc<ReceivedRequest> {
        let RequestHead { method, target, headers } = head;
        let request = Arc::new(ReceivedRequest {
            method,
            target,
            headers,
            body,
            connection,
            progress: watch::Sender::default(),
            sent_bytes: AtomicU64::new(0),
        });
        // Hosts list models whenever they like; counting that would make tests depend on it.
        if request.method == "POST" {
            let mut requests = self.requests.lock().expect("no holder panics");
            requests.push(Arc::clone(&request));
            self.request_count.send_replace(requests.len());
        }
        request
    }

    fn reply_to(&self, request: &ReceivedRequest) -> reply::Rendered {
        let authorization = request.headers.get("authorization").unwrap_or_default();
        if !self.takes(authorization) {
            let message = format!("Incorrect API key provided: {QUOTED_AUTHORIZATION}.");
            let refused = Reply::error(401, &message, "invalid_request_error", Some("invalid_api_key"), None);
            return refused.render("", &Value::Null, authorization);
        }
        let body = deciding_members(&request.body);
        let model = body["model"].as_str().unwrap_or_default();
        let scripted =
            self.scripts.lock().expect("no holder panics").get_mut(model).map(|script| script.next(&body));
        let reply = match (request.method.as_str(), request.target.as_str()) {
            ("POST", "/v1/chat/completions") => {
                scripted.unwrap_or_else(|| Reply::turn(Turn::says("Hello from the fake upstream.")))
            }
            ("POST", "/v1/embeddings") => {
                scripted.unwrap_or_else(|| Reply::json(200, &embeddings(model, &body)))
            }
            ("GET", "/v1/models") => Reply::json(200, &self.model_list()),
            ("GET", target) if target.starts_with("/v1/models/") => {
                let id = target.trim_start_matches("/v1/models/");
                Reply::json(
                    200,
                    &json!({"id": id, "object": "model", "created": CREATED, "owned_by": "fake"}),
                )
            }
            (method, target) => {
                let message = format!("Unknown request URL: {method} {target}.");
                Reply::error(404, &message, "invalid_request_error", Some("unknown_url"), None)
            }
        };
        reply.render(model, &body, authorization)
    }

    fn takes(&self, authorization: &str) -> bool {
        let good = self.credentials.lock().expect("no holder panics");
        good.is_empty() || good.iter().any(|good| authorization == format!("Bearer {good}"))
    }

    fn model_list(&self) -> Value {
        let scripts = self.scripts.lock().expect("no holder panics");
        let models = scripts
            .keys()
            .map(|id| json!({"id": id, "object": "model", "created": CREATED, "owned_by": "fake"}));
        json!({"object": "list", "data": models.collect::<Vec<_>>()})
    }
}

/// The members of a request that decide about its answer: all but those that may be megabytes.
fn deciding_members(body: &[u8]) -> Value {
    let members: HashMap<String, &RawValue> = serde_json::from_slice(body).unwrap_or_default();
    let small = members.into_iter().filter(|(name, _)| !["messages", "tools"].contains(&name.as_str()));
    small.filter_map(|(name, value)| Some((name, serde_json::from_str::<Value>(value.get()).ok()?))).collect()
}

/// The vector of the text or token array number `index`: exact in f32, different for each.
pub fn embedding(index: usize) -> [f32; EMBEDDING_DIMENSIONS] {
    let index = u8::try_from(index).map_or(255.0, f32::from);
    [index, -0.5, 0.25, 1.0]
}

fn embeddings(model: &str, request: &Value) -> Value {
    let count = match &request["input"] {
        Value::Array(items) if !items.iter().all(Value::is_number) => items.len(),
        _ => 1,
    };
    let data = (0..count).map(|index| {
        let vector = embedding(index);
        let encoded = if request["encoding_format"] == "base64" {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            json!(base64::engine::general_purpose::STANDARD.encode(bytes))
        } else {
            json!(vector)
        };
        json!({"object": "embedding", "index": index, "embedding": encoded})
    });
    json!({"object": "list", "data": data.collect::<Vec<_>>(), "model": model,
        "usage": {"prompt_tokens": 3 * count, "total_tokens": 3 * count}})
}
