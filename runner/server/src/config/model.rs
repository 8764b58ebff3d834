//! What the operator's file says, checked: everything below may be relied on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cli_dialect::{Kind, Settings};
use store::StoreAccess;

#[derive(Clone, Debug)]
pub struct RunnerConfig {
    pub node: Node,
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/ready` are answered without a certificate too: a loopback address.
    pub metrics_listen: Option<SocketAddr>,
    pub tls: Tls,
    /// The table in which the node announces itself. None: edges have it in their configuration.
    pub registry: Option<StoreAccess>,
    /// For sockets, the program that is mounted into sandboxes, and nothing that must outlive the process.
    pub state_dir: PathBuf,
    pub capacity: CapacityLimits,
    pub engine: Engine,
    pub clis: Vec<Arc<Cli>>,
}

#[derive(Clone, Debug)]
pub struct Node {
    /// Unique in the fleet; also the value of the label by which the node knows its own containers.
    pub id: String,
    /// `https://HOST:PORT`, as the edge reaches this node.
    pub url: String,
}

#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM files, read again when they change.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Issues the clients' certificates.
    pub client_ca: PathBuf,
    pub revocation_list: Option<PathBuf>,
    /// Subject alternative names (DNS names or URIs) of clients that may come in. Exact; never empty.
    pub allowed_clients: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct CapacityLimits {
    /// Runs at once.
    pub runs: usize,
    /// Requests that wait.
    pub queue: usize,
    /// Of those, at most so many of one caller.
    pub queue_per_caller: usize,
    /// The sum of the memory limits of all sandboxes, parked ones included.
    pub memory_bytes: u64,
    /// Sandboxes that are made at the same time.
    pub starts: usize,
    /// How long a drain lets runs go on.
    pub drain_grace: Duration,
}

/// How Docker is reached.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The engine's Unix socket.
    pub socket: PathBuf,
    /// Whether entries may ask for [`Isolated::Process`]: for development, weaker than a container.
    pub allow_process: bool,
}

/// One `[[cli]]` entry.
#[derive(Clone, Debug)]
pub struct Cli {
    pub name: String,
    pub isolated: Isolated,
    pub mode: Mode,
    pub argv: Vec<Template>,
    pub parameters: BTreeMap<String, Parameter>,
    pub dialect: Kind,
    pub settings: Settings,
    pub environment: Vec<(String, Template)>,
    pub limits: Limits,
    pub egress: Option<Egress>,
    pub pool: PoolSize,
    /// Whether messages may have images.
    pub images: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolated {
    Container {
        image: Image,
        /// Docker's name of the runtime, such as `runsc`; None: the engine's default.
        runtime: Option<String>,
    },
    /// An unprivileged process with limits, in namespaces of its own where the host allows.
    Process,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// `NAME@sha256:…` or `sha256:…`.
    Digest(String),
    /// A folder with a Dockerfile, built if its tag is not there.
    Build { context: PathBuf, tag: String },
    /// The tag of an image that was built on this host. Pinned to the image's id at start.
    Local(String),
    /// Made here from the program that is in every sandbox anyway: nothing to pull.
    Echo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The CLI is booted before its request comes.
    Parked,
    /// The CLI is started for its request.
    OneShot,
}

/// The argv of [`Image::Echo`]: the program that is in every sandbox, as the CLI that prints its stdin.
pub const ECHO_ARGV: [&str; 2] = ["/dyad-sandbox-init", "echo"];

/// A text with `{name}` in it: parameters in argv; `{egress.token}` in the environment; `{egress.NAME}` (the base URL of
/// an upstream) in both. `{{` and `}}` stand for themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Literal(String),
    Parameter(String),
    EgressToken,
    /// Of [`Upstream::name`].
    EgressUrl(String),
}

/// A value that a request may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub allowed: Allowed,
    pub default: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    OneOf(Vec<String>),
    Integer { min: i64, max: i64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes: u64,
    /// Thousandths of a core.
    pub cpu_milli: u32,
    pub pids: u32,
    pub open_files: u64,
    pub file_bytes: u64,
    /// Of each tmpfs: the workspace, the home and /tmp.
    pub tmpfs_bytes: u64,
    pub tmpfs_inodes: u64,
    /// stdout and stderr together.
    pub output_bytes: u64,
    /// From the request to the end of the run.
    pub wall_time: Duration,
    /// Without any output.
    pub idle_time: Duration,
    /// How long a CLI may take to be ready for its request.
    pub boot_time: Duration,
}

/// Whom a sandbox may speak to, through the runner.
#[derive(Clone, Debug)]
pub struct Egress {
    /// The port on the sandbox's 127.0.0.1 that leads to the runner.
    pub port: u16,
    pub upstreams: Vec<Upstream>,
    /// Hosts and ports that CONNECT may name, exactly.
    pub connect: Vec<HostPort>,
    /// Both directions together, of one run.
    pub max_bytes: u64,
}

/// A vendor's API behind a base URL: `http://127.0.0.1:PORT/NAME` inside the sandbox.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub name: String,
    /// `https://HOST[:PORT][/PATH]`, or `http://` for loopback.
    pub url: url::Url,
    pub vendor: Vendor,
    pub credential: Option<CredentialRef>,
    /// PEM file of the authority that signs the vendor's certificate; None: the system's.
    pub ca: Option<PathBuf>,
}

/// How a vendor is spoken to: where the credential goes, and what its answers say of usage and finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    Anthropic,
    Gemini,
    OpenAi,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialRef {
    Env(String),
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

/// Sandboxes that wait, per set of parameters that are in argv.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSize {
    pub min: usize,
    pub max: usize,
    /// A sandbox that has waited for so long is replaced.
    pub max_age: Duration,
}
