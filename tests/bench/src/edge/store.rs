//! The table that all hosts read: an emulator, and a relay before it that counts calls.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bench::{Fault, lines, process::Process, wire::Behaviour};
use serde_json::Value;
use system_tests::store_relay::StoreRelay;
use tempfile::TempDir;

const START: Duration = Duration::from_secs(20);

/// The variables of a deployment.
pub(crate) type Variables = BTreeMap<&'static str, String>;

pub(crate) struct Store {
    pub(crate) api_key: String,
    relay: StoreRelay,
    /// Carries the relay.
    _runtime: tokio::runtime::Runtime,
    _emulator: Process,
    /// Removed after the process has ended: fields are dropped in order.
    _directory: TempDir,
}

impl Store {
    /// A table with the benchmark's provider and one API key.
    pub(crate) fn start(gateway: &Path, upstream: SocketAddr) -> Result<Self, Fault> {
        let directory = tempfile::tempdir()?;
        let mut emulator = Command::new(gateway)
            .args(["store", "serve", "--listen", "127.0.0.1:0", "--json", "--data-dir"])
            .arg(directory.path().join("emulator"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let said = lines(&mut emulator)?;
        let process = Process::new(emulator);
        let ready: Value = serde_json::from_str(&said.recv_timeout(START)?)?;
        let endpoint = ready["endpoint"].as_str().ok_or("the emulator does not say where it is")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let relay = runtime.block_on(StoreRelay::start(endpoint));
        let variables = variables(&relay.endpoint);
        let run = |arguments: &[&OsStr]| -> Result<Value, Fault> {
            let output = Command::new(gateway)
                .args(arguments)
                .args(["--json", "--data-dir"])
                .arg(directory.path().join("commands"))
                .envs(&variables)
                .stdin(Stdio::null())
                .output()?;
            if !output.status.success() {
                return Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
            }
            let last = output.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
            Ok(serde_json::from_slice(last.unwrap_or(b"null"))?)
        };
        run(&["store", "init", "--create"].map(OsStr::new))?;
        let providers = directory.path().join("providers.toml");
        fs::write(&providers, provider(upstream))?;
        run(&[OsStr::new("providers"), OsStr::new("apply"), providers.as_os_str()])?;
        let key = run(&["keys", "create", "--label", "bench"].map(OsStr::new))?;
        let api_key = key["api_key"].as_str().ok_or("no API key was made")?.to_owned();
        Ok(Self { api_key, relay, _runtime: runtime, _emulator: process, _directory: directory })
    }

    /// What it takes to use it.
    pub(crate) fn variables(&self) -> Variables {
        variables(&self.relay.endpoint)
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.relay.count()
    }
}

fn variables(endpoint: &str) -> Variables {
    Variables::from([
        ("DYAD_TABLE", "dyad-bench".to_owned()),
        ("DYAD_KEY_SECRET", "the key under which the benchmark's API keys are hashed".to_owned()),
        ("AWS_REGION", "eu-central-1".to_owned()),
        ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "any will do".to_owned()),
    ])
}

/// The benchmark's provider, as the gateway's configuration has it.
fn provider(upstream: SocketAddr) -> String {
    let models = Behaviour::ALL.map(|behaviour| {
        let (id, upstream_id) = (behaviour.public_name(), behaviour.upstream_name());
        format!("\n[[provider.models]]\nid = \"{id}\"\nupstream_id = \"{upstream_id}\"\n")
    });
    format!(
        "[[provider]]\nname = \"Bench\"\nslug = \"bench\"\ntype = \"local\"\nbase_url = \"http://{upstream}/v1\"\n{}",
        models.concat()
    )
}
