//! The command line.

mod admin;
mod admin_server;
mod api_client;
mod audit;
mod ca;
mod clis;
mod doctor;
mod explain;
mod greeting;
mod keys;
mod providers;
mod runners;
mod secrets;
mod serving;
mod store;
mod up;
mod usage;
mod user;
mod values;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

pub use admin_server::AdminCli;

use crate::embedded::{CreateKeyError, OpenError};
use crate::error_chain::error_chain;
use crate::output::Output;

/// One OpenAI-compatible URL in front of vendors, proxies and local models.
#[derive(Debug, Parser)]
#[command(
    name = "dyad-gateway",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
#[command(
    after_help = "Without a command, 'up' is run. Options of another command are written after it. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: up::UpArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the gateway (the default)
    Up(up::UpArgs),
    /// Create, change, rotate and revoke API keys
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Look at providers, write them into the store, test them, rotate their credentials
    #[command(subcommand)]
    Providers(providers::ProvidersCommand),
    /// Print tokens for administrators
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// Look after the master keys under which credentials are sealed
    #[command(subcommand)]
    Secrets(secrets::SecretsCommand),
    /// Say who changed what and when, and whether that was tampered with
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Say what was used, by API key, provider, model and day
    Usage(usage::UsageArgs),
    /// Say what would become of a chat request, and call nobody
    Explain(explain::ExplainArgs),
    /// List the nodes that run CLIs, and drain them
    #[command(subcommand)]
    Runners(runners::RunnersCommand),
    /// Set up the store, copy it, serve it as DynamoDB
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Add and remove AI CLIs, which run in sandboxes on this machine
    #[command(subcommand)]
    Clis(clis::ClisCommand),
    /// Make certificates for a fleet of runners
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Say what works, what does not, and what to do about it
    Doctor(doctor::DoctorArgs),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

/// Options that every command has.
#[derive(Debug, Clone, Args)]
pub(crate) struct CommonArgs {
    /// Where the gateway keeps its store and secrets [default: dyad-gateway in ~/.local/share or `$XDG_DATA_HOME`]
    #[arg(long, value_name = "DIR", env = "DYAD_GATEWAY_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON, one object per line, for programs
    #[arg(long)]
    pub json: bool,
}

/// Options that say where the store is: in the data directory, or in a DynamoDB table. Each counts before its variable,
/// and that before the file's `[store]`.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreArgs {
    /// Settings, providers and where the store is (see the README)
    #[arg(long, value_name = "FILE", env = "DYAD_GATEWAY_CONFIG")]
    pub config: Option<PathBuf>,
    #[arg(
        long,
        value_name = "NAME",
        help = "Keep everything in this DynamoDB table instead of in the data directory [env: DYAD_TABLE]"
    )]
    pub table: Option<String>,
    #[arg(long, value_name = "REGION", help = "The AWS region of the table [env: AWS_REGION]")]
    pub region: Option<String>,
    #[arg(
        long,
        value_name = "URL",
        help = "Where DynamoDB's API is, if it is not AWS's own [env: AWS_ENDPOINT_URL_DYNAMODB]"
    )]
    pub endpoint: Option<String>,
}

/// Options that say which providers there are.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProviderArgs {
    /// An OpenAI-compatible base URL to serve; may be repeated. Its key, if it needs one, is best given as
    /// URL=env:NAME or URL=file:PATH: others on this machine can see a command line
    #[arg(long = "upstream", value_name = "URL[=KEY]")]
    pub upstreams: Vec<String>,
    /// Do not look for keys in the environment, Ollama and LM Studio
    #[arg(long)]
    pub no_discovery: bool,
    /// Do not run CLIs in Docker on this machine
    #[arg(long, env = "DYAD_GATEWAY_NO_RUNNER")]
    pub no_runner: bool,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The words or the configuration are wrong: exit code 2. One line per thing to mend.
    Usage(Vec<String>),
    /// Exit code 1.
    Failed(String),
}

impl Failure {
    pub(crate) fn failed(what: &str, error: &dyn std::error::Error) -> Self {
        Self::Failed(format!("{what}: {}", error_chain(error)))
    }
}

impl Cli {
    pub fn run(self) -> ExitCode {
        let (json, result) = match self.command.unwrap_or(Command::Up(self.up)) {
            Command::Up(args) => (args.common.json, up::run(&args)),
            Command::Keys(command) => (command.common().json, keys::run(&command)),
            Command::Providers(command) => (command.common().json, providers::run(&command)),
            Command::Admin(command) => (command.common().json, admin::run(&command)),
            Command::Secrets(command) => (command.common().json, secrets::run(&command)),
            Command::Audit(command) => (command.common().json, audit::run(&command)),
            Command::Usage(args) => (args.api.common.json, usage::run(&args)),
            Command::Explain(args) => (args.api.common.json, explain::run(&args)),
            Command::Runners(command) => (command.common().json, runners::run(&command)),
            Command::Store(command) => (command.common().json, store::run(&command)),
            Command::Clis(command) => (command.common().json, clis::run(&command)),
            Command::Ca(command) => (command.common().json, ca::run(&command)),
            Command::Doctor(args) => (args.common.json, doctor::run(&args)),
            Command::Completions { shell } => {
                // In memory first: the generator panics where it cannot write, as into a closed pipe.
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "dyad-gateway", &mut script);
                let written = std::io::Write::write_all(&mut std::io::stdout(), &script);
                return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            }
        };
        exit_code(json, result)
    }
}

/// Says what went wrong.
fn exit_code(json: bool, result: Result<(), Failure>) -> ExitCode {
    let output = Output::new(json);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(lines)) => {
            output.errors("configuration", &lines);
            ExitCode::from(2)
        }
        Err(Failure::Failed(line)) => {
            output.errors("failed", &[line]);
            ExitCode::FAILURE
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::KeySecret(line) => Self::Usage(vec![line]),
            error @ OpenError::MasterKeys(_) => Self::Usage(vec![error.to_string()]),
            error => Self::Failed(error_chain(&error)),
        }
    }
}

impl From<CreateKeyError> for Failure {
    fn from(error: CreateKeyError) -> Self {
        match error {
            CreateKeyError::Refused(violations) => {
                Self::Usage(violations.0.iter().map(ToString::to_string).collect())
            }
            error @ (CreateKeyError::Randomness(_)
            | CreateKeyError::Store(_)
            | CreateKeyError::OtherKeySecret) => Self::Failed(error_chain(&error)),
        }
    }
}

/// A runtime for commands that talk to the store or to upstreams, and for the listener's control side.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("the runtime cannot start", &error))?;
    Ok(runtime.block_on(future))
}
