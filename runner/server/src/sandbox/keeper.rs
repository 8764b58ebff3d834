//! The task that owns one sandbox from before it exists until it is gone.
//!
//! Whoever holds the [`Sandbox`] may be cancelled or panic at any time, even while it is being made: that only ever
//! ends a channel, upon which the keeper removes what there is, for as long as it takes.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::container::Container;
use super::engine::Owned;
use super::process::Process;
use super::{Exit, Lifeline, Limit, Output, Sandbox, SandboxError, Stdin};
use crate::error_chain::error_chain;

/// Pieces of output that wait for a reader. The engine's pieces have at most 32 KiB.
const OUTPUT_QUEUE: usize = 16;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// What a backend gives of a CLI that it has started.
pub(super) struct Started {
    pub(super) stdin: Stdin,
    /// Ends with the CLI.
    pub(super) output: BoxStream<'static, Output>,
}

pub(super) enum Backend {
    Container(Box<Container>),
    Process(Box<Process>),
}

impl Backend {
    async fn start(&mut self) -> Result<Started, SandboxError> {
        match self {
            Self::Container(container) => container.start().await,
            Self::Process(process) => process.start(),
        }
    }

    /// After the output's end.
    async fn exit(&mut self) -> Exit {
        match self {
            Self::Container(container) => container.exit().await,
            Self::Process(process) => process.exit().await,
        }
    }

    /// One attempt, bounded in time.
    async fn remove(&mut self) -> Result<(), SandboxError> {
        match self {
            Self::Container(container) => container.remove().await,
            Self::Process(process) => process.remove().await,
        }
    }
}

pub(super) struct Keeper {
    pub(super) owned: Owned,
    pub(super) backend: Backend,
    pub(super) output_bytes: u64,
    /// Becomes true when the engine is closed.
    pub(super) closing: watch::Receiver<bool>,
}

impl Keeper {
    /// Runs until the sandbox is gone. `permit` is given back once the CLI has been started.
    pub(super) async fn keep(
        mut self,
        permit: OwnedSemaphorePermit,
        caller: oneshot::Sender<Result<Sandbox, SandboxError>>,
    ) {
        // To its end even if the caller is gone: an engine that was left in the middle might create the container
        // after it was removed.
        let started = self.backend.start().await;
        drop(permit);
        match started {
            Ok(started) => self.attend(started, caller).await,
            Err(error) => {
                self.remove().await;
                let _ = caller.send(Err(error));
            }
        }
    }

    async fn attend(mut self, started: Started, caller: oneshot::Sender<Result<Sandbox, SandboxError>>) {
        let Started { stdin, mut output } = started;
        let (forward, forwarded) = mpsc::channel(OUTPUT_QUEUE);
        let (told, exit) = watch::channel(None);
        let (hold, mut held) = oneshot::channel();
        let lifeline = Lifeline { exit, hold };
        let sandbox = Sandbox { id: self.owned.name().to_owned(), stdin, output: forwarded, lifeline };
        // A caller that is gone drops the sandbox here, and `held` ends.
        let _ = caller.send(Ok(sandbox));

        let end = {
            let released = released(&mut held, &mut self.closing);
            tokio::select! {
                () = released => None,
                end = forward_output(&mut output, forward, self.output_bytes) => Some(end),
            }
        };
        match end {
            Some(OutputEnd::Exited) => {
                // An engine that does not say how it ended must not hold up a removal.
                tokio::select! {
                    () = released(&mut held, &mut self.closing) => {}
                    exit = self.backend.exit() => drop(told.send_replace(Some(exit))),
                }
            }
            Some(OutputEnd::TooMuch) => {
                told.send_replace(Some(Exit { code: None, limit: Some(Limit::Output) }));
            }
            None => {}
        }
        // Docker does not get to kill a container while output of it waits for a reader.
        let drained = async {
            while output.next().await.is_some() {}
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.remove() => {}
            () = drained => {}
        }
        // `told` ends now, and with it the wait of Lifeline::cut; before it `owned`, so that a close is as exact.
        drop(self);
        drop(told);
    }

    async fn remove(&mut self) {
        let mut pause = FIRST_RETRY;
        while let Err(error) = self.backend.remove().await {
            let id = self.owned.name();
            tracing::warn!(sandbox = id, error = %error_chain(&error), "a sandbox could not be removed yet");
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LAST_RETRY);
        }
    }
}

enum OutputEnd {
    Exited,
    TooMuch,
}

async fn forward_output(
    output: &mut BoxStream<'static, Output>,
    forward: mpsc::Sender<Output>,
    limit: u64,
) -> OutputEnd {
    let mut total = 0;
    while let Some(piece) = output.next().await {
        let (Output::Stdout(bytes) | Output::Stderr(bytes)) = &piece;
        total += bytes.len() as u64;
        if total > limit {
            return OutputEnd::TooMuch;
        }
        // A reader that is gone wants no output, which does not mean that the CLI is to end.
        let _ = forward.send(piece).await;
    }
    OutputEnd::Exited
}

/// The sandbox was dropped, or the engine is closed.
async fn released(held: &mut oneshot::Receiver<Infallible>, closing: &mut watch::Receiver<bool>) {
    tokio::select! {
        _ = held => {}
        // An engine that is gone is closed.
        _ = closing.wait_for(|closing| *closing) => {}
    }
}
