//! The binary as a child process, certificates, and a client that has one.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use runner_api::{VERSION, VERSION_HEADER};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The client's name, as its certificate has it.
const CLIENT: &str = "edge.example.com";

/// A CLI that is a container, and prints its stdin.
pub(crate) const ECHO: &str = r#"
[[cli]]
name = "cli-echo"
dialect = "text"
image = { builtin = "echo" }
[cli.limits]
memory = "64MiB"
pids = 32
"#;

/// A CLI that says one word and then nothing more.
pub(crate) const SLEEPER: &str = r#"
[[cli]]
name = "sleeper"
dialect = "text"
isolation = "process"
argv = ["sh", "-c", "cat > /dev/null; echo asleep; exec sleep 1000"]
"#;

/// A place for one test: certificates, a configuration, a state directory.
pub(crate) struct Place {
    directory: TempDir,
    environment: Vec<(String, String)>,
    pub(crate) node_id: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Place {
    /// With a configuration that has these CLIs, and `more` before them.
    pub(crate) fn new(more: &str, clis: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let node_id =
            directory.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        let place = Self { directory, environment: Vec::new(), node_id: format!("test-{node_id}"), issuer };
        place.write("ca.pem", &place.issuer.pem());
        place.certificate("node", &["localhost"]);
        place.certificate("client", &[CLIENT]);
        let config = format!(
            r#"
listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
state_dir = "state"
{more}
[node]
id = "{}"
url = "https://localhost:7443"
[tls]
certificate = "node.pem"
key = "node.key"
client_ca = "ca.pem"
allowed_clients = ["{CLIENT}"]
{clis}"#,
            place.node_id
        );
        place.write("runner.toml", &config);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn set(&mut self, variable: &str, value: &str) {
        self.environment.push((variable.to_owned(), value.to_owned()));
    }

    fn certificate(&self, name: &str, names: &[&str]) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// The command, in an environment of this place alone.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dyad-runner"));
        // The search path finds what CLIs that are processes need.
        let search = std::env::var_os("PATH").unwrap_or_default();
        command.args(arguments).env_clear().env("PATH", search);
        command.env("DYAD_RUNNER_CONFIG", self.path("runner.toml"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    /// The same with something on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writing = std::thread::spawn(move || {
            // It may end without reading all of it.
            let _ = stdin.write_all(input.as_bytes());
        });
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        Ran::from(output)
    }

    /// Starts a runner and waits until it serves.
    pub(crate) fn serve(&self) -> Runner {
        let mut command = self.command(&["serve", "--json", "--log-format", "json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut runner = Runner { child, lines, log: String::new(), ready: Value::Null };
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        assert!(!ready.is_empty(), "no runner: {}", runner.ended().1);
        runner.ready = serde_json::from_str(&ready).unwrap();
        assert_eq!(runner.ready["event"], "ready");
        runner
    }

    /// A connection of the client, with its certificate.
    pub(crate) async fn client(&self, addr: SocketAddr) -> SendRequest<Full<Bytes>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_file(self.path("client.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.path("client.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let mut config = config.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Containers with this node's name, of `serve` and of `run`.
    pub(crate) fn containers(&self) -> Vec<String> {
        let mut command = Command::new("docker");
        command.args(["ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Labels}}"]);
        let listed = command.output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        let listed = String::from_utf8(listed.stdout).unwrap();
        listed.lines().filter(|line| line.contains(&self.node_id)).map(str::to_owned).collect()
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Standard output as JSON lines.
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:#?}"));
        self.stdout.lines().map(parse).collect()
    }

    pub(crate) fn all_output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A runner that serves; it is killed when dropped.
pub(crate) struct Runner {
    child: Child,
    lines: mpsc::Receiver<String>,
    log: String,
    /// What it said when it began to serve.
    ready: Value,
}

impl Runner {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.ready["addr"].as_str().unwrap().parse().unwrap()
    }

    /// The answer to `GET path` of the listener for probes.
    pub(crate) fn probe(&self, path: &str) -> String {
        let addr: SocketAddr = self.ready["metrics_addr"].as_str().unwrap().parse().unwrap();
        let mut stream = std::net::TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The next log line with this message.
    pub(crate) fn logged(&mut self, message: &str) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("it never logged {message:?}: {}", self.log);
            };
            self.log.push_str(&line);
            self.log.push('\n');
            let value: Value = serde_json::from_str(&line).unwrap_or_default();
            if value["message"] == message {
                return value;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Waits for its end: its exit status and its log.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = eventually("the runner ends", || self.child.try_wait().unwrap());
        while let Ok(line) = self.lines.recv_timeout(SOON) {
            self.log.push_str(&line);
            self.log.push('\n');
        }
        (status, std::mem::take(&mut self.log))
    }

    /// Stops it in good order: its log.
    pub(crate) fn stop(self) -> String {
        self.signal(Signal::TERM);
        let (status, log) = self.ended();
        assert!(status.success(), "{status}: {log}");
        log
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a run with this prompt; its answer has begun.
pub(crate) async fn start_run(
    client: &mut SendRequest<Full<Bytes>>,
    id: &str,
    cli: &str,
    prompt: &str,
) -> Response<Incoming> {
    let message = serde_json::json!({"role": "user", "parts": [{"type": "text", "text": prompt}]});
    let body = serde_json::json!({"id": id, "cli": cli, "caller": "test", "messages": [message]});
    let request = Request::post("https://localhost/v1/runs")
        .header(VERSION_HEADER, VERSION)
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .unwrap();
    tokio::time::timeout(SOON, client.send_request(request)).await.unwrap().unwrap()
}
