//! A run's events, as its client gets them.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use runner_api::{ErrorClass, RunEvent};
use tokio::sync::mpsc;

/// The last item [is the last](RunEvent::is_last); after it there is nothing. Dropping the stream ends the run.
#[derive(Debug)]
pub struct RunStream {
    events: mpsc::Receiver<RunEvent>,
    ended: bool,
}

impl RunStream {
    pub(super) fn new(events: mpsc::Receiver<RunEvent>) -> Self {
        Self { events, ended: false }
    }

    /// Of a run that has failed before it began.
    pub(super) fn failed(class: ErrorClass, message: &str) -> Self {
        let (sender, events) = mpsc::channel(1);
        sender.try_send(RunEvent::error(class, message)).expect("an empty channel has room");
        Self::new(events)
    }
}

impl Stream for RunStream {
    type Item = RunEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<RunEvent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = std::task::ready!(self.events.poll_recv(context))
            // The run's task went down without a word: its dialect panicked.
            .unwrap_or_else(|| {
                RunEvent::error(ErrorClass::Internal, "the run was cut off by a fault of the node")
            });
        self.ended = event.is_last();
        Poll::Ready(Some(event))
    }
}
