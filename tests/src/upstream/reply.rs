//! Scripts for [`FakeUpstream`](super::FakeUpstream): what is answered, and how badly.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::http1::Framing;
use crate::turn::Turn;

/// In a body, replaced by the `Authorization` value of the request: some servers quote it.
pub const QUOTED_AUTHORIZATION: &str = "{{authorization}}";

/// Something that happens on the upstream's connection.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends these bytes as a piece of the body (one HTTP chunk).
    Send(Bytes),
    /// Sends these bytes as they are, outside any framing.
    SendRaw(Bytes),
    /// Says nothing for this long.
    Pause(Duration),
    /// Says nothing until the test opens the gate.
    Hold(Gate),
    /// Says nothing until the peer goes away.
    Stall,
    /// Sends these bytes again and again until the peer goes away.
    Repeat(Bytes),
    /// Resets the connection.
    Reset,
    /// Closes the connection in the middle of what it was doing.
    Close,
}

/// A door that a test opens: the deterministic alternative to a pause.
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn opened(&self) {
        // The sender is `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

#[derive(Clone, Debug)]
enum Content {
    /// The turn, streamed or not as the request asks.
    Turn(Turn),
    /// The turn, streamed (`true`) or not, whatever the request asks.
    Forced(Turn, bool),
    Bytes(Bytes),
}

/// One answer of the fake upstream.
#[derive(Clone, Debug)]
pub struct Reply {
    content: Content,
    status: u16,
    headers: Vec<(String, String)>,
    content_type: Option<String>,
    framing: Option<Framing>,
    gzip: bool,
    before_head: Vec<Step>,
    first_frames: Option<usize>,
    piece_bytes: Option<usize>,
    after: Vec<Step>,
    closes: bool,
}

/// A reply made out for one request: head, and what happens before and after it.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) before_head: Vec<Step>,
    pub(crate) head: String,
    pub(crate) framing: Framing,
    pub(crate) steps: Vec<Step>,
    pub(crate) closes: bool,
}

impl Reply {
    fn new(content: Content) -> Self {
        Self {
            content,
            status: 200,
            headers: Vec::new(),
            content_type: None,
            framing: None,
            gzip: false,
            before_head: Vec::new(),
            first_frames: None,
            piece_bytes: None,
            after: Vec::new(),
            closes: false,
        }
    }

    /// Answers with `turn`: as SSE when `stream` was asked, as JSON when not.
    pub fn turn(turn: Turn) -> Self {
        Self::new(Content::Turn(turn))
    }

    /// Answers with SSE even where JSON was asked.
    pub fn always_sse(turn: Turn) -> Self {
        Self::new(Content::Forced(turn, true))
    }

    /// Answers with JSON even where SSE was asked.
    pub fn always_json(turn: Turn) -> Self {
        Self::new(Content::Forced(turn, false))
    }

    /// Answers with `body`, and `Content-Length`.
    pub fn body(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::new(Content::Bytes(body.into())).status(status).content_type(content_type)
    }

    /// Answers with JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::body(status, "application/json", body.to_string())
    }

    /// Answers 200 with `body` as an event stream.
    pub fn sse(body: impl Into<Bytes>) -> Self {
        Self::body(200, "text/event-stream; charset=utf-8", body).framing(Framing::Chunked)
    }

    /// An error in OpenAI's shape.
    pub fn error(status: u16, message: &str, kind: &str, code: Option<&str>, param: Option<&str>) -> Self {
        Self::json(
            status,
            &json!({"error": {"message": message, "type": kind, "code": code, "param": param}}),
        )
    }

    /// Errors with `status` in every shape servers use, named.
    pub fn errors_of_every_shape(status: u16) -> Vec<(&'static str, Self)> {
        let html = "<html><head><title>Bad Gateway</title></head><body><h1>nginx</h1></body></html>";
        vec![
            ("openai", Self::error(status, "the model is on fire", "server_error", Some("on_fire"), None)),
            ("text", Self::json(status, &json!({"error": "the model is on fire"}))),
            ("message", Self::json(status, &json!({"message": "the model is on fire"}))),
            ("detail", Self::json(status, &json!({"detail": "the model is on fire"}))),
            (
                "detail list",
                Self::json(
                    status,
                    &json!({"detail": [{"loc": ["body", "model"], "msg": "on fire", "type": "x"}]}),
                ),
            ),
            ("plain", Self::body(status, "text/plain", "the model is on fire")),
            ("html", Self::body(status, "text/html", html)),
            ("empty", Self::body(status, "application/json", "")),
            ("not what it says", Self::body(status, "application/json", "<oops")),
            (
                "leaky",
                Self::error(
                    status,
                    &format!("bad key {QUOTED_AUTHORIZATION}"),
                    "invalid_request_error",
                    None,
                    None,
                ),
            ),
        ]
    }

    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    #[must_use]
    pub fn content_type(mut self, content_type: &str) -> Self {
        self.content_type = Some(content_type.to_owned());
        self
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Tells the end of the body in this way, right or wrong.
    #[must_use]
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = Some(framing);
        self
    }

    /// Compresses the body, whether the request accepts it or not.
    #[must_use]
    pub fn gzip(mut self) -> Self {
        self.gzip = true;
        self
    }

    /// Does `step` before the status line.
    #[must_use]
    pub fn before_head(mut self, step: Step) -> Self {
        self.before_head.push(step);
        self
    }

    /// Sends an interim response first.
    #[must_use]
    pub fn interim(self, head: &'static str) -> Self {
        self.before_head(Step::SendRaw(Bytes::from_static(head.as_bytes())))
    }

    /// Sends only the first `count` server-sent events; the body is left open for [`Reply::then`].
    #[must_use]
    pub fn first_frames(mut self, count: usize) -> Self {
        self.first_frames = Some(count);
        self
    }

    /// Sends the body in pieces of `bytes`, frames or not.
    #[must_use]
    pub fn in_pieces_of(mut self, bytes: usize) -> Self {
        self.piece_bytes = Some(bytes);
        self
    }

    /// Does `step` after the body was sent and before its end is told.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.after.push(step);
        self
    }

    /// Closes the connection after a complete answer, without having announced it.
    #[must_use]
    pub fn then_close_unannounced(mut self) -> Self {
        self.closes = true;
        self
    }

    pub(crate) fn render(&self, model: &str, request: &Value, authorization: &str) -> Rendered {
        let asked_stream = request["stream"] == json!(true);
        let include_usage = request["stream_options"]["include_usage"] == json!(true);
        let (pieces, sse) = match &self.content {
            Content::Turn(turn) if asked_stream => (turn.frames(model, include_usage), true),
            Content::Forced(turn, true) => (turn.frames(model, include_usage), true),
            Content::Turn(turn) | Content::Forced(turn, false) => {
                (vec![turn.completion(model).to_string()], false)
            }
            Content::Bytes(_) => (Vec::new(), false),
        };
        let mut pieces: Vec<Bytes> = match &self.content {
            Content::Bytes(bytes) => vec![quote(bytes, authorization)],
            _ => pieces.into_iter().map(Bytes::from).collect(),
        };
        pieces.truncate(self.first_frames.unwrap_or(usize::MAX));
        if self.gzip {
            pieces = vec![gzip(&pieces.concat())];
        }
        if let Some(size) = self.piece_bytes {
            let whole = Bytes::from(pieces.concat());
            pieces = (0..whole.len())
                .step_by(size)
                .map(|at| whole.slice(at..(at + size).min(whole.len())))
                .collect();
        }
        let length = pieces.iter().map(Bytes::len).sum();
        pieces.retain(|piece| !piece.is_empty()); // an empty chunk would end the body
        let framing = self.framing.unwrap_or(if sse { Framing::Chunked } else { Framing::Length(length) });
        let default_type = if sse { "text/event-stream; charset=utf-8" } else { "application/json" };
        let content_type = self.content_type.clone().unwrap_or_else(|| default_type.to_owned());
        let mut headers =
            vec![("content-type".into(), content_type), ("x-request-id".into(), "req_upstream".into())];
        headers.extend(self.headers.iter().cloned());
        if self.gzip {
            headers.push(("content-encoding".into(), "gzip".into()));
        }
        headers.push(match framing {
            Framing::Length(length) => ("content-length".into(), length.to_string()),
            Framing::Chunked => ("transfer-encoding".into(), "chunked".into()),
            Framing::UntilClose => ("connection".into(), "close".into()),
        });
        let headers: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("HTTP/1.1 {} Fake\r\n{}\r\n", self.status, headers.concat());
        let steps = pieces.into_iter().map(Step::Send).chain(self.after.iter().cloned()).collect();
        Rendered { before_head: self.before_head.clone(), head, framing, steps, closes: self.closes }
    }
}

fn quote(body: &Bytes, authorization: &str) -> Bytes {
    match std::str::from_utf8(body) {
        Ok(text) if text.contains(QUOTED_AUTHORIZATION) => {
            text.replace(QUOTED_AUTHORIZATION, authorization).into()
        }
        _ => body.clone(),
    }
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory does not fail").into()
}

/// What the upstream does for one model: request members it refuses, and its answers in order,
/// the last of which is repeated.
#[derive(Clone, Debug)]
pub struct Script {
    refused_members: Vec<&'static str>,
    replies: VecDeque<Reply>,
}

impl From<Reply> for Script {
    fn from(reply: Reply) -> Self {
        Self { refused_members: Vec::new(), replies: VecDeque::from([reply]) }
    }
}

impl From<Turn> for Script {
    fn from(turn: Turn) -> Self {
        Reply::turn(turn).into()
    }
}

impl Script {
    /// Answers with `replies` in order, the last again and again.
    pub fn sequence(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies: VecDeque<_> = replies.into_iter().collect();
        assert!(!replies.is_empty(), "a script has an answer");
        Self { refused_members: Vec::new(), replies }
    }

    /// Refuses requests that carry `member`, as OpenAI and others do: 400, `unsupported_parameter`.
    #[must_use]
    pub fn refusing(mut self, member: &'static str) -> Self {
        self.refused_members.push(member);
        self
    }

    pub(crate) fn next(&mut self, request: &Value) -> Reply {
        for member in &self.refused_members {
            if request.get(member).is_some() {
                return refusal_of(member);
            }
        }
        if self.replies.len() > 1 {
            return self.replies.pop_front().expect("its length was just checked");
        }
        self.replies[0].clone()
    }
}

fn refusal_of(member: &str) -> Reply {
    // OpenAI's words for the one that has a successor, in general terms for the others.
    let hint = if member == "max_tokens" { " Use 'max_completion_tokens' instead." } else { "" };
    let message = format!("Unsupported parameter: '{member}' is not supported with this model.{hint}");
    Reply::error(400, &message, "invalid_request_error", Some("unsupported_parameter"), Some(member))
}
