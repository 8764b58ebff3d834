//! `dyad-gateway`: the gateway on one machine, with one command.

use std::process::ExitCode;

use clap::Parser as _;
use dyad_gateway::cli::Cli;

// A request makes some dozens of small allocations: this allocator halves what they cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
