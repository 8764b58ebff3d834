//! The repository's own commands, run as `cargo xtask`.

mod arrows;
mod context;
mod demo;
mod edge;
mod engine;
mod infra;
mod process;
mod provision;
mod services;
mod suite;
mod tally;
mod wasm;

use std::{
    ffi::c_int,
    io::{self, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, builder::PossibleValuesParser};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{context::Context, process::Problem, services::Services, suite::SUITES, tally::Tally};

#[derive(Parser)]
#[command(
    bin_name = "cargo xtask",
    about = "Commands of this repository",
    after_help = "Tools, clients and servers are installed once, into ${XDG_CACHE_HOME:-$HOME/.cache}/dyad-cli-gateway;\n\
                  missing Debian packages through apt-get."
)]
enum Xtask {
    /// Show the gateway at work: llama.cpp's server behind it, openai-python in front
    ///
    /// Installs what it needs, which the first time takes some minutes (llama.cpp is compiled), starts both servers,
    /// streams one chat completion, and then serves on 127.0.0.1:4100 until Ctrl-C. The model is a tiny one with
    /// random weights, made on the spot.
    Demo {
        /// On which host; the edges keep their configuration in a table of DynamoDB's emulator
        #[arg(long, value_enum, default_value = "native")]
        host: demo::Host,
        /// Stop after the answer; fail if anything about it is wrong
        #[arg(long)]
        once: bool,
    },
    /// Set up what the tests need, run them all, and sum up
    Test {
        /// Run only this suite (repeatable)
        #[arg(long, value_name = "SUITE", value_parser = PossibleValuesParser::new(suite_names()))]
        only: Vec<String>,
        /// List the suites and stop
        #[arg(long)]
        list: bool,
    },
}

fn main() -> ExitCode {
    let (name, result) = match Xtask::parse() {
        Xtask::Demo { host, once } => ("demo", demo(host, once)),
        Xtask::Test { list: true, .. } => {
            for suite in SUITES {
                say(&format!("{:12} {}", suite.name, suite.about));
            }
            return ExitCode::SUCCESS;
        }
        Xtask::Test { only, .. } => ("test", test(&only)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            say(&format!("cargo xtask {name}: {problem}"));
            ExitCode::FAILURE
        }
    }
}

fn suite_names() -> impl Iterator<Item = &'static str> {
    SUITES.iter().map(|suite| suite.name)
}

fn demo(host: demo::Host, once: bool) -> Result<bool, Problem> {
    // It would outlive its terminal otherwise. The tests may (`nohup`): they end by themselves.
    stop_on(&[SIGINT, SIGTERM, SIGHUP])?;
    let context = Context::new()?;
    say("Looking for what is needed; what is missing is installed (llama.cpp is compiled: some minutes)");
    let needs = [demo::NEEDS, demo::needs_of(host)].concat();
    provision::provide(&context, &mut Services::new(), &needs)?;
    demo::run(&context, host, once)?;
    Ok(true)
}

fn stop_on(signals: &[c_int]) -> Result<(), Problem> {
    process::stop_on(signals).map_err(|error| Problem(format!("no signal handler: {error}")))
}

/// Runs the suites (all, or those named) and ends with a line per suite and the line `N passed, N failed`. Whether
/// none failed.
fn test(only: &[String]) -> Result<bool, Problem> {
    stop_on(&[SIGINT, SIGTERM])?;
    let context = Context::new()?;
    // What suites share; it ends with this function.
    let mut services = Services::new();
    let mut rows = Vec::new();
    for suite in SUITES.iter().filter(|suite| only.is_empty() || only.iter().any(|name| name == suite.name)) {
        say(&format!("\n== {}: {}", suite.name, suite.about));
        let started = Instant::now();
        let result = suite.run(&context, &mut services);
        rows.push((suite.name, result, started.elapsed()));
        if process::interrupted() {
            break;
        }
    }
    say("");
    let total = rows.iter().map(|(name, result, took)| report(name, result, *took)).sum::<Tally>();
    say(&format!("{} passed, {} failed", total.passed, total.failed));
    Ok(total.failed == 0)
}

/// Prints a suite's line. A suite that could not run counts as one failure.
fn report(name: &str, result: &Result<Tally, Problem>, took: Duration) -> Tally {
    let (tally, why) = match result {
        Ok(tally) => (*tally, String::new()),
        Err(problem) => (Tally::one(false), format!("  {problem}")),
    };
    let Tally { passed, failed } = tally;
    say(&format!("{name:12} {passed:>5} passed {failed:>5} failed {:>8.1} s{why}", took.as_secs_f64()));
    tally
}

/// Prints a line. That nobody reads it any more is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
