//! `dyad-gateway`: the gateway on one machine, with one command.

use std::process::ExitCode;

use clap::Parser as _;
use dyad_gateway::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
