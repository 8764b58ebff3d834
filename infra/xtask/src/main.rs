//! The repository's own commands, run as `cargo xtask`.

mod arrows;
mod context;
mod process;
mod provision;
mod suite;
mod tally;
mod wasm;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, builder::PossibleValuesParser};

use crate::{context::Context, process::Problem, suite::SUITES, tally::Tally};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Commands of this repository")]
enum Xtask {
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
    let Xtask::Test { only, list } = Xtask::parse();
    if list {
        for suite in SUITES {
            say(&format!("{:12} {}", suite.name, suite.about));
        }
        return ExitCode::SUCCESS;
    }
    match test(&only) {
        Ok(Tally { failed: 0, .. }) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(problem) => {
            say(&format!("cargo xtask test: {problem}"));
            ExitCode::FAILURE
        }
    }
}

fn suite_names() -> impl Iterator<Item = &'static str> {
    SUITES.iter().map(|suite| suite.name)
}

/// Runs the suites (all, or those named) and ends with a line per suite and the line `N passed, N failed`.
fn test(only: &[String]) -> Result<Tally, Problem> {
    process::stop_child_on_signal().map_err(|error| Problem(format!("no signal handler: {error}")))?;
    let context = Context::new()?;
    let mut rows = Vec::new();
    for suite in SUITES.iter().filter(|suite| only.is_empty() || only.iter().any(|name| name == suite.name)) {
        say(&format!("\n== {}: {}", suite.name, suite.about));
        let started = Instant::now();
        let result = suite.run(&context);
        rows.push((suite.name, result, started.elapsed()));
        if process::interrupted() {
            break;
        }
    }
    say("");
    let total = rows.iter().map(|(name, result, took)| report(name, result, *took)).sum::<Tally>();
    say(&format!("{} passed, {} failed", total.passed, total.failed));
    Ok(total)
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
