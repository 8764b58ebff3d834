//! The hosts that are measured, as processes.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bench::{Fault, process::Process};
use tempfile::TempDir;

use crate::store::{Store, Variables};

/// What a Worker consists of.
pub(crate) const WORKER_MODULES: [&str; 2] = ["index.js", WASM];
const WASM: &str = "index_bg.wasm";

const PROXY: &str = r"
export default {
  fetch(request) {
    return fetch(`http://UPSTREAM${new URL(request.url).pathname}`, request);
  },
};
";
const RELAY: &str = r"
export default {
  async fetch(request) {
    const { method, headers } = request;
    const body = await request.arrayBuffer();
    const upstream = `http://UPSTREAM${new URL(request.url).pathname}`;
    const response = await fetch(upstream, { method, headers, body });
    const reader = response.body.getReader();
    const pieces = new ReadableStream({
      async pull(controller) {
        const { done, value } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(new Uint8Array(value));
      },
    });
    return new Response(pieces, { headers: response.headers });
  },
};
";

/// Which host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The native gateway on the same table.
    Native,
    /// A Worker that sends requests on as they are: their bytes never come into it.
    Proxy,
    /// A Worker that only hands each piece of a request and of its answer on, in JavaScript: what any Worker takes that
    /// looks at them.
    Relay,
    Worker,
    Spin,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Native, Self::Proxy, Self::Relay, Self::Worker, Self::Spin];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Proxy => "proxy Worker",
            Self::Relay => "relay Worker",
            Self::Worker => "Worker",
            Self::Spin => "Spin",
        }
    }

    pub(crate) fn is_gateway(self) -> bool {
        !matches!(self, Self::Proxy | Self::Relay)
    }
}

/// What is run.
pub(crate) struct Artifacts {
    pub(crate) gateway: PathBuf,
    pub(crate) worker: PathBuf,
    workerd: PathBuf,
    pub(crate) component: PathBuf,
    spin_host: PathBuf,
}

impl Artifacts {
    pub(crate) fn from_environment() -> Result<Self, Fault> {
        let path = |name: &str| -> Result<PathBuf, Fault> {
            let path = env::var_os(name).ok_or_else(|| {
                format!("{name} is not set; `cargo xtask test --only bench-edge` makes all that is needed")
            })?;
            Ok(fs::canonicalize(&path).map_err(|error| format!("{name}: {}: {error}", path.display()))?)
        };
        Ok(Self {
            gateway: path("DYAD_GATEWAY_BIN")?,
            worker: path("DYAD_WORKER_DIR")?,
            workerd: path("DYAD_WORKERD_BIN")?,
            component: path("DYAD_SPIN_COMPONENT")?,
            spin_host: path("DYAD_SPIN_HOST_BIN")?,
        })
    }
}

/// A process that serves, or will soon.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    /// Removed after the process has ended: fields are dropped in order.
    _directory: TempDir,
}

impl Host {
    /// Starts it. That it serves shows when it is asked.
    pub(crate) fn start(
        kind: Kind,
        artifacts: &Artifacts,
        store: &Store,
        upstream: SocketAddr,
    ) -> Result<Self, Fault> {
        let directory = tempfile::tempdir()?;
        // Not all can choose a port themselves. Should another process be quicker, the host says so and ends.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let variables = store.variables();
        let mut command = match kind {
            Kind::Native => native(artifacts, address, directory.path()),
            Kind::Proxy | Kind::Relay => {
                let script = if kind == Kind::Proxy { PROXY } else { RELAY };
                let script = script.replace("UPSTREAM", &upstream.to_string());
                fs::write(directory.path().join("index.js"), script)?;
                workerd(artifacts, address, directory.path(), &["index.js"], &Variables::new())?
            }
            Kind::Worker => {
                for module in WORKER_MODULES {
                    fs::copy(artifacts.worker.join(module), directory.path().join(module))?;
                }
                workerd(artifacts, address, directory.path(), &WORKER_MODULES, &variables)?
            }
            Kind::Spin => spin(artifacts, address, upstream, &variables),
        };
        command.envs(&variables).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { address, process: Process::new(command.spawn()?), _directory: directory })
    }
}

fn native(artifacts: &Artifacts, address: SocketAddr, directory: &Path) -> Command {
    let mut command = Command::new(&artifacts.gateway);
    command.args(["up", "--json", "--no-discovery", "--no-runner", "--listen", &address.to_string()]);
    command.arg("--data-dir").arg(directory.join("data"));
    command
}

fn workerd(
    artifacts: &Artifacts,
    address: SocketAddr,
    directory: &Path,
    modules: &[&str],
    variables: &Variables,
) -> Result<Command, Fault> {
    let modules = modules.iter().map(|name| {
        let kind = if *name == WASM { "wasm" } else { "esModule" };
        format!("(name = \"{name}\", {kind} = embed \"{name}\")")
    });
    let bindings = variables.keys().map(|name| format!("(name = \"{name}\", fromEnvironment = \"{name}\")"));
    let (modules, bindings) =
        (modules.collect::<Vec<_>>().join(", "), bindings.collect::<Vec<_>>().join(", "));
    let configuration = directory.join("workerd.capnp");
    let text = format!(
        "using Workerd = import \"/workerd/workerd.capnp\";
const config :Workerd.Config = (
  services = [
    (name = \"main\", worker = .worker),
    (name = \"internet\", network = (allow = [\"public\", \"private\"]))
  ],
  sockets = [(name = \"http\", address = \"{address}\", http = (), service = \"main\")]
);
const worker :Workerd.Worker = (
  modules = [{modules}],
  compatibilityDate = \"2026-08-01\",
  compatibilityFlags = [\"enable_request_signal\"],
  bindings = [{bindings}]
);
"
    );
    fs::write(&configuration, text)?;
    let mut command = Command::new(&artifacts.workerd);
    command.arg("serve").arg(configuration);
    Ok(command)
}

fn spin(artifacts: &Artifacts, address: SocketAddr, upstream: SocketAddr, variables: &Variables) -> Command {
    let mut command = Command::new(&artifacts.spin_host);
    command
        .arg("--from")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../spin.toml"))
        .arg("--component")
        .arg(&artifacts.component)
        .args(["--listen", &address.to_string()])
        .env("SPIN_VARIABLE_DYAD_FURTHER_UPSTREAM", format!("http://{upstream}"))
        .envs(variables.iter().map(|(name, value)| (format!("SPIN_VARIABLE_{name}"), value)));
    command
}
