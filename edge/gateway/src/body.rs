//! Reading bodies within bounds.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;

use crate::body_memory::{BodyMemory, NoRoom};
use crate::error::ApiError;
use crate::host::{Body, BoxError, Host};
use crate::settings::Settings;
use crate::timer::LazyTimer;

/// What is read at least of a refused request that came with a key. Longer ones lose their answer.
const MAX_REFUSED_BYTES_OF_A_KEY: usize = 64 << 20;
/// How long a refused request may still send before its connection is given up.
const MAX_DRAIN_TIME: Duration = Duration::from_secs(10);
/// Room that is reserved on the word of a Content-Length alone.
const MAX_RESERVED_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadError {
    TooLong,
    /// The bodies that are held leave too little memory for it.
    NoRoom,
    /// Nothing came for too long, or all of it took too long.
    TimedOut,
    Broken,
}

impl From<NoRoom> for ReadError {
    fn from(NoRoom: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// Time bounds of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadTimeouts {
    pub idle: Duration,
    pub total: Duration,
}

/// Collects a whole body, which takes room in `memory` until it is dropped; a body of one piece is not copied.
pub(crate) async fn collect(
    body: &mut Body,
    max_bytes: usize,
    memory: &BodyMemory,
    timeouts: ReadTimeouts,
    host: &dyn Host,
) -> Result<Bytes, ReadError> {
    let expected = body.size_hint();
    if expected.lower() > max_bytes as u64 {
        return Err(ReadError::TooLong);
    }
    let mut room = memory.room();
    // All that was announced at once: of two long bodies that come at the same time one is to get through.
    room.grow_to(usize::try_from(expected.lower()).unwrap_or(usize::MAX))?;
    let mut timer = LazyTimer::default();
    // Read only when there is something to wait for: most bodies are there at once.
    let mut waiting: Option<(Duration, Duration)> = None;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    poll_fn(|cx| {
        loop {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    waiting = waiting.map(|(begun, _)| (begun, host.monotonic()));
                    let length = first.len() + rest.len() + data.len();
                    if length > max_bytes {
                        return Poll::Ready(Err(ReadError::TooLong));
                    }
                    room.grow_to(length)?;
                    if first.is_empty() && rest.is_empty() {
                        first = data;
                    } else {
                        if !first.is_empty() {
                            let whole =
                                usize::try_from(expected.lower()).unwrap_or(0).min(MAX_RESERVED_BYTES);
                            rest.reserve(whole.max(first.len() + data.len()));
                            rest.extend_from_slice(&std::mem::take(&mut first));
                        }
                        rest.extend_from_slice(&data);
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(ReadError::Broken)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    let now = host.monotonic();
                    let (begun, last) = *waiting.get_or_insert((now, now));
                    let deadline = (last + timeouts.idle).min(begun + timeouts.total);
                    return timer.poll(deadline, now, host, cx).map(|()| Err(ReadError::TimedOut));
                }
            }
        }
    })
    .await?;
    Ok(room.holding(if rest.is_empty() { first } else { rest.freeze() }))
}

/// A request body that may be left unread. What a refusal leaves is read and thrown away in the background, within
/// bounds: a client that is cut off while it still sends does not see the answer.
pub(crate) struct RequestBody {
    body: Option<Body>,
    max_refused_bytes: usize,
    host: Arc<dyn Host>,
}

impl RequestBody {
    pub(crate) fn new(body: Body, max_refused_bytes: usize, host: Arc<dyn Host>) -> Self {
        Self { body: Some(body), max_refused_bytes, host }
    }

    /// Whoever has a key gets to see why they are refused, however long their request is.
    pub(crate) fn is_of_a_key(&mut self) {
        self.max_refused_bytes = self.max_refused_bytes.max(MAX_REFUSED_BYTES_OF_A_KEY);
    }

    pub(crate) async fn read(&mut self, settings: &Settings, memory: &BodyMemory) -> Result<Bytes, ApiError> {
        let Some(body) = &mut self.body else { return Ok(Bytes::new()) };
        let timeouts = ReadTimeouts { idle: settings.body_idle_timeout, total: settings.body_total_timeout };
        match collect(body, settings.max_body_bytes, memory, timeouts, &*self.host).await {
            Ok(bytes) => {
                self.body = None;
                Ok(bytes)
            }
            Err(ReadError::TooLong) => Err(ApiError::body_too_large(settings.max_body_bytes)),
            Err(ReadError::NoRoom) => Err(ApiError::no_room()),
            Err(ReadError::TimedOut) => {
                self.body = None;
                Err(ApiError::body_too_slow())
            }
            Err(ReadError::Broken) => {
                self.body = None;
                Err(ApiError::invalid_request(
                    "incomplete_body",
                    "The request body ended before it was complete, or its framing is broken.",
                ))
            }
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && !body.is_end_stream()
        {
            let (max_bytes, host) = (self.max_refused_bytes, self.host.clone());
            self.host.spawn(Box::pin(async move {
                discard(body, max_bytes, MAX_DRAIN_TIME, &*host).await;
            }));
        }
    }
}

/// Reads a body to its end and throws it away, unless it is too long or too slow.
pub(crate) async fn discard(mut body: Body, max_bytes: usize, max_time: Duration, host: &dyn Host) {
    let deadline = host.monotonic() + max_time;
    let mut timer = LazyTimer::default();
    let mut read = 0;
    poll_fn(|cx| {
        loop {
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    read += frame.data_ref().map_or(0, Bytes::len);
                    if read > max_bytes {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return timer.poll(deadline, host.monotonic(), host, cx),
            }
        }
    })
    .await;
}

/// A request body made of pieces that are known: the parts of a client's body around what was replaced.
pub(crate) struct Pieces {
    pieces: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl Pieces {
    pub(crate) fn new(pieces: Vec<Bytes>) -> Self {
        let left = pieces.iter().map(|p| p.len() as u64).sum();
        Self { pieces: pieces.into_iter(), left }
    }

    pub(crate) fn len(&self) -> u64 {
        self.left
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        let piece = self.pieces.find(|piece| !piece.is_empty());
        self.left -= piece.as_ref().map_or(0, |p| p.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}
