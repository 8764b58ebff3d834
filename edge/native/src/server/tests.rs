//! The server on loopback, with short timeouts.

use std::net::Ipv4Addr;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use hyper_util::service::TowerToHyperService;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::*;

const SOON: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(300);

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

static BEGUN: Notify = Notify::const_new();
static MAY_END: Notify = Notify::const_new();

async fn slow() -> &'static str {
    BEGUN.notify_one();
    MAY_END.notified().await;
    "slow"
}

struct Fixture {
    server: Server,
    client_tls: Option<Arc<rustls::ClientConfig>>,
}

fn start(tls: bool, max_connections: usize, timeouts: ServerTimeouts) -> Fixture {
    let router = Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/slow", get(slow))
        // Answers without having read the body.
        .route("/refuse", post(|| async { (StatusCode::UNAUTHORIZED, "no") }));
    let (server_tls, client_tls) = if tls { Some(tls_configs()).unzip() } else { (None, None) };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let options = ServerOptions { tls: server_tls, workers: 1, max_connections, timeouts };
    Fixture {
        server: Server::start(listener, &TowerToHyperService::new(router), &options).unwrap(),
        client_tls,
    }
}

fn tls_configs() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

impl Fixture {
    async fn connect(&self) -> Box<dyn Io> {
        let stream = tokio::net::TcpStream::connect(self.server.local_addr()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        match &self.client_tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::try_from("localhost").unwrap();
                Box::new(
                    tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await.unwrap(),
                )
            }
        }
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// All that still comes; a peer that closes the hard way has ended too.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = within("the server closes", stream.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n";

async fn hello(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(HELLO).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        assert_ne!(within("an answer", stream.read_buf(&mut answer)).await.unwrap(), 0, "closed early");
    }
}

#[tokio::test]
async fn refusals_have_a_body_in_clear_and_over_tls() {
    for tls in [false, true] {
        let fixture = start(tls, 100, ServerTimeouts::default());
        for (request, code) in [
            (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)), "headers_too_large"),
            ("GET / HTTP/1.1\r\nbad header: x\r\n\r\n".to_owned(), "malformed_request"),
            (
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"
                    .to_owned(),
                "conflicting_length",
            ),
        ] {
            let mut stream = fixture.connect().await;
            hello(&mut stream).await;
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
        }
    }
}

#[tokio::test]
async fn heads_that_do_not_come_end_the_connection() {
    for tls in [false, true] {
        let timeouts = ServerTimeouts { greeting: SHORT, head: SHORT, ..ServerTimeouts::default() };
        let fixture = start(tls, 100, timeouts);
        for said in ["", "P", "PRI * HTTP/2.0\r\n", "GET /hello HTTP/1.1\r\nhost: "] {
            let mut stream = fixture.connect().await;
            stream.write_all(said.as_bytes()).await.unwrap();
            assert_eq!(rest(&mut stream).await, "", "after {said:?}");
        }
        let mut stream = fixture.connect().await;
        hello(&mut stream).await;
        stream.write_all(b"GET /hel").await.unwrap();
        assert_eq!(rest(&mut stream).await, "", "a second head");
    }
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_come_ends_the_connection() {
    let fixture = start(true, 100, ServerTimeouts { greeting: SHORT, ..ServerTimeouts::default() });
    let mut stream = tokio::net::TcpStream::connect(fixture.server.local_addr()).await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn an_answer_is_not_lost_on_a_client_that_still_uploads() {
    for tls in [false, true] {
        let fixture = start(tls, 100, ServerTimeouts::default());
        let mut stream = fixture.connect().await;
        let body = vec![b'x'; 8 << 20];
        let head = format!("POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        within("the upload is taken", stream.write_all(&body)).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_never_stops_uploading_is_cut_off() {
    let fixture = start(false, 100, ServerTimeouts { linger: SHORT, ..ServerTimeouts::default() });
    let mut stream = fixture.connect().await;
    let head = "POST /refuse HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    within("the connection is cut", async {
        while stream.write_all(b"4\r\nmore\r\n").await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_one_to_end() {
    let fixture = start(false, 1, ServerTimeouts::default());
    let mut first = fixture.connect().await;
    hello(&mut first).await;
    let mut second = fixture.connect().await;
    second.write_all(HELLO).await.unwrap();
    let early = tokio::time::timeout(SHORT, second.read_u8()).await;
    assert!(early.is_err(), "the second connection was served beside the first");
    drop(first);
    assert_eq!(within("the second connection is served", second.read_u8()).await.unwrap(), b'H');
}

#[tokio::test]
async fn a_drain_ends_idle_connections_at_once() {
    for tls in [false, true] {
        let fixture = start(tls, 100, ServerTimeouts::default());
        let mut served = fixture.connect().await;
        hello(&mut served).await;
        let mut silent = fixture.connect().await;
        within("the server drains", fixture.server.drain()).await;
        assert_eq!(rest(&mut served).await, "");
        assert_eq!(rest(&mut silent).await, "");
    }
}

#[tokio::test]
async fn a_drain_closes_the_listener_at_the_limit_too_and_waits_for_requests() {
    let fixture = start(false, 1, ServerTimeouts::default());
    let mut stream = fixture.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    within("the request is under way", BEGUN.notified()).await;
    let address = fixture.server.local_addr();
    let drain = tokio::spawn(fixture.server.drain());
    within("the listener is closed", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!drain.is_finished());
    MAY_END.notify_one();
    let answer = rest(&mut stream).await;
    assert!(answer.ends_with("slow"), "{answer}");
    within("the server has drained", drain).await.unwrap();
}
