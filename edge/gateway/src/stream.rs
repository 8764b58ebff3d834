//! The body of a streamed answer: reads the upstream, relays its frames, keeps silence short, and ends in-band.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame};
use openai_wire::sse::{self, SseDecoder};

use crate::body::discard;
use crate::error::{ApiError, FailureClass, UpstreamFailure};
use crate::host::{Body, BoxError, BoxFuture, Host};
use crate::reader::{Reader, Step};
use crate::relay::{ChunkRelay, Summary};
use crate::routes::Target;
use crate::settle::Settlement;
use crate::timer::LazyTimer;

/// Output that is gathered before it is handed on, while the upstream has more at once.
const BATCH_BYTES: usize = 16 * 1024;
/// Turns that an upstream is given to send more before output goes out. Two, because a server connection may look at
/// its body twice within one turn of its own.
const TURNS: u8 = 2;
const BURST_GAP: Duration = Duration::from_millis(1);
/// What an upstream may still send after it has said that it is done, so that its connection can be used again.
const MAX_TRAILING_BYTES: usize = 64 * 1024;
const MAX_TRAILING_TIME: Duration = Duration::from_secs(1);

/// An upstream's stream that is being read.
pub(crate) struct Live {
    upstream: Option<Body>,
    target: Arc<Target>,
    reader: Reader,
    /// Output that is held back until there is content in it.
    max_held_bytes: usize,
    relay: ChunkRelay,
    out: BytesMut,
    begun: Duration,
    last_byte: Option<Duration>,
    /// Something came since the upstream was last silent.
    has_news: bool,
    /// How often the upstream was given a turn to send more before what there is goes out.
    turns: u8,
    /// The clock when the upstream was last silent.
    now: Duration,
    last_output: Option<Duration>,
    timer: LazyTimer,
    host: Arc<dyn Host>,
    end: Option<Result<Summary, UpstreamFailure>>,
}

impl Live {
    pub(crate) fn new(
        upstream: Body,
        target: Arc<Target>,
        reader: Reader,
        relay: ChunkRelay,
        max_held_bytes: usize,
        begun: Duration,
        host: Arc<dyn Host>,
    ) -> Self {
        Self {
            upstream: Some(upstream),
            target,
            reader,
            max_held_bytes,
            relay,
            out: BytesMut::new(),
            begun,
            last_byte: None,
            has_news: false,
            turns: 0,
            now: begun,
            last_output: None,
            timer: LazyTimer::default(),
            host,
            end: None,
        }
    }

    /// An answer that came in one piece.
    pub(crate) fn ended(
        target: Arc<Target>,
        relay: ChunkRelay,
        out: BytesMut,
        summary: Summary,
        host: Arc<dyn Host>,
    ) -> Self {
        let begun = host.monotonic();
        let nothing = Reader::Sse(SseDecoder::new(0));
        let live = Self::new(crate::host::full(Bytes::new()), target, nothing, relay, 0, begun, host);
        Self { upstream: None, out, end: Some(Ok(summary)), ..live }
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Reads until the first content for the client, or the end. A failure up to here has cost nothing. One after the
    /// content belongs into the stream even if both came in one piece: the answer does not depend on how bytes were
    /// cut.
    pub(crate) fn poll_commit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamFailure>> {
        while !self.relay.has_output() && self.end.is_none() {
            ready!(self.poll_read(cx));
            if self.out.len() > self.max_held_bytes {
                self.fail(UpstreamFailure::unavailable(
                    "The upstream sent much, and nothing for the client in it.",
                ));
            }
        }
        if self.relay.has_output() {
            return Poll::Ready(Ok(()));
        }
        match self.end.take_if(|end| end.is_err()) {
            Some(Err(failure)) => Poll::Ready(Err(failure)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Ready when there is output to hand on, or when all has been read.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.end.is_none() && self.out.len() < BATCH_BYTES {
            if self.poll_read(cx).is_ready() {
                self.turns = 0;
            } else if self.out.is_empty() {
                return Poll::Pending;
            } else if self.turns == TURNS || !self.is_burst() {
                self.turns = 0;
                self.last_output = Some(self.now);
                return Poll::Ready(());
            } else {
                // A client connection hands over one frame at a time and must run to hand over the next, which may have
                // been received already: one write for a burst instead of one for each of its frames.
                self.turns += 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Reads to the end, at which `take` has had all of the output.
    pub(crate) async fn read_to_end(
        &mut self,
        mut take: impl FnMut(&[u8]),
    ) -> Result<Summary, UpstreamFailure> {
        loop {
            poll_fn(|cx| self.poll_output(cx)).await;
            take(&self.out.split());
            if let Some(end) = self.end.take() {
                return end;
            }
        }
    }

    /// Whether frames follow each other so closely that more may be there. In a stream of tokens at reading speed each
    /// goes out at once.
    fn is_burst(&self) -> bool {
        self.last_output.is_none_or(|at| self.now.saturating_sub(at) < BURST_GAP)
    }

    /// Takes one piece from the upstream, or finds that it ended, failed or took too long.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(upstream) = &mut self.upstream else { return Poll::Ready(()) };
        match Pin::new(upstream).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    self.has_news = true;
                    self.reader.push(data);
                    self.decode(cx);
                }
                Poll::Ready(())
            }
            Poll::Ready(Some(Err(_))) => {
                self.upstream = None;
                self.finish_or("The upstream's connection broke before the answer was complete.");
                Poll::Ready(())
            }
            Poll::Ready(None) => {
                self.upstream = None;
                if self.end.is_none() {
                    let last = self.reader.finish(&mut self.relay, &mut self.out, &self.target.upstream);
                    if let Step::Ended(end) = last {
                        self.end = Some(end);
                    }
                }
                self.finish_or("The upstream's stream ended before the answer was complete.");
                Poll::Ready(())
            }
            Poll::Pending => {
                // The clock is read once per silence, not once per frame.
                let now = self.host.monotonic();
                self.now = now;
                if std::mem::take(&mut self.has_news) {
                    self.last_byte = Some(now);
                }
                let timeouts = &self.target.upstream.timeouts;
                let silent_until =
                    self.last_byte.map_or(self.begun + timeouts.first_byte, |at| at + timeouts.idle);
                let deadline = silent_until.min(self.begun + timeouts.total);
                ready!(self.timer.poll(deadline, now, &*self.host, cx));
                let message = if self.last_byte.is_some() {
                    "The upstream stopped in the middle of its answer and was given up."
                } else {
                    "The upstream did not begin to answer in time."
                };
                self.fail(UpstreamFailure::new(FailureClass::Timeout, message));
                Poll::Ready(())
            }
        }
    }

    fn decode(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none() {
            match self.reader.step(&mut self.relay, &mut self.out, &self.target.upstream) {
                Step::Taken => {}
                Step::Starved => return,
                Step::Ended(end) => self.end = Some(end),
            }
        }
        self.release(cx);
    }

    /// The upstream is gone: a complete answer stands, an incomplete one is a failure.
    fn finish_or(&mut self, message: &'static str) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(if self.relay.is_finished() {
            self.relay.end(&mut self.out).map_err(|error| error.into_failure(&self.target.upstream))
        } else {
            Err(UpstreamFailure::unavailable(message).after_work())
        });
    }

    fn fail(&mut self, failure: UpstreamFailure) {
        self.upstream = None;
        self.end = Some(Err(failure.after_work()));
    }

    /// Done with the upstream. Its connection is worth keeping if it ends properly, which it mostly has already.
    fn release(&mut self, cx: &mut Context<'_>) {
        let Some(mut upstream) = self.upstream.take() else { return };
        if !matches!(self.end, Some(Ok(_))) {
            return;
        }
        if Pin::new(&mut upstream).poll_frame(cx).is_pending() {
            let host = self.host.clone();
            self.host.spawn(Box::pin(async move {
                discard(upstream, MAX_TRAILING_BYTES, MAX_TRAILING_TIME, &*host).await;
            }));
        }
    }
}

/// The response body. Before the first content it may wait in `Opening`, where targets are still tried.
pub(crate) struct ChatStream {
    state: State,
    host: Arc<dyn Host>,
    keepalive: Duration,
    last_sent: Duration,
    timer: LazyTimer,
    settlement: Settlement,
}

pub(crate) enum State {
    Opening(BoxFuture<'static, Result<Live, UpstreamFailure>>),
    Live(Box<Live>),
    Ended,
}

impl ChatStream {
    pub(crate) fn new(
        state: State,
        host: Arc<dyn Host>,
        keepalive: Duration,
        settlement: Settlement,
    ) -> Self {
        let last_sent = host.monotonic();
        Self { state, host, keepalive, last_sent, timer: LazyTimer::default(), settlement }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match &mut self.state {
                State::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(live) => {
                        self.settlement.target(live.target().clone());
                        self.state = State::Live(Box::new(live));
                    }
                    Err(failure) => {
                        let mut out = BytesMut::new();
                        self.end_with(failure, &mut out);
                        return Poll::Ready(Some(out.freeze()));
                    }
                },
                State::Live(live) => {
                    ready!(live.poll_output(cx));
                    self.settlement.first_output();
                    let mut out = live.out.split();
                    match live.end.take() {
                        None => {}
                        Some(Ok(summary)) => {
                            live.target.learned.usage_reported(!summary.estimated);
                            self.settlement.usage(summary.usage, summary.estimated);
                            self.settlement.answered();
                            self.state = State::Ended;
                        }
                        Some(Err(failure)) => self.end_with(failure, &mut out),
                    }
                    return Poll::Ready(Some(out.freeze()));
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    /// The error event is the last thing: no `[DONE]` after it.
    fn end_with(&mut self, failure: UpstreamFailure, out: &mut BytesMut) {
        self.count_so_far();
        self.settlement.failed(&failure);
        sse::encode_data(out, &ApiError::from(failure).to_json());
        self.state = State::Ended;
    }

    /// What an answer that ends before its time has used.
    fn count_so_far(&mut self) {
        if let State::Live(live) = &self.state {
            let Summary { usage, estimated } = live.relay.so_far();
            self.settlement.usage(usage, estimated);
        }
    }
}

/// The client has left, or has all of it.
impl Drop for ChatStream {
    fn drop(&mut self) {
        self.count_so_far();
    }
}

impl http_body::Body for ChatStream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match this.poll_bytes(cx) {
            Poll::Ready(Some(bytes)) => {
                this.last_sent = this.host.monotonic();
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                this.settlement.permit().keep(cx);
                let now = this.host.monotonic();
                ready!(this.timer.poll(this.last_sent + this.keepalive, now, &*this.host, cx));
                this.last_sent = now;
                let mut out = BytesMut::new();
                sse::encode_comment(&mut out, "keep-alive");
                Poll::Ready(Some(Ok(Frame::data(out.freeze()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}
