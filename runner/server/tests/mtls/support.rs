//! A node, its clock, its log, and clients.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dyad_runner::config::model::Tls;
use dyad_runner::tls::{ClientIdentity, HandshakeError, TlsIdentity, TlsOptions};
use rustls::client::Resumption;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing_subscriber::fmt::MakeWriter;

use super::authority::{Authority, Certified, EDGE};

const SOON: Duration = Duration::from_secs(10);
const GREETING: &[u8] = b"hello";

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("waited too long: {what}"))
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub(crate) struct FakeClock(AtomicU64);

impl FakeClock {
    pub(crate) fn new() -> Arc<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Arc::new(Self(AtomicU64::new(now.as_secs())))
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn move_back(&self, seconds: u64) {
        self.0.fetch_sub(seconds, Ordering::Relaxed);
    }

    pub(crate) fn move_by(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl TimeProvider for FakeClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now())))
    }
}

/// What was logged in this process, line by line: by one test, as nextest gives each its own.
#[derive(Clone)]
struct Log;

static LOG: LazyLock<watch::Sender<String>> = LazyLock::new(|| {
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(Log);
    log.try_init().unwrap();
    watch::Sender::default()
});

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.send_modify(|log| log.push_str(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// The lines that have this in them.
pub(crate) fn logged(needle: &str) -> Vec<String> {
    LOG.borrow().lines().filter(|line| line.contains(needle)).map(str::to_owned).collect()
}

pub(crate) async fn is_logged(needle: &str) {
    let mut log = LOG.subscribe();
    soon(needle, log.wait_for(|log| log.contains(needle))).await.unwrap();
}

/// The files of a node, which are good until a test changes them.
pub(crate) struct Files {
    pub(crate) directory: TempDir,
    pub(crate) config: Tls,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) authority: Authority,
}

impl Files {
    pub(crate) fn new() -> Self {
        let clock = FakeClock::new();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let config = Tls {
            certificate: path("node.crt"),
            key: path("node.key"),
            client_ca: path("ca.crt"),
            revocation_list: Some(path("ca.crl")),
            allowed_clients: vec![EDGE.to_owned(), "spiffe://fleet/edge".to_owned()],
        };
        let authority = Authority::new(clock.now());
        let files = Self { directory, config, clock, authority };
        let node = files.authority.node();
        files.write("node.crt", &node.pem);
        files.write("node.key", &node.key_pem);
        files.write("ca.crt", &files.authority.pem());
        files.write("ca.crl", &files.authority.revoke(&[]));
        files
    }

    /// At once, as tools that renew certificates do it.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let (path, new) = (self.path(name), self.path("new"));
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn options(&self) -> TlsOptions {
        TlsOptions {
            handshake_timeout: SOON,
            poll_interval: Duration::from_millis(10),
            recheck_interval: Duration::from_millis(10),
            clock: Arc::clone(&self.clock) as _,
        }
    }

    pub(crate) async fn serve(self) -> Node {
        let options = self.options();
        self.serve_with(options).await
    }

    pub(crate) async fn serve_with(self, options: TlsOptions) -> Node {
        LazyLock::force(&LOG);
        let identity = TlsIdentity::load_with(&self.config, options).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, outcomes) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&identity).keep_current());
        tasks.spawn(serve(listener, identity, sender));
        Node { files: self, address, outcomes, _tasks: tasks }
    }
}

/// Greets whom the node lets in, and then says back what it reads until the connection ends.
async fn serve(
    listener: TcpListener,
    identity: Arc<TlsIdentity>,
    outcomes: mpsc::UnboundedSender<Result<ClientIdentity, HandshakeError>>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (identity, outcomes) = (Arc::clone(&identity), outcomes.clone());
        connections.spawn(async move {
            let (mut stream, client) = match identity.accept(stream).await {
                Ok(accepted) => accepted,
                Err(error) => return outcomes.send(Err(error)).unwrap(),
            };
            outcomes.send(Ok(client)).unwrap();
            stream.write_all(GREETING).await.unwrap();
            let mut byte = [0];
            while let Ok(1) = stream.read(&mut byte).await {
                stream.write_all(&byte).await.unwrap();
                stream.flush().await.unwrap();
            }
        });
    }
}

pub(crate) struct Node {
    pub(crate) files: Files,
    pub(crate) address: SocketAddr,
    outcomes: mpsc::UnboundedReceiver<Result<ClientIdentity, HandshakeError>>,
    _tasks: JoinSet<()>,
}

impl Node {
    /// What came of the next connection, on the node's side.
    pub(crate) async fn outcome(&mut self) -> Result<ClientIdentity, HandshakeError> {
        soon("an outcome", self.outcomes.recv()).await.unwrap()
    }

    pub(crate) fn client(&self, certified: Option<&Certified>) -> ClientConfig {
        self.client_of(certified, &rustls::version::TLS13)
    }

    /// A client that trusts the node, and takes any time for the right one.
    pub(crate) fn client_of(
        &self,
        certified: Option<&Certified>,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.files.authority.der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::clone(&self.files.clock) as _)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match certified {
            None => builder.with_no_client_auth(),
            Some(Certified { chain, key, .. }) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap()
            }
        };
        config.resumption = Resumption::in_memory_sessions(8);
        config
    }

    /// A connection on which the node has greeted, and what came of it on the node's side.
    pub(crate) async fn enter(&mut self, certified: &Certified) -> (TlsStream<TcpStream>, ClientIdentity) {
        let stream = self.connect(self.client(Some(certified))).await.unwrap();
        (stream, self.outcome().await.unwrap())
    }

    /// Connects, and waits for the greeting: only then a client knows that it is let in.
    pub(crate) async fn connect(&self, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        soon("a connection", async {
            let stream = TcpStream::connect(self.address).await?;
            let connector = TlsConnector::from(Arc::new(config));
            let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
            let mut greeting = [0; GREETING.len()];
            stream.read_exact(&mut greeting).await?;
            assert_eq!(greeting, GREETING);
            Ok(stream)
        })
        .await
    }

    /// A client that must not be let in: neither side may take it for a connection. Says why the node refused.
    pub(crate) async fn refuse(&mut self, config: ClientConfig) -> HandshakeError {
        let error = self.connect(config).await.expect_err("the client must not be greeted");
        assert!(!error.to_string().contains("hello"), "{error}");
        self.outcome().await.expect_err("the node must refuse")
    }
}

/// Whether the connection still carries bytes there and back.
pub(crate) async fn is_open(stream: &mut TlsStream<TcpStream>) -> bool {
    let mut byte = [0];
    let there_and_back = async {
        stream.write_all(b"?").await?;
        stream.read_exact(&mut byte).await
    };
    soon("an echo", there_and_back).await.is_ok()
}

/// Waits until the node has closed the connection.
pub(crate) async fn is_closed(stream: &mut TlsStream<TcpStream>) {
    let mut byte = [0];
    let read = soon("the connection to be closed", stream.read(&mut byte)).await;
    assert!(!matches!(read, Ok(1)), "nobody asked for a byte");
}
