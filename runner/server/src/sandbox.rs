//! Sandboxes: where CLIs run, one process each, used once.
//!
//! [`Engine::start`] gives a [`Sandbox`] in which the CLI has been started. Dropping it, however that comes about,
//! kills and removes whatever is behind it; [`Sandbox::remove`] does the same and waits for it. Nothing else has to be
//! remembered: a [`keeper`] task owns the container from before it exists until it is gone, and what a process that
//! was killed left behind is found by its labels ([`Engine::sweep`]).
//!
//! Two backends. [Containers](container), whose [hardening] is verified before anything runs in them; and
//! [processes](process), for development on hosts without Docker, which are weaker and have to be allowed by name.
//!
//! Inside a container:
//!
//! | path | |
//! |---|---|
//! | [`WORKSPACE`], [`HOME`], `/tmp` | tmpfs of limited size, the only places that can be written |
//! | [`PROGRAM`] | this crate's `dyad-sandbox-init`, which starts the CLI |
//! | [`EGRESS_SOCKET`] | the way out, if there is one |

mod container;
mod engine;
mod hardening;
mod image;
mod keeper;
mod process;
mod program;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::model::Limits;

pub use cli_dialect::{Exit, Limit};
pub use engine::{Engine, LeftBehind};
#[cfg(feature = "test-hooks")]
pub use hardening::Tampering;
pub use image::{Prepared, Progress};
pub use program::{FilesError, files_header};

/// The working directory of the CLI.
pub const WORKSPACE: &str = "/workspace";
/// `HOME`, unless the environment says otherwise.
pub const HOME: &str = "/home/cli";
/// `dyad-sandbox-init`.
pub const PROGRAM: &str = "/dyad-sandbox-init";
/// The runner's endpoint for this sandbox.
pub const EGRESS_SOCKET: &str = "/dyad-egress.sock";
/// User and group inside. Images name it in /etc/passwd: some CLIs look themselves up.
pub const UID: u32 = 65532;

/// What to start. Everything in it comes from the operator's file; a request only chose among allowed values.
pub struct SandboxSpec {
    /// The CLI's name, for the label.
    pub cli: String,
    /// What [`Engine::prepare`] gave for the CLI's entry.
    pub prepared: Prepared,
    pub limits: Limits,
    pub argv: Vec<String>,
    /// Values may be secret.
    pub environment: Vec<(String, String)>,
    pub egress: Option<EgressSocket>,
    /// The CLI starts once [its files](files_header) have come on stdin, before its own input. They go into the
    /// workspace. `files_header(&[])` is the mere go.
    pub waits_for_files: bool,
}

impl fmt::Debug for SandboxSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("SandboxSpec")
            .field("cli", &self.cli)
            .field("prepared", &self.prepared)
            .field("environment", &names)
            .field("egress", &self.egress)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressSocket {
    /// Of the Unix socket on this host. The sandbox's [`UID`] must be able to connect to it.
    pub path: PathBuf,
    /// The port of the sandbox's 127.0.0.1 that leads to it.
    pub port: u16,
}

/// A started CLI.
///
/// Its parts may be taken apart; the process lives as long as `lifeline`.
#[derive(Debug)]
pub struct Sandbox {
    /// Unique; the container's name.
    pub id: String,
    pub stdin: Stdin,
    /// What the CLI prints, as it comes. Bounded: what is not taken makes the CLI wait. Ends when the CLI has ended,
    /// or with [`Limit::Output`].
    pub output: mpsc::Receiver<Output>,
    pub lifeline: Lifeline,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
}

impl Sandbox {
    /// Kills the CLI and removes everything, and waits until that is done. It is done, too, if this is not awaited to
    /// its end.
    pub async fn remove(self) {
        self.lifeline.cut().await;
    }
}

/// What keeps a sandbox alive: dropping it kills the CLI and removes the sandbox in the background.
#[derive(Debug)]
pub struct Lifeline {
    exit: watch::Receiver<Option<Exit>>,
    /// Never sent on: its end is the message.
    hold: oneshot::Sender<std::convert::Infallible>,
}

impl Lifeline {
    /// How the CLI ended, once it has. [`Sandbox::output`] must be read to its end for that, or dropped.
    pub async fn exit(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_default(),
            // The keeper ended without knowing.
            Err(_) => Exit::default(),
        }
    }

    /// Whether the CLI is known to have ended.
    pub fn has_ended(&self) -> bool {
        self.exit.borrow().is_some() || self.exit.has_changed().is_err()
    }

    /// See [`Sandbox::remove`].
    pub async fn cut(self) {
        let Self { mut exit, hold } = self;
        drop(hold);
        // The keeper drops its end when everything is gone.
        while exit.changed().await.is_ok() {}
    }
}

/// The CLI's stdin. Shutting it down, or dropping it, closes it.
pub struct Stdin(Option<Pin<Box<dyn AsyncWrite + Send>>>);

impl Stdin {
    fn new(inner: impl AsyncWrite + Send + 'static) -> Self {
        Self(Some(Box::pin(inner)))
    }
}

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Stdin(open)" } else { "Stdin(closed)" })
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(inner) => inner.as_mut().poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(inner) => inner.as_mut().poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(inner) = &mut self.0 else { return Poll::Ready(Ok(())) };
        let outcome = std::task::ready!(inner.as_mut().poll_shutdown(cx));
        // A pipe is closed by dropping it only.
        self.0 = None;
        Poll::Ready(outcome)
    }
}

/// Why there is no sandbox. For the operator's log, not for clients.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("Docker does not answer at {}", socket.display())]
    NoEngine { socket: PathBuf },
    /// It took the connection and says nothing.
    #[error("the Docker engine at {} does not answer", socket.display())]
    Hangs { socket: PathBuf },
    #[error("Docker failed at {doing}")]
    Docker { doing: &'static str, source: bollard::errors::Error },
    #[error("Docker took too long at {doing}")]
    TimedOut { doing: &'static str },
    /// The engine did not take a setting on which the sandbox relies, or added one.
    #[error("the container's {field} is not as it must be")]
    NotHardened { field: String },
    #[error("image {image}: {reason}")]
    Image { image: String, reason: String },
    /// `known` is the engine's own list.
    #[error("Docker has no runtime {runtime:?}, but {known}")]
    Runtime { runtime: String, known: String },
    #[error("{doing} failed")]
    Io { doing: &'static str, source: io::Error },
    /// Docker would drop limits silently.
    #[error("Docker cannot {what} on this host")]
    Unable { what: &'static str },
    #[error("processes without a container: {0}")]
    Process(String),
    #[error("the engine is being closed")]
    Closed,
}

impl SandboxError {
    /// For `map_err`.
    fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}
