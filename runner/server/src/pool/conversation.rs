//! A CLI's process and the dialect that is spoken with it.
//!
//! Writing and reading go on at the same time: a CLI that waits for its output to be read while its input is being
//! written does not block. What has not been taken yet is bounded: nothing is read while events wait to be taken, or
//! while more than [`MAX_ANSWER_BYTES`] besides the request wait to be written.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes};
use cli_dialect::{Action, Dialect, Exit, Observed, PromptError};
use runner_api::{RunEvent, RunRequest};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::place::{Hold, Place};
use crate::sandbox::Output;

/// What a dialect may have to say to a CLI that does not read.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// From the end of a CLI's output until it is known how it ended.
const EXIT_KNOWN_WITHIN: Duration = Duration::from_secs(5);

pub struct Conversation {
    stdin: Input,
    output: mpsc::Receiver<Output>,
    hold: Box<dyn Hold>,
    dialect: Box<dyn Dialect>,
    /// Whether the dialect knows of the process.
    told: bool,
    ready: bool,
    /// For the edge, oldest first.
    events: VecDeque<RunEvent>,
    actions: Vec<Action>,
}

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The CLI printed something; perhaps there are events, perhaps it is ready or complete.
    Output,
    /// The CLI has ended, as has its output.
    End,
}

impl Conversation {
    pub(super) fn new(place: Place, dialect: Box<dyn Dialect>) -> Self {
        let Place { stdin, output, hold } = place;
        Self {
            stdin: Input::new(stdin),
            output,
            hold,
            dialect,
            told: false,
            ready: false,
            events: VecDeque::new(),
            actions: Vec::new(),
        }
    }

    /// Writes to the process before the dialect does.
    pub(crate) fn write(&mut self, bytes: Vec<u8>) {
        self.stdin.queue_request(bytes);
    }

    /// Brings the CLI to where it waits for its request. The error is an event that says why it does not, if known.
    pub(crate) async fn boot(&mut self) -> Result<(), Option<RunEvent>> {
        self.told = true;
        self.dialect.boot(&mut self.actions);
        self.perform();
        while !self.ready {
            if let Some(last) = self.take_last() {
                return Err(Some(last));
            }
            match self.hear().await {
                // What is told of a start is of no interest unless it is an error.
                Heard::Output => self.events.retain(RunEvent::is_last),
                Heard::End => {
                    let exit = self.exit().await;
                    self.end(Some(&exit));
                    return Err(self.take_last());
                }
            }
        }
        Ok(())
    }

    fn take_last(&mut self) -> Option<RunEvent> {
        self.events.drain(..).find(RunEvent::is_last)
    }

    /// Returns when the CLI can no longer be given a request: it ended, or said what does not belong before one.
    /// To be called before the request. May be dropped at any time.
    pub(crate) async fn unfit(&mut self) {
        loop {
            match self.hear().await {
                Heard::End => return,
                Heard::Output => {
                    self.events.retain(|event| !matches!(event, RunEvent::Notice { .. }));
                    if !self.told || !self.events.is_empty() || self.stdin.is_closing() {
                        return;
                    }
                }
            }
        }
    }

    /// Gives the CLI its request. After an error it can be given another.
    pub(crate) fn begin(&mut self, request: &RunRequest) -> Result<(), PromptError> {
        self.dialect.begin(request, &mut self.actions)?;
        for action in self.actions.drain(..) {
            match action {
                Action::Write(bytes) => self.stdin.queue_request(bytes),
                Action::CloseStdin => self.stdin.close(),
                Action::Ready => {}
                Action::Event(event) => self.events.push_back(event),
            }
        }
        Ok(())
    }

    /// Waits for the CLI, and writes meanwhile what it is to read. Reads nothing while there are events. May be
    /// dropped at any time.
    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            let may_read = self.events.is_empty() && self.stdin.answers_waiting() <= MAX_ANSWER_BYTES;
            tokio::select! {
                () = self.stdin.write(), if self.stdin.has_work() => {}
                piece = self.output.recv(), if may_read => {
                    match piece {
                        Some(Output::Stdout(bytes)) if self.told => self.dialect.stdout(&bytes, &mut self.actions),
                        Some(Output::Stderr(bytes)) if self.told => self.dialect.stderr(&bytes, &mut self.actions),
                        Some(_) => {}
                        None => return Heard::End,
                    }
                    self.perform();
                    return Heard::Output;
                }
                else => std::future::pending().await,
            }
        }
    }

    pub(crate) fn next_event(&mut self) -> Option<RunEvent> {
        self.events.pop_front()
    }

    pub(crate) fn drop_events(&mut self) {
        self.events.clear();
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether the CLI has said all of its answer.
    pub(crate) fn is_complete(&self) -> bool {
        self.dialect.is_complete()
    }

    /// How the CLI ended, after the end of its output.
    pub(crate) async fn exit(&mut self) -> Exit {
        timeout(EXIT_KNOWN_WITHIN, self.hold.exit()).await.unwrap_or_default()
    }

    /// Lets the dialect say what is still to be said.
    pub(crate) fn end(&mut self, exit: Option<&Exit>) {
        let observed = self.observed();
        self.dialect.end(exit, &observed, &mut self.actions);
        self.perform();
    }

    pub(crate) fn observed(&self) -> Observed {
        self.hold.observed()
    }

    /// Asks the CLI to stop. False: its protocol has no word for that.
    pub(crate) fn cancel(&mut self) -> bool {
        self.dialect.cancel(&mut self.actions);
        let says_something = !self.actions.is_empty();
        self.perform();
        says_something
    }

    fn perform(&mut self) {
        for action in self.actions.drain(..) {
            match action {
                Action::Write(bytes) => self.stdin.queue(bytes),
                Action::CloseStdin => self.stdin.close(),
                Action::Ready => self.ready = true,
                Action::Event(event) => self.events.push_back(event),
            }
        }
    }

    /// Ends everything, and waits until nothing is left of it.
    pub(super) async fn remove(self) {
        let Self { stdin, output, hold, .. } = self;
        drop((stdin, output));
        hold.remove().await;
    }
}

/// What a CLI is still to read.
struct Input {
    /// None: closed.
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    queue: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// Of `waiting_bytes`, so many at most may be the request's.
    request_bytes: usize,
    closing: bool,
}

impl Input {
    fn new(stdin: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self {
            stdin: Some(stdin),
            queue: VecDeque::new(),
            waiting_bytes: 0,
            request_bytes: 0,
            closing: false,
        }
    }

    fn queue(&mut self, bytes: Vec<u8>) {
        if self.stdin.is_some() && !self.closing && !bytes.is_empty() {
            self.waiting_bytes += bytes.len();
            self.queue.push_back(bytes.into());
        }
    }

    fn queue_request(&mut self, bytes: Vec<u8>) {
        self.request_bytes += bytes.len();
        self.queue(bytes);
    }

    fn close(&mut self) {
        self.closing = true;
    }

    fn is_closing(&self) -> bool {
        self.closing
    }

    fn has_work(&self) -> bool {
        self.stdin.is_some() && (self.closing || !self.queue.is_empty())
    }

    /// Bytes that wait though they are not of the request.
    fn answers_waiting(&self) -> usize {
        self.waiting_bytes.saturating_sub(self.request_bytes)
    }

    /// One write, or the closing. A CLI that does not read any more is no error: its output and exit tell how it went.
    /// May be dropped at any time.
    async fn write(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        let written = match self.queue.front() {
            Some(bytes) => stdin.write(bytes).await.and_then(|written| match written {
                0 => Err(io::ErrorKind::WriteZero.into()),
                written => Ok(written),
            }),
            // Closing is what is left.
            None => stdin.shutdown().await.and(Err(io::ErrorKind::BrokenPipe.into())),
        };
        if let (Ok(written), Some(bytes)) = (written, self.queue.front_mut()) {
            self.waiting_bytes -= written;
            bytes.advance(written);
            if bytes.is_empty() {
                self.queue.pop_front();
            }
        } else {
            self.stdin = None;
            self.queue.clear();
            self.waiting_bytes = 0;
        }
    }
}
