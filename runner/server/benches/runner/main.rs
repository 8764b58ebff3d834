//! What the runner adds to a CLI, next to `docker run` and to a bare process, in one interleaved run.
//!
//! The CLI reads a line and answers with the time at which it had it. "stdin" is from the request to then, "first byte"
//! from the request to the answer's first byte at the client. All run on this machine, one after the other within a
//! round, each only when nothing else is being made or removed. Needs a Docker engine and docker(1).
//!
//! `cargo bench -p dyad-runner --bench runner -- [--rounds N]`

#![expect(clippy::unwrap_used, reason = "what fails here ends the benchmark")]
#![expect(clippy::print_stdout, reason = "the result")]

mod direct;
mod figures;
#[path = "../../tests/docker_runs/support.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use dyad_runner::config::model::{Cli, Mode, PoolSize};
use dyad_runner::pool::Variant;
use dyad_runner::run::Runs;
use dyad_runner::sandbox::Engine;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use figures::{Figures, Times};
use support::{PATIENCE, TestNode, next, request, rest, submit};

const WAYS: [&str; 5] = ["parked", "pooled", "cold", "docker run", "bare process"];
const PARALLEL: [usize; 3] = [1, 8, 32];
/// Runs of `cli-echo` for their rate, so many at once.
const RATE_RUNS: usize = 64;
const RATE_WIDTH: usize = 16;
/// Runs with and without refills beside them.
const BESIDE_REFILLS: usize = 20;

#[derive(Parser)]
struct Arguments {
    /// How often everything is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let Arguments { rounds, bench: _ } = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for parallel in PARALLEL {
            dispatch(parallel, rounds).await;
        }
        rates(rounds).await;
        refills(rounds).await;
    });
}

fn unix_nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

fn pool(min: usize, max: usize, max_age: Duration) -> PoolSize {
    PoolSize { min, max, max_age }
}

/// A node whose actor is there three times: parked, one-shot with waiting sandboxes, one-shot without.
fn node(waiting: usize) -> TestNode {
    let mut node = TestNode::new();
    node.config.capacity.runs = 64;
    let actor = Cli::clone(node.actor());
    let variant = |name: &str, mode, waiting| {
        let pool = pool(waiting, waiting, Duration::from_secs(3600));
        Arc::new(Cli { name: name.to_owned(), mode, pool, ..actor.clone() })
    };
    node.config.clis = vec![
        variant("parked", Mode::Parked, waiting),
        variant("pooled", Mode::OneShot, waiting),
        variant("cold", Mode::OneShot, 0),
        Arc::clone(&node.config.clis[1]),
    ];
    node
}

/// Waits until the pool is full and nothing is being made or removed.
async fn until_quiet(runs: &Runs, engine: &Engine, waiting: usize) {
    let begun = Instant::now();
    while runs.capacity().parked as usize != waiting || engine.sandboxes() != waiting {
        assert!(begun.elapsed() < PATIENCE, "{:?}", runs.capacity());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn dispatch(parallel: usize, rounds: usize) {
    let node = node(parallel);
    let (engine, runs) = node.start().await;
    let mut figures = WAYS.map(|_| Figures::default());
    for round in 0..rounds {
        for turn in 0..WAYS.len() {
            // In another order each round.
            let way = (turn + round) % WAYS.len();
            until_quiet(&runs, &engine, 2 * parallel).await;
            let once = (0..parallel).map(|at| {
                let (runs, node) = (&runs, &node);
                async move {
                    match WAYS[way] {
                        "docker run" => direct::docker_run(&node.config.node.id).await,
                        "bare process" => direct::bare_process().await,
                        cli => through_runner(runs, cli, &format!("{cli}-{round}-{at}")).await,
                    }
                }
            });
            figures[way].extend(join_all(once).await);
        }
    }
    runs.close(PATIENCE).await;
    println!("\n{parallel} at once, {} of each, ms (p50 / p99)\n", rounds * parallel);
    figures::table(&WAYS, &figures);
}

async fn through_runner(runs: &Runs, cli: &str, id: &str) -> Times {
    let (begun, at) = (Instant::now(), unix_nanos());
    let mut stream = submit(runs, request(id, cli, "when\n")).await;
    next(&mut stream).await;
    let first = next(&mut stream).await;
    let first_byte = begun.elapsed();
    let runner_api::RunEvent::Text { text } = first else { panic!("{first:?}") };
    let (said, last) = rest(stream).await;
    assert!(matches!(last, runner_api::RunEvent::Finished { .. }), "{last:?}");
    Times::new(at, &(text + &said), first_byte, begun.elapsed())
}

/// Runs a second of the echo CLI, next to what the engine does without runs: start, answer, remove.
async fn rates(rounds: usize) {
    let node = node(0);
    let (engine, runs) = node.start().await;
    // The same binary's launcher, without pool and admission.
    let other = self::node(0);
    let (other_engine, launcher) = other.launcher().await;
    let variant = Variant::default_of(other.config.clis.last().unwrap()).unwrap();
    let (mut ours, mut engines, mut dockers) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let begun = Instant::now();
        let each = stream::iter(0..RATE_RUNS).map(async |at| {
            let stream = submit(&runs, request(&format!("rate-{round}-{at}"), "echo", "hello")).await;
            assert_eq!(rest(stream).await.0, "hello");
        });
        each.buffer_unordered(RATE_WIDTH).collect::<Vec<()>>().await;
        until_quiet(&runs, &engine, 0).await;
        ours.push(begun.elapsed());

        let begun = Instant::now();
        let each = stream::iter(0..RATE_RUNS).map(async |_| {
            direct::through_launcher(&launcher, &variant).await;
        });
        each.buffer_unordered(node.config.capacity.starts).collect::<Vec<()>>().await;
        assert_eq!(other_engine.sandboxes(), 0);
        engines.push(begun.elapsed());

        let begun = Instant::now();
        let each = stream::iter(0..RATE_RUNS).map(async |_| {
            direct::docker_run(&node.config.node.id).await;
        });
        each.buffer_unordered(node.config.capacity.starts).collect::<Vec<()>>().await;
        dockers.push(begun.elapsed());
    }
    runs.close(PATIENCE).await;
    println!(
        "\nRuns a second, {RATE_RUNS} of them, until the last container is removed (median of {rounds})\n"
    );
    for (name, mut took) in
        [("cli-echo through the runner", ours), ("the engine alone", engines), ("docker run --rm", dockers)]
    {
        took.sort();
        println!("- {name}: {:.1}", figures::rate(RATE_RUNS, took[took.len() / 2]));
    }
}

/// Runs while another CLI's pool is refilled without pause, next to runs while nothing else happens.
async fn refills(rounds: usize) {
    let ways = ["parked", "cold"];
    let (mut alone, mut beside) = (ways.map(|_| Figures::default()), ways.map(|_| Figures::default()));
    for round in 0..rounds {
        for churning in [false, true] {
            let mut node = node(2);
            if churning {
                // Each is replaced as soon as it is there.
                let churn = Cli {
                    name: "churn".to_owned(),
                    pool: pool(4, 4, Duration::from_millis(1)),
                    ..Cli::clone(&node.config.clis[1])
                };
                node.config.clis.push(Arc::new(churn));
            }
            let (_engine, runs) = node.start().await;
            let begun = Instant::now();
            while runs.capacity().parked < 4 {
                assert!(begun.elapsed() < PATIENCE, "{:?}", runs.capacity());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            for (way, cli) in ways.into_iter().enumerate() {
                for at in 0..BESIDE_REFILLS.div_ceil(rounds) {
                    let times = through_runner(&runs, cli, &format!("{cli}-{round}-{at}")).await;
                    if churning { &mut beside[way] } else { &mut alone[way] }.extend([times]);
                    // Its own sandbox is removed, and its own refill made.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            runs.close(PATIENCE).await;
        }
    }
    println!("\nOne after the other while another CLI's pool is refilled without pause, ms (p50 / p99)\n");
    figures::table(
        &["parked, alone", "parked, beside refills", "cold, alone", "cold, beside refills"],
        &[&alone[0], &beside[0], &alone[1], &beside[1]],
    );
}
