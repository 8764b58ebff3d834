//! The command line.

mod check;
mod clis;
mod run;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::Violation;
use crate::config::model::RunnerConfig;
use crate::error_chain::error_chain;
use crate::logging::{self, LogFormat};
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  dyad-runner check --config runner.toml        say what is wrong, and what to do about it
  dyad-runner --config runner.toml              serve
  echo Hello | dyad-runner run cli-echo         try one CLI, without TLS
  dyad-runner run claude --param model=claude-haiku-4-5 < prompt.txt

Without a command, 'serve' is run. Options of another command are written after it.
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration; those of 'run' are in its help.";

/// Runs AI CLIs in sandboxes, for a gateway that comes over mutual TLS.
#[derive(Debug, Parser)]
#[command(name = "dyad-runner", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default): until SIGTERM or SIGINT, then drain; a second one ends what still runs
    Serve(serve::ServeArgs),
    /// Say what works, what does not, and what to do about it; makes images that are not there yet
    Check(check::CheckArgs),
    /// Run one CLI here, without TLS: the prompt from standard input, the answer to standard output
    Run(run::RunArgs),
    /// List the CLIs of the configuration
    Clis(clis::ClisArgs),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

/// Options that every command has.
#[derive(Debug, Clone, Args)]
struct ConfigArgs {
    /// The operator's file: which CLIs there are, and who may use them (see runner.example.toml)
    #[arg(
        long,
        value_name = "FILE",
        env = "DYAD_RUNNER_CONFIG",
        default_value = "/etc/dyad-runner/runner.toml"
    )]
    config: PathBuf,
    /// Print JSON, one object per line, for programs
    #[arg(long)]
    json: bool,
}

impl ConfigArgs {
    fn read(&self) -> Result<RunnerConfig, Failure> {
        RunnerConfig::read(&self.config).map_err(|violations| self.usage(&violations))
    }

    /// Every violation, with the file's name.
    fn usage(&self, violations: &[Violation]) -> Failure {
        let shown = self.config.display();
        Failure::Usage(violations.iter().map(|violation| format!("{shown}: {violation}")).collect())
    }
}

/// Options of commands that do something.
#[derive(Debug, Clone, Args)]
struct LogArgs {
    /// Which log lines to write: error, warn, info, debug, or a filter such as info,h2=debug [default: info for serve, warn for others]
    #[arg(long, value_name = "FILTER", env = "RUST_LOG")]
    log: Option<String>,
    /// How log lines are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl LogArgs {
    fn start(&self, default: &str) -> Result<(), Failure> {
        logging::start(self.log.as_deref().unwrap_or(default), self.log_format)
            .map_err(|line| Failure::Usage(vec![format!("--log: {line}")]))
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
enum Failure {
    /// The words or the configuration are wrong: exit code 2. One line per thing to mend.
    Usage(Vec<String>),
    /// Exit code 1. One line per thing that failed.
    Failed(Vec<String>),
    /// It has been told already.
    Told(ExitCode),
}

impl Failure {
    fn failed(what: &str, error: &dyn std::error::Error) -> Self {
        Self::Failed(vec![format!("{what}: {}", error_chain(error))])
    }
}

impl Cli {
    pub fn run(self) -> ExitCode {
        let (json, result) = match self.command.unwrap_or(Command::Serve(self.serve)) {
            Command::Serve(args) => (args.config.json, serve::run(&args)),
            Command::Check(args) => (args.config.json, check::run(&args)),
            Command::Run(args) => (args.config.json, run::run(&args)),
            Command::Clis(args) => (args.config.json, clis::run(&args)),
            Command::Completions { shell } => {
                // In memory first: the generator panics where it cannot write, as into a closed pipe.
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "dyad-runner", &mut script);
                let written = std::io::Write::write_all(&mut std::io::stdout(), &script);
                return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            }
        };
        let (kind, lines, code) = match result {
            Ok(()) => return ExitCode::SUCCESS,
            Err(Failure::Told(code)) => return code,
            Err(Failure::Usage(lines)) => ("configuration", lines, ExitCode::from(2)),
            Err(Failure::Failed(lines)) => ("failed", lines, ExitCode::FAILURE),
        };
        Output::new(json).errors(kind, &lines);
        code
    }
}

fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("the runtime cannot start", &error))?;
    runtime.block_on(future)
}
