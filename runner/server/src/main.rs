//! `dyad-runner`: a node of the fleet that runs AI CLIs.

use std::process::ExitCode;

use clap::Parser as _;
use dyad_runner::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
