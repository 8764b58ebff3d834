//! CONNECT: a tunnel to a host on the operator's list, for CLIs that know a proxy but no base URL.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::uri::Authority;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::is_public;
use crate::config::model::HostPort;

/// Addresses of one host that are looked at.
const MAX_ADDRESSES: usize = 16;

/// Finds the addresses of a host.
pub trait Lookup: fmt::Debug + Send + Sync {
    fn lookup<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;
}

/// As the operating system finds them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("CONNECT needs HOST:PORT")]
    Malformed,
    #[error("the host and port are not on the operator's list")]
    NotListed,
    #[error("the host has no public address")]
    NotPublic,
    #[error("the host cannot be reached")]
    Unreachable(#[source] io::Error),
    #[error("the host took too long to be reached")]
    TimedOut,
}

/// Connects to `authority`, if it is on the list. The addresses that were checked are the ones that are used: a name
/// cannot change its meaning in between.
pub(super) async fn connect(
    authority: Option<&Authority>,
    list: &[HostPort],
    lookup: &dyn Lookup,
    limit: Duration,
) -> Result<TcpStream, ConnectError> {
    let authority = authority.ok_or(ConnectError::Malformed)?;
    let port = authority.port_u16().ok_or(ConnectError::Malformed)?;
    let host = bare(authority.host());
    let listed = list
        .iter()
        .find(|entry| entry.port == port && bare(&entry.host).eq_ignore_ascii_case(host))
        .ok_or(ConnectError::NotListed)?;
    timeout(limit, reach(bare(&listed.host), port, lookup)).await.map_err(|_| ConnectError::TimedOut)?
}

async fn reach(host: &str, port: u16, lookup: &dyn Lookup) -> Result<TcpStream, ConnectError> {
    let addresses = if let Ok(address) = host.parse::<IpAddr>() {
        // Whoever lists an address means it, wherever it is.
        vec![SocketAddr::new(address, port)]
    } else {
        let mut found = lookup.lookup(host, port).await.map_err(ConnectError::Unreachable)?;
        let is_localhost = host.eq_ignore_ascii_case("localhost");
        found.retain(
            |address| if is_localhost { address.ip().is_loopback() } else { is_public(address.ip()) },
        );
        found.truncate(MAX_ADDRESSES);
        found
    };
    let mut last = ConnectError::NotPublic;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = ConnectError::Unreachable(error),
        }
    }
    Err(last)
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// A tunnel that begins once the sandbox has the answer to its CONNECT.
pub(super) struct Tunnel {
    pub(super) sandbox: OnUpgrade,
    pub(super) host: TcpStream,
}

impl Tunnel {
    /// Carries bytes until both sides have closed, or none has said anything for too long. `moved` counts what passes.
    pub(super) async fn run(self, moved: Arc<AtomicU64>, idle: Duration) -> io::Result<()> {
        let Self { sandbox, mut host } = self;
        let mut sandbox = TokioIo::new(sandbox.await.map_err(io::Error::other)?);
        let copying = tokio::io::copy_bidirectional(&mut sandbox, &mut host);
        tokio::pin!(copying);
        let mut before = None;
        loop {
            tokio::select! {
                copied = &mut copying => return copied.map(|_| ()),
                () = tokio::time::sleep(idle) => {
                    let now = moved.load(Ordering::Relaxed);
                    if before.replace(now) == Some(now) {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }
}
