//! The vendors of AI CLIs (Anthropic, Google, OpenAI), as far as their CLIs call them: each API's own paths, streams,
//! errors and headers. What it answers, a scene, is named by the prompt itself: the last `scene:NAME` in a request.
//!
//! Formats: Anthropic Messages, Gemini `generateContent` and OpenAI Responses, as their public references describe them
//! and as the recordings under `runner/dialect/testdata` show that the CLIs read them.

mod anthropic;
mod gemini;
mod openai;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::within;

/// What every vendor's model says unless the prompt names another scene.
pub const ANSWER: [&str; 6] = ["Hello", " from", " the", " mock", " model", "."];
/// Text that is easily broken: line ends, quotes, escapes, scripts, joined emoji, things that look like framing.
pub const UNICODE: &str = "tab\there line\u{2028}separator \"quoted\" back\\slash\nдобрый день 你好 👩\u{200d}👩\u{200d}👧 e\u{301}\n\ndata: not an event\n[DONE]\nlast line";
/// Pieces of the scene `long`.
pub const LONG_PIECES: usize = 2000;

/// What the model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    Answer,
    Unicode,
    Long,
    /// A call of a tool first, and [`ANSWER`] once its result is there.
    Tool,
    /// Ends at the limit of tokens.
    Length,
    Refusal,
    /// Two pieces, and then nothing, for ever.
    Stall,
    /// Nothing at all, not even a status.
    Hang,
    /// Two pieces, and the connection is gone.
    Drop,
    Status(StatusCode),
}

impl Scene {
    /// An unknown name is a 500: the test sees it as the vendor's failure.
    fn of(body: &str) -> Self {
        let name = body.rsplit_once("scene:").map_or("", |(_, rest)| {
            rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default()
        });
        match name {
            "unicode" => Self::Unicode,
            "long" => Self::Long,
            "tool" => Self::Tool,
            "length" => Self::Length,
            "refusal" => Self::Refusal,
            "stall" => Self::Stall,
            "hang" => Self::Hang,
            "drop" => Self::Drop,
            "" | "answer" => Self::Answer,
            status => status
                .parse()
                .ok()
                .and_then(|code| StatusCode::from_u16(code).ok())
                .map_or(Self::Status(StatusCode::INTERNAL_SERVER_ERROR), Self::Status),
        }
    }

    fn pieces(self) -> Vec<String> {
        match self {
            Self::Unicode => vec![UNICODE.to_owned()],
            Self::Long => (0..LONG_PIECES).map(|piece| format!("piece {piece} ")).collect(),
            Self::Refusal => Vec::new(),
            Self::Stall | Self::Drop => ANSWER[..2].iter().map(|&piece| piece.to_owned()).collect(),
            _ => ANSWER.iter().map(|&piece| piece.to_owned()).collect(),
        }
    }
}

/// The text of the scene `long`.
pub fn long_text() -> String {
    Scene::Long.pieces().concat()
}

/// How a stream ends.
enum Ending {
    Clean,
    Never,
    Cut,
}

/// An answer of a vendor's API.
enum Answer {
    Json(StatusCode, Value),
    /// SSE events, written one by one.
    Events(Vec<String>, Ending),
    Nothing,
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A call that the vendor received.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: String,
}

#[derive(Debug, Default)]
struct State {
    calls: Mutex<Vec<Call>>,
    /// Answers whose end has not been reached and whose reader is still there.
    open: watch::Sender<usize>,
}

/// All three vendors on one loopback port. It stops when dropped.
#[derive(Debug)]
pub struct FakeVendor {
    address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

impl Drop for FakeVendor {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl FakeVendor {
    pub async fn start() -> Self {
        Self::start_on("127.0.0.1:0").await
    }

    pub async fn start_on(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("loopback can be listened on");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::<State>::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state))).abort_handle();
        Self { address, state, accepting }
    }

    /// Where the vendors' APIs begin.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything received so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().expect("no holder panics").clone()
    }

    /// The calls of models among them.
    pub fn model_calls(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| Api::of(call).is_some()).collect()
    }

    /// Waits until nobody reads an answer that has not ended; panics after `limit`.
    pub async fn deserted(&self, limit: Duration) {
        let mut open = self.state.open.subscribe();
        within(limit, "nobody listens to the vendor any more", open.wait_for(|open| *open == 0))
            .await
            .expect("the sender lives in `self`");
    }

    /// Waits until somebody does.
    pub async fn listened_to(&self, limit: Duration) {
        let mut open = self.state.open.subscribe();
        within(limit, "somebody listens to the vendor", open.wait_for(|open| *open > 0))
            .await
            .expect("the sender lives in `self`");
    }
}

#[derive(Clone, Copy, Debug)]
enum Api {
    Anthropic,
    Gemini { stream: bool },
    OpenAi,
}

impl Api {
    fn of(call: &Call) -> Option<Self> {
        let path = call.target.split('?').next().unwrap_or_default();
        if call.method != Method::POST {
            return None;
        }
        if path.ends_with("/messages") {
            Some(Self::Anthropic)
        } else if path.ends_with(":streamGenerateContent") {
            Some(Self::Gemini { stream: true })
        } else if path.ends_with(":generateContent") {
            Some(Self::Gemini { stream: false })
        } else if path.ends_with("/responses") {
            Some(Self::OpenAi)
        } else {
            None
        }
    }

    fn answer(self, body: &str) -> Answer {
        let scene = Scene::of(body);
        if scene == Scene::Hang {
            return Answer::Nothing;
        }
        match self {
            Self::Anthropic => anthropic::answer(scene, body),
            Self::Gemini { stream } => gemini::answer(scene, stream, body),
            Self::OpenAi => openai::answer(scene, body),
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let state = Arc::clone(&state);
        // Owned by this task, so that connections end with the vendor.
        connections.spawn(async move {
            let service = service_fn(move |request| serve(request, Arc::clone(&state)));
            // An error is the peer leaving, or the end of the scene `drop`.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Counts an answer that somebody waits for.
struct Open(Arc<State>);

impl Open {
    fn new(state: &Arc<State>) -> Self {
        state.open.send_modify(|open| *open += 1);
        Self(Arc::clone(state))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

async fn serve(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    let open = Open::new(&state);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let call = Call {
        method: head.method,
        target: head.uri.to_string(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let answer = match Api::of(&call) {
        Some(api) => api.answer(&call.body),
        // Telemetry, model lists, updates: no vendor's model.
        None => Answer::Json(StatusCode::NOT_FOUND, serde_json::json!({"error": {"message": "not here"}})),
    };
    state.calls.lock().expect("no holder panics").push(call);
    let response = match answer {
        Answer::Json(status, value) => {
            let mut response = Response::builder().status(status).header("content-type", "application/json");
            if status == StatusCode::TOO_MANY_REQUESTS {
                response = response.header("retry-after", "7");
            }
            response.body(Full::from(value.to_string()).map_err(|never| match never {}).boxed_unsync())
        }
        Answer::Events(events, ending) => Response::builder()
            .header("content-type", "text/event-stream")
            .body(BodyExt::boxed_unsync(StreamBody::new(events_body(events, ending, open)))),
        Answer::Nothing => std::future::pending().await,
    };
    Ok(response.expect("all parts are valid"))
}

fn events_body(
    events: Vec<String>,
    ending: Ending,
    open: Open,
) -> impl futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> {
    stream::unfold((events.into_iter(), open), move |(mut events, open)| {
        let next = events.next();
        let ending = match ending {
            Ending::Clean => Some(None),
            Ending::Cut => Some(Some(std::io::Error::other("the scene ends here"))),
            Ending::Never => None,
        };
        async move {
            let item = match (next, ending) {
                (Some(event), _) => Ok(Frame::data(Bytes::from(event))),
                (None, Some(None)) => return None,
                (None, Some(Some(error))) => Err(error),
                (None, None) => std::future::pending().await,
            };
            Some((item, (events, open)))
        }
    })
}
