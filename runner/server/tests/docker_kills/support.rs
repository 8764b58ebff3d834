//! A runner of the binary on a Docker engine, and an edge that has runs on it.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use runner_api::{Capacity, RunEvent, VERSION, VERSION_HEADER, frame};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

pub(crate) use super::binary::{Place, Runner, SOON, eventually};
use super::traces::Scene;

/// What there may be of a run after its end.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);
/// The engine of this host.
pub(crate) const ENGINE: &str = "/var/run/docker.sock";

/// A configuration and where its runs leave traces.
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) scene: Scene,
    _image: TempDir,
}

impl Node {
    /// On this host's engine.
    pub(crate) fn new(capacity: &str, clis: &[Unruly]) -> Self {
        Self::on(Path::new(ENGINE), capacity, clis)
    }

    pub(crate) fn on(engine: &Path, capacity: &str, clis: &[Unruly]) -> Self {
        let image = image();
        let mark = image.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        let clis: String = clis.iter().map(|cli| cli.entry(image.path(), &mark)).collect();
        let more = format!("engine = {{ socket = \"{}\" }}\ncapacity = {{ {capacity} }}", engine.display());
        let place = Place::new(&more, &clis);
        let scene = Scene {
            engine: format!("unix://{}", engine.display()),
            node_id: place.node_id.clone(),
            mark,
            state_dir: place.path("state"),
        };
        Self { place, scene, _image: image }
    }

    pub(crate) fn containers(&self) -> BTreeSet<String> {
        self.scene.containers()
    }

    /// Waits until there are so many, and says which.
    pub(crate) fn has_containers(&self, count: usize) -> BTreeSet<String> {
        eventually("the containers are there", || Some(self.containers()).filter(|all| all.len() == count))
    }

    pub(crate) async fn edge(&self, runner: &Runner) -> Edge {
        Edge { sender: self.place.client(runner.addr()).await }
    }
}

impl Drop for Node {
    /// What a test that failed left.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.scene.clear();
        }
    }
}

/// An entry whose CLI is unruly.rs. Its pool is empty unless it is parked.
#[derive(Clone, Copy)]
pub(crate) struct Unruly {
    pub(crate) name: &'static str,
    pub(crate) parked: usize,
    /// Members of `[cli.limits]`.
    pub(crate) limits: &'static str,
}

pub(crate) const UNRULY: Unruly = Unruly { name: "unruly", parked: 0, limits: "" };

impl Unruly {
    /// With a way out, so that there is a socket to be left behind. Nobody listens at its other end.
    fn entry(&self, image: &Path, mark: &str) -> String {
        let Self { name, parked, limits } = self;
        let mode = if *parked > 0 { "parked" } else { "one-shot" };
        format!(
            r#"
[[cli]]
name = "{name}"
dialect = "text"
mode = "{mode}"
image = {{ build = "{}", tag = "{}" }}
argv = ["/unruly", "{mark}"]
pool = {{ min = {parked}, max = {parked} }}
[cli.limits]
memory = "64MiB"
pids = 32
{limits}
[[cli.egress.upstream]]
name = "vendor"
url = "http://127.0.0.1:9"
vendor = "anthropic"
"#,
            image.display(),
            image_tag(),
        )
    }
}

const DOCKERFILE: &str = "FROM scratch\nADD root.tar /\n";
const SOURCE: &str = include_str!("unruly.rs");

fn image_tag() -> String {
    let mut hasher = DefaultHasher::new();
    (DOCKERFILE, SOURCE).hash(&mut hasher);
    format!("dyad-test-unruly:{:016x}", hasher.finish())
}

/// What the image is built from, if the engine does not have it yet.
fn image() -> TempDir {
    let context = TempDir::new().unwrap();
    fs::write(context.path().join("Dockerfile"), DOCKERFILE).unwrap();
    // In a tar of its own: of files that it copies itself, the builder drops the bit that makes them programs.
    let mut root = tar::Builder::new(fs::File::create(context.path().join("root.tar")).unwrap());
    let program = fs::read(compiled()).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(program.len() as u64);
    root.append_data(&mut header, "unruly", &program[..]).unwrap();
    root.finish().unwrap();
    context
}

/// Compiled once for each state of its source.
fn compiled() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(image_tag().replace(':', "-"));
    if path.exists() {
        return path;
    }
    let source = directory.join(format!("unruly-{}.rs", std::process::id()));
    let partial = source.with_extension("");
    fs::write(&source, SOURCE).unwrap();
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"]);
    let status = rustc.args([&partial, &source]).status().unwrap();
    assert!(status.success(), "unruly.rs does not compile");
    // Other tests may do the same at the same time.
    fs::rename(&partial, &path).unwrap();
    fs::remove_file(source).unwrap();
    path
}

/// One connection to a runner.
#[derive(Clone)]
pub(crate) struct Edge {
    sender: SendRequest<Full<Bytes>>,
}

impl Edge {
    async fn send(&self, method: &str, path: &str, body: String) -> Response<Incoming> {
        let request = Request::builder().method(method).uri(format!("https://localhost{path}"));
        let request = request.header(VERSION_HEADER, VERSION).header("content-type", "application/json");
        let request = request.body(Full::from(body)).unwrap();
        let mut sender = self.sender.clone();
        timeout(SOON, sender.send_request(request)).await.expect("an answer in time").unwrap()
    }

    pub(crate) async fn run(&self, id: &str, cli: &str, prompt: &str) -> Answer {
        self.run_within(id, cli, prompt, None).await
    }

    pub(crate) async fn run_within(
        &self,
        id: &str,
        cli: &str,
        prompt: &str,
        timeout_ms: Option<u64>,
    ) -> Answer {
        let messages = json!([{"role": "user", "parts": [{"type": "text", "text": prompt}]}]);
        let mut body = json!({"id": id, "cli": cli, "caller": "test", "messages": messages});
        if let Some(timeout_ms) = timeout_ms {
            body["timeout_ms"] = timeout_ms.into();
        }
        let response = self.send("POST", runner_api::RUNS_PATH, body.to_string()).await;
        Answer { response, decoder: frame::Decoder::default(), text: String::new() }
    }

    pub(crate) async fn cancel(&self, id: &str) -> StatusCode {
        self.send("DELETE", &format!("{}/{id}", runner_api::RUNS_PATH), String::new()).await.status()
    }

    pub(crate) async fn capacity(&self) -> Capacity {
        let response = self.send("GET", runner_api::CAPACITY_PATH, String::new()).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    /// Waits until so many sandboxes are parked.
    pub(crate) async fn has_parked(&self, count: u32) {
        let parked = async {
            while self.capacity().await.parked != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, parked).await.expect("the pool fills");
    }
}

/// Dropping it closes the stream.
pub(crate) struct Answer {
    response: Response<Incoming>,
    decoder: frame::Decoder,
    /// What came so far.
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The next event; None when the stream has ended, in good order or not.
    async fn event(&mut self) -> Option<RunEvent> {
        loop {
            if let Some(event) = self.decoder.next_event().unwrap() {
                if let RunEvent::Text { text } = &event {
                    self.text.push_str(text);
                }
                return Some(event);
            }
            let frame = timeout(SOON, self.response.body_mut().frame()).await.expect("something in time");
            self.decoder.push(&frame?.ok()?.into_data().ok()?);
        }
    }

    /// Waits until the CLI has the prompt and says so.
    pub(crate) async fn begun(&mut self) {
        assert_eq!(self.status(), 200, "{}", self.refusal().await);
        while !self.text.contains("begun") {
            let event = self.event().await;
            assert!(event.as_ref().is_some_and(|event| !event.is_last()), "{event:?}");
        }
    }

    async fn refusal(&mut self) -> String {
        if self.status() == 200 {
            return String::new();
        }
        let body = self.response.body_mut().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&body).unwrap_or_default().to_string()
    }

    /// Reads to the last event; None if there is none.
    pub(crate) async fn last(&mut self) -> Option<RunEvent> {
        loop {
            let event = self.event().await?;
            if event.is_last() {
                return Some(event);
            }
        }
    }
}

/// What the runner has open.
pub(crate) fn open_files() -> usize {
    let me = std::process::id().to_string();
    let mut counts = fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter_map(|entry| {
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim();
        let is_runner = parent == me && status.contains("Name:\tdyad-runner\n");
        is_runner.then(|| fs::read_dir(entry.path().join("fd")).unwrap().count())
    });
    let count = counts.next().expect("this test has a runner");
    assert!(counts.next().is_none(), "and only one");
    count
}

/// Checks that a port is closed.
pub(crate) fn refuses(addr: SocketAddr) -> bool {
    std::net::TcpStream::connect(addr).is_err()
}
