//! Runners of the configuration, at a node of this file's own: TLS 1.3 and HTTP/2, and a client certificate required.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dyad_gateway::ca::{CertificateAuthority, CertificateRequest, SubjectAltName, Usage};
use dyad_gateway::gateway::{CallError, Host as _, full};
use dyad_gateway::{IdentityError, NativeHost, RunnerIdentity, RunnerNodes, Runners, RunnersConfig};
use http_body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use runner_api::{ErrorClass, FinishReason, RunEvent, VERSION, VERSION_HEADER};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::support::{Place, SOON, Served, eventually};

/// An authority with its files in a folder of the place.
pub(crate) struct Authority {
    authority: CertificateAuthority,
    folder: String,
}

impl Authority {
    pub(crate) fn new(place: &Place, folder: &str) -> Self {
        let directory = place.path(folder);
        let authority = CertificateAuthority::create(&directory, folder, 30, SystemTime::now()).unwrap();
        Self { authority, folder: folder.to_owned() }
    }

    /// Certificate and key for a DNS name, in one file.
    pub(crate) fn issue(&self, place: &Place, name: &str) -> String {
        let request = CertificateRequest {
            name: name.to_owned(),
            names: vec![SubjectAltName::Dns(name.to_owned())],
            usage: Usage::Both,
            days: 2,
        };
        let issued = self.authority.issue(&request, SystemTime::now()).unwrap();
        place.write(
            &format!("{}/{name}.pem", self.folder),
            &(issued.certificate_pem.clone() + issued.key_pem().expose()),
        )
    }

    pub(crate) fn file(&self, place: &Place) -> String {
        place.path(&format!("{}/ca.pem", self.folder)).to_str().unwrap().to_owned()
    }
}

#[derive(Clone, Copy)]
struct NodeOptions {
    version: &'static SupportedProtocolVersion,
    alpn: &'static [u8],
}

const PROPER: NodeOptions = NodeOptions { version: &rustls::version::TLS13, alpn: b"h2" };

/// A node that runs `claude`, whose runs say what comes through `say`.
struct Node {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// For the next run's body.
    bodies: mpsc::UnboundedSender<Said>,
    /// A run's body was dropped by the server.
    dropped: Arc<Mutex<usize>>,
}

/// A request that came in.
struct Seen {
    version: http::Version,
    path: String,
    /// The client's, as it is on the wire: its names are in it.
    certificate: String,
    body: String,
}

type Said = mpsc::UnboundedReceiver<Bytes>;

/// A run's body: what the test says, until the test lets go of it.
struct RunBody {
    said: Said,
    dropped: Arc<Mutex<usize>>,
}

impl http_body::Body for RunBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.said.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for RunBody {
    fn drop(&mut self) {
        *self.dropped.lock().unwrap() += 1;
    }
}

impl Node {
    /// Trusts clients of the authority in the file `clients`; its own certificate is in `identity`.
    async fn start(identity: &str, clients: &str, options: NodeOptions) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(clients).unwrap()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let chain = CertificateDer::pem_file_iter(identity).unwrap().map(Result::unwrap).collect();
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[options.version])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(identity).unwrap())
            .unwrap();
        tls.alpn_protocols = vec![options.alpn.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (bodies, next_body) = mpsc::unbounded_channel();
        let node = Self { address, seen: Arc::default(), bodies, dropped: Arc::default() };
        tokio::spawn(serve(
            listener,
            TlsAcceptor::from(Arc::new(tls)),
            node.seen.clone(),
            Arc::new(tokio::sync::Mutex::new(next_body)),
            node.dropped.clone(),
        ));
        node
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Where the next run's words come from.
    fn next_run(&self) -> mpsc::UnboundedSender<Bytes> {
        let (say, said) = mpsc::unbounded_channel();
        self.bodies.send(said).unwrap();
        say
    }

    /// The certificates that asked for a path, and the bodies.
    fn asked(&self, path: &str) -> Vec<(String, String)> {
        let seen = self.seen.lock().unwrap();
        let asked = seen.iter().filter(|seen| seen.path == path);
        asked.map(|seen| (seen.certificate.clone(), seen.body.clone())).collect()
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    seen: Arc<Mutex<Vec<Seen>>>,
    bodies: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Said>>>,
    dropped: Arc<Mutex<usize>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, seen, bodies, dropped) =
            (acceptor.clone(), seen.clone(), bodies.clone(), dropped.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (seen, bodies, dropped) = (seen.clone(), bodies.clone(), dropped.clone());
                let certificate = String::from_utf8_lossy(&certificate).into_owned();
                async move {
                    let (head, body) = request.into_parts();
                    assert_eq!(head.headers[VERSION_HEADER], VERSION);
                    let body = axum::body::to_bytes(axum::body::Body::new(body), 1 << 20).await.unwrap();
                    let body = String::from_utf8(body.to_vec()).unwrap();
                    let path = head.uri.path().to_owned();
                    let version = head.version;
                    seen.lock().unwrap().push(Seen { version, path, certificate, body });
                    let answer = match head.uri.path() {
                        "/v1/clis" => axum::body::Body::from(
                            json!({"clis": [{"name": "claude", "isolation": "container", "parameters": {"model": {}}}]})
                                .to_string(),
                        ),
                        "/v1/capacity" => axum::body::Body::from(
                            json!({"slots": 4, "running": 0, "queued": 0, "queue_limit": 4, "parked": 1, "draining": false})
                                .to_string(),
                        ),
                        _ => {
                            let said = bodies.lock().await.recv().await.unwrap();
                            axum::body::Body::new(RunBody { said, dropped })
                        }
                    };
                    let response = http::Response::builder().header(VERSION_HEADER, VERSION).body(answer);
                    Ok::<_, std::convert::Infallible>(response.unwrap())
                }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn lines(events: &[RunEvent]) -> Bytes {
    let mut lines = Vec::new();
    for event in events {
        runner_api::frame::encode(event, &mut lines);
    }
    lines.into()
}

fn text(text: &str) -> RunEvent {
    RunEvent::Text { text: text.to_owned() }
}

/// A configuration with this node and one provider of the CLI.
fn configuration(identity: &str, ca: &str, url: &str) -> String {
    format!(
        "[runners]\nclient_cert = \"{identity}\"\nclient_key = \"{identity}\"\nca = \"{ca}\"\n[[runners.node]]\nurl = \"{url}\"\n\
         [[provider]]\nname = \"Claude\"\ntype = \"spawn-cli\"\ncli = \"claude\"\n\
         models = [{{ id = \"sonnet\", upstream_id = \"claude-sonnet\" }}]\n"
    )
}

/// Sends a chat for a stream and gives what reads its answer.
fn chat(gateway: &Served) -> BufReader<TcpStream> {
    chat_by(gateway, gateway.first_key())
}

pub(crate) fn chat_by(gateway: &Served, key: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let body = json!({"model": "sonnet", "stream": true, "messages": [{"role": "user", "content": "Hi"}]})
        .to_string();
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    BufReader::new(stream)
}

/// Reads on until a line has this in it.
pub(crate) fn read_until(reader: &mut BufReader<TcpStream>, word: &str) -> String {
    let mut all = String::new();
    while !all.contains(word) {
        let read = reader.read_line(&mut all).unwrap();
        assert!(read > 0, "the answer ended before {word:?} came: {all}");
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_goes_through_mutual_tls_to_a_node_and_back() {
    let place = Place::new();
    let fleet = Authority::new(&place, "fleet");
    let ca = fleet.file(&place);
    let node = Node::start(&fleet.issue(&place, "localhost"), &ca, PROPER).await;
    let config = place.write("a.toml", &configuration(&fleet.issue(&place, "edge-1"), &ca, &node.url()));
    let gateway = tokio::task::block_in_place(|| place.up(&["--config", &config]));
    assert_eq!(gateway.ready["models"], json!([{"id": "sonnet", "provider": "claude"}]));

    let say = node.next_run();
    tokio::task::block_in_place(|| {
        let mut reader = chat(&gateway);
        eventually("the run comes", || (!node.asked("/v1/runs").is_empty()).then_some(()));
        say.send(lines(&[RunEvent::Started { waited_ms: 1, warm: true }, text("Good ")])).unwrap();
        read_until(&mut reader, "Good ");
        say.send(lines(&[text("morning"), RunEvent::Finished { reason: FinishReason::Stop }])).unwrap();
        drop(say);
        let rest = read_until(&mut reader, "[DONE]");
        assert!(rest.contains("morning"), "{rest}");
    });
    let [(name, body)] = &node.asked("/v1/runs")[..] else { panic!("one run was asked for") };
    assert!(name.contains("edge-1"), "the node knows who asks");
    let request: runner_api::RunRequest = serde_json::from_str(body).unwrap();
    assert_eq!((request.cli.as_str(), request.parameters["model"].as_str()), ("claude", "claude-sonnet"));
    assert!(node.seen.lock().unwrap().iter().all(|seen| seen.version == http::Version::HTTP_2));

    // A client that leaves ends the run.
    let say = node.next_run();
    let before = *node.dropped.lock().unwrap();
    tokio::task::block_in_place(|| {
        let mut reader = chat(&gateway);
        say.send(lines(&[text("Good ")])).unwrap();
        read_until(&mut reader, "Good ");
        drop(reader);
        eventually("the run is dropped", || (*node.dropped.lock().unwrap() > before).then_some(()));
    });

    // A failure is the vendor's class, and a connection that breaks is told.
    for ends in [Some(RunEvent::error(ErrorClass::RateLimited, "slow down")), None] {
        let say = node.next_run();
        tokio::task::block_in_place(|| {
            let mut reader = chat(&gateway);
            say.send(lines(&[text("Good ")])).unwrap();
            read_until(&mut reader, "Good ");
            if let Some(event) = &ends {
                say.send(lines(std::slice::from_ref(event))).unwrap();
            }
            drop(say);
            read_until(&mut reader, "\"error\"");
        });
    }
    drop(gateway);
}

/// This identity, and the authority's revocation list if there is to be one.
fn runners(identity: &str, ca: &str, crl: Option<PathBuf>) -> Result<Runners, IdentityError> {
    let identity =
        RunnerIdentity { client_cert: identity.into(), client_key: identity.into(), ca: ca.into(), crl };
    Runners::new(RunnersConfig { identity, nodes: RunnerNodes::Listed(Vec::new()) })
}

/// `call_runner` of a host.
async fn call_by(host: &NativeHost, url: &str) -> Result<http::StatusCode, CallError> {
    let mut request = http::Request::new(full(""));
    *request.uri_mut() = format!("{url}/v1/capacity").parse().unwrap();
    request.headers_mut().insert(VERSION_HEADER, VERSION.parse().unwrap());
    host.call_runner(request, SOON).await.map(|response| response.status())
}

/// The same, of a host with this identity.
async fn call(identity: &str, ca: &str, url: &str) -> Result<http::StatusCode, CallError> {
    let runners = runners(identity, ca, None).unwrap();
    call_by(&NativeHost::new().unwrap().with_runners(&runners), url).await
}

/// Calls until the node is refused.
async fn until_refused(host: &NativeHost, url: &str) {
    let refused = async {
        while call_by(host, url).await != Err(CallError::Tls) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, refused).await.expect("the node is still spoken to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_revoked_is_not_spoken_to() {
    let place = Place::new();
    let fleet = Authority::new(&place, "fleet");
    let (ca, edge) = (fleet.file(&place), fleet.issue(&place, "edge-1"));
    let node = Node::start(&fleet.issue(&place, "localhost"), &ca, PROPER).await;
    let list = fleet.authority.revocation_list_path();
    let runners = runners(&edge, &ca, Some(list.clone())).unwrap();
    let host = NativeHost::new().unwrap().with_runners(&runners);
    assert_eq!(call_by(&host, &node.url()).await, Ok(http::StatusCode::OK));
    // The connection that is there counts no more either.
    fleet.authority.revoke("localhost", 90, SystemTime::now()).unwrap();
    let watch = tokio::spawn(async move { runners.watch().await });
    until_refused(&host, &node.url()).await;
    watch.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_list_that_gets_stale_lets_nobody_be_spoken_to() {
    let place = Place::new();
    let (fleet, other) = (Authority::new(&place, "fleet"), Authority::new(&place, "other"));
    let (ca, edge) = (fleet.file(&place), fleet.issue(&place, "edge-1"));
    let node = Node::start(&fleet.issue(&place, "localhost"), &ca, PROPER).await;
    let list = fleet.authority.revocation_list_path();
    let days = Duration::from_secs(86_400);
    // It ends in a few seconds.
    let made = SystemTime::now() - days + Duration::from_secs(3);
    fleet.authority.renew_revocation_list(1, made).unwrap();
    let short = runners(&edge, &ca, Some(list.clone())).unwrap();
    let host = NativeHost::new().unwrap().with_runners(&short);
    assert_eq!(call_by(&host, &node.url()).await, Ok(http::StatusCode::OK));
    until_refused(&host, &node.url()).await;

    let refused = |list: PathBuf| runners(&edge, &ca, Some(list)).err().unwrap().to_string();
    let error = refused(list);
    assert!(error.contains("ca.crl") && error.contains("stale"), "{error}");
    let error = refused(other.authority.revocation_list_path());
    assert!(error.contains("no list in it is by an authority of ca"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_of_the_fleet_is_not_spoken_to() {
    let place = Place::new();
    let (fleet, other) = (Authority::new(&place, "fleet"), Authority::new(&place, "other"));
    let (ca, other_ca) = (fleet.file(&place), other.file(&place));
    let (edge, localhost) = (fleet.issue(&place, "edge-1"), fleet.issue(&place, "localhost"));
    let good = Node::start(&localhost, &ca, PROPER).await;
    assert_eq!(call(&edge, &ca, &good.url()).await, Ok(http::StatusCode::OK));

    // The node is another authority's, or the certificate is not for its name, or the client is not let in.
    let foreign = Node::start(&other.issue(&place, "localhost"), &ca, PROPER).await;
    assert_eq!(call(&edge, &ca, &foreign.url()).await, Err(CallError::Tls));
    let misnamed = Node::start(&fleet.issue(&place, "node.example"), &ca, PROPER).await;
    assert_eq!(call(&edge, &ca, &misnamed.url()).await, Err(CallError::Tls));
    let by_address = format!("https://127.0.0.1:{}", good.address.port());
    assert_eq!(call(&edge, &ca, &by_address).await, Err(CallError::Tls));
    let stranger = other.issue(&place, "edge-1");
    // In TLS 1.3 a client has done its part before it is refused.
    assert_eq!(call(&stranger, &ca, &good.url()).await, Err(CallError::Closed));
    assert_eq!(call(&stranger, &other_ca, &good.url()).await, Err(CallError::Tls));

    // Nothing older than TLS 1.3, nothing but HTTP/2, and no HTTP in clear.
    let old = Node::start(&localhost, &ca, NodeOptions { version: &rustls::version::TLS12, ..PROPER }).await;
    assert_eq!(call(&edge, &ca, &old.url()).await, Err(CallError::Tls));
    let http1 = Node::start(&localhost, &ca, NodeOptions { alpn: b"http/1.1", ..PROPER }).await;
    assert_eq!(call(&edge, &ca, &http1.url()).await, Err(CallError::Tls));
    let clear = good.url().replace("https://", "http://");
    assert_eq!(call(&edge, &ca, &clear).await, Err(CallError::Connect));
    for node in [&foreign, &misnamed, &old, &http1] {
        assert!(node.seen.lock().unwrap().is_empty(), "no request got there");
    }
    assert_eq!(good.asked("/v1/capacity").len(), 1, "only the first got there");

    let nobody = NativeHost::new().unwrap().call_runner(http::Request::new(full("")), SOON).await;
    assert_eq!(nobody.err(), Some(CallError::NoIdentity));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_read_again_when_they_change() {
    let place = Place::new();
    let fleet = Authority::new(&place, "fleet");
    let ca = fleet.file(&place);
    let node = Node::start(&fleet.issue(&place, "localhost"), &ca, PROPER).await;
    let edge = place.write("edge.pem", &std::fs::read_to_string(fleet.issue(&place, "edge-1")).unwrap());
    let config = place.write("a.toml", &configuration(&edge, &ca, &node.url()));
    let gateway = tokio::task::block_in_place(|| place.up(&["--config", &config]));
    let asked_by = |name: &str| node.asked("/v1/capacity").iter().any(|(asker, _)| asker.contains(name));
    assert!(asked_by("edge-1") && !asked_by("edge-2"));
    // What cannot be used leaves everything as it was.
    place.write("edge.pem", "nonsense");
    let polls = node.asked("/v1/capacity").len();
    tokio::task::block_in_place(|| {
        eventually("it is asked again", || (node.asked("/v1/capacity").len() > polls + 1).then_some(()));
    });
    place.write("edge.pem", &std::fs::read_to_string(fleet.issue(&place, "edge-2")).unwrap());
    let log = tokio::task::block_in_place(|| {
        eventually("the new certificate is shown", || asked_by("edge-2").then_some(()));
        gateway.stop()
    });
    assert!(log.contains("cannot be used") && log.contains("were read again"), "{log}");
}

#[test]
fn a_configuration_with_runners_is_checked_as_a_whole() {
    let place = Place::new();
    let config = place.write(
        "bad.toml",
        "[runners]\nclient_cert = \"/no/such.pem\"\ncolour = \"red\"\n[[runners.node]]\nurl = \"http://a\"\n\
         [[provider]]\nname = \"Claude\"\ntype = \"spawn-cli\"\ncli = \"Claude Code\"\nimage = \"evil\"\n",
    );
    let ran = place.run(&["up", "--config", &config]).expect(2);
    for path in [
        "runners.client_key",
        "runners.ca",
        "runners.colour",
        "runners.node[0].url",
        "provider[0].cli",
        "provider[0].models",
        "provider[0].image",
    ] {
        assert!(ran.stderr.contains(path), "{path} is not named: {ran:#?}");
    }
}

#[test]
fn a_cli_that_no_runner_has_is_said_to_be_missing() {
    let place = Place::new();
    let fleet = Authority::new(&place, "fleet");
    // Nobody listens there.
    let url = "https://localhost:1";
    let config =
        place.write("a.toml", &configuration(&fleet.issue(&place, "edge-1"), &fleet.file(&place), url));
    let ran = place.run(&["providers", "check", "--no-discovery", "--config", &config]).expect(1);
    assert!(ran.stdout.contains("No runner that is up has the CLI 'claude'"), "{ran:#?}");
    let ran = place.run(&["doctor", "--no-discovery", "--config", &config]).expect(1);
    assert!(ran.stdout.contains("provider claude at cli:claude: No runner"), "{ran:#?}");
}
