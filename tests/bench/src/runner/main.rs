//! The runner's benchmark: what a runner adds to a CLI, next to `docker run` and to a bare process.

mod direct;
mod figures;
mod node;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Parser;
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::direct::{ask, docker_run, had_input_after};
use crate::figures::{HEAD, Times, percentile, row};
use crate::node::{Node, built};

/// Why the benchmark cannot go on.
type Fault = Box<dyn std::error::Error + Send + Sync>;

const PARALLEL: [usize; 3] = [1, 8, 32];
/// For the rate of whole runs, and how many of them at once.
const RATE_RUNS: usize = 48;
const RATE_WIDTH: usize = 16;

/// Measures the runner from outside, over mutual TLS, next to `docker run` and bare processes.
///
/// All on this machine, one way after the other within a round, in another order each round, and each only when
/// nothing is being made or removed. Every answer is checked. Needs a Docker engine and docker(1).
/// The runner: `DYAD_RUNNER_BIN`, or else the workspace's release build.
#[derive(Parser)]
struct Bench {
    /// How often everything is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Also first text of Claude Code against a fake vendor, in this image (see runner/images/claude)
    #[arg(long, value_name = "IMAGE")]
    claude: Option<String>,
    /// Only that
    #[arg(long, requires = "claude")]
    claude_only: bool,
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let Bench { rounds, claude, claude_only } = Bench::parse();
    let runner = built("DYAD_RUNNER_BIN", &["--package", "dyad-runner", "--bin", "dyad-runner"])?;
    let clock = Clock::compile()?;
    let mut report = String::new();
    if !claude_only {
        for parallel in PARALLEL {
            report += &dispatch(&runner, &clock, parallel, rounds).await?;
        }
        report += &beside_refills(&runner, &clock, 8 * rounds).await?;
        report += &rates(&runner, &clock, rounds).await?;
    }
    if let Some(image) = claude {
        report += &claude_code(&runner, &image, 4 * rounds).await?;
    }
    Ok(std::io::stdout().write_all(report.as_bytes())?)
}

/// clock.rs, and what its image is built from.
struct Clock {
    directory: tempfile::TempDir,
}

impl Clock {
    const TAG: &str = "dyad-bench-clock:local";

    fn compile() -> Result<Self, Fault> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("clock.rs"), include_str!("clock.rs"))?;
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"]);
        let status = rustc.args([path("clock"), path("clock.rs")]).status()?;
        if !status.success() {
            return Err("clock.rs does not compile".into());
        }
        // In a tar: of files that it copies itself, the builder drops the bit that makes them programs.
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(directory.path()).arg("-cf").arg(path("root.tar")).arg("clock");
        let packed = tar.status()?;
        std::fs::write(path("Dockerfile"), "FROM scratch\nADD root.tar /\n")?;
        if packed.success() { Ok(Self { directory }) } else { Err("tar fails".into()) }
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("clock")
    }

    /// So many of them wait.
    fn entry(&self, name: &str, mode: &str, waiting: usize) -> String {
        format!(
            r#"
[[cli]]
name = "{name}"
dialect = "text"
mode = "{mode}"
image = {{ build = "{}", tag = "{}" }}
argv = ["/clock"]
pool = {{ min = {waiting}, max = {waiting}, max_age = "1d" }}
limits = {{ memory = "64MiB", pids = 32 }}
"#,
            self.directory.path().display(),
            Self::TAG
        )
    }
}

fn seccomp() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runner/server/src/sandbox/seccomp.json")
}

async fn run(node: &Node, cli: &str) -> Result<Times, Fault> {
    let (times, answer, asked) = node.run(cli, "when\n").await?;
    Ok(Times { stdin: Some(had_input_after(&answer, asked)?), ..times })
}

const WAYS: [(&str, &str); 5] = [
    ("parked", "parked"),
    ("one-shot, its container waits", "waiting"),
    ("one-shot", "cold"),
    ("docker run", ""),
    ("bare process", ""),
];

async fn dispatch(runner: &Path, clock: &Clock, parallel: usize, rounds: usize) -> Result<String, Fault> {
    let entries = clock.entry("parked", "parked", parallel) + &clock.entry("waiting", "one-shot", parallel);
    let node = Node::start(runner, &(entries + &clock.entry("cold", "one-shot", 0))).await?;
    let mut times = WAYS.map(|_| Vec::new());
    for round in 0..rounds {
        progress(&format!("{parallel} at once, round {} of {rounds}", round + 1));
        for turn in 0..WAYS.len() {
            let way = (turn + round) % WAYS.len();
            node.quiet(2 * parallel).await?;
            let once = (0..parallel).map(|_| async {
                match WAYS[way].0 {
                    "docker run" => ask(docker_run(Clock::TAG, &seccomp(), &["/clock"])).await,
                    "bare process" => ask(tokio::process::Command::new(clock.program())).await,
                    _ => run(&node, WAYS[way].1).await,
                }
            });
            times[way].extend(try_join_all(once).await?);
        }
    }
    node.stop()?;
    let mut text = format!("\n{parallel} at once\n\n{HEAD}");
    for ((name, _), times) in WAYS.iter().zip(&times) {
        text += &row(name, times);
    }
    Ok(text)
}

/// The same run when nothing else happens, and while the pool replaces what the run before it has used.
async fn beside_refills(runner: &Path, clock: &Clock, count: usize) -> Result<String, Fault> {
    let entries = clock.entry("parked", "parked", 3) + &clock.entry("cold", "one-shot", 0);
    let node = Node::start(runner, &entries).await?;
    let mut text = format!("\nBeside a refill\n\n{HEAD}");
    for cli in ["parked", "cold"] {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for at in 0..2 * count {
            progress(&format!("{cli} beside refills, {} of {}", at + 1, 2 * count));
            node.quiet(3).await?;
            if at % 2 == 0 {
                alone.push(run(&node, cli).await?);
            } else {
                run(&node, "parked").await?;
                beside.push(run(&node, cli).await?);
            }
        }
        text += &row(&format!("{cli}, alone"), &alone);
        text += &row(&format!("{cli}, beside a refill"), &beside);
    }
    node.stop()?;
    Ok(text)
}

/// Whole runs a second, until the last container is gone.
async fn rates(runner: &Path, clock: &Clock, rounds: usize) -> Result<String, Fault> {
    let echo = r#"
[[cli]]
name = "cli-echo"
dialect = "text"
image = { builtin = "echo" }
limits = { memory = "64MiB", pids = 32 }
"#;
    let node = Node::start(runner, &(echo.to_owned() + &clock.entry("clock", "one-shot", 0))).await?;
    let (mut ours, mut engines) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        progress(&format!("rates, round {} of {rounds}", round + 1));
        node.quiet(0).await?;
        let begun = Instant::now();
        let runs = stream::iter(0..RATE_RUNS).map(|_| async {
            let (_, answer, _) = node.run("cli-echo", "hello").await?;
            if answer == "hello" { Ok(()) } else { Err(Fault::from(format!("cli-echo says {answer:?}"))) }
        });
        runs.buffer_unordered(RATE_WIDTH).try_collect::<()>().await?;
        node.quiet(0).await?;
        ours.push(per_second(begun));
        let begun = Instant::now();
        let runs = stream::iter(0..RATE_RUNS)
            .map(|_| async { ask(docker_run(Clock::TAG, &seccomp(), &["/clock"])).await.map(drop) });
        runs.buffer_unordered(RATE_WIDTH).try_collect::<()>().await?;
        engines.push(per_second(begun));
    }
    node.stop()?;
    let mut text =
        format!("\nWhole runs a second, {RATE_WIDTH} at once, until the last container is gone\n\n");
    for (name, rates) in [("cli-echo through the runner", ours), ("docker run --rm", engines)] {
        let at = |percent| percentile(rates.iter().copied(), percent);
        writeln!(text, "- {name}: {:.1} ({:.1} to {:.1})", at(50), at(0), at(100))?;
    }
    Ok(text)
}

#[expect(clippy::cast_precision_loss, reason = "a count of runs")]
fn per_second(begun: Instant) -> f64 {
    RATE_RUNS as f64 / begun.elapsed().as_secs_f64()
}

/// Claude Code parked, alone and while another is being booted; and started for its request.
async fn claude_code(runner: &Path, image: &str, count: usize) -> Result<String, Fault> {
    let vendor = built("FAKE_VENDOR_BIN", &["--package", "system-tests", "--example", "fake_vendor"])?;
    let mut vendor = Command::new(vendor).stdout(Stdio::piped()).spawn()?;
    let mut url = String::new();
    BufReader::new(vendor.stdout.take().ok_or("stdout is not a pipe")?).read_line(&mut url)?;
    let measured = measure_claude(runner, image, url.trim(), count).await;
    vendor.kill()?;
    vendor.wait()?;
    measured
}

async fn measure_claude(runner: &Path, image: &str, url: &str, count: usize) -> Result<String, Fault> {
    const ENTRY: &str = include_str!("../../../../runner/images/claude/entry.toml");
    let entry = ENTRY.replace("https://api.anthropic.com", url);
    let entry = entry.replace("dyad-cli-claude:2.1.197", image);
    let entry = entry.replacen(
        "\n[cli.parameters",
        "\npool = { min = 2, max = 2, max_age = \"1d\" }\n[cli.parameters",
        1,
    );
    let node = Node::start(runner, &entry).await?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for at in 0..count {
        progress(&format!("Claude Code, {} of {count}", at + 1));
        node.quiet(2).await?;
        alone.push(node.run("claude", "scene:answer").await?.0);
        // Its replacement boots meanwhile.
        beside.push(node.run("claude", "scene:answer").await?.0);
    }
    node.stop()?;
    let rows = row("parked, alone", &alone) + &row("parked, beside a refill", &beside);
    Ok(format!("\nClaude Code, the vendor a fake on this machine\n\n{HEAD}{rows}"))
}

fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
