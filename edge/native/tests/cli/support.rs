//! The binary as a child process, and small upstreams.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use store::sdk::{Credentials, SharedCredentialsProvider};
use store::{DynamoStore, StoreAccess};
use tempfile::TempDir;

mod callers;
mod chats;

pub(crate) use callers::{Administrator, Stream};
pub(crate) use chats::Chats;

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The tests' table, and where it is said to be: its engine looks at no region.
pub(crate) const TABLE: &str = "fleet";
const REGION: &str = "eu-central-1";

/// A place for one test: a data directory, a configuration file, and an environment with nothing in it.
pub(crate) struct Place {
    directory: TempDir,
    environment: Vec<(String, String)>,
    emulator: Option<Arc<Served>>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), environment: Vec::new(), emulator: None }
    }

    /// One whose environment names a table in an engine of its own, where no table is yet.
    pub(crate) fn with_engine() -> Self {
        let mut place = Self::new();
        let serve = ["store", "serve", "--in-memory", "--listen", "127.0.0.1:0", "--json"];
        let emulator = Served::start(place.command(&serve));
        let endpoint = emulator.ready["endpoint"].as_str().unwrap().to_owned();
        place.emulator = Some(Arc::new(emulator));
        for (variable, value) in [
            ("DYAD_TABLE", TABLE),
            ("AWS_REGION", REGION),
            ("AWS_ENDPOINT_URL_DYNAMODB", &endpoint),
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI"),
            ("DYAD_KEY_SECRET", "a secret that is long enough for tests"),
        ] {
            place.set(variable, value);
        }
        place
    }

    /// One whose environment names a table, which is there.
    pub(crate) fn on_table() -> Self {
        let place = Self::with_engine();
        place.run(&["store", "init"]).expect(0);
        place
    }

    /// One on each kind of store.
    pub(crate) fn on_each_store() -> [Self; 2] {
        [Self::new(), Self::on_table()]
    }

    /// Another machine: the same environment, and so the same table, and a data directory of its own.
    pub(crate) fn beside(&self) -> Self {
        let (environment, emulator) = (self.environment.clone(), self.emulator.clone());
        Self { directory: tempfile::tempdir().unwrap(), environment, emulator }
    }

    /// Another machine, whose administrator knows this gateway of ours by its URL and a token of this role.
    pub(crate) fn administrator_of(&self, gateway: &Served, role: &str) -> Self {
        let token = self.run(&["admin", "token", "--role", role]).expect(0).stdout;
        let mut administrator = Self::new();
        administrator.set("DYAD_ADMIN_URL", gateway.ready["base_url"].as_str().unwrap());
        administrator.set("DYAD_ADMIN_TOKEN", token.trim());
        administrator
    }

    /// This place's table, for who goes past the gateway.
    pub(crate) fn table(&self) -> DynamoStore {
        let access = StoreAccess {
            table: TABLE.to_owned(),
            region: REGION.to_owned(),
            endpoint_url: self.engine().ready["endpoint"].as_str().map(str::to_owned),
        };
        let credentials = Credentials::from_keys("AKIAEXAMPLE", "wJalrXUtnFEMI", None);
        DynamoStore::connect_with(&access, SharedCredentialsProvider::new(credentials))
    }

    /// An operation of the engine, past the store; its answer.
    pub(crate) fn engine_call(&self, operation: &str, request: &Value) -> Value {
        let address = self.engine().ready["endpoint"].as_str().unwrap().strip_prefix("http://").unwrap();
        let body = request.to_string();
        let request = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/x-amz-json-1.0\r\n\
             x-amz-target: DynamoDB_20120810.{operation}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = exchange(TcpStream::connect(address).unwrap(), request.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{operation}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    pub(crate) fn engine(&self) -> &Served {
        self.emulator.as_ref().expect("this place has an engine")
    }

    /// Where this place's engine listens.
    pub(crate) fn engine_address(&self) -> SocketAddr {
        let endpoint = self.engine().ready["endpoint"].as_str().unwrap();
        endpoint.strip_prefix("http://").unwrap().parse().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes a file; its path.
    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn set(&mut self, variable: &str, value: &str) {
        self.unset(variable);
        self.environment.push((variable.to_owned(), value.to_owned()));
    }

    pub(crate) fn unset(&mut self, variable: &str) {
        self.environment.retain(|(name, _)| name != variable);
    }

    /// The command, in an environment of this place alone.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dyad-gateway"));
        command.args(arguments).env_clear().env("DYAD_GATEWAY_DATA_DIR", self.data_dir());
        // With a runner they are other tests, which need Docker.
        command.env("DYAD_GATEWAY_NO_RUNNER", "true");
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    /// `dyad-admin`, in the same environment.
    fn admin_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dyad-admin"));
        command.args(["--listen", "127.0.0.1:0", "--json"]).args(arguments).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    /// Runs it to its end, since it cannot serve.
    pub(crate) fn run_admin(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.admin_command(arguments).output().unwrap())
    }

    pub(crate) fn serve_admin(&self, arguments: &[&str]) -> Served {
        Served::start(self.admin_command(arguments))
    }

    /// Somebody with a token that 'admin token' prints here.
    pub(crate) fn administrator(&self, served: &Served, arguments: &[&str]) -> Administrator {
        let token = self.run(&[&["admin", "token"][..], arguments].concat()).expect(0).stdout;
        Administrator { address: served.address(), token: token.trim().to_owned() }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    /// The same, with this on its standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::from(child.wait_with_output().unwrap())
    }

    /// Starts a gateway on a free port, with `--json`, and waits until it serves.
    pub(crate) fn up(&self, arguments: &[&str]) -> Served {
        let mut all = vec!["up", "--listen", "127.0.0.1:0", "--no-discovery", "--json"];
        all.extend(arguments);
        Served::start(self.command(&all))
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

/// A process that serves, a gateway mostly; it is killed when dropped.
pub(crate) struct Served {
    child: Child,
    log: Option<std::thread::JoinHandle<String>>,
    /// What it said when it began to serve.
    pub(crate) ready: Value,
}

impl Served {
    /// Waits until it says that it is ready.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            let _ = BufReader::new(stderr).read_to_string(&mut log);
            log
        });
        let mut served = Self { child, log: Some(log), ready: Value::Null };
        match lines.recv_timeout(SOON) {
            Ok(line) => served.ready = serde_json::from_str(&line).unwrap(),
            Err(error) => panic!("it does not serve ({error}): {}", served.kill()),
        }
        assert_eq!(served.ready["event"], "ready");
        served
    }

    pub(crate) fn address(&self) -> SocketAddr {
        // An administration by itself has no base URL for clients.
        let url = self.ready["base_url"].as_str().or(self.ready["url"].as_str()).unwrap();
        let authority = url.split_once("://").unwrap().1;
        authority.strip_suffix("/v1").unwrap_or(authority).parse().unwrap()
    }

    pub(crate) fn first_key(&self) -> &str {
        self.ready["api_key"].as_str().expect("the first start shows a key")
    }

    /// The status of `GET path` with a key.
    pub(crate) fn get(&self, path: &str, key: &str) -> u16 {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
        );
        let answer = exchange(TcpStream::connect(self.address()).unwrap(), head.as_bytes());
        answer["HTTP/1.1 ".len()..][..3].parse().unwrap()
    }

    /// Begins a chat, streamed.
    pub(crate) fn chat(&self, key: &str, model: &str) -> Stream {
        Stream::begin(self.address(), key, model)
    }

    /// What `/ready` says.
    pub(crate) fn ask_ready(&self) -> Value {
        let head = "GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let answer = exchange(TcpStream::connect(self.address()).unwrap(), head.as_bytes());
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// What the listener for Prometheus answers, head and all.
    pub(crate) fn ask_metrics(&self, method: &str, path: &str) -> String {
        let url = self.ready["metrics_url"].as_str().unwrap();
        let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        exchange(TcpStream::connect(address).unwrap(), head.as_bytes())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn terminate(&self) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
    }

    /// Waits for its end: its exit status and its log.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = eventually("the process ends", || self.child.try_wait().unwrap());
        (status, self.log.take().unwrap().join().unwrap())
    }

    /// Stops it in good order: its log.
    pub(crate) fn stop(self) -> String {
        self.terminate();
        let (status, log) = self.ended();
        assert!(status.success(), "{status}: {log}");
        log
    }

    fn kill(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log.take().map(|log| log.join().unwrap()).unwrap_or_default()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a request; all that is answered until the peer closes.
pub(crate) fn exchange(mut stream: TcpStream, request: &[u8]) -> String {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
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

/// An upstream that lists two models, to everybody or to the holder of one key.
pub(crate) struct Upstream {
    pub(crate) base_url: String,
}

impl Upstream {
    pub(crate) fn start(key: Option<&'static str>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = answer(stream, key);
            }
        });
        Self { base_url }
    }
}

fn answer(mut stream: TcpStream, key: Option<&str>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SOON))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut authorized = key.is_none();
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("authorization") {
            authorized |= key.is_some_and(|key| value.trim() == format!("Bearer {key}"));
        }
        line.clear();
    }
    let (status, body) = if authorized {
        (
            "200 OK",
            r#"{"object":"list","data":[{"id":"tiny","object":"model"},{"id":"large","object":"model"}]}"#,
        )
    } else {
        ("401 Unauthorized", r#"{"error":{"message":"wrong key"}}"#)
    };
    respond(&mut stream, status, body)
}

/// A provider for a configuration file.
pub(crate) fn provider(slug: &str, base_url: &str, rest: &str) -> String {
    format!(
        "[[provider]]\nname = \"{slug}\"\nslug = \"{slug}\"\ntype = \"local\"\nbase_url = \"{base_url}\"\n{rest}\n"
    )
}

/// The permissions of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn respond(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
