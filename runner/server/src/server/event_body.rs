//! A run's events as the body of an answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame};
use runner_api::{ErrorClass, RunEvent, frame};
use tokio::time::{Instant, Sleep, sleep};

use crate::metrics::RunRecord;

/// Longest silence.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Events that are ready at once go out together, up to about so many bytes.
const BATCH_BYTES: usize = 32 << 10;
/// Longest string of one event. JSON may need six bytes for one of them.
const MAX_STRING_BYTES: usize = frame::MAX_FRAME_BYTES / 8;

/// Lines of events; dropping it drops the stream, and with it ends the run.
///
/// Where the stream says nothing for a while an empty line does. A stream that ends without a last event gets one: no
/// reader takes a run that was cut off for one that is complete.
pub(super) struct EventBody<S> {
    events: Pin<Box<S>>,
    record: RunRecord,
    silence: Pin<Box<Sleep>>,
    ended: bool,
}

impl<S: Stream<Item = RunEvent>> EventBody<S> {
    pub(super) fn new(events: S, record: RunRecord) -> Self {
        Self { events: Box::pin(events), record, silence: Box::pin(sleep(KEEP_ALIVE)), ended: false }
    }

    /// All that is ready; whether more may come without anything happening is not known.
    fn take_ready(&mut self, context: &mut Context<'_>) -> Vec<u8> {
        let mut lines = Vec::new();
        while !self.ended && lines.len() < BATCH_BYTES {
            let Poll::Ready(event) = self.events.as_mut().poll_next(context) else { break };
            let event = event
                .unwrap_or_else(|| RunEvent::error(ErrorClass::Internal, "the run ended without saying how"));
            // What a newer dialect says to itself is not for the wire, and cannot be encoded.
            if event == RunEvent::Unknown {
                continue;
            }
            self.record.event(&event);
            self.ended = event.is_last();
            encode(event, &mut lines);
        }
        lines
    }
}

/// As events that every reader takes: text in pieces, and what cannot be in pieces cut or left out.
fn encode(event: RunEvent, lines: &mut Vec<u8>) {
    let event = match event {
        RunEvent::Text { text } if text.len() > MAX_STRING_BYTES => {
            return pieces(&text).for_each(|text| frame::encode(&RunEvent::Text { text }, lines));
        }
        RunEvent::Reasoning { text } if text.len() > MAX_STRING_BYTES => {
            return pieces(&text).for_each(|text| frame::encode(&RunEvent::Reasoning { text }, lines));
        }
        // Half of a JSON text is none.
        RunEvent::ToolCall { id, name, arguments } if arguments.len() > MAX_STRING_BYTES => {
            RunEvent::ToolCall { id, name, arguments: String::new() }
        }
        RunEvent::Notice { message } => RunEvent::Notice { message: first_piece(&message).to_owned() },
        RunEvent::Error { class, message, status, retry_after_ms } => {
            RunEvent::Error { class, message: first_piece(&message).to_owned(), status, retry_after_ms }
        }
        event => event,
    };
    frame::encode(&event, lines);
}

fn pieces(mut text: &str) -> impl Iterator<Item = String> {
    std::iter::from_fn(move || {
        let (piece, rest) = text.split_at(first_piece(text).len());
        text = rest;
        (!piece.is_empty()).then(|| piece.to_owned())
    })
}

fn first_piece(text: &str) -> &str {
    let most = text.len().min(MAX_STRING_BYTES);
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

impl<S: Stream<Item = RunEvent>> Body for EventBody<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let lines = self.take_ready(context);
        if !lines.is_empty() {
            self.silence.as_mut().reset(Instant::now() + KEEP_ALIVE);
            return Poll::Ready(Some(Ok(Frame::data(lines.into()))));
        }
        std::task::ready!(self.silence.as_mut().poll(context));
        self.silence.as_mut().reset(Instant::now() + KEEP_ALIVE);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(frame::KEEP_ALIVE)))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::BodyExt as _;
    use runner_api::FinishReason;
    use tokio::sync::mpsc;

    use super::*;
    use crate::metrics::Metrics;

    fn body<S: Stream<Item = RunEvent>>(events: S) -> EventBody<S> {
        EventBody::new(events, Metrics::new().run("run".to_owned(), "cli".to_owned(), Instant::now()))
    }

    fn channel() -> (mpsc::Sender<RunEvent>, EventBody<impl Stream<Item = RunEvent>>) {
        let (sender, mut receiver) = mpsc::channel(8);
        (sender, body(stream::poll_fn(move |context| receiver.poll_recv(context))))
    }

    fn text(text: &str) -> RunEvent {
        RunEvent::Text { text: text.to_owned() }
    }

    const END: RunEvent = RunEvent::Finished { reason: FinishReason::Stop };

    /// The next frame; None at the end.
    async fn next<S: Stream<Item = RunEvent>>(body: &mut EventBody<S>) -> Option<String> {
        let frame = body.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(frame.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_every_ten_seconds() {
        let (sender, mut body) = channel();
        let began = Instant::now();
        for seconds in [10, 20, 30] {
            assert_eq!(next(&mut body).await.as_deref(), Some("\n"));
            assert_eq!(began.elapsed().as_secs(), seconds);
        }
        tokio::time::advance(Duration::from_secs(7)).await;
        sender.send(text("a")).await.unwrap();
        assert_eq!(next(&mut body).await.as_deref(), Some("{\"type\":\"text\",\"text\":\"a\"}\n"));
        assert_eq!(next(&mut body).await.as_deref(), Some("\n"));
        assert_eq!(began.elapsed().as_secs(), 47, "counted from the last event");
    }

    #[tokio::test]
    async fn events_that_are_ready_go_out_together_and_none_after_the_last() {
        let mut body = body(stream::iter([text("a"), RunEvent::Unknown, text("b"), END, text("c")]));
        let lines = next(&mut body).await.unwrap();
        assert_eq!(lines.lines().count(), 3, "{lines}");
        assert!(lines.ends_with("\"finished\",\"reason\":\"stop\"}\n"), "{lines}");
        assert!(body.is_end_stream());
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test]
    async fn a_batch_has_a_size() {
        let long = "x".repeat(20 << 10);
        let mut body = body(stream::iter([text(&long), text(&long), text(&long), END]));
        assert_eq!(next(&mut body).await.unwrap().lines().count(), 2);
        assert_eq!(next(&mut body).await.unwrap().lines().count(), 2);
        assert_eq!(next(&mut body).await, None);
    }

    #[test]
    fn no_event_is_too_long_for_its_readers() {
        let long = "\u{1}é".repeat(MAX_STRING_BYTES);
        let call = RunEvent::ToolCall { id: "1".to_owned(), name: "n".to_owned(), arguments: long.clone() };
        let events = [
            text(&long),
            RunEvent::Reasoning { text: long.clone() },
            call,
            RunEvent::Notice { message: long.clone() },
            RunEvent::error(ErrorClass::Auth, long.clone()),
        ];
        let mut decoder = frame::Decoder::default();
        let (mut read_text, mut read_reasoning, mut others) = (String::new(), String::new(), Vec::new());
        for event in events {
            let mut lines = Vec::new();
            encode(event, &mut lines);
            decoder.push(&lines);
            while let Some(event) = decoder.next_event().unwrap() {
                match event {
                    RunEvent::Text { text } => read_text.push_str(&text),
                    RunEvent::Reasoning { text } => read_reasoning.push_str(&text),
                    event => others.push(event),
                }
            }
        }
        assert!(read_text == long && read_reasoning == long, "nothing is lost");
        assert!(
            matches!(&others[0], RunEvent::ToolCall { name, arguments, .. } if name == "n" && arguments.is_empty())
        );
        assert!(matches!(&others[1], RunEvent::Notice { message } if long.starts_with(message.as_str())));
        assert!(matches!(&others[2], RunEvent::Error { class: ErrorClass::Auth, .. }));
        assert_eq!(others.len(), 3);
    }

    #[tokio::test]
    async fn a_stream_without_a_last_event_gets_one() {
        let mut body = body(stream::iter([text("a")]));
        let lines = next(&mut body).await.unwrap();
        assert!(
            lines.lines().last().unwrap().starts_with("{\"type\":\"error\",\"class\":\"internal\""),
            "{lines}"
        );
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test]
    async fn dropping_the_body_drops_the_stream() {
        let (sender, mut body) = channel();
        sender.send(text("a")).await.unwrap();
        next(&mut body).await.unwrap();
        assert!(!sender.is_closed());
        drop(body);
        assert!(sender.is_closed());
    }
}
