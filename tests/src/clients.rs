//! The real client libraries, each in a process of its own that takes jobs as JSON lines.
//! `clients/README.md` says how they are installed and documents jobs and answers.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use crate::gateway::Gateway;
use crate::{SOON, secrets, within};

/// A client library in one major version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// openai-python 1
    Python1,
    /// openai-python 3
    Python3,
    /// openai-node 6
    Node6,
    /// openai-node 7
    Node7,
    /// `@ai-sdk/openai-compatible` 2 with `ai` 6: what Dyad uses
    AiSdk2,
    /// `@ai-sdk/openai-compatible` 3 with `ai` 7
    AiSdk3,
}

impl Client {
    pub const ALL: [Self; 6] =
        [Self::Python1, Self::Python3, Self::Node6, Self::Node7, Self::AiSdk2, Self::AiSdk3];
    /// OpenAI's own libraries: they list models and raise typed errors, the AI SDK does not.
    pub const OPENAI: [Self; 4] = [Self::Python1, Self::Python3, Self::Node6, Self::Node7];
    /// The AI SDK.
    pub const AI_SDK: [Self; 2] = [Self::AiSdk2, Self::AiSdk3];

    /// The directory it is installed in.
    pub fn directory(self) -> PathBuf {
        clients_directory().join(match self {
            Self::Python1 => "python1",
            Self::Python3 => "python3",
            Self::Node6 => "node6",
            Self::Node7 => "node7",
            Self::AiSdk2 => "aisdk2",
            Self::AiSdk3 => "aisdk3",
        })
    }

    fn command(self) -> Command {
        let directory = self.directory();
        match self {
            Self::Python1 | Self::Python3 => {
                let mut command = Command::new(directory.join("bin/python"));
                command.args(["-c", include_str!("../clients/driver.py")]);
                command
            }
            // A module given on the command line finds its packages from the working directory.
            Self::Node6 | Self::Node7 => node(directory, include_str!("../clients/openai.mjs")),
            Self::AiSdk2 | Self::AiSdk3 => node(directory, include_str!("../clients/aisdk.mjs")),
        }
    }
}

fn node(directory: PathBuf, script: &str) -> Command {
    let installed = directory.join("node_modules");
    assert!(installed.is_dir(), "{} is missing: {INSTALL}", installed.display());
    let mut command = Command::new("node");
    command.args(["--input-type=module", "--eval", script]).current_dir(directory);
    command
}

const INSTALL: &str =
    "`cargo xtask test` installs the client libraries, tests/clients/README.md says how by hand";

/// Where clients and real servers are installed: `DYAD_TEST_CLIENTS`, or a folder of the cache.
pub fn clients_directory() -> PathBuf {
    if let Some(directory) = std::env::var_os("DYAD_TEST_CLIENTS") {
        return directory.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    cache.expect("HOME or XDG_CACHE_HOME or DYAD_TEST_CLIENTS is set").join("dyad-cli-gateway/clients")
}

/// What a library is asked to do.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    pub base_url: String,
    pub api_key: String,
    pub op: &'static str,
    /// The body of the request as OpenAI defines it.
    pub params: Value,
    /// Sent by the library with its own headers.
    pub headers: HashMap<String, String>,
    pub max_retries: u32,
    /// Closes the stream after so many chunks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_after_chunks: Option<usize>,
    /// Gives up after so many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_after_ms: Option<u64>,
}

impl Job {
    fn new(gateway: &Gateway, op: &'static str, params: Value) -> Self {
        Self {
            base_url: gateway.base_url.clone(),
            api_key: gateway.api_key.clone(),
            op,
            params,
            headers: HashMap::new(),
            max_retries: 0,
            abort_after_chunks: None,
            abort_after_ms: None,
        }
    }

    /// A chat completion that is not streamed.
    pub fn chat(gateway: &Gateway, params: Value) -> Self {
        Self::new(gateway, "chat", params)
    }

    /// A streamed chat completion.
    pub fn chat_stream(gateway: &Gateway, params: Value) -> Self {
        Self::new(gateway, "chat_stream", params)
    }

    /// The list of models.
    pub fn models(gateway: &Gateway) -> Self {
        Self::new(gateway, "models", serde_json::json!({}))
    }

    /// One model.
    pub fn model(gateway: &Gateway, id: &str) -> Self {
        Self::new(gateway, "model", serde_json::json!({ "model": id }))
    }

    pub fn embeddings(gateway: &Gateway, params: Value) -> Self {
        Self::new(gateway, "embeddings", params)
    }
}

/// What a library gave its caller.
#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    /// The chunks as the library parsed them.
    pub chunks: Vec<Value>,
    /// The content put together.
    pub text: String,
    /// `reasoning_content` put together.
    pub reasoning: String,
    pub tool_calls: Vec<ToolCall>,
    pub finish_reason: Option<String>,
    pub usage: Option<Usage>,
    /// The completion, model, models or vectors; null for streams.
    #[serde(default)]
    pub data: Value,
    /// What was thrown, if anything was.
    #[serde(default)]
    pub error: Option<LibraryError>,
    /// True if the job's own abort ended it.
    #[serde(default)]
    pub aborted: bool,
    #[serde(default)]
    pub first_chunk_ms: Option<f64>,
    pub total_ms: f64,
}

/// A tool call put together from its deltas.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct ToolCall {
    pub id: Option<String>,
    pub name: String,
    pub arguments: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: Option<u64>,
    pub total_tokens: u64,
}

/// What a library threw.
#[derive(Clone, Debug, Deserialize)]
pub struct LibraryError {
    pub class: String,
    /// HTTP status, where it knew one.
    pub status: Option<u16>,
    pub code: Value,
    #[serde(rename = "type")]
    pub kind: Value,
    pub param: Value,
    pub message: Option<String>,
}

impl Answer {
    /// The answer, which must not be an error.
    #[track_caller]
    pub fn ok(&self) -> &Self {
        assert!(self.error.is_none(), "unexpected error: {:?}", self.error);
        self
    }

    /// The vectors of an embeddings answer.
    pub fn vectors(&self) -> Vec<Vec<f32>> {
        serde_json::from_value(self.ok().data.clone())
            .unwrap_or_else(|error| panic!("{error}: {}", self.data))
    }

    /// The error, which there must be.
    #[track_caller]
    pub fn error(&self) -> &LibraryError {
        self.error.as_ref().unwrap_or_else(|| panic!("an error was expected, not {self:?}"))
    }
}

struct Driver {
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Driver {
    fn start(client: Client) -> Self {
        let mut command = client.command();
        // Proxies of the machine are none of the gateway's business.
        for variable in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{client:?}: {error}: {INSTALL}"));
        let input = process.stdin.take().expect("stdin is piped");
        let output = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        Self { _process: process, input, output }
    }

    async fn run(&mut self, client: Client, job: &Job) -> Answer {
        let line = serde_json::to_string(job).expect("a job is JSON") + "\n";
        self.input.write_all(line.as_bytes()).await.expect("the driver reads its jobs");
        let what = format!("{client:?} has done {}", job.op);
        let answer = within(SOON * 4, &what, self.output.next_line()).await.expect("the driver writes UTF-8");
        let answer = answer
            .unwrap_or_else(|| panic!("the driver of {client:?} ended; its stderr says why: {INSTALL}"));
        secrets::assert_none_in(&what, answer.as_bytes());
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{client:?} answered {answer}: {error}"))
    }
}

/// The client libraries, each started when it is first used.
#[derive(Default)]
pub struct Clients {
    drivers: [Mutex<Option<Driver>>; Client::ALL.len()],
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

impl Clients {
    /// Runs `job` with `client`.
    pub async fn run(&self, client: Client, job: &Job) -> Answer {
        let mut driver = self.drivers[client as usize].lock().await;
        driver.get_or_insert_with(|| Driver::start(client)).run(client, job).await
    }

    /// Runs `job` with each of `clients` at the same time.
    pub async fn each(&self, clients: &[Client], job: &Job) -> Vec<(Client, Answer)> {
        join_all(clients.iter().map(|client| async move { (*client, self.run(*client, job).await) })).await
    }

    /// Runs `job` with every client at the same time.
    pub async fn all(&self, job: &Job) -> Vec<(Client, Answer)> {
        self.each(&Client::ALL, job).await
    }
}
