//! What upstreams (and clients' bodies) say, and when.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use gateway::{Body, BoxError, CallError, full};
use http::{HeaderName, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use runner_api::{Refusal, RunEvent, VERSION, VERSION_HEADER};
use serde_json::Value;

/// A body whose pieces the test hands out.
#[derive(Clone, Default)]
pub(crate) struct Feed(Arc<Mutex<FeedState>>);

#[derive(Default)]
struct FeedState {
    pieces: VecDeque<Result<Bytes, BoxError>>,
    ended: bool,
    reader: Option<Waker>,
    read: usize,
    dropped: bool,
}

impl Feed {
    fn change(&self, change: impl FnOnce(&mut FeedState)) {
        let reader = {
            let mut state = self.0.lock().unwrap();
            change(&mut state);
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    pub(crate) fn push(&self, bytes: impl Into<Bytes>) {
        self.change(|state| state.pieces.push_back(Ok(bytes.into())));
    }

    pub(crate) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// The connection breaks.
    pub(crate) fn cut(&self) {
        self.change(|state| state.pieces.push_back(Err("cut".into())));
    }

    pub(crate) fn body(&self) -> Body {
        FeedBody(self.clone()).boxed_unsync()
    }

    /// Bytes that were taken.
    pub(crate) fn read(&self) -> usize {
        self.0.lock().unwrap().read
    }

    /// Whoever read it has let go of it.
    pub(crate) fn is_dropped(&self) -> bool {
        self.0.lock().unwrap().dropped
    }
}

struct FeedBody(Feed);

impl http_body::Body for FeedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.0.0.lock().unwrap();
        match state.pieces.pop_front() {
            Some(Ok(bytes)) => {
                state.read += bytes.len();
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None if state.ended => Poll::Ready(None),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for FeedBody {
    fn drop(&mut self) {
        self.0.change(|state| state.dropped = true);
    }
}

/// How a call ends.
pub(crate) enum Reply {
    Answer(Response<Body>),
    Fail(CallError),
    /// Not before the test says how.
    Later(Gate),
}

impl Reply {
    fn of(status: u16, content_type: &str, body: Body) -> Self {
        Self::Answer(
            Response::builder().status(status).header("content-type", content_type).body(body).unwrap(),
        )
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::of(status, "application/json", full(body.to_string()))
    }

    pub(crate) fn text(status: u16, content_type: &str, body: &str) -> Self {
        Self::of(status, content_type, full(body.to_owned()))
    }

    /// A stream that comes in these pieces and ends.
    pub(crate) fn sse<B: Into<Bytes>>(pieces: impl IntoIterator<Item = B>) -> Self {
        let feed = Feed::default();
        for piece in pieces {
            feed.push(piece);
        }
        feed.end();
        Self::feed(&feed)
    }

    pub(crate) fn feed(feed: &Feed) -> Self {
        Self::of(200, "text/event-stream", feed.body())
    }

    /// A run that says this and ends.
    pub(crate) fn run(events: &[RunEvent]) -> Self {
        let feed = Feed::default();
        feed.push(run_lines(events));
        feed.end();
        Self::run_feed(&feed)
    }

    pub(crate) fn run_feed(feed: &Feed) -> Self {
        Self::of(200, runner_api::CONTENT_TYPE, feed.body()).with_header(VERSION_HEADER, VERSION)
    }

    /// A node does not begin the run.
    pub(crate) fn refusal(refusal: &Refusal) -> Self {
        let status = refusal.code.status();
        Self::of(status, "application/json", full(refusal.to_json())).with_header(VERSION_HEADER, VERSION)
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Answer(response) = &mut self {
            response.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        self
    }

    pub(super) async fn settle(mut self) -> Result<Response<Body>, CallError> {
        loop {
            match self {
                Self::Answer(response) => return Ok(response),
                Self::Fail(error) => return Err(error),
                Self::Later(gate) => self = gate.passed().await,
            }
        }
    }
}

/// Run events as they go over the wire.
pub(crate) fn run_lines(events: &[RunEvent]) -> Vec<u8> {
    let mut lines = Vec::new();
    for event in events {
        runner_api::frame::encode(event, &mut lines);
    }
    lines
}

/// Holds a call's outcome back until the test decides it.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<GateState>>);

#[derive(Default)]
struct GateState {
    reply: Option<Reply>,
    caller: Option<Waker>,
    given_up: bool,
}

impl Gate {
    pub(crate) fn open(&self, reply: Reply) {
        let caller = {
            let mut state = self.0.lock().unwrap();
            state.reply = Some(reply);
            state.caller.take()
        };
        if let Some(caller) = caller {
            caller.wake();
        }
    }

    /// The caller has stopped waiting.
    pub(crate) fn is_given_up(&self) -> bool {
        self.0.lock().unwrap().given_up
    }

    fn passed(self) -> Passed {
        Passed(self)
    }
}

struct Passed(Gate);

impl Future for Passed {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let mut state = self.0.0.lock().unwrap();
        if let Some(reply) = state.reply.take() {
            return Poll::Ready(reply);
        }
        state.caller = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().given_up = true;
    }
}
