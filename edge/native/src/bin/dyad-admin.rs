//! `dyad-admin`: the administration of a table's gateways, by itself.

use std::process::ExitCode;

use clap::Parser as _;
use dyad_gateway::cli::AdminCli;

fn main() -> ExitCode {
    AdminCli::parse().run()
}
