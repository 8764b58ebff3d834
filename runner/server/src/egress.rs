//! The only way out of a sandbox: a Unix socket that leads to the vendors which the operator listed, and nowhere else.
//!
//! A sandbox has no network. An [`Endpoint`] is a socket that is mounted into it (a relay inside makes it a loopback
//! port), with a token that is good for this endpoint alone. The vendor's credential never enters the sandbox:
//!
//! - `http://127.0.0.1:PORT/NAME/…` goes to the upstream NAME. The token is looked for where vendors' clients put their
//!   key, and replaced by the vendor's credential. Only the calls that a CLI needs of its vendor get through (`api.rs`):
//!   the credential is good for more than that, such as what other runs have stored.
//! - `CONNECT HOST:PORT` goes to a listed host, for CLIs that know a proxy but no base URL. No credential is added.
//!
//! What vendors answer is looked at as it passes ([`Endpoint::observed`]): some CLIs hide or misreport it.
//!
//! Calls to vendors are HTTP/1.1: with a connection to itself, no call waits for the streams and windows that other
//! runs' calls hold. Proxies of the environment are not used, and redirects are not followed.

mod address;
mod api;
mod connect;
mod credential;
mod directory;
mod endpoint;
mod headers;
mod meter;
mod observe;
mod outgoing;
mod relay;
mod request;
mod secret;
mod separators;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use connect::{Lookup, SystemLookup};
pub(crate) use credential::read as read_credential;
pub use endpoint::Endpoint;
pub use secret::Secret;

use crate::config::model::Cli;
use directory::Directory;
use outgoing::Outgoing;

/// How long who may take.
#[derive(Clone, Copy, Debug)]
pub struct EgressTimeouts {
    /// For the sandbox to send a request's head, and to use a connection again.
    pub head: Duration,
    /// To look up a host, connect to it and agree on TLS.
    pub connect: Duration,
    /// For a vendor's first byte, from the beginning of the call: a model may think for long.
    pub first_byte: Duration,
    /// Between the bytes of a body, in either direction, and of a CONNECT tunnel.
    pub idle: Duration,
}

impl Default for EgressTimeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(120),
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(600),
            idle: Duration::from_secs(300),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("{} cannot be used for sockets", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error(
        "state_dir is too long: a socket in it would have the path {}, and {max} bytes are the most",
        path.display()
    )]
    PathTooLong { path: PathBuf, max: usize },
    #[error("the authority {} cannot be used: {reason}", path.display())]
    Authority { path: PathBuf, reason: String },
    #[error("the system's certificates cannot be used: {reason}")]
    Roots { reason: String },
    #[error("the operating system has no randomness")]
    Random(#[from] getrandom::Error),
}

/// Makes endpoints. One per process.
#[derive(Debug)]
pub struct EgressProxy {
    directory: Directory,
    shared: Arc<Shared>,
}

/// What all endpoints use.
#[derive(Debug)]
struct Shared {
    outgoing: Outgoing,
    lookup: Arc<dyn Lookup>,
    timeouts: EgressTimeouts,
}

impl EgressProxy {
    /// Removes the sockets that crashed processes left in `state_dir`, and reads the authorities of all CLIs' upstreams.
    /// Everything that is wrong is told at once.
    pub fn new(
        state_dir: &Path,
        clis: &[Arc<Cli>],
        timeouts: EgressTimeouts,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, Vec<EgressError>> {
        let mut faults = Vec::new();
        let directory = Directory::open(state_dir).map_err(|fault| faults.push(fault)).ok();
        let outgoing = Outgoing::new(clis, timeouts.connect).map_err(|more| faults.extend(more)).ok();
        match (directory, outgoing) {
            (Some(directory), Some(outgoing)) => {
                Ok(Self { directory, shared: Arc::new(Shared { outgoing, lookup, timeouts }) })
            }
            _ => Err(faults),
        }
    }

    /// A new endpoint for one sandbox of this CLI; `None` if the CLI has no egress. Must be called in a tokio runtime.
    pub fn open(&self, cli: &Arc<Cli>) -> Result<Option<Endpoint>, EgressError> {
        match &cli.egress {
            None => Ok(None),
            Some(egress) => Endpoint::open(&self.directory, &self.shared, &cli.name, egress).map(Some),
        }
    }
}
