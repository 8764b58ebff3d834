//! The gateway as a Spin application: the repository's own `spin.toml` and the component that it names, in
//! `tests/spin-host`, which does what `spin up` does as far as the component can tell.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command as Build, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::config::Config;
use crate::gateway::{Gateway, target_directory};
use crate::hosts::{self, Variables};
use crate::{SOON, within};

/// The first start compiles the component; later ones find it in Wasmtime's cache.
const START: Duration = Duration::from_secs(120);

/// How an application is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Beside the table's own; an empty one is as good as none.
    pub variables: Variables,
    /// How long an instance without work is kept; Spin's own time is one second.
    pub idle_instance_timeout: Option<Duration>,
    /// How runners are reached.
    pub client_tls: Option<ClientTls>,
}

/// `[[client_tls]]` of a runtime configuration. Paths of PEM files.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub host: String,
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A running application. It ends when it is dropped.
#[derive(Debug)]
pub struct Spin {
    pub gateway: Gateway,
}

impl Spin {
    /// Starts the application on a table, with the settings of `config`. Its providers are the table's.
    pub async fn start(table: &Variables, api_key: &str, config: &Config, options: Options) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let (process, origin) = launch(directory.path(), &hosts::variables(table, config), &options).await;
        Self { gateway: Gateway::of_process(process, directory, &origin, api_key.to_owned()) }
    }

    /// What the component has logged so far, each line an event.
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What the component and its host have said so far.
    pub fn log(&self) -> String {
        self.gateway.log()
    }

    /// Waits until the log shows what is looked for.
    pub async fn logged(&self, what: &str, shows: impl Fn(&Self) -> bool) {
        within(SOON, what, async {
            while !shows(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// Starts the application, which writes its log into `directory`; its process, and where it serves.
pub(crate) async fn launch(directory: &Path, variables: &Variables, options: &Options) -> (Child, String) {
    let mut command = Command::new(spin_host());
    command.arg("--from").arg(root().join("spin.toml")).arg("--component").arg(component());
    command.args(["--listen", "127.0.0.1:0"]);
    if let Some(tls) = &options.client_tls {
        let path = directory.join("runtime-config.toml");
        fs::write(&path, runtime_config(tls)).expect("the directory is writable");
        command.arg("--runtime-config-file").arg(path);
    }
    if let Some(timeout) = options.idle_instance_timeout {
        command.args(["--idle-instance-timeout-ms", &timeout.as_millis().to_string()]);
    }
    let log = directory.join("log");
    let variable = |(name, value)| (format!("SPIN_VARIABLE_{name}"), value);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        // Where Wasmtime keeps what it compiled.
        .env("HOME", std::env::var_os("HOME").unwrap_or_default())
        .env("SPIN_VARIABLE_DYAD_FURTHER_UPSTREAM", "http://127.0.0.1:*")
        .envs(variables.iter().map(variable))
        .envs(options.variables.iter().map(variable))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).expect("the directory is writable"))
        .kill_on_drop(true);
    let mut process = command.spawn().expect("the program starts");
    let origin = within(START, "the application serves", async {
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if let Some(origin) = said.lines().find_map(|line| line.strip_prefix("Serving ")) {
                break origin.to_owned();
            }
            let ended = process.try_wait().expect("it is our child");
            assert!(ended.is_none(), "the application ended before it served:\n{said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let origin = origin.await;
    (process, origin)
}

fn runtime_config(tls: &ClientTls) -> String {
    let path = |path: &Path| path.to_str().expect("temporary paths are UTF-8").to_owned();
    let entry = toml::Table::from_iter([
        ("component_ids".into(), vec!["gateway"].into()),
        ("hosts".into(), vec![tls.host.clone()].into()),
        ("ca_roots_file".into(), path(&tls.ca).into()),
        ("client_cert_file".into(), path(&tls.certificate).into()),
        ("client_private_key_file".into(), path(&tls.key).into()),
    ]);
    toml::Table::from_iter([("client_tls".into(), vec![entry].into())]).to_string()
}

/// The component: `DYAD_SPIN_COMPONENT`, or built as `spin.toml` says.
pub fn component() -> PathBuf {
    static COMPONENT: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        build(&["-p", "edge-spin", "--target", "wasm32-wasip2", "--profile", "edge"]);
        target_directory().join("wasm32-wasip2/edge/edge_spin.wasm")
    };
    COMPONENT.get_or_init(|| std::env::var_os("DYAD_SPIN_COMPONENT").map_or_else(make, PathBuf::from)).clone()
}

/// The program that runs it: `DYAD_SPIN_HOST_BIN`, or built.
fn spin_host() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        build(&["--release", "--manifest-path", "tests/spin-host/Cargo.toml"]);
        target_directory().join("release/spin-host")
    };
    PROGRAM.get_or_init(|| std::env::var_os("DYAD_SPIN_HOST_BIN").map_or_else(make, PathBuf::from)).clone()
}

fn build(arguments: &[&str]) {
    let mut cargo = Build::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked"]).args(arguments);
    let status = cargo.current_dir(root()).env("CARGO_TARGET_DIR", target_directory()).status();
    assert!(status.expect("cargo runs").success(), "cargo build {arguments:?} failed");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a directory of the repository")
}
