//! What the pool and runs need of sandboxes, so that both are tested without any.

use cli_dialect::{Dialect, Exit, Observed, WorkspaceFile};
use futures_util::future::BoxFuture;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;

use super::Variant;
use crate::sandbox::Output;

/// Where sandboxes come from, and what is spoken with the CLIs in them.
pub trait Sandboxes: Send + Sync + 'static {
    /// Makes a sandbox and starts the CLI in it. One in mode [one-shot](crate::config::model::Mode::OneShot) starts
    /// when its [files](Self::files_header) have come on stdin. Bounded in time.
    fn start<'a>(&'a self, variant: &'a Variant) -> BoxFuture<'a, Result<Place, StartError>>;

    fn dialect(&self, variant: &Variant) -> Box<dyn Dialect>;

    /// How files are given to a CLI that waits for them.
    fn files_header(&self, files: &[WorkspaceFile]) -> Result<Vec<u8>, StartError>;
}

/// A sandbox with a started CLI in it.
pub struct Place {
    /// Shutting it down closes the CLI's stdin.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// Bounded; ends with the CLI.
    pub output: mpsc::Receiver<Output>,
    pub hold: Box<dyn Hold>,
}

/// Keeps a sandbox alive: dropping it kills what is in it and removes it in the background.
pub trait Hold: Send {
    /// How the CLI ended; waits for that. The output has been read to its end, or dropped.
    fn exit(&mut self) -> BoxFuture<'_, Exit>;

    /// What the CLI's vendor was seen to answer so far.
    fn observed(&self) -> Observed;

    /// Kills, removes, and waits until nothing is left.
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Why there is no CLI to speak to. For logs and for the edge; it has no secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);
