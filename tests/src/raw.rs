//! A client that says exactly the bytes a test gives it and shows what came back, byte for byte.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gateway::Gateway;
use crate::http1::{Framing, Headers, Reader};
use crate::{SOON, secrets, within};

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Headers,
    pub body: Bytes,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the gateway sends UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The `error` member, after checking that it has OpenAI's shape: all four members, `message`
    /// and `type` non-empty strings, `code` and `param` strings or null; and JSON as its content
    /// type; and a request id.
    pub fn error(&self) -> Value {
        assert!(self.status >= 400, "an error has an error status, not {}: {}", self.status, self.text());
        let content_type = self.headers.get("content-type").unwrap_or_default();
        assert!(content_type.starts_with("application/json"), "content-type of an error: {content_type}");
        assert!(
            self.headers.get("x-request-id").is_some_and(|id| !id.is_empty()),
            "an error has a request id"
        );
        let body = self.json();
        let error = assert_error_shape(&body);
        error.clone()
    }
}

/// Checks that `body` is `{"error":{message,type,code,param}}`, and gives the error.
pub fn assert_error_shape(body: &Value) -> &Value {
    let error = &body["error"];
    let members = error.as_object().unwrap_or_else(|| panic!("not an error in OpenAI's shape: {body}"));
    for member in ["message", "type", "code", "param"] {
        assert!(members.contains_key(member), "the error has no {member}: {body}");
    }
    for member in ["message", "type"] {
        assert!(error[member].as_str().is_some_and(|text| !text.is_empty()), "{member} is text: {body}");
    }
    for member in ["code", "param"] {
        assert!(error[member].is_null() || error[member].is_string(), "{member} is text or null: {body}");
    }
    error
}

/// A connection to a gateway.
pub struct Connection {
    reader: Reader<Box<dyn Io>>,
    framing: Framing,
}

impl Connection {
    /// Connects in clear.
    pub async fn open(gateway: &Gateway) -> Self {
        let stream = TcpStream::connect(gateway.address()).await.expect("the gateway accepts connections");
        stream.set_nodelay(true).expect("a connected socket takes options");
        Self::over(stream)
    }

    /// Speaks over `stream`.
    pub fn over(stream: impl Io + 'static) -> Self {
        Self { reader: Reader::new(Box::new(stream)), framing: Framing::Length(0) }
    }

    /// Sends bytes. The peer may have closed: what it answered can still be read.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let output = self.reader.get_mut();
        output.write_all(bytes.as_ref()).await?;
        output.flush().await
    }

    /// Sends bytes that the peer is there to take.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(SOON, "the gateway takes the bytes", self.try_send(bytes))
            .await
            .expect("the gateway is there");
    }

    /// Reads the head of the next response that is not interim.
    pub async fn head(&mut self) -> Response {
        let head = within(SOON, "the gateway answers", async {
            loop {
                match self.reader.response_head().await {
                    Ok(Some(head)) if head.status < 200 => {}
                    Ok(Some(head)) => return head,
                    Ok(None) => panic!("the gateway closed instead of answering"),
                    Err(error) => panic!("instead of an answer: {error}"),
                }
            }
        })
        .await;
        self.framing = match head.status {
            204 | 304 => Framing::Length(0),
            _ => Framing::of(&head.headers),
        };
        for (name, value) in &head.headers.0 {
            secrets::assert_none_in(&format!("header {name}"), value.as_bytes());
        }
        Response { status: head.status, headers: head.headers, body: Bytes::new() }
    }

    /// Reads an interim response; its status.
    pub async fn interim(&mut self) -> u16 {
        let head = within(SOON, "an interim response", self.reader.response_head()).await;
        head.expect("the gateway speaks HTTP").expect("the gateway did not close").status
    }

    /// The next piece of the body (an HTTP chunk); `None` at its proper end, an error when it was
    /// cut short.
    pub async fn try_piece(&mut self, limit: Duration) -> io::Result<Option<Bytes>> {
        let piece = within(limit, "more of the body", self.reader.body_piece(&mut self.framing)).await?;
        if let Some(piece) = &piece {
            secrets::assert_none_in("a response", piece);
        }
        Ok(piece)
    }

    /// The next piece of a body that is not cut short.
    pub async fn piece(&mut self) -> Option<Bytes> {
        self.try_piece(SOON).await.expect("the body is not cut short")
    }

    /// The rest of the body.
    pub async fn rest(&mut self) -> Bytes {
        let mut body = BytesMut::new();
        while let Some(piece) = self.piece().await {
            body.extend_from_slice(&piece);
        }
        secrets::assert_none_in("a response", &body);
        body.freeze()
    }

    /// The body up to and including `text`.
    pub async fn until(&mut self, text: &str) -> String {
        let mut body = BytesMut::new();
        while !String::from_utf8_lossy(&body).contains(text) {
            let piece = self.piece().await;
            body.extend_from_slice(
                &piece.unwrap_or_else(|| panic!("the body ended before {text:?}: {body:?}")),
            );
        }
        String::from_utf8_lossy(&body).into_owned()
    }

    /// The next whole response.
    pub async fn response(&mut self) -> Response {
        let mut response = self.head().await;
        response.body = self.rest().await;
        response
    }

    /// Sends a request and reads the response.
    pub async fn request(&mut self, request: &Request) -> Response {
        self.send(request.bytes()).await;
        self.response().await
    }

    /// Checks that after an answer the connection is either of further use or closed, never half of it.
    pub async fn assert_usable_or_closed(&mut self, gateway: &Gateway) {
        if self.try_send(Request::new(gateway, "GET", "/v1/models").bytes()).await.is_err() {
            return;
        }
        if let Ok(Some(head)) =
            within(SOON, "an answer or the end of the connection", self.reader.response_head()).await
        {
            assert_eq!(head.status, 200, "a connection that is kept answers the next request properly");
            self.framing = Framing::of(&head.headers);
            self.rest().await;
        }
    }

    /// The statuses of all answers to what was sent, up to the end of the connection or until the
    /// gateway waits for more.
    pub async fn statuses_until_closed_or_idle(&mut self) -> Vec<u16> {
        // It was all sent at once; answers that take longer than this would be answers to nothing.
        const IDLE: Duration = Duration::from_secs(2);
        let mut statuses = Vec::new();
        while let Ok(Ok(Some(head))) = tokio::time::timeout(IDLE, self.reader.response_head()).await {
            statuses.push(head.status);
            self.framing = Framing::of(&head.headers);
            if tokio::time::timeout(IDLE, self.rest()).await.is_err() {
                break;
            }
        }
        statuses
    }

    /// Waits until the peer has closed, discarding what it still says.
    pub async fn closed(&mut self, limit: Duration) {
        within(limit, "the gateway has closed the connection", async {
            while let Ok(true) = self.reader.fill().await {}
        })
        .await;
    }
}

/// A request in HTTP/1.1, with only the headers it names.
#[derive(Clone, Debug)]
pub struct Request {
    head: String,
    body: Bytes,
}

impl Request {
    /// A request with `Host` and the gateway's key.
    pub fn new(gateway: &Gateway, method: &str, target: &str) -> Self {
        Self::bare(method, target).header("host", gateway.address()).header("authorization", bearer(gateway))
    }

    /// A request without any header.
    pub fn bare(method: &str, target: &str) -> Self {
        Self { head: format!("{method} {target} HTTP/1.1\r\n"), body: Bytes::new() }
    }

    /// A chat completion request with `body`.
    pub fn chat(gateway: &Gateway, body: &Value) -> Self {
        Self::new(gateway, "POST", "/v1/chat/completions").json(body)
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: impl Display) -> Self {
        self.head = format!("{}{name}: {value}\r\n", self.head);
        self
    }

    /// Adds the body and its length.
    #[must_use]
    pub fn body(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let mut request = self.header("content-type", content_type).header("content-length", body.len());
        request.body = body;
        request
    }

    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// The bytes to send.
    pub fn bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// The head alone, blank line included.
    pub fn head_bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), b"\r\n"].concat()
    }
}

/// The `Authorization` value for the gateway's key.
pub fn bearer(gateway: &Gateway) -> String {
    format!("Bearer {}", gateway.api_key)
}
