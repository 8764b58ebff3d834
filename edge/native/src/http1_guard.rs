//! Stands between hyper and an accepted stream, and mends five things that hyper decides by itself, where no service
//! can see them. HTTP/2 passes untouched, but for the last.
//!
//! - **Answers without a body.** hyper answers a head that it cannot parse (400), or one that is too long (414, 431),
//!   with an empty body. Clients need OpenAI's error object, so [`Http1Guard`] writes one in its place.
//! - **`Content-Length` and `Transfer-Encoding` in one head** (RFC 9112, section 6.3: a sign of request smuggling).
//!   hyper drops the length, reads the chunks and closes after its answer: safe, but nobody is told. Here such a head
//!   is made unparseable on its way to hyper, which so refuses it in its turn, after the answers to earlier requests.
//! - **The first head.** hyper's timer for heads begins after hyper has found out which protocol is spoken; until
//!   then a silent peer would be waited for, for ever.
//! - **Answers that get lost.** Closing a socket on a peer that is still sending makes its kernel throw away what it
//!   has not read yet, the answer included. So after a request that was not read to its end the stream is read, and
//!   what comes thrown away, until the peer closes too, or for a short time.
//! - **Peers that do not read.** hyper waits for ever to write. Here a write that makes no progress for a while ends the
//!   connection, and with it the request and its upstream call.

mod framing;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use memchr::memmem;
use openai_wire::ErrorBody;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use framing::Framing;

/// Longer than any head that hyper makes by itself.
const MAX_OWN_HEAD_BYTES: usize = 256;

pub(crate) struct Http1Guard<S> {
    stream: S,
    requests: Framing,
    has_both: bool,
    /// When the first head must have come; `None` once it has.
    first_head: Option<Pin<Box<Sleep>>>,
    refusal: Option<Refusal>,
    linger_timeout: Duration,
    linger: Option<Pin<Box<Sleep>>>,
    stall_timeout: Duration,
    /// Runs while a write waits for the peer.
    stall: Option<Pin<Box<Sleep>>>,
}

/// Our answer in place of hyper's.
struct Refusal {
    bytes: Vec<u8>,
    written: usize,
}

impl<S> Http1Guard<S> {
    /// `first_head_timeout` bounds the first head (or HTTP/2's preface) from now on, `linger_timeout` the time for
    /// which a peer that still sends is listened to after the answer, and `stall_timeout` the time for which a peer may
    /// not read while there is something to write.
    pub(crate) fn new(
        stream: S,
        first_head_timeout: Duration,
        linger_timeout: Duration,
        stall_timeout: Duration,
    ) -> Self {
        Self {
            stream,
            requests: Framing::new(),
            has_both: false,
            first_head: Some(Box::pin(sleep(first_head_timeout))),
            refusal: None,
            linger_timeout,
            linger: None,
            stall_timeout,
            stall: None,
        }
    }

    /// Passes on how a write went, unless the peer has not taken anything for too long.
    fn bounded(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let timeout = self.stall_timeout;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether the peer may be sending a request that nobody reads.
    fn is_cut_short(&self) -> bool {
        self.refusal.is_some() || self.requests.is_amid_request()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Http1Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(result) => result?,
            Poll::Pending => {
                if let Some(first_head) = &mut this.first_head {
                    ready!(first_head.as_mut().poll(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                return Poll::Pending;
            }
        }
        let read = &mut buf.filled_mut()[before..];
        if let Some(colon) = this.requests.push(read) {
            // No parser takes this for the end of a header's name.
            read[colon] = b'\0';
            this.has_both = true;
        }
        if this.requests.is_greeted() {
            this.first_head = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Http1Guard<S> {
    /// `Some` if `bytes` are an answer of hyper's own, or the rest of one: then ours is written instead, and once
    /// that is done hyper's counts as written.
    fn poll_write_refusal(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_none() {
            self.refusal = refusal(bytes, self.has_both).map(|bytes| Refusal { bytes, written: 0 });
        }
        let refusal = self.refusal.as_mut()?;
        while refusal.written < refusal.bytes.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &refusal.bytes[refusal.written..]) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(written)) => refusal.written += written,
                unfinished => return Some(unfinished),
            }
        }
        // hyper writes nothing after such an answer.
        Some(Poll::Ready(Ok(bytes.len())))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Http1Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = match self.poll_write_refusal(cx, buf) {
            Some(refusing) => refusing,
            None => Pin::new(&mut self.stream).poll_write(cx, buf),
        };
        self.bounded(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A head without a body is a slice of its own.
        if let [buf] = bufs
            && let Some(refusing) = self.poll_write_refusal(cx, buf)
        {
            return self.bounded(cx, refusing);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.is_cut_short() {
                return Poll::Ready(Ok(()));
            }
        }
        let timeout = this.linger_timeout;
        let linger = this.linger.get_or_insert_with(|| Box::pin(sleep(timeout)));
        // The timer goes first: a peer that never pauses must not keep it from being looked at.
        while linger.as_mut().poll(cx).is_pending() {
            let mut discarded = [0; 4096];
            let mut buf = ReadBuf::new(&mut discarded);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                // Closed, one way or another.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What to write in place of `bytes`, if those are an answer that hyper made by itself: one head with one of three
/// statuses and without the request id that every answer of the gateway has.
fn refusal(bytes: &[u8], has_both: bool) -> Option<Vec<u8>> {
    // Nearly everything ends here.
    if bytes.len() > MAX_OWN_HEAD_BYTES || !bytes.starts_with(b"HTTP/1.") {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
    let (status_line, headers) = head.split_once("\r\n")?;
    let (code, message) = match status_line.get("HTTP/1.1 ".len()..)?.split_once(' ')?.0 {
        "400" if has_both => (
            "conflicting_length",
            "The request has both Content-Length and Transfer-Encoding. Send one of them.",
        ),
        "400" => ("malformed_request", "The request is not valid HTTP/1.1."),
        "414" => ("uri_too_long", "The request's URL is too long."),
        "431" => (
            "headers_too_large",
            "The request has too many headers, or they are too long. Send at most 100 of them, 64 KiB in all.",
        ),
        _ => return None,
    };
    if head.contains("\r\n\r\n") || memmem::find(headers.as_bytes(), b"x-request-id:").is_some() {
        return None;
    }
    let date = headers.split("\r\n").find(|line| line.starts_with("date:"));
    // The client's own id, if it sent one, is in a head that could not be read.
    let request_id =
        crate::random::hex::<12>().expect("the operating system has randomness once it has booted");
    let request_id = format!("req_{request_id}");
    tracing::info!(request_id, code, "a request was refused before it could be read");
    let error = ErrorBody { message, kind: "invalid_request_error", param: None, code: Some(code) };
    let body = error.to_json();
    let mut answer = format!(
        "{status_line}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\nx-request-id: {request_id}\r\n",
        body.len()
    );
    if let Some(date) = date {
        answer.push_str(date);
        answer.push_str("\r\n");
    }
    answer.push_str("\r\n");
    let mut answer = answer.into_bytes();
    answer.extend_from_slice(&body);
    Some(answer)
}

#[cfg(test)]
mod tests;
