//! Who the node is, and who may come in: TLS 1.3 with client certificates.
//!
//! A client's certificate must be signed by the operator's authority, be valid now, not be revoked, and have a subject
//! alternative name (DNS or URI) that is on the list, exactly. All of that is decided within the handshake: whoever is
//! refused gets a TLS alert and no HTTP, and the log one line.
//!
//! Certificates, key, authority and revocation list are read again when their files change
//! ([`TlsIdentity::keep_current`]). What cannot be used is logged, and the old ones stay. Open connections are judged
//! anew after each change, and every minute: those of a client that would no longer be let in are closed. Sessions are not resumed,
//! which would let a client in by what it once was.

mod clients;
mod connections;
mod files;
mod stream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{CertificateError, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

pub use files::TlsFacts;
pub use stream::ClientStream;

use crate::config::model::Tls;
use clients::{Clients, Gate};
use connections::Connections;
use files::Stamp;

/// What operators need not decide.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// For the whole handshake.
    pub handshake_timeout: Duration,
    /// Between two looks at the files. What is new in them holds after the second look that finds it unchanged.
    pub poll_interval: Duration,
    /// Between two judgements of the open connections while no file changes: revocation lists expire too.
    pub recheck_interval: Duration,
    pub clock: Arc<dyn TimeProvider>,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            poll_interval: Duration::from_millis(500),
            recheck_interval: Duration::from_secs(60),
            clock: Arc::new(DefaultTimeProvider),
        }
    }
}

/// What is wrong with a file, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct TlsError {
    pub path: PathBuf,
    pub reason: String,
}

/// The client on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The name of its certificate that is on the list.
    pub name: String,
    /// Of its certificate, for logs.
    pub subject: String,
}

/// Why a connection did not come about. It has been logged.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the client has no certificate")]
    NoCertificate,
    #[error("the client's certificate is refused: {0}")]
    Certificate(CertificateError),
    #[error("none of the certificate's names is on the list of clients")]
    NotListed,
    #[error("the handshake took too long")]
    TimedOut,
    #[error("this is not the handshake of a TLS 1.3 client")]
    Protocol(#[source] io::Error),
    #[error("the connection ended in the handshake")]
    Closed(#[source] io::Error),
}

impl HandshakeError {
    /// For metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Certificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                "expired"
            }
            Self::Certificate(CertificateError::Revoked) => "revoked",
            Self::Certificate(
                CertificateError::ExpiredRevocationList
                | CertificateError::ExpiredRevocationListContext { .. },
            ) => "stale_revocation_list",
            Self::Certificate(_) => "bad_certificate",
            Self::NotListed => "not_listed",
            Self::TimedOut => "timed_out",
            Self::Protocol(_) => "protocol",
            Self::Closed(_) => "closed",
        }
    }
}

/// The node's certificate and the rules for its clients, as the files have them.
pub struct TlsIdentity {
    config: Tls,
    options: TlsOptions,
    current: ArcSwap<Material>,
    /// What was read last, whether it could be used or not.
    seen: Mutex<Stamp>,
    connections: Arc<Connections>,
}

/// What one reading of the files gave.
struct Material {
    certificate: Arc<SingleCertAndKey>,
    clients: Arc<Clients>,
    facts: TlsFacts,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("config", &self.config).finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Reads all files. Everything that is wrong is told at once.
    pub fn load(config: &Tls) -> Result<Arc<Self>, Vec<TlsError>> {
        Self::load_with(config, TlsOptions::default())
    }

    pub fn load_with(config: &Tls, options: TlsOptions) -> Result<Arc<Self>, Vec<TlsError>> {
        // Before the files are read: what changes in between is then read again.
        let seen = Mutex::new(Stamp::of(config));
        let material = files::read(config, &*options.clock)?;
        Ok(Arc::new(Self {
            config: config.clone(),
            options,
            current: ArcSwap::from_pointee(material),
            seen,
            connections: Arc::default(),
        }))
    }

    /// What there is to say of the files that are in use.
    pub fn facts(&self) -> TlsFacts {
        self.current.load().facts.clone()
    }

    /// Makes a TLS connection of one that was just accepted. Takes no longer than the handshake timeout; logs why, if
    /// it fails.
    pub async fn accept(&self, stream: TcpStream) -> Result<(ClientStream, ClientIdentity), HandshakeError> {
        let peer = stream.peer_addr().ok();
        let material = self.current.load_full();
        let gate = Arc::new(Gate::new(Arc::clone(&material.clients)));
        let config = server_config(&material, &gate, &self.options.clock);
        let handshake = TlsAcceptor::from(Arc::new(config)).accept(stream);
        let outcome = match tokio::time::timeout(self.options.handshake_timeout, handshake).await {
            Err(_) => Err(HandshakeError::TimedOut),
            Ok(Err(error)) => Err(classify(error)),
            Ok(Ok(stream)) => Ok(stream),
        };
        let presented = gate.presented();
        let stream = outcome
            .inspect_err(|error| log_refusal(peer, error, presented.as_ref().map(|it| &*it.subject)))?;
        let presented = presented.expect("nobody passes the gate without a certificate");
        let name = presented.name.clone().expect("nobody passes the gate without a name on the list");
        let identity = ClientIdentity { name, subject: presented.subject.clone() };
        let registration = self.connections.register(peer, presented);
        // The files may have changed since the handshake began.
        if !Arc::ptr_eq(&material, &self.current.load()) {
            self.recheck();
        }
        Ok((ClientStream::new(stream, registration), identity))
    }

    /// Reads the files again whenever they change, and closes the connections of clients who may no longer come in or
    /// whose certificates have expired. Runs until it is dropped.
    pub async fn keep_current(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.options.poll_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut previous = None;
        let mut next_recheck = Instant::now() + self.options.recheck_interval;
        loop {
            let now = ticks.tick().await;
            let is_due = now >= next_recheck;
            if is_due {
                next_recheck = now + self.options.recheck_interval;
            }
            let this = Arc::clone(&self);
            // Files may be slow.
            let looked = tokio::task::spawn_blocking(move || {
                if is_due {
                    this.recheck();
                }
                this.look(previous.as_ref())
            });
            let looked = looked.await;
            previous = looked
                .inspect_err(|error| tracing::error!(%error, "the TLS files could not be looked at"))
                .ok();
        }
    }

    /// One look at the files. They are read once two looks find the same change: a file that is being written is not.
    fn look(&self, previous: Option<&Stamp>) -> Stamp {
        let stamp = Stamp::of(&self.config);
        let is_new = *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != stamp;
        if is_new && previous == Some(&stamp) {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&stamp);
            match files::read(&self.config, &*self.options.clock) {
                Ok(material) => {
                    self.current.store(Arc::new(material));
                    tracing::info!("the TLS files have changed: the new ones are in use");
                    self.recheck();
                }
                Err(faults) => {
                    for fault in faults {
                        tracing::error!(%fault, "the TLS files have changed and cannot be used: the old ones stay");
                    }
                }
            }
        }
        if let Some(now) = self.options.clock.current_time() {
            self.connections.close_expired(now);
        }
        stamp
    }

    fn recheck(&self) {
        if let Some(now) = self.options.clock.current_time() {
            self.connections.recheck(&self.current.load().clients, now);
        }
    }
}

fn server_config(material: &Material, gate: &Arc<Gate>, clock: &Arc<dyn TimeProvider>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_details(provider, Arc::clone(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has cipher suites of TLS 1.3")
        .with_client_cert_verifier(Arc::clone(gate) as _)
        .with_cert_resolver(Arc::clone(&material.certificate) as _);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config
}

fn classify(error: io::Error) -> HandshakeError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoCertificatesPresented) => HandshakeError::NoCertificate,
        Some(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            HandshakeError::NotListed
        }
        Some(rustls::Error::InvalidCertificate(reason)) => HandshakeError::Certificate(reason.clone()),
        Some(_) => HandshakeError::Protocol(error),
        None => HandshakeError::Closed(error),
    }
}

fn log_refusal(peer: Option<SocketAddr>, error: &HandshakeError, subject: Option<&str>) {
    let peer = peer.map(tracing::field::display);
    let cause = std::error::Error::source(error).map(tracing::field::display);
    tracing::warn!(peer, code = error.code(), reason = %error, cause, subject, "a client was not let in");
}
