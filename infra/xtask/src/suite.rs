//! The suites: what each needs and how it runs.

use std::{fs, path::PathBuf, time::Duration};

use crate::{
    arrows,
    context::Context,
    demo, edge, infra,
    process::{Problem, Step},
    provision::{self, Need},
    services::Services,
    tally::Tally,
    wasm,
};

const QUICK: Duration = Duration::from_secs(120);
/// Compiling everything from nothing, on a small machine.
const BUILD: Duration = Duration::from_secs(2400);
const FUZZ_SECONDS: u64 = 20;
/// Workspaces of their own.
const OTHER_MANIFESTS: [&str; 2] = ["tests/fuzz/Cargo.toml", "tests/spin-host/Cargo.toml"];

/// A part of the test command that can be asked for by name.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    needs: &'static [&'static [Need]],
    run: fn(&Context) -> Result<Tally, Problem>,
}

/// All suites, in the order in which they run: the quick ones first.
pub(crate) const SUITES: &[Suite] = &[
    Suite { name: "fmt", about: "the code is formatted", needs: &[], run: fmt },
    Suite {
        name: "arrows",
        about: "crates depend only on what ARCHITECTURE allows",
        needs: &[],
        run: arrows::check,
    },
    Suite { name: "clippy", about: "no lint fires", needs: &[&[provision::CPP_COMPILER]], run: clippy },
    Suite {
        name: "unit",
        about: "each crate's own tests, and the documentation's examples",
        needs: &[&[provision::C_COMPILER, provision::NEXTEST, provision::OPENSSL]],
        run: unit,
    },
    Suite {
        name: "wasm",
        about: "the host-free crates compile for the WASM hosts; the Worker and the Spin component are small",
        needs: &[edge::WORKER_NEEDS],
        run: |context| Ok(wasm::check(context)? + edge::sizes(context)?),
    },
    Suite {
        name: "infra",
        about: "Terraform, policies, compose, images, units, alerts, dashboard, workflows and wrangler.toml, each by its own tool",
        needs: &[&[
            provision::C_COMPILER,
            provision::NPM,
            Need::Node,
            provision::PYTHON,
            provision::SHELLCHECK,
            provision::SYSTEMD,
            Need::Docker,
            provision::COMPOSE,
            Need::Pins("infra/lint-python"),
            Need::Pins("infra/lint-node"),
            Need::WorkerTools,
        ]],
        run: infra::check,
    },
    Suite {
        name: "readme",
        about: "the README's first command, `cargo xtask demo`, on each host",
        needs: &[demo::ALL_NEEDS, edge::WORKER_NEEDS],
        run: readme,
    },
    Suite {
        name: "contract",
        about: "the wire contract, with the real client libraries",
        needs: &[SYSTEM],
        run: |context| system(context, "contract"),
    },
    Suite {
        name: "raw",
        about: "what client libraries hide: framing, disconnects, slow peers, drain",
        needs: &[SYSTEM],
        run: |context| system(context, "raw"),
    },
    Suite {
        name: "bad_input",
        about: "bad requests get the right error",
        needs: &[SYSTEM],
        run: |context| system(context, "bad_input"),
    },
    Suite {
        name: "dynamo",
        about: "contract, raw and bad_input on the native host with a DynamoDB table",
        needs: &[SYSTEM],
        run: |context| run_with(system_tests(context, &["--profile", "dynamo"])?, []),
    },
    Suite {
        name: "worker",
        about: "contract, raw and bad_input on the Cloudflare Worker in workerd, and what is special to it",
        needs: &[SYSTEM, edge::WORKER_NEEDS],
        run: worker,
    },
    Suite {
        name: "spin",
        about: "contract, raw and bad_input on the Spin component, and what is special to it",
        needs: &[SYSTEM],
        run: spin,
    },
    Suite {
        name: "admin",
        about: "administration of a running gateway: the whole journey, bad input, rotation under load, a search for secrets, schemathesis",
        needs: &[&[
            provision::C_COMPILER,
            provision::PYTHON,
            provision::NEXTEST,
            Need::Client("schemathesis"),
        ]],
        run: |context| system(context, "admin"),
    },
    Suite {
        name: "real",
        about: "upstreams nobody here wrote: llama.cpp's server, LiteLLM",
        needs: &[SYSTEM],
        run: |context| system(context, "real"),
    },
    Suite {
        name: "sandbox",
        about: "the runner on a real Docker engine: sandboxes, attacks on them, runs, kills",
        needs: &[&[provision::C_COMPILER, provision::NEXTEST, Need::Docker]],
        run: sandbox,
    },
    Suite {
        name: "clis",
        about: "the real Gemini CLI, Claude Code and Codex CLI in sandboxes, end to end; runners' clients on every host",
        needs: &[
            &[
                provision::CPP_COMPILER,
                provision::PYTHON,
                provision::NEXTEST,
                Need::Client("python3"),
                Need::Docker,
            ],
            edge::WORKER_NEEDS,
        ],
        run: clis,
    },
    Suite {
        name: "console",
        about: "the console and the API's page in headless Chromium, against the gateway; their scripts' own tests",
        needs: &[&[
            provision::C_COMPILER,
            provision::NPM,
            Need::Node,
            provision::CHROMIUM,
            Need::Pins("tests/console"),
        ]],
        run: console,
    },
    Suite {
        name: "fuzz",
        about: "the fuzz targets, briefly",
        needs: &[&[provision::CPP_COMPILER, provision::FUZZ]],
        run: fuzz,
    },
    Suite {
        name: "bench-smoke",
        about: "the benchmark runs and measures the right thing",
        needs: &[&[provision::C_COMPILER, provision::NGINX]],
        run: bench_smoke,
    },
    Suite {
        name: "bench-edge",
        about: "size, start, CPU time and calls to the store of the Worker and the Spin component",
        needs: &[&[provision::CPP_COMPILER], edge::WORKER_NEEDS],
        run: bench_edge,
    },
];

const SYSTEM: &[Need] = &[
    provision::CPP_COMPILER,
    provision::CMAKE,
    provision::NINJA,
    provision::NPM,
    Need::Node,
    provision::PYTHON,
    provision::NEXTEST,
    Need::AllClients,
];

impl Suite {
    /// Provides what the suite needs and runs it.
    pub(crate) fn run(&self, context: &Context, services: &mut Services) -> Result<Tally, Problem> {
        provision::provide(context, services, &self.needs.concat())?;
        (self.run)(context)
    }
}

fn fmt(context: &Context) -> Result<Tally, Problem> {
    let check = |args: &[&str]| {
        one(context.cargo(QUICK).args(["fmt", "--check"]).args(args).args(["--", "--color", "never"]))
    };
    let others = OTHER_MANIFESTS.iter().map(|manifest| check(&["--manifest-path", manifest]));
    [check(&["--all"])].into_iter().chain(others).sum()
}

fn clippy(context: &Context) -> Result<Tally, Problem> {
    let lint = |args: &[&str]| {
        let step = context.cargo(BUILD).args(["clippy", "--locked", "--all-targets"]).args(args);
        one(step.args(["--", "-D", "warnings"]))
    };
    let others = OTHER_MANIFESTS.iter().map(|manifest| lint(&["--manifest-path", manifest]));
    [lint(&["--workspace"])].into_iter().chain(others).sum()
}

fn unit(context: &Context) -> Result<Tally, Problem> {
    // The system suites and what needs Docker run by themselves; unit tests of their harness run here.
    let filter = "not (package(system-tests) and kind(test)) and not binary(/^docker_/)";
    // Named, as without it the store's suite would be left out silently.
    let packages = ["--locked", "--workspace", "--features", "store/embedded"];
    let nextest = context.cargo(BUILD).args(["nextest", "run"]).args(packages).args(["-E", filter]);
    let examples = context.cargo(BUILD).args(["test", "--doc"]).args(packages);
    Ok(Tally::of_nextest(&nextest.run()?) + Tally::of_cargo_test(&examples.run()?))
}

fn readme(context: &Context) -> Result<Tally, Problem> {
    for host in [demo::Host::Native, demo::Host::Worker, demo::Host::Spin] {
        demo::run(context, host, true)?;
    }
    Ok(Tally { passed: 3, failed: 0 })
}

fn sandbox(context: &Context) -> Result<Tally, Problem> {
    let args = ["nextest", "run", "--locked", "-p", "dyad-runner", "-E", "binary(/^docker_/)"];
    Ok(Tally::of_nextest(&context.cargo(BUILD).args(args).run()?))
}

fn clis(context: &Context) -> Result<Tally, Problem> {
    let gateway = context.gateway_binary()?;
    let directory = tempfile::tempdir();
    let directory = directory.map_err(|error| Problem(format!("no temporary directory: {error}")))?;
    // The images, by the product's own command; those that are there stay. Tests bring keys of their own.
    for cli in ["gemini", "claude", "codex"] {
        let add = context.step(&gateway, BUILD).args(["clis", "add", cli, "--api-key-env", "UNUSED"]);
        add.arg("--data-dir").arg(directory.path()).succeed()?;
    }
    // Runners have clients on every host.
    let artifacts = [worker_artifacts(context)?, spin_artifacts(context)?].concat();
    run_with(system_tests(context, &["-E", "binary(/^cli_/)"])?, artifacts)
}

fn console(context: &Context) -> Result<Tally, Problem> {
    let gateway = context.gateway_binary()?;
    // The console's scripts are modules without a package file: that is worth no warning. Each test waits boundedly.
    let node = context
        .step("node", Duration::from_secs(900))
        .args(["--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", "--test", "--test-reporter=spec"])
        .args(["--test-concurrency=2", "tests/console/unit/*.test.mjs", "tests/console/browser/*.test.mjs"]);
    let node = node.env("DYAD_GATEWAY_BIN", gateway).env("NO_COLOR", "1");
    Ok(Tally::of_node_test(&node.env("DYAD_CONSOLE_TOOLS", context.clients().join("console")).run()?))
}

/// Variables, and what they name.
type Artifacts = [(&'static str, PathBuf); 2];

fn worker(context: &Context) -> Result<Tally, Problem> {
    run_with(system_tests(context, &["--profile", "worker"])?, worker_artifacts(context)?)
}

fn spin(context: &Context) -> Result<Tally, Problem> {
    run_with(system_tests(context, &["--profile", "spin"])?, spin_artifacts(context)?)
}

fn worker_artifacts(context: &Context) -> Result<Artifacts, Problem> {
    Ok([("DYAD_WORKER_DIR", edge::worker(context)?), ("DYAD_WORKERD_BIN", edge::workerd(context)?)])
}

fn spin_artifacts(context: &Context) -> Result<Artifacts, Problem> {
    Ok([
        ("DYAD_SPIN_COMPONENT", edge::component(context)?),
        ("DYAD_SPIN_HOST_BIN", edge::spin_host(context)?),
    ])
}

fn run_with(
    nextest: Step,
    artifacts: impl IntoIterator<Item = (&'static str, PathBuf)>,
) -> Result<Tally, Problem> {
    let nextest = artifacts.into_iter().fold(nextest, |step, (variable, path)| step.env(variable, path));
    Ok(Tally::of_nextest(&nextest.run()?))
}

fn system(context: &Context, binary: &str) -> Result<Tally, Problem> {
    run_with(system_tests(context, &["--test", binary])?, [])
}

fn system_tests(context: &Context, which: &[&str]) -> Result<Step, Problem> {
    let gateway = context.gateway_binary()?;
    let runner = context.runner_binary()?;
    Ok(context
        .cargo(BUILD)
        .args(["nextest", "run", "--locked", "-p", "system-tests"])
        .args(which)
        .env("DYAD_GATEWAY_BIN", gateway)
        .env("DYAD_RUNNER_BIN", runner)
        .env("DYAD_TEST_CLIENTS", context.clients()))
}

fn fuzz(context: &Context) -> Result<Tally, Problem> {
    ["sse_split", "chat_scan", "chunk_scan", "dialects"]
        .into_iter()
        .map(|target| fuzz_target(context, target))
        .sum()
}

fn fuzz_target(context: &Context, target: &str) -> Result<Tally, Problem> {
    // What earlier runs found is kept, where a new clone finds it too.
    let corpus = context.cache.join("fuzz").join(target);
    fs::create_dir_all(&corpus).map_err(|error| Problem(format!("{}: {error}", corpus.display())))?;
    // No sanitizer: what is fuzzed is safe Rust, which only gets slower by one.
    let args = ["fuzz", "run", "--sanitizer", "none", "--fuzz-dir", "tests/fuzz", target];
    let seeds = context.root.join("tests/fuzz/seeds").join(target);
    let limits =
        [format!("-max_total_time={FUZZ_SECONDS}"), "-verbosity=0".into(), "-print_final_stats=1".into()];
    one(context.cargo(BUILD).args(args).arg(corpus).arg(seeds).arg("--").args(limits))
}

fn bench_smoke(context: &Context) -> Result<Tally, Problem> {
    let gateway = context.gateway_binary()?;
    let args = ["run", "--locked", "-p", "bench", "--", "--quick"];
    one(context.cargo(BUILD).args(args).env("DYAD_GATEWAY_BIN", gateway))
}

/// One round: CPU time is not much harmed by what else the machine does.
fn bench_edge(context: &Context) -> Result<Tally, Problem> {
    let mut bench = context
        .cargo(BUILD)
        .args(["run", "--locked", "-p", "bench", "--bin", "edge", "--", "--rounds", "1"])
        .env("DYAD_GATEWAY_BIN", context.gateway_binary()?);
    for (variable, path) in worker_artifacts(context)?.into_iter().chain(spin_artifacts(context)?) {
        bench = bench.env(variable, path);
    }
    one(bench)
}

/// A step that is one check: passed when it ends with 0.
fn one(step: Step) -> Result<Tally, Problem> {
    Ok(Tally::one(step.run()?.status.success()))
}
