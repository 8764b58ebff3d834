//! A host of the gateway under test, as a child process.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::config::{Config, UPSTREAM_CREDENTIAL, UPSTREAM_CREDENTIAL_VARIABLE};
use crate::hosts::{self, Host};
use crate::raw::{Connection, Request};
use crate::table::Table;
use crate::tls::ServerIdentity;
use crate::{SOON, secrets, spin, within, worker};

/// A CLI's image from nothing: its base, and the package with all that it depends on.
const IMAGE_BUILD: Duration = Duration::from_secs(900);

/// A gateway that serves.
#[derive(Debug)]
pub struct Gateway {
    /// Ends in `/v1`.
    pub base_url: String,
    pub api_key: String,
    /// Where Prometheus scrapes, if `--metrics` was asked for.
    pub metrics_url: Option<String>,
    process: Option<Process>,
    /// Of a host that keeps its configuration in one. It ends after the process that uses it.
    pub table: Option<Table>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    directory: TempDir,
    /// What came on stdout after the ready event.
    printed: Arc<Mutex<String>>,
}

impl Gateway {
    /// The host under test.
    pub async fn start(config: &Config) -> Self {
        match Host::under_test() {
            Host::Native | Host::Dynamo => Self::spawn(config, None, &[]).await,
            Host::Worker | Host::Spin => Self::start_edge(config).await,
        }
    }

    async fn start_edge(config: &Config) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let table = Table::start(config).await;
        let variables = hosts::variables(&table.variables(), config);
        let (child, origin) = match Host::under_test() {
            Host::Worker => worker::launch(directory.path(), &variables, &worker::Options::default()).await,
            _ => spin::launch(directory.path(), &variables, &spin::Options::default()).await,
        };
        let mut gateway = Self::of_process(child, directory, &origin, table.api_key.clone());
        gateway.table = Some(table);
        gateway.ready().await;
        gateway
    }

    /// A host whose process writes its log into the file `log` of `directory`.
    pub(crate) fn of_process(child: Child, directory: TempDir, origin: &str, api_key: String) -> Self {
        secrets::register(UPSTREAM_CREDENTIAL);
        let process = Process { child, directory, printed: Arc::default() };
        Self {
            process: Some(process),
            table: None,
            metrics_url: None,
            base_url: format!("{origin}/v1"),
            api_key,
        }
    }

    /// Waits until the host says that it is: an edge has been given its configuration, and reads it at its first request.
    async fn ready(&self) {
        let request = Request::bare("GET", "/ready").header("host", self.address());
        within(SOON * 3, "the gateway is ready", async {
            let mut interval = tokio::time::interval(Duration::from_millis(20));
            loop {
                interval.tick().await;
                if Connection::open(self).await.request(&request).await.status == 200 {
                    return;
                }
            }
        })
        .await;
    }

    /// A server that is no gateway of ours.
    pub fn at(base_url: String, api_key: String) -> Self {
        secrets::register(&api_key);
        Self { base_url, api_key, metrics_url: None, process: None, table: None }
    }

    /// The native binary, on the store of the host under test, with TLS.
    pub async fn start_tls(config: &Config, identity: &ServerIdentity) -> Self {
        Self::spawn(config, Some(identity), &[]).await
    }

    /// The native binary, on the store of the host under test, with further arguments.
    pub async fn start_with_arguments(config: &Config, arguments: &[&str]) -> Self {
        Self::spawn(config, None, arguments).await
    }

    /// The native binary, without providers but the CLIs of `clis`: each as `dyad-gateway clis add` makes it, with its
    /// vendor at `vendor_url` and [`UPSTREAM_CREDENTIAL`] as its key.
    pub async fn start_with_clis(clis: &[&str], vendor_url: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        for cli in clis {
            let mut command = Command::new(gateway_binary());
            command
                .args(["clis", "add", cli, "--base-url", vendor_url])
                .args(["--api-key-env", UPSTREAM_CREDENTIAL_VARIABLE, "--data-dir"])
                .arg(directory.path().join("data"))
                .env(UPSTREAM_CREDENTIAL_VARIABLE, UPSTREAM_CREDENTIAL)
                .stdin(Stdio::null())
                .kill_on_drop(true);
            let output = within(IMAGE_BUILD, "the CLI's image is built", command.output()).await;
            let output = output.unwrap_or_else(|error| panic!("{}: {error}", gateway_binary().display()));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "clis add {cli} ended with {}:\n{said}", output.status);
        }
        Self::launch(directory, &["--no-discovery"], None).await
    }

    /// The native binary on its own store, with a configuration as text.
    pub async fn start_with_toml(config: &str) -> Self {
        Self::spawn_with(config, None, &[], None).await
    }

    async fn spawn(config: &Config, identity: Option<&ServerIdentity>, arguments: &[&str]) -> Self {
        match Host::under_test() {
            Host::Native => Self::spawn_with(&config.to_toml(), identity, arguments, None).await,
            Host::Dynamo => {
                let table = Table::start(config).await;
                Self::spawn_with(&config.settings().to_toml(), identity, arguments, Some(table)).await
            }
            host @ (Host::Worker | Host::Spin) => {
                panic!("this is a test of the native host: {host:?}'s profile must leave it out")
            }
        }
    }

    async fn spawn_with(
        config: &str,
        identity: Option<&ServerIdentity>,
        arguments: &[&str],
        table: Option<Table>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let config_path = directory.path().join("config.toml");
        fs::write(&config_path, config).expect("the temporary directory is writable");
        let path = |path: &PathBuf| path.to_str().expect("temporary paths are UTF-8").to_owned();
        let mut all = vec!["--no-discovery".to_owned(), "--no-runner".to_owned()];
        all.extend(["--config".to_owned(), path(&config_path)]);
        if let Some(identity) = identity {
            let (certificate, key) = identity.write_to(directory.path());
            all.extend(["--tls-cert".to_owned(), path(&certificate), "--tls-key".to_owned(), path(&key)]);
        }
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        Self::launch(directory, &all.iter().map(String::as_str).collect::<Vec<_>>(), table).await
    }

    async fn launch(directory: TempDir, arguments: &[&str], table: Option<Table>) -> Self {
        let log = File::create(directory.path().join("log")).expect("the temporary directory is writable");
        let mut command = Command::new(gateway_binary());
        command
            .args(["up", "--listen", "127.0.0.1:0", "--json", "--data-dir"])
            .arg(directory.path().join("data"))
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RUST_LOG", "debug")
            .env(UPSTREAM_CREDENTIAL_VARIABLE, UPSTREAM_CREDENTIAL)
            .envs(table.as_ref().map(Table::variables).unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        secrets::register(UPSTREAM_CREDENTIAL);
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{}: {error}", gateway_binary().display()));
        let stdout = child.stdout.take().expect("stdout is piped");
        let process = Process { child, directory, printed: Arc::default() };
        let mut lines = BufReader::new(stdout).lines();
        let ready = ready_event(&mut lines).await;
        let ready =
            ready.unwrap_or_else(|| panic!("the gateway ended before it was ready:\n{}", process.log()));
        // Nothing but the ready event may show the key; what follows on stdout is looked at too.
        let first_key = || ready["api_key"].as_str().expect("a first start shows its API key").to_owned();
        let api_key = table.as_ref().map_or_else(first_key, |table| table.api_key.clone());
        secrets::register(&api_key);
        let printed = Arc::clone(&process.printed);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                printed.lock().expect("no holder panics").push_str(&line);
            }
        });
        let base_url = ready["base_url"].as_str().expect("the ready event names the base URL").to_owned();
        let metrics_url = ready["metrics_url"].as_str().map(str::to_owned);
        Self { base_url, api_key, metrics_url, process: Some(process), table }
    }

    /// `host:port` to connect to.
    pub fn address(&self) -> &str {
        let rest = self.base_url.split_once("://").map_or(self.base_url.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// The base URL without `/v1`.
    pub fn origin(&self) -> &str {
        self.base_url.trim_end_matches("/v1")
    }

    /// The data directory of a native host.
    pub fn data_dir(&self) -> PathBuf {
        self.process.as_ref().expect("only a native host has one here").directory.path().join("data")
    }

    /// What the host has logged so far; empty for a server that is no child of ours.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Resident memory in bytes, from `/proc`.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_nonzero()));
        let status = status.expect("the gateway runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS is in /proc/PID/status");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number of kB");
        kilobytes * 1024
    }

    /// Asks the process to drain and end.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("the gateway is our child");
    }

    /// Waits for the process to end.
    pub async fn exited(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.process.as_mut().expect("only a native host can be waited for").child;
        within(limit, "the gateway has ended", child.wait()).await.expect("the gateway is our child")
    }

    /// Stops the process and checks that it ends well.
    pub async fn stop(mut self) {
        if self.process.is_some() {
            self.terminate();
            let status = self.exited(SOON).await;
            assert!(status.success(), "the gateway ended with {status}:\n{}", self.log());
        }
    }

    fn pid(&self) -> Pid {
        let process = self.process.as_ref().expect("only a native host has a process here");
        let id = process.child.id().expect("the process was not waited for");
        Pid::from_raw(id.try_into().expect("process ids are small")).expect("process ids are not zero")
    }
}

/// The event with which a command of the gateway's says that it serves; `None` if it ends before.
pub(crate) async fn ready_event(stdout: &mut Lines<BufReader<ChildStdout>>) -> Option<Value> {
    within(SOON * 3, "the gateway is ready", async {
        while let Ok(Some(line)) = stdout.next_line().await {
            match serde_json::from_str::<Value>(&line) {
                Ok(event) if event["event"] == "ready" => return Some(event),
                _ => {}
            }
        }
        None
    })
    .await
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.remove_sandboxes();
        }
        let log = self.log();
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "the log explains the failing test")]
            if !log.is_empty() {
                eprintln!("--- log of the gateway ---\n{}", last_lines(&log, 60));
            }
            return;
        }
        secrets::assert_none_in("the log", log.as_bytes());
        if let Some(process) = &self.process {
            let printed = process.printed.lock().expect("no holder panics");
            secrets::assert_none_in("stdout", printed.as_bytes());
        }
        for failure in ["panicked at", "an instance failed"] {
            assert!(!log.contains(failure), "{failure}:\n{}", last_lines(&log, 60));
        }
    }
}

impl Process {
    /// A gateway that is killed, as it is when a test fails, leaves its sandboxes to its next start, which never comes.
    fn remove_sandboxes(&mut self) {
        let Ok(node) = fs::read_to_string(self.directory.path().join("data/node-id")) else { return };
        if self.child.try_wait().is_ok_and(|status| status.is_some_and(|status| status.success())) {
            return;
        }
        // An error means that it has ended, or that there is no Docker: nothing is left then, or nothing can be done.
        let _ = self.child.start_kill();
        let filter = format!("label=dyad.node={}", node.trim());
        let docker = |arguments: &[&str]| std::process::Command::new("docker").args(arguments).output();
        let Ok(found) = docker(&["ps", "--all", "--quiet", "--filter", &filter]) else { return };
        for id in String::from_utf8_lossy(&found.stdout).lines() {
            let _ = docker(&["rm", "--force", id]);
        }
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.directory.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The binary under test: `DYAD_GATEWAY_BIN`, or built by cargo into the target directory of this test.
pub fn gateway_binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| binary("DYAD_GATEWAY_BIN", "dyad-gateway")).clone()
}

/// The runner's: `DYAD_RUNNER_BIN`, or built in the same way.
pub fn runner_binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| binary("DYAD_RUNNER_BIN", "dyad-runner")).clone()
}

/// A file or directory of the build that only `cargo xtask test` makes.
pub(crate) fn artifact(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    path.unwrap_or_else(|| panic!("{variable} is not set: run `cargo xtask test`, which builds this")).into()
}

fn binary(variable: &str, package: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| build(package), PathBuf::from)
}

fn build(package: &str) -> PathBuf {
    let profile_directory = profile_directory();
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", package]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile_directory.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.env("CARGO_TARGET_DIR", target_directory()).status().expect("cargo runs");
    assert!(status.success(), "{package} does not build");
    profile_directory.join(package)
}

/// Where cargo built this test.
pub(crate) fn target_directory() -> PathBuf {
    profile_directory().parent().expect("a profile is in target").to_owned()
}

/// target/<profile>/deps/<this test> → target/<profile>
fn profile_directory() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    test.ancestors().nth(2).expect("tests are in target/<profile>/deps").to_owned()
}
