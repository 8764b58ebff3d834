//! Calls to upstreams, with look-ups of names that say what a test wants.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use gateway::full;
use hyper_util::service::TowerToHyperService;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::server::{Server, ServerOptions, ServerTimeouts};

const TIMEOUT: Duration = Duration::from_secs(10);
const METADATA: &str = "169.254.169.254";

/// An upstream on loopback that answers `hello`, and counts the connections that it accepts.
struct Upstream {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let router = Router::new()
            .route("/hello", get(|| async { "hello" }))
            .route("/elsewhere", get(|| async { Redirect::temporary("/hello") }));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let service = TowerToHyperService::new(router.clone());
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }
}

/// A host for which every name leads to these addresses: to the first ones at first, then to the next, and to the last
/// ones from then on.
fn host(leads_to: &[&[&str]]) -> NativeHost {
    let parsed = |addresses: &&[&str]| -> Vec<SocketAddr> {
        let address = |text: &&str| SocketAddr::new(text.parse::<IpAddr>().unwrap(), 0);
        addresses.iter().map(address).collect()
    };
    let queue: Mutex<VecDeque<_>> = Mutex::new(leads_to.iter().map(parsed).collect());
    let look_up: LookUp = Arc::new(move |_| {
        let mut queue = queue.lock().unwrap();
        let addresses = if queue.len() > 1 { queue.pop_front().unwrap() } else { queue[0].clone() };
        Box::pin(std::future::ready(Ok(addresses)))
    });
    NativeHost { look_up, ..NativeHost::new().unwrap() }
}

async fn call(host: &NativeHost, url: &str, reach: Option<Reach>) -> Result<http::StatusCode, CallError> {
    send_traced(host, url, reach, None).await.map(|(status, _)| status)
}

async fn send_traced(
    host: &NativeHost,
    url: &str,
    reach: Option<Reach>,
    trace: Option<&Arc<CallTrace>>,
) -> Result<(http::StatusCode, String), CallError> {
    let mut request = http::Request::get(url).body(full("")).unwrap();
    if let Some(reach) = reach {
        request.extensions_mut().insert(reach);
    }
    if let Some(trace) = trace {
        request.extensions_mut().insert(trace.clone());
    }
    let response = host.call(request, TIMEOUT).await?;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Ok((status, String::from_utf8(body.to_vec()).unwrap()))
}

#[tokio::test]
async fn a_name_that_leads_into_a_private_network_is_not_connected_to() {
    let upstream = Upstream::start().await;
    for addresses in [&["127.0.0.1"][..], &["::ffff:127.0.0.1"], &[METADATA, "127.0.0.1"]] {
        let host = host(&[addresses]);
        let url = upstream.url("harmless.example", "/hello");
        assert_eq!(call(&host, &url, Some(Reach::Public)).await, Err(CallError::Refused), "{addresses:?}");
        assert_eq!(upstream.connections(), 0);
    }
    // Where it may lead there, it does, past the addresses where it may not.
    let host = host(&[&[METADATA, "127.0.0.1"]]);
    let url = upstream.url("harmless.example", "/hello");
    assert_eq!(call(&host, &url, Some(Reach::Private)).await, Ok(http::StatusCode::OK));
    assert_eq!(upstream.connections(), 1);
}

/// A name that was harmless when somebody looked is held to what it is when it is connected to.
#[tokio::test]
async fn a_name_that_changes_its_mind_is_refused() {
    let upstream = Upstream::start().await;
    let host = host(&[&["127.0.0.1"], &[METADATA]]);
    let url = upstream.url("rebinding.example", "/hello");
    let trace = Arc::new(CallTrace::default());
    let (status, _) = send_traced(&host, &url, Some(Reach::Private), Some(&trace)).await.unwrap();
    assert_eq!(status, http::StatusCode::OK);
    assert_eq!(call(&host, &url, Some(Reach::Private)).await, Err(CallError::Refused));
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn an_address_in_the_url_is_held_to_the_reach() {
    let upstream = Upstream::start().await;
    let host = host(&[&[]]);
    for written in ["127.0.0.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"] {
        let url = upstream.url(written, "/hello");
        assert_eq!(call(&host, &url, Some(Reach::Public)).await, Err(CallError::Refused), "{written}");
    }
    let metadata = format!("http://{METADATA}/");
    assert_eq!(call(&host, &metadata, Some(Reach::Private)).await, Err(CallError::Refused));
    assert_eq!(upstream.connections(), 0);
    let url = upstream.url("127.0.0.1", "/hello");
    assert_eq!(call(&host, &url, Some(Reach::Private)).await, Ok(http::StatusCode::OK));
}

#[tokio::test]
async fn a_connection_is_kept_for_those_who_may_make_it() {
    let upstream = Upstream::start().await;
    let host = host(&[&["127.0.0.1"]]);
    let url = upstream.url("own.example", "/hello");
    // The store's own calls, for one, have no reach.
    for reach in [None, Some(Reach::Anywhere), None] {
        assert_eq!(call(&host, &url, reach).await, Ok(http::StatusCode::OK));
    }
    assert_eq!(upstream.connections(), 1);
    assert_eq!(call(&host, &url, Some(Reach::Public)).await, Err(CallError::Refused));
    assert_eq!(call(&host, &url, Some(Reach::Private)).await, Ok(http::StatusCode::OK));
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn a_redirect_is_handed_back() {
    let upstream = Upstream::start().await;
    let host = host(&[&["127.0.0.1"]]);
    let url = upstream.url("own.example", "/elsewhere");
    assert_eq!(call(&host, &url, None).await, Ok(http::StatusCode::TEMPORARY_REDIRECT));
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_traced_call_connects_anew_and_notes_when() {
    let upstream = Upstream::start().await;
    let host = host(&[&["127.0.0.1"]]);
    let url = upstream.url("own.example", "/hello");
    assert_eq!(call(&host, &url, None).await, Ok(http::StatusCode::OK));
    let begun = host.monotonic();
    for connections in 2..4 {
        let trace = Arc::new(CallTrace::default());
        let (status, body) = send_traced(&host, &url, None, Some(&trace)).await.unwrap();
        assert_eq!((status, body.as_str()), (http::StatusCode::OK, "hello"));
        assert_eq!(upstream.connections(), connections);
        let [Some(resolved), Some(connected), None] = trace.moments() else { panic!("{trace:?}") };
        // The clock is kept in whole microseconds.
        assert!(begun <= resolved + Duration::from_micros(1), "{begun:?} {trace:?}");
        assert!(resolved <= connected && connected <= host.monotonic(), "{trace:?}");
    }
    let trace = Arc::new(CallTrace::default());
    send_traced(&host, &upstream.url("127.0.0.1", "/hello"), None, Some(&trace)).await.unwrap();
    assert!(matches!(trace.moments(), [None, Some(_), None]), "there is nothing to look up: {trace:?}");
    // Nothing of it is kept.
    assert_eq!(call(&host, &url, None).await, Ok(http::StatusCode::OK));
    assert_eq!(upstream.connections(), 4);
}

/// Its client is gone by the time the body comes.
#[tokio::test]
async fn a_traced_call_over_http2_has_its_whole_body() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let mut tls = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let long = "x".repeat(1 << 20);
    let answer = long.clone();
    let router = Router::new().route("/long", get(|| async { answer }));
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let options = ServerOptions {
        tls: Some(Arc::new(tls)),
        workers: 1,
        max_connections: 10,
        timeouts: ServerTimeouts::default(),
    };
    let server = Server::start(listener, &TowerToHyperService::new(router), &options).unwrap();

    let host = NativeHost { tls: Arc::new(client), ..host(&[&["127.0.0.1"]]) };
    let trace = Arc::new(CallTrace::default());
    let url = format!("https://localhost:{}/long", server.local_addr().port());
    let (status, body) = send_traced(&host, &url, None, Some(&trace)).await.unwrap();
    assert_eq!((status, body == long), (http::StatusCode::OK, true));
    assert!(matches!(trace.moments(), [Some(_), Some(_), None]), "{trace:?}");
}
