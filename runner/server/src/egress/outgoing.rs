//! The connections to vendors.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::combinators::UnsyncBoxBody;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;

use super::EgressError;
use crate::config::model::Cli;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;
pub(super) type OutgoingClient = Client<Connector, Body>;

/// Connections that are kept open to one vendor while nobody uses them.
const MAX_IDLE_PER_HOST: usize = 64;
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Longest head of an answer.
const MAX_HEAD_BYTES: usize = 256 * 1024;

/// One client per authority in use.
#[derive(Debug)]
pub(super) struct Outgoing {
    connect_timeout: Duration,
    clients: Mutex<HashMap<Option<PathBuf>, OutgoingClient>>,
}

impl Outgoing {
    pub(super) fn new(clis: &[Arc<Cli>], connect_timeout: Duration) -> Result<Self, Vec<EgressError>> {
        let outgoing = Self { connect_timeout, clients: Mutex::default() };
        let upstreams =
            clis.iter().filter_map(|cli| cli.egress.as_ref()).flat_map(|egress| &egress.upstreams);
        let authorities: BTreeSet<_> = upstreams.map(|upstream| upstream.ca.as_deref()).collect();
        let faults: Vec<_> =
            authorities.into_iter().filter_map(|authority| outgoing.client(authority).err()).collect();
        if faults.is_empty() { Ok(outgoing) } else { Err(faults) }
    }

    /// The client that trusts this authority, or the system's.
    pub(super) fn client(&self, authority: Option<&Path>) -> Result<OutgoingClient, EgressError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let authority = authority.map(Path::to_owned);
        if let Some(client) = clients.get(&authority) {
            return Ok(client.clone());
        }
        let roots = match &authority {
            Some(path) => read_authority(path)?,
            None => system_roots()?,
        };
        let client = client(roots, self.connect_timeout)?;
        clients.insert(authority, client.clone());
        Ok(client)
    }
}

fn client(roots: RootCertStore, connect_timeout: Duration) -> Result<OutgoingClient, EgressError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| EgressError::Roots { reason: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(KEEPALIVE));
    let https =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
    // hyper's own timeout covers neither the look-up of the name nor TLS.
    let connector = BoxCloneSyncService::new(Timeout::new(https, connect_timeout));
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
        .http1_max_buf_size(MAX_HEAD_BYTES)
        .build(connector))
}

fn read_authority(path: &Path) -> Result<RootCertStore, EgressError> {
    let fault = |reason: String| EgressError::Authority { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fault(error.to_string()))? {
        let certificate = certificate.map_err(|error| fault(error.to_string()))?;
        roots.add(certificate).map_err(|error| fault(error.to_string()))?;
    }
    if roots.is_empty() { Err(fault("there is no certificate in it".to_owned())) } else { Ok(roots) }
}

/// The system's certificates (`SSL_CERT_FILE` is honoured), or, where there are none, Mozilla's.
fn system_roots() -> Result<RootCertStore, EgressError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "a certificate of the system cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    // Whoever names an authority of their own does not mean everybody's instead.
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().find(|name| std::env::var_os(name).is_some());
    if let (true, Some(name)) = (roots.is_empty(), named) {
        return Err(EgressError::Roots {
            reason: format!("{name} is set, and no certificate can be read there"),
        });
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}
