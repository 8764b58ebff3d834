//! The edge benchmark: the Worker and the Spin component next to the native gateway and to a Worker that only proxies.

mod hosts;
mod http;
mod measure;
mod report;
mod store;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bench::{
    Fault, allow_many_sockets,
    part::{Part, start_upstream},
};
use clap::Parser;
use flate2::{Compression, write::GzEncoder};

use crate::{
    hosts::{Artifacts, Kind},
    report::{Report, Row},
    store::Store,
};

/// Measures the gateway on its edge hosts: size, start, CPU time, calls to the store.
///
/// All run on this machine over loopback, one after the other within a round, in another order each round. Each answer is
/// checked; the first wrong one ends the benchmark. A cell is the median over the rounds.
///
/// CPU time is the whole process's, its runtime, sockets and kernel included; what Workers take that only proxy, or relay
/// piece by piece, is what the runtime costs. Configuration and keys are in `DynamoDB`'s API on the embedded engine; a relay before it
/// counts calls.
///
/// Needs `DYAD_GATEWAY_BIN`, `DYAD_WORKER_DIR` (`index.js`, `index_bg.wasm`), `DYAD_WORKERD_BIN`, `DYAD_SPIN_COMPONENT` and
/// `DYAD_SPIN_HOST_BIN`; `cargo xtask test --only bench-edge` makes them all.
#[derive(Parser)]
struct Bench {
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// One round of tiny numbers: shows that the benchmark works, measures nothing but sizes and calls
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

fn main() -> Result<(), Fault> {
    let bench = Bench::parse();
    if let Some(part) = bench.part {
        return part.run();
    }
    allow_many_sockets()?;
    let artifacts = Artifacts::from_environment()?;
    let (sizes, rounds) = if bench.quick { (&measure::QUICK, 1) } else { (&measure::FULL, bench.rounds) };
    let (_upstream, upstream) = start_upstream()?;
    let store = Store::start(&artifacts.gateway, upstream)?;
    let mut report = Report::default();
    size(&artifacts, &mut report)?;
    for round in 0..rounds {
        progress(&format!("round {} of {rounds}", round + 1));
        let mut order = Kind::ALL;
        order.rotate_left(usize::try_from(round)? % Kind::ALL.len());
        for kind in order {
            measure::host(kind, &artifacts, &store, upstream, sizes, &mut report)?;
        }
    }
    let missed = report.missed(bench.quick);
    io::stdout().write_all(report.markdown().as_bytes())?;
    if missed.is_empty() { Ok(()) } else { Err(format!("missed: {}", missed.join("; ")).into()) }
}

fn size(artifacts: &Artifacts, report: &mut Report) -> Result<(), Fault> {
    let mut worker = 0;
    for module in hosts::WORKER_MODULES {
        worker += gzipped(&artifacts.worker.join(module))?;
    }
    report.record(Row::Size, Kind::Worker, megabytes(worker)?);
    report.record(Row::Size, Kind::Spin, megabytes(fs::metadata(&artifacts.component)?.len())?);
    Ok(())
}

fn gzipped(path: &PathBuf) -> Result<u64, Fault> {
    let content = fs::read(Path::new(path)).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&content)?;
    Ok(u64::try_from(encoder.finish()?.len())?)
}

fn megabytes(bytes: u64) -> Result<f64, Fault> {
    Ok(f64::from(u32::try_from(bytes)?) / 1e6)
}

fn progress(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
