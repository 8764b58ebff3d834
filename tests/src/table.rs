//! A `DynamoDB` table of one test: an emulator, a configuration and an API key, all made with the gateway's own commands.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::config::Config;
use crate::gateway::{gateway_binary, ready_event};
use crate::hosts::Variables;
use crate::store_relay::{Calls, StoreRelay};
use crate::{SOON, secrets, within};

/// The emulator takes any credentials; that none of them is shown is looked after all the same.
const SECRET_ACCESS_KEY: &str = "secret-access-key-of-the-suites";
const KEY_SECRET: &str = "the key under which the suites have API keys hashed";

/// A table. Its emulator is killed when it is dropped.
#[derive(Debug)]
pub struct Table {
    /// A key that may do everything.
    pub api_key: String,
    relay: StoreRelay,
    emulator: Emulator,
}

#[derive(Debug)]
struct Emulator {
    endpoint: String,
    directory: TempDir,
    _process: Child,
    /// Kept, so that what it prints has somewhere to go.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Table {
    /// A table with the providers of `config` and an API key, on an emulator of its own.
    pub async fn start(config: &Config) -> Self {
        secrets::register(SECRET_ACCESS_KEY);
        secrets::register(KEY_SECRET);
        let emulator = Emulator::start().await;
        let relay = StoreRelay::start(&emulator.endpoint).await;
        let mut table = Self { api_key: String::new(), relay, emulator };
        table.run(&["store", "init"]).await;
        let path = table.emulator.directory.path().join("providers.toml");
        fs::write(&path, config.to_toml()).expect("the directory is writable");
        table.run(&["providers", "apply", path.to_str().expect("temporary paths are UTF-8")]).await;
        let created = table.run(&["keys", "create", "--label", "suite"]).await;
        created["api_key"].as_str().expect("the key is shown once").clone_into(&mut table.api_key);
        secrets::register(&table.api_key);
        table
    }

    /// What it takes to use the table.
    pub fn variables(&self) -> Variables {
        Variables::from([
            ("DYAD_TABLE", "dyad-suite".to_owned()),
            ("DYAD_KEY_SECRET", KEY_SECRET.to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_ENDPOINT_URL_DYNAMODB", self.relay.endpoint.clone()),
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
        ])
    }

    /// What the store was asked for so far.
    pub fn calls(&self) -> Calls {
        self.relay.calls()
    }

    /// Runs a command of the gateway's on the table; the last JSON object that it prints.
    pub async fn run(&self, arguments: &[&str]) -> Value {
        let mut command = gateway_command();
        // What it keeps beside the table, if anything, is none of the host's under test.
        let data_dir = self.emulator.directory.path().join("commands");
        command.args(arguments).args(["--json", "--data-dir"]).arg(data_dir).envs(self.variables());
        let output = within(SOON * 3, "the command ends", command.output()).await;
        let output = output.expect("the gateway's binary starts");
        let (said, failed) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?} ended with {}: {said}{failed}", output.status);
        said.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default()
    }
}

impl Emulator {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let log = directory.path().join("log");
        let mut command = gateway_command();
        command
            .args(["store", "serve", "--in-memory", "--listen", "127.0.0.1:0", "--json"])
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).expect("the directory is writable"));
        let mut process = command.spawn().expect("the gateway's binary starts");
        let mut stdout = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        let ready = ready_event(&mut stdout).await.unwrap_or_else(|| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            panic!("the emulator ended before it was ready:\n{log}");
        });
        let endpoint = ready["endpoint"].as_str().expect("the emulator says where it is").to_owned();
        Self { endpoint, directory, _process: process, _stdout: stdout }
    }
}

/// The gateway's binary with nothing of this process's environment but `PATH`.
fn gateway_command() -> Command {
    let mut command = Command::new(gateway_binary());
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).stdin(Stdio::null()).kill_on_drop(true);
    command
}
