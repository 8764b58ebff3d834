//! The gateway as a Spin application: the repository's own `spin.toml` and the component that it names, in
//! `tests/spin-host`, which does what `spin up` does as far as the component can tell.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command as Build, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::config::{Config, UPSTREAM_CREDENTIAL, UPSTREAM_CREDENTIAL_VARIABLE};
use crate::gateway::{Gateway, target_directory};
use crate::hosts::Variables;
use crate::{SOON, secrets, within};

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
    directory: TempDir,
    _process: Child,
}

impl Spin {
    /// Starts the application on a table, with the settings of `config`. Its providers are the table's.
    pub async fn start(table: &Variables, api_key: &str, config: &Config, options: Options) -> Self {
        secrets::register(UPSTREAM_CREDENTIAL);
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let manifest = directory.path().join("spin.toml");
        fs::write(&manifest, manifest_with_credential()).expect("the directory is writable");
        let mut command = Command::new(spin_host());
        command.arg("--from").arg(&manifest).arg("--component").arg(component());
        command.args(["--listen", "127.0.0.1:0"]);
        if let Some(tls) = &options.client_tls {
            let path = directory.path().join("runtime-config.toml");
            fs::write(&path, runtime_config(tls)).expect("the directory is writable");
            command.arg("--runtime-config-file").arg(path);
        }
        if let Some(timeout) = options.idle_instance_timeout {
            command.args(["--idle-instance-timeout-ms", &timeout.as_millis().to_string()]);
        }
        let log = directory.path().join("log");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // Where Wasmtime keeps what it compiled.
            .env("HOME", std::env::var_os("HOME").unwrap_or_default())
            .envs(
                variables(table, config, &options)
                    .map(|(name, value)| (format!("SPIN_VARIABLE_{name}"), value)),
            )
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
        })
        .await;
        let gateway = Gateway::at(format!("{origin}/v1"), api_key.to_owned());
        Self { gateway, directory, _process: process }
    }

    /// What the component has logged so far, each line an event.
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What the component and its host have said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
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

impl Drop for Spin {
    fn drop(&mut self) {
        let log = self.log();
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "the log explains the failing test")]
            {
                eprintln!("--- log of the application ---\n{log}");
            }
            return;
        }
        secrets::assert_none_in("the log", log.as_bytes());
        assert!(!log.contains("an instance failed"), "an instance failed:\n{log}");
    }
}

/// The suites' providers have a credential that is no vendor's: a variable as `spin.toml` wants one for each.
fn manifest_with_credential() -> String {
    let manifest = fs::read_to_string(root().join("spin.toml")).expect("the repository has a spin.toml");
    let mut manifest: toml::Table = toml::from_str(&manifest).expect("it is TOML");
    let name = UPSTREAM_CREDENTIAL_VARIABLE.to_ascii_lowercase();
    let table = |value: &mut toml::Value| value.as_table_mut().expect("it is a table").clone();
    let mut variables = table(&mut manifest["variables"]);
    let secret = toml::Table::from_iter([("default".into(), "".into()), ("secret".into(), true.into())]);
    variables.insert(name.clone(), secret.into());
    manifest.insert("variables".into(), variables.into());
    let seen = manifest["component"]["gateway"]["variables"].as_table_mut().expect("it is a table");
    seen.insert(name.clone(), format!("{{{{ {name} }}}}").into());
    manifest.to_string()
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

/// All variables, by their names.
fn variables(
    table: &Variables,
    config: &Config,
    options: &Options,
) -> impl Iterator<Item = (&'static str, String)> {
    let mut variables: BTreeMap<_, _> = table.clone();
    variables.insert(UPSTREAM_CREDENTIAL_VARIABLE, UPSTREAM_CREDENTIAL.to_owned());
    variables.insert("DYAD_UPSTREAM_HOSTS", "http://127.0.0.1:*".to_owned());
    variables.insert("DYAD_KEEPALIVE_MS", config.keepalive_ms.to_string());
    for (name, number) in [
        ("DYAD_MAX_BODY_BYTES", config.max_body_bytes),
        ("DYAD_BODY_IDLE_TIMEOUT_MS", config.body_idle_timeout_ms),
        ("DYAD_BODY_TOTAL_TIMEOUT_MS", config.body_total_timeout_ms),
    ] {
        variables.extend(number.map(|number| (name, number.to_string())));
    }
    variables.extend(config.cors_origins.as_ref().map(|origins| ("DYAD_CORS_ORIGINS", origins.join(","))));
    variables.extend(options.variables.clone());
    variables.into_iter()
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
