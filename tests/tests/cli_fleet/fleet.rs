//! An authority, a node, and gateways that know it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use system_tests::gateway::{Gateway, gateway_binary, runner_binary};
use system_tests::table::Table;
use system_tests::{SOON, within};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

pub(crate) struct Fleet {
    directory: TempDir,
    node: Child,
    pub(crate) address: String,
}

impl Fleet {
    /// A node `localhost` that lets in `edge.test`, and a certificate `edge` for that name.
    pub(crate) async fn start() -> Self {
        Self::start_node(0, None).await
    }

    /// The same, with a node that announces itself in the table.
    pub(crate) async fn start_in(table: &Table) -> Self {
        // It has to know its port before it listens. That nobody else takes it meanwhile is likely enough.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_node(port, Some(table)).await
    }

    async fn start_node(port: u16, table: Option<&Table>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = |arguments: &[&str]| ca(&directory, "ca", arguments);
        ca(&["init"]);
        ca(&["issue", "node", "--server", "--san", "localhost", "--out", directory.path().to_str().unwrap()]);
        ca(&["issue", "edge", "--client", "--san", "edge.test", "--out", directory.path().to_str().unwrap()]);
        let file = r#"
            listen = "127.0.0.1:PORT"
            state_dir = "state"
            [node]
            id = "NODE"
            url = "https://localhost:PORT"
            [tls]
            certificate = "node.pem"
            key = "node.key"
            client_ca = "ca/ca.pem"
            revocation_list = "ca/ca.crl"
            allowed_clients = ["edge.test"]
            [[cli]]
            name = "cli-echo"
            dialect = "text"
            mode = "parked"
            image = { builtin = "echo" }
            limits = { memory = "64MiB", pids = 32 }
        "#;
        let id =
            directory.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_lowercase();
        let path = directory.path().join("runner.toml");
        let variables = table.map(Table::variables).unwrap_or_default();
        let registry = table.map_or_else(String::new, |_| {
            let (name, region) = (&variables["DYAD_TABLE"], &variables["AWS_REGION"]);
            let endpoint = &variables["AWS_ENDPOINT_URL_DYNAMODB"];
            format!("[registry]\ntable = {name:?}\nregion = {region:?}\nendpoint = {endpoint:?}\n")
        });
        let file = file.replace("NODE", &id).replace("PORT", &port.to_string());
        fs::write(&path, file + &registry).unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let mut command = tokio::process::Command::new(runner_binary());
        command.args(["serve", "--json", "--log", "info", "--config"]).arg(path);
        command.envs(variables).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut node = command.spawn().unwrap();
        let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
        let ready = within(SOON * 3, "the node is ready", async {
            while let Ok(Some(line)) = lines.next_line().await {
                let event: Value = serde_json::from_str(&line).unwrap();
                if event["event"] == "ready" {
                    return event;
                }
            }
            panic!("the node ended: {}", fs::read_to_string(directory.path().join("log")).unwrap());
        })
        .await;
        let address = ready["addr"].as_str().unwrap_or_else(|| panic!("an address: {ready}")).to_owned();
        Self { directory, node, address }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn ca(&self, arguments: &[&str]) {
        ca(&self.directory, "ca", arguments);
    }

    pub(crate) fn issue(&self, name: &str, arguments: &[&str]) {
        let out = self.path("");
        self.ca(&[&["issue", name, "--out", &out], arguments].concat());
    }

    /// One that issues the same names, in `other`.
    pub(crate) fn other_authority(&self) {
        ca(&self.directory, "other", &["init"]);
        let out = self.path("other");
        ca(&self.directory, "other", &["issue", "edge", "--client", "--san", "edge.test", "--out", &out]);
    }

    /// A gateway whose configuration names the node, with the certificate `name`.
    pub(crate) async fn gateway(&self, name: &str) -> Gateway {
        let port = self.address.rsplit(':').next().unwrap();
        let (certificate, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        let authority = self.path("ca/ca.pem");
        let config = format!(
            r#"
            [runners]
            client_cert = "{certificate}"
            client_key = "{key}"
            ca = "{authority}"
            [[runners.node]]
            url = "https://localhost:{port}"
            [[provider]]
            name = "Echo"
            type = "spawn-cli"
            cli = "cli-echo"
            model_parameter = ""
            models = [{{ id = "cli-echo" }}]
            "#
        );
        Gateway::start_with_toml(&config).await
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub(crate) async fn logged(&self, words: &str) {
        self.eventually(&format!("the node logs {words:?}"), || async { self.log().contains(words) }).await;
    }

    pub(crate) async fn eventually<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        within(SOON * 2, what, async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    /// What openssl's client hears when it asks for `/healthz`.
    pub(crate) fn openssl(&self, arguments: &[String]) -> String {
        let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        self.s_client(&[&["-ign_eof".to_owned()], arguments].concat(), request)
    }

    /// The same, with what is typed taken for commands too: `R` renegotiates.
    pub(crate) fn openssl_typing(&self, arguments: &[String], typed: &str) -> String {
        self.s_client(arguments, typed)
    }

    fn s_client(&self, arguments: &[String], typed: &str) -> String {
        let authority = self.path("ca/ca.pem");
        let mut client = Command::new("timeout")
            .args(["20", "openssl", "s_client", "-connect", &self.address, "-servername", "localhost"])
            .args(["-CAfile", &authority, "-verify_return_error", "-quiet"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A failed handshake closes the pipe.
        let _ = client.stdin.take().unwrap().write_all(typed.as_bytes());
        let output = client.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Drains the node, and sees that it leaves nothing.
    pub(crate) async fn stop(mut self) {
        let id = self.node.id().expect("it was not waited for");
        kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
        let status = within(SOON, "the node has drained", self.node.wait()).await.unwrap();
        assert!(status.success(), "{status}: {}", self.log());
        let left = fs::read_dir(self.directory.path().join("state/egress")).map_or(0, Iterator::count);
        assert!(left <= 1, "no socket is left, but the lock of their folder");
    }
}

fn ca(directory: &TempDir, name: &str, arguments: &[&str]) -> PathBuf {
    let path = directory.path().join(name);
    let (command, rest) = arguments.split_first().unwrap();
    let output = Command::new(gateway_binary())
        .args(["ca", command])
        .args(rest)
        .arg("--dir")
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "ca {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    path
}
