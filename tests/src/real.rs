//! Servers that nobody here wrote, as child processes: llama.cpp's and LiteLLM's proxy.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::clients::clients_directory;
use crate::config::UPSTREAM_CREDENTIAL;
use crate::within;

/// Loading Python and a server's hundred packages takes its time on a loaded machine.
const STARTED: Duration = Duration::from_secs(120);

/// A server that listens. It is killed when dropped.
#[derive(Debug)]
pub struct RealServer {
    port: u16,
    _process: Child,
    _directory: TempDir,
}

impl RealServer {
    /// The base URL to configure.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// llama.cpp's server with a random model as `tiny-chat` and, embedding, as `tiny-embed`.
    pub async fn llama_cpp() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let model = directory.path().join("tiny.gguf");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/llama/make_model.py");
        let made = python("llama").arg(script).arg(&model).status().await.expect("python starts");
        assert!(made.success(), "the model could not be made");
        let port = free_port();
        let config = json!({"host": "127.0.0.1", "port": port, "interrupt_requests": false, "models": [
            {"model": model, "model_alias": "tiny-chat", "n_ctx": 2048, "n_threads": 1, "seed": 1},
            {"model": model, "model_alias": "tiny-embed", "n_ctx": 512, "n_threads": 1, "embedding": true}]});
        let config_path = directory.path().join("server.json");
        fs::write(&config_path, config.to_string()).expect("the temporary directory is writable");
        let mut command = python("llama");
        command.args(["-m", "llama_cpp.server", "--config_file"]).arg(config_path);
        Self::start(command, port, directory).await
    }

    /// LiteLLM's proxy in front of the upstream at `base_url`, whose `upstream-model` it serves as
    /// `litellm-chat` and whose `upstream-embedder` as `litellm-embed`, to holders of the suites'
    /// upstream credential.
    pub async fn litellm(base_url: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let port = free_port();
        let model = |name: &str, upstream: &str| {
            json!({"model_name": name, "litellm_params":
                {"model": format!("openai/{upstream}"), "api_base": base_url, "api_key": "sk-behind-litellm", "max_retries": 0}})
        };
        // JSON is YAML.
        let config = json!({
            "model_list": [model("litellm-chat", "upstream-model"), model("litellm-embed", "upstream-embedder")],
            "general_settings": {"master_key": UPSTREAM_CREDENTIAL},
            "router_settings": {"num_retries": 0}
        });
        let config_path = directory.path().join("config.yaml");
        fs::write(&config_path, config.to_string()).expect("the temporary directory is writable");
        let mut command = Command::new(installed("litellm").join("bin/litellm"));
        command.arg("--config").arg(config_path).args([
            "--host",
            "127.0.0.1",
            "--telemetry",
            "False",
            "--port",
        ]);
        command.arg(port.to_string()).env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
        Self::start(command, port, directory).await
    }

    async fn start(mut command: Command, port: u16, directory: TempDir) -> Self {
        let log_path = directory.path().join("log");
        let log = File::create(&log_path).expect("the temporary directory is writable");
        let errors = log.try_clone().expect("a file can be opened twice");
        command
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .kill_on_drop(true);
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let listening = async {
            let mut interval = tokio::time::interval(Duration::from_millis(100));
            loop {
                tokio::select! {
                    _ = interval.tick() => if TcpStream::connect(("127.0.0.1", port)).await.is_ok() { return },
                    status = process.wait() => panic!("the server ended with {status:?}:\n{}", read(&log_path)),
                }
            }
        };
        within(STARTED, "the server listens", listening).await;
        Self { port, _process: process, _directory: directory }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn python(environment: &str) -> Command {
    let mut command = Command::new(installed(environment).join("bin/python"));
    command.kill_on_drop(true);
    command
}

fn installed(environment: &str) -> std::path::PathBuf {
    let directory = clients_directory().join(environment);
    let path = directory.display();
    assert!(
        directory.is_dir(),
        "{path} is missing: `cargo xtask test` installs it, tests/clients/README.md says how by hand"
    );
    directory
}

/// A port that is free now. These servers cannot be given a listening socket or say which port
/// they chose.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    listener.local_addr().expect("a bound socket has an address").port()
}
