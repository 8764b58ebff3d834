//! A runner as a process, and an edge that reaches it over mutual TLS.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Fault;
use crate::direct::{PATIENCE, now};
use crate::figures::{Times, milliseconds};

const PAUSE: Duration = Duration::from_millis(20);
const CLIENT: &str = "edge.example.com";

pub(crate) struct Node {
    id: String,
    child: Child,
    sender: SendRequest<Full<Bytes>>,
    _directory: TempDir,
}

impl Node {
    /// With these `[[cli]]` entries.
    pub(crate) async fn start(binary: &Path, clis: &str) -> Result<Self, Fault> {
        let directory = TempDir::new()?;
        let id = directory.path().file_name().and_then(|name| name.to_str()).ok_or("no name")?;
        let id = format!("bench-{}", id.trim_start_matches('.'));
        let client = write_certificates(directory.path())?;
        let config = directory.path().join("runner.toml");
        fs::write(
            &config,
            format!(
                r#"
listen = "127.0.0.1:0"
state_dir = "state"
node = {{ id = "{id}", url = "https://localhost:1" }}
capacity = {{ runs = 64, queue = 1000, queue_per_caller = 1000, memory = "16GiB" }}
tls = {{ certificate = "node.pem", key = "node.key", client_ca = "ca.pem", allowed_clients = ["{CLIENT}"] }}
{clis}"#
            ),
        )?;
        let mut command = Command::new(binary);
        command.args(["serve", "--log-format", "json", "--config"]).arg(&config);
        // No vendor's: the fake takes any.
        command.env("ANTHROPIC_API_KEY", "bench");
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let address = address_of(&mut child)?;
        let sender = connect(address, client).await?;
        Ok(Self { id, child, sender, _directory: directory })
    }

    async fn send(&self, method: Method, path: &str, body: String) -> Result<Response<Incoming>, Fault> {
        let request = Request::builder().method(method).uri(format!("https://localhost{path}"));
        let request = request.header("dyad-runner-version", "1.0").header("content-type", "application/json");
        Ok(self.sender.clone().send_request(request.body(Full::from(body))?).await?)
    }

    /// One run: its times but for [`Times::stdin`], its answer, and when it was asked for.
    pub(crate) async fn run(&self, cli: &str, prompt: &str) -> Result<(Times, String, u128), Fault> {
        let run = tokio::time::timeout(PATIENCE, self.run_without_end(cli, prompt)).await;
        run.unwrap_or_else(|_| Err(format!("a run of {cli} does not end").into()))
    }

    async fn run_without_end(&self, cli: &str, prompt: &str) -> Result<(Times, String, u128), Fault> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let id = format!("r{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let messages = json!([{"role": "user", "parts": [{"type": "text", "text": prompt}]}]);
        let body = json!({"id": id, "cli": cli, "caller": "bench", "messages": messages}).to_string();
        let (begun, asked) = (Instant::now(), now());
        let mut response = self.send(Method::POST, "/v1/runs", body).await?;
        let (mut lines, mut first_text) = (Vec::new(), None);
        while let Some(frame) = response.body_mut().frame().await {
            lines.extend_from_slice(&frame?.into_data().unwrap_or_default());
            let has_text = || lines.windows(13).any(|window| window == b"\"type\":\"text\"");
            if first_text.is_none() && has_text() {
                first_text = Some(milliseconds(begun.elapsed()));
            }
        }
        let end = milliseconds(begun.elapsed());
        let lines = String::from_utf8(lines)?;
        let events = lines.lines().filter(|line| !line.is_empty()).map(serde_json::from_str);
        let events = events.collect::<Result<Vec<Value>, _>>()?;
        if events.last().is_none_or(|last| last["type"] != "finished") {
            return Err(format!("{cli}: {lines}").into());
        }
        let text = events.iter().filter_map(|event| event["text"].as_str()).collect();
        let first_text = first_text.ok_or("an answer without text")?;
        Ok((Times { stdin: None, first_text, end }, text, asked))
    }

    /// Waits until so many sandboxes wait for requests, and there are no others.
    pub(crate) async fn quiet(&self, parked: usize) -> Result<(), Fault> {
        let begun = Instant::now();
        loop {
            let capacity = self.send(Method::GET, "/v1/capacity", String::new()).await?;
            let capacity: Value = serde_json::from_slice(&capacity.into_body().collect().await?.to_bytes())?;
            if capacity["parked"] == parked && self.containers()? == parked {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{parked} sandboxes should wait: {capacity}").into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn containers(&self) -> Result<usize, Fault> {
        let mut docker = Command::new("docker");
        docker.args(["ps", "--all", "--quiet", "--filter"]).arg(format!("label=dyad.node={}", self.id));
        let listed = docker.output()?;
        if !listed.status.success() {
            return Err(String::from_utf8_lossy(&listed.stderr).into());
        }
        Ok(listed.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count())
    }

    /// Lets it remove all that it has.
    pub(crate) fn stop(mut self) -> Result<(), Fault> {
        terminate(&self.child)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the runner ended with {status}").into()) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Where the benchmark failed: it cleans up even so.
        if matches!(self.child.try_wait(), Ok(None)) && terminate(&self.child).is_ok() {
            let _ = self.child.wait();
        }
    }
}

fn terminate(child: &Child) -> Result<(), Fault> {
    Ok(rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM)?)
}

/// What it logs when it serves. Its log goes on to be read, and is of no interest.
fn address_of(child: &mut Child) -> Result<SocketAddr, Fault> {
    let mut lines = BufReader::new(child.stderr.take().ok_or("stderr is not a pipe")?).lines();
    let mut log = String::new();
    for line in lines.by_ref() {
        let line = line?;
        let value: Value = serde_json::from_str(&line).unwrap_or_default();
        if value["message"] == "serving" {
            std::thread::spawn(move || lines.count());
            return Ok(value["addr"].as_str().ok_or("no address")?.parse()?);
        }
        log.push_str(&line);
        log.push('\n');
    }
    Err(format!("the runner does not start:\n{log}").into())
}

/// Of the node as files; the client's as what it connects with.
fn write_certificates(directory: &Path) -> Result<rustls::ClientConfig, Fault> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(directory.join("ca.pem"), issuer.pem())?;
    let issue = |name: &str| -> Result<_, Fault> {
        let key = KeyPair::generate()?;
        Ok((CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &issuer)?, key))
    };
    let (node, key) = issue("localhost")?;
    fs::write(directory.join("node.pem"), node.pem())?;
    fs::write(directory.join("node.key"), key.serialize_pem())?;
    let (client, key) = issue(CLIENT)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(issuer.pem().as_bytes())?)?;
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_protocol_versions(&[&rustls::version::TLS13])?.with_root_certificates(roots);
    let mut config = config.with_client_auth_cert(vec![client.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

async fn connect(
    address: SocketAddr,
    config: rustls::ClientConfig,
) -> Result<SendRequest<Full<Bytes>>, Fault> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream =
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, stream).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// `variable`'s value, or what cargo builds.
pub(crate) fn built(variable: &str, arguments: &[&str]) -> Result<PathBuf, Fault> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--message-format", "json"]).args(arguments);
    let built = command.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output()?;
    let artifacts = built.stdout.split(|byte| *byte == b'\n');
    let artifacts = artifacts.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let binary =
        artifacts.filter_map(|artifact| artifact["executable"].as_str().map(PathBuf::from)).next_back();
    binary.filter(|_| built.status.success()).ok_or_else(|| format!("cargo build {arguments:?} fails").into())
}
