//! The demonstration on an edge: all that it knows is in a table, and CLIs run on a node that the table names.

use std::{net::TcpListener, path::Path, time::Duration};

use serde_json::Value;

use super::{CLI_MODEL, Host, MODEL, Ready, Served, write};
use crate::{
    context::Context,
    edge, engine,
    process::{Problem, Step},
    say,
    services::Services,
};

const QUICK: Duration = Duration::from_secs(60);
/// wrangler builds the Worker first.
const START: Duration = Duration::from_secs(1800);

/// Of the demonstration's table. The emulator takes any credentials.
const TABLE: [(&str, &str); 5] = [
    ("DYAD_TABLE", "dyad-demo"),
    ("AWS_REGION", "eu-central-1"),
    ("AWS_ACCESS_KEY_ID", "local"),
    ("AWS_SECRET_ACCESS_KEY", "local"),
    ("DYAD_KEY_SECRET", "at-least-thirty-two-bytes-for-this-machine-only"),
];

/// What the servers of an edge have in common.
struct Edge<'a> {
    context: &'a Context,
    services: &'a mut Services,
    directory: &'a Path,
    gateway: &'a Path,
    /// The table, by the names that every host has for it.
    variables: Vec<(&'static str, String)>,
}

/// A node of the fleet, and the certificate by which it knows the edge: files of the directory.
struct Node {
    port: u16,
}

/// Sets up a table and, where Docker answers, a node; then starts the host.
pub(super) fn start(
    context: &Context,
    services: &mut Services,
    (host, port): (Host, u16),
    (gateway, upstream): (&Path, &str),
    directory: &Path,
) -> Result<Served, Problem> {
    let variables = TABLE.map(|(name, value)| (name, value.to_owned())).to_vec();
    let mut edge = Edge { context, services, directory, gateway, variables };

    say("Starting DynamoDB's emulator, and making a table with a provider and a key");
    let emulator = context.step(gateway, QUICK).args(["store", "serve", "--in-memory", "--json"]);
    let emulator = emulator.args(["--listen", "127.0.0.1:0"]);
    let endpoint = edge.services.start("The emulator", emulator, |line| text_of(line, "endpoint"))?;
    say(&format!("  {endpoint}"));
    edge.variables.push(("AWS_ENDPOINT_URL_DYNAMODB", endpoint));
    edge.command(&["store", "init"])?;
    let node = engine::answers()?.then(|| edge.start_node()).transpose()?;
    let providers = providers(upstream, node.is_some());
    let providers = write(directory, "providers.toml", &providers)?;
    edge.command(&["providers", "apply", path_text(&providers)])?;
    let created = edge.command(&["keys", "create", "--label", "demo"])?;
    let api_key = text_of(&created, "api_key").ok_or_else(|| Problem("no API key was made".into()))?;

    let ready = |base_url, models: &[&str]| Ready {
        base_url,
        api_key: api_key.clone(),
        models: models.iter().map(|&model| model.to_owned()).collect(),
    };
    match host {
        Host::Spin => {
            let base_url = edge.start_spin(port, node.as_ref())?;
            let cli = node.map(|_| ready(base_url.clone(), &[CLI_MODEL]));
            Ok(Served { ready: ready(base_url, &[MODEL]), cli })
        }
        Host::Worker | Host::Native => {
            let base_url = edge.start_wrangler(port)?;
            let cli = node.map(|node| edge.start_workerd(&node)).transpose()?;
            Ok(Served { ready: ready(base_url, &[MODEL]), cli: cli.map(|url| ready(url, &[CLI_MODEL])) })
        }
    }
}

/// Edges do not ask upstreams for their models.
fn providers(upstream: &str, with_cli: bool) -> String {
    let local = format!(
        "[[provider]]\nname = \"llama.cpp\"\ntype = \"local\"\nbase_url = \"{upstream}\"\nmodels = [{{ id = \"{MODEL}\" }}]\n"
    );
    let cli = format!(
        "[[provider]]\nname = \"echo\"\ntype = \"spawn-cli\"\ncli = \"{CLI_MODEL}\"\nmodel_parameter = \"\"\nmodels = [{{ id = \"{CLI_MODEL}\" }}]\n"
    );
    if with_cli { local + &cli } else { local }
}

impl Edge<'_> {
    fn with_table(&self, mut step: Step) -> Step {
        for (name, value) in &self.variables {
            step = step.env(name, value);
        }
        step
    }

    /// Shows and runs a command of the gateway's on the table; the last line that it prints.
    fn command(&self, arguments: &[&str]) -> Result<String, Problem> {
        say(&format!("  dyad-gateway {}", arguments.join(" ")));
        let step = self.context.step(self.gateway, QUICK).args(arguments).arg("--json").arg("--data-dir");
        let finished = self.with_table(step.arg(self.directory.join("gateway"))).quiet().succeed()?;
        Ok(finished.stdout.lines().last().unwrap_or_default().to_owned())
    }

    /// A runner that announces itself in the table, and certificates for it and for the edge.
    fn start_node(&mut self) -> Result<Node, Problem> {
        say("Starting a runner, which the edge reaches over mTLS");
        let runner = self.context.runner_binary()?;
        let directory = path_text(self.directory);
        let authority = self.directory.join("ca");
        let ca = ["--dir", path_text(&authority)];
        self.command(&[&["ca", "init"], &ca[..]].concat())?;
        for (name, kind, san) in [("node", "--server", "localhost"), ("edge", "--client", "edge.demo")] {
            self.command(
                &[&["ca", "issue", name, kind, "--san", san, "--out", directory], &ca[..]].concat(),
            )?;
        }
        // It has to know its port before it listens.
        let port = free_port()?;
        let [(_, table), (_, region), ..] = TABLE;
        let endpoint = self.variables.last().map_or("", |(_, endpoint)| endpoint);
        let id = format!("demo-{}", std::process::id());
        let file = format!(
            r#"listen = "127.0.0.1:{port}"
state_dir = "runner"
[node]
id = "{id}"
url = "https://localhost:{port}"
[tls]
certificate = "node.pem"
key = "node.key"
client_ca = "ca/ca.pem"
revocation_list = "ca/ca.crl"
allowed_clients = ["edge.demo"]
[registry]
table = "{table}"
region = "{region}"
endpoint = "{endpoint}"
[[cli]]
name = "{CLI_MODEL}"
dialect = "text"
mode = "parked"
image = {{ builtin = "echo" }}
limits = {{ memory = "64MiB", pids = 32 }}
"#
        );
        let file = write(self.directory, "runner.toml", &file)?;
        let step = self.context.step(runner, QUICK).args(["serve", "--json", "--config"]).arg(file);
        let step = self.with_table(step);
        let address = self.services.start("The runner", step, |line| text_of(line, "addr"))?;
        say(&format!("  {address}"));
        Ok(Node { port })
    }

    /// The repository's `spin.toml`, served as `spin up` serves it.
    fn start_spin(&mut self, port: u16, node: Option<&Node>) -> Result<String, Problem> {
        say("Building the Spin component, and what serves it here (Wasmtime: some minutes, once)");
        let component = edge::component(self.context)?;
        let mut step = self.context.step(edge::spin_host(self.context)?, START);
        step = step.args(["--from", "spin.toml", "--listen", &format!("127.0.0.1:{port}")]);
        step = step
            .arg("--component")
            .arg(component)
            .env("SPIN_VARIABLE_DYAD_FURTHER_UPSTREAM", "http://127.0.0.1:*");
        if let Some(Node { port }) = node {
            let tls = "[[client_tls]]\ncomponent_ids = [\"gateway\"]\nhosts = [\"localhost\"]\n\
                       ca_roots_file = \"ca/ca.pem\"\nclient_cert_file = \"edge.pem\"\nclient_private_key_file = \"edge.key\"\n";
            let tls = write(self.directory, "runtime-config.toml", tls)?;
            let hosts = format!("https://localhost:{port}");
            step = step.arg("--runtime-config-file").arg(tls).env("SPIN_VARIABLE_DYAD_RUNNER_HOSTS", hosts);
        }
        for (name, value) in &self.variables {
            step = step.env(&format!("SPIN_VARIABLE_{name}"), value);
        }
        self.serve("The Spin application", step, "Serving ")
    }

    /// `wrangler dev`, which builds the Worker.
    fn start_wrangler(&mut self, port: u16) -> Result<String, Problem> {
        say("Starting wrangler, which builds the Worker");
        let variables: Vec<_> =
            self.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let secrets = write(self.directory, "secrets", &variables.join("\n"))?;
        let wrangler = edge::wrangler(self.context, START)?.args(["dev", "--local", "--ip", "127.0.0.1"]);
        let wrangler = wrangler.args(["--port", &port.to_string(), "--env-file"]).arg(secrets);
        let wrangler = wrangler.arg("--persist-to").arg(self.directory.join("wrangler"));
        self.serve("wrangler dev", wrangler, "Ready on ")
    }

    /// The Worker that wrangler built, with the binding that wrangler cannot run.
    fn start_workerd(&mut self, node: &Node) -> Result<String, Problem> {
        say("Starting the same Worker in workerd, with its binding for runners, which wrangler only deploys");
        let example = ["build", "--locked", "-p", "system-tests", "--example", "workerd"];
        self.context.cargo(START).args(example).succeed()?;
        let program = self.context.target_directory()?.join("debug/examples/workerd");
        let step = self.context.step(program, QUICK).arg(format!("localhost:{}", node.port));
        let step = ["ca/ca.pem", "edge.pem", "edge.key"]
            .iter()
            .fold(step, |step, name| step.arg(self.directory.join(name)))
            .env("DYAD_WORKER_DIR", edge::worker_directory(self.context))
            .env("DYAD_WORKERD_BIN", edge::workerd(self.context)?);
        let step = self.with_table(step);
        self.serve("The Worker", step, "Serving ")
    }

    /// Starts a server that says where it serves after these words; the base URL.
    fn serve(&mut self, name: &'static str, step: Step, words: &'static str) -> Result<String, Problem> {
        let origin = self.services.start(name, step, |line| {
            let (_, rest) = line.split_once(words)?;
            Some(rest.split_whitespace().next()?.trim_end_matches("/v1").to_owned())
        })?;
        let base_url = format!("{origin}/v1");
        say(&format!("  {base_url}"));
        Ok(base_url)
    }
}

/// A member of a JSON object that a line is.
fn text_of(line: &str, member: &str) -> Option<String> {
    let object: Value = serde_json::from_str(line).ok()?;
    Some(object[member].as_str()?.to_owned())
}

fn free_port() -> Result<u16, Problem> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    port.map(|address| address.port()).map_err(|error| Problem(format!("no port to listen on: {error}")))
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}
