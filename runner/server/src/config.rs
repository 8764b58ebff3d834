//! The operator's file, `runner.toml`: read and checked as a whole before anything starts.
//!
//! [`runner.example.toml`](https://github.com/dyad-sh/dyad-cli-gateway/blob/main/runner/server/runner.example.toml)
//! says line by line what there is to set.

mod capacity;
mod cli_entry;
mod credential;
mod egress;
mod fields;
mod image;
pub mod model;
mod node;
mod registry;
mod template;
mod units;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fields::Fields;
use model::{Cli, Engine, RunnerConfig};
use toml::Table;

/// Longest file.
const MAX_FILE_BYTES: u64 = 4 << 20;
const MAX_CLIS: usize = 64;

const DEFAULT_STATE_DIR: &str = "/var/lib/dyad-runner";
/// Where Docker's own programs look for the engine.
pub const DEFAULT_DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// A Unix socket's path has room for 107 bytes (unix(7)), and sockets lie some folders deep in the state directory.
pub const MAX_STATE_DIR_BYTES: usize = 48;

/// One thing to mend in the file: where (`cli[2].limits.memory`), and what about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Empty where the file as a whole is meant.
    pub path: String,
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl RunnerConfig {
    /// Reads and checks a file. Relative paths in it count from its folder.
    ///
    /// The error has everything that is wrong, and is never empty. Whether credentials are there is
    /// [another question](Self::missing_credentials).
    pub fn read(file: &Path) -> Result<Self, Vec<Violation>> {
        let whole = |message: String| vec![Violation { path: String::new(), message }];
        let text = read_text(file).map_err(whole)?;
        let table: Table =
            text.parse().map_err(|error: toml::de::Error| whole(error.to_string().trim_end().to_owned()))?;
        // Sockets and mounts are named to the Docker engine, which knows nothing of our working directory.
        let folder = std::path::absolute(file).ok().and_then(|file| file.parent().map(Path::to_owned));
        Self::from_table(&table, &folder.unwrap_or_else(|| PathBuf::from("/")))
    }

    /// The same for a file that was read already; relative paths count from `folder`, which is absolute.
    pub fn from_table(table: &Table, folder: &Path) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        let config = Fields::read(table, folder, &mut violations, config);
        config.filter(|_| violations.is_empty()).ok_or(violations)
    }

    /// The credentials that entries refer to and that are not there, or of one entry's only.
    pub fn missing_credentials(&self, of: Option<&str>) -> Vec<Violation> {
        let mut missing = Vec::new();
        for (index, cli) in
            self.clis.iter().enumerate().filter(|(_, cli)| of.is_none_or(|name| name == cli.name))
        {
            for (number, upstream) in cli.egress.iter().flat_map(|egress| &egress.upstreams).enumerate() {
                if let Some(Err(message)) = upstream.credential.as_ref().map(model::CredentialRef::check) {
                    let path = format!("cli[{index}].egress.upstream[{number}].credential");
                    missing.push(Violation { path, message });
                }
            }
        }
        missing
    }
}

fn read_text(file: &Path) -> Result<String, String> {
    let length = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE_BYTES {
        return Err(format!("the file is longer than {MAX_FILE_BYTES} bytes"));
    }
    std::fs::read_to_string(file).map_err(|error| error.to_string())
}

fn config(fields: &mut Fields<'_>) -> Option<RunnerConfig> {
    let listen = fields.address("listen");
    if listen.is_none() && !fields.has("listen") {
        fields.violation("listen", "is missing: the address to serve on, such as \"0.0.0.0:7443\"");
    }
    let metrics_listen = fields.address("metrics_listen");
    if metrics_listen.is_some_and(|address| !address.ip().is_loopback()) {
        fields.violation(
            "metrics_listen",
            "must be a loopback address: it asks for no certificate (elsewhere, take /metrics from 'listen')",
        );
    }
    let state_dir = fields.path("state_dir").unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR));
    if state_dir.as_os_str().len() > MAX_STATE_DIR_BYTES {
        fields.violation(
            "state_dir",
            format!("must have at most {MAX_STATE_DIR_BYTES} bytes: sockets in it need the rest of a socket's path"),
        );
    }
    let node = fields.required_table("node", |fields| node::node(fields, listen)).flatten();
    let tls = fields.required_table("tls", node::tls).flatten();
    let registry = fields.table("registry", registry::registry);
    let engine = fields.table_or_empty("engine", engine);
    let clis = clis(fields, engine.as_ref());
    let capacity = capacity::capacity(fields, &clis);
    Some(RunnerConfig {
        node: node?,
        listen: listen?,
        metrics_listen,
        tls: tls?,
        registry: registry.flatten(),
        state_dir,
        capacity: capacity?,
        engine: engine?,
        clis,
    })
}

fn engine(fields: &mut Fields<'_>) -> Engine {
    let socket = fields.path("socket").unwrap_or_else(|| PathBuf::from(DEFAULT_DOCKER_SOCKET));
    let allow_process = fields.boolean("allow_process").unwrap_or(false);
    Engine { socket, allow_process }
}

fn clis(fields: &mut Fields<'_>, engine: Option<&Engine>) -> Vec<Arc<Cli>> {
    let read = fields.tables("cli", MAX_CLIS, |fields| cli_entry::cli(fields, engine));
    if read.is_empty() && !fields.has("cli") {
        fields.violation("cli", "is missing: without a [[cli]] there is nothing to run");
    }
    for (index, cli) in read.iter().enumerate() {
        let same =
            |other: &&Option<Cli>| other.as_ref().zip(cli.as_ref()).is_some_and(|(a, b)| a.name == b.name);
        if read[..index].iter().any(|other| same(&other)) {
            fields.violation(&format!("cli[{index}].name"), "another [[cli]] has this name already");
        }
    }
    read.into_iter().flatten().map(Arc::new).collect()
}
