//! The benchmark: the gateway, nginx and the bare upstream, interleaved.

mod rounds;
mod server;
mod table;

use std::{
    fs,
    io::{self, Write as _},
    thread,
};

use bench::{Fault, allow_many_sockets, part::Part};
use clap::{Parser, ValueEnum};
use serde_json::json;

/// Compares the gateway with nginx as a plain reverse proxy and with the bare upstream.
///
/// All run on this machine over loopback, one after the other within a round, in another order each round. Each
/// answer is checked: status, model name, number of chunks, [DONE]. The first wrong one ends the benchmark.
///
/// CPU and memory are those of the proxying process and its children; the upstream and the load generator are
/// processes of their own. A cell is the median over the rounds; a ratio is taken within a round before the median.
/// "Added" is a proxy's value less the bare upstream's in the same round; the bare column then shows the latter.
///
/// nginx: as many workers as cores, connections to the upstream kept alive, no buffering, no access log.
/// The gateway: `DYAD_GATEWAY_BIN`, or else the workspace's release build, started with nothing but the one provider.
#[derive(Parser)]
struct Bench {
    /// How often everything is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// One round of tiny numbers: shows that the benchmark works, measures nothing
    #[arg(long)]
    quick: bool,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    table: Format,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Markdown,
    Json,
}

fn main() -> Result<(), Fault> {
    let bench = Bench::parse();
    match bench.part {
        None => compare(&bench),
        Some(part) => part.run(),
    }
}

fn compare(bench: &Bench) -> Result<(), Fault> {
    allow_many_sockets()?;
    let (sizes, count) = if bench.quick { (&rounds::QUICK, 1) } else { (&rounds::FULL, bench.rounds) };
    let gateway = server::gateway_binary()?;
    let load_average = fs::read_to_string("/proc/loadavg")?;
    let cores = thread::available_parallelism()?;
    let rounds = rounds::run(sizes, count, &gateway)?;
    let lines = if bench.quick { table::unjudged_lines(&rounds) } else { table::lines(&rounds) };
    let text = match bench.table {
        Format::Json => {
            let result = json!({
                "quick": bench.quick, "rounds": count, "cores": cores,
                "load_average_before": load_average.trim(), "lines": lines,
            });
            format!("{result}\n")
        }
        Format::Markdown => {
            let quick = if bench.quick { ", tiny: the numbers mean nothing" } else { "" };
            let load = load_average.split(' ').next().unwrap_or_default();
            format!(
                "Rounds: {count}{quick}; {cores} cores, load before {load}\n\n{}",
                table::markdown(&lines)
            )
        }
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}
