use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cli_dialect::{Kind, Settings};
use dyad_runner::config::model::{
    Cli, CredentialRef, Egress, HostPort, Image, Isolated, Limits, Mode, PoolSize, Upstream, Vendor,
};
use dyad_runner::egress::{EgressProxy, EgressTimeouts, Endpoint, Lookup, SystemLookup};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

pub(crate) const CREDENTIAL: &str = "sk-of-the-operator-0123456789";
const SOON: Duration = Duration::from_secs(10);
const LONGEST: usize = 16 << 20;

/// Fails if `future` takes long: nothing here may hang.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("waited too long: {what}"))
}

/// A vendor on loopback. The test plays it, call by call.
pub(crate) struct FakeVendor {
    listener: TcpListener,
}

impl FakeVendor {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The next connection, with the head of its first request.
    pub(crate) async fn call(&self) -> Peer<TcpStream> {
        let (stream, _) = soon("a call", self.listener.accept()).await.unwrap();
        let mut peer = Peer::new(stream);
        peer.until("\r\n\r\n").await;
        peer
    }

    /// Whether nobody has connected. Asked once the sandbox has its answer, so nobody is on the way.
    pub(crate) async fn is_untouched(&self) -> bool {
        tokio::time::timeout(Duration::ZERO, self.listener.accept()).await.is_err()
    }
}

/// One end of a connection, and all that was read from it.
pub(crate) struct Peer<S> {
    stream: S,
    pub(crate) seen: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, seen: Vec::new() }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("a write", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Sends as much as the peer takes; whether that was all.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        soon("a write", self.stream.write_all(bytes.as_ref())).await.is_ok()
    }

    /// Reads until this has come.
    pub(crate) async fn until(&mut self, needle: &str) {
        while !self.text().contains(needle) {
            let read = soon(needle, self.stream.read_buf(&mut self.seen)).await.unwrap();
            assert!(read > 0, "it ended before {needle:?}: {}", self.text());
        }
    }

    /// Reads until the peer has closed, one way or another.
    pub(crate) async fn closed(&mut self) {
        loop {
            match soon("the end", self.stream.read_buf(&mut self.seen)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => assert!(self.seen.len() < LONGEST, "no end comes"),
            }
        }
    }

    /// The status of the first answer.
    pub(crate) fn status(&self) -> u16 {
        let text = self.text();
        let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        status.and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {text}"))
    }

    /// A header of the first head; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> String {
        let text = self.text();
        let (head, _) = text.split_once("\r\n\r\n").expect("a head");
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// Answers with this body and keeps the connection.
    pub(crate) async fn answer(&mut self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        self.send(format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}")).await;
    }

    pub(crate) async fn begin_stream(&mut self) {
        self.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
    }

    pub(crate) async fn chunk(&mut self, data: &str) {
        self.send(format!("{:x}\r\n{data}\r\n", data.len())).await;
    }

    /// Breaks the connection off.
    pub(crate) fn hang_up(self) {
        drop(self);
    }
}

/// A directory, a proxy, and a CLI of which a test may change what it likes before it opens an endpoint.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) egress: Egress,
    pub(crate) timeouts: EgressTimeouts,
    pub(crate) lookup: Arc<dyn Lookup>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let egress = Egress { port: 8080, upstreams: Vec::new(), connect: Vec::new(), max_bytes: 64 << 20 };
        Self {
            directory: tempfile::tempdir().unwrap(),
            egress,
            timeouts: EgressTimeouts::default(),
            lookup: Arc::new(SystemLookup),
        }
    }

    /// With an upstream `v` at this vendor.
    pub(crate) fn with(vendor: Vendor, url: &str) -> Self {
        let mut place = Self::new();
        place.add("v", vendor, url);
        place
    }

    pub(crate) fn add(&mut self, name: &str, vendor: Vendor, url: &str) {
        let path = self.credential_file();
        std::fs::write(&path, format!("{CREDENTIAL}\n")).unwrap();
        self.egress.upstreams.push(Upstream {
            name: name.to_owned(),
            url: url.parse().unwrap(),
            vendor,
            credential: Some(CredentialRef::File(path)),
            ca: None,
        });
    }

    pub(crate) fn credential_file(&self) -> PathBuf {
        self.directory.path().join("credential")
    }

    pub(crate) fn allow(&mut self, host: &str, port: u16) {
        self.egress.connect.push(HostPort { host: host.to_owned(), port });
    }

    pub(crate) fn proxy(&self) -> EgressProxy {
        let clis = [self.cli()];
        EgressProxy::new(self.directory.path(), &clis, self.timeouts, Arc::clone(&self.lookup)).unwrap()
    }

    pub(crate) fn open(&self) -> Endpoint {
        self.proxy().open(&self.cli()).unwrap().expect("the CLI has an egress")
    }

    pub(crate) fn cli(&self) -> Arc<Cli> {
        let limits = Limits {
            memory_bytes: 1,
            cpu_milli: 1,
            pids: 1,
            open_files: 1,
            file_bytes: 1,
            tmpfs_bytes: 1,
            tmpfs_inodes: 1,
            output_bytes: 1,
            wall_time: Duration::from_secs(1),
            idle_time: Duration::from_secs(1),
            boot_time: Duration::from_secs(1),
        };
        Arc::new(Cli {
            name: "tested".to_owned(),
            isolated: Isolated::Container { image: Image::Echo, runtime: None },
            mode: Mode::OneShot,
            argv: Vec::new(),
            parameters: BTreeMap::new(),
            dialect: Kind::Text,
            settings: Settings::default(),
            environment: Vec::new(),
            limits,
            egress: Some(self.egress.clone()),
            pool: PoolSize { min: 0, max: 0, max_age: Duration::from_secs(1) },
            images: false,
        })
    }
}

/// A connection from the sandbox.
pub(crate) async fn enter(endpoint: &Endpoint) -> Peer<UnixStream> {
    Peer::new(UnixStream::connect(endpoint.socket_path()).await.unwrap())
}

/// `METHOD /PATH` with the endpoint's token, these headers (each with its line end) and this body.
pub(crate) fn request(endpoint: &Endpoint, line: &str, headers: &str, body: &str) -> String {
    let (token, length) = (endpoint.token().expose(), body.len());
    format!(
        "{line} HTTP/1.1\r\nhost: 127.0.0.1:8080\r\nx-api-key: {token}\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

/// The same, and the answer to it, on a connection that is closed afterwards.
pub(crate) async fn ask(endpoint: &Endpoint, line: &str) -> Peer<UnixStream> {
    let mut sandbox = enter(endpoint).await;
    sandbox.send(request(endpoint, line, "connection: close\r\n", "")).await;
    sandbox.closed().await;
    sandbox
}
