//! Builds what the edges run: the Worker and the Spin component, with the cargo profile `edge`.

use std::{fs, path::PathBuf, time::Duration};

use crate::{
    context::Context,
    process::{Problem, Step},
    provision::{self, Need},
    say,
    tally::Tally,
    wasm,
};

/// Of the Worker's build, and of its runtime.
pub(crate) const WORKER_NEEDS: &[Need] =
    &[provision::NPM, Need::Node, provision::WASM_BINDGEN, provision::WORKER_BUILD, Need::WorkerTools];

/// Compiling all from nothing, for size, on a busy machine.
const BUILD: Duration = Duration::from_secs(2400);

/// A third of what Cloudflare's free plan takes.
const MAX_WORKER_KIB: f64 = 1024.0;
/// Spin has to load it at a cold start.
const MAX_COMPONENT_BYTES: u64 = 3_000_000;

/// Builds the Worker; the directory with `index.js` and `index_bg.wasm`.
pub(crate) fn worker(context: &Context) -> Result<PathBuf, Problem> {
    wasm::add_targets(context)?;
    let build =
        context.step("worker-build", BUILD).args(["--profile", "edge", "edge/worker", "--", "--locked"]);
    with_worker_tools(context, build).succeed()?;
    Ok(worker_directory(context))
}

pub(crate) fn worker_directory(context: &Context) -> PathBuf {
    context.root.join("edge/worker/build")
}

/// wrangler, which builds the Worker with the tools that were provided, and calls nobody.
pub(crate) fn wrangler(context: &Context, limit: Duration) -> Result<Step, Problem> {
    wasm::add_targets(context)?;
    let wrangler = context.step(context.worker_tools().join("node_modules/.bin/wrangler"), limit);
    Ok(with_worker_tools(context, wrangler)
        .env("CI", "1")
        .env("WRANGLER_SEND_METRICS", "false")
        .env("CLOUDFLARE_CF_FETCH_ENABLED", "false"))
}

/// Those that worker-build would fetch by itself.
fn with_worker_tools(context: &Context, step: Step) -> Step {
    let npm = context.worker_tools().join("node_modules");
    step.env("WASM_BINDGEN_BIN", context.cache.join("tools/bin/wasm-bindgen"))
        .env("WASM_OPT_BIN", npm.join("binaryen/bin/wasm-opt"))
        .env("ESBUILD_BIN", npm.join("esbuild/bin/esbuild"))
}

/// workerd itself: npm's starter of it would be left behind when it is killed.
pub(crate) fn workerd(context: &Context) -> Result<PathBuf, Problem> {
    let directory = context.worker_tools().join("node_modules/@cloudflare");
    let packages = fs::read_dir(&directory).into_iter().flatten().flatten();
    let mut programs = packages.map(|package| package.path().join("bin/workerd"));
    let program = programs.find(|program| program.exists());
    program.ok_or_else(|| {
        Problem(format!("npm has no workerd for this machine: {} has none", directory.display()))
    })
}

/// Builds the Spin component.
pub(crate) fn component(context: &Context) -> Result<PathBuf, Problem> {
    wasm::add_targets(context)?;
    let args = ["build", "--locked", "-p", "edge-spin", "--target", "wasm32-wasip2", "--profile", "edge"];
    context.cargo(BUILD).args(args).succeed()?;
    Ok(context.target_directory()?.join("wasm32-wasip2/edge/edge_spin.wasm"))
}

/// Builds the program that runs the component where there is no `spin`. Wasmtime takes its time, once.
pub(crate) fn spin_host(context: &Context) -> Result<PathBuf, Problem> {
    let args = ["build", "--release", "--locked", "--manifest-path", "tests/spin-host/Cargo.toml"];
    // A workspace of its own, yet all that is built is in one place.
    let target = context.target_directory()?;
    context.cargo(BUILD).args(args).env("CARGO_TARGET_DIR", &target).succeed()?;
    Ok(target.join("release/spin-host"))
}

/// Builds both and holds them against their sizes; one check each.
pub(crate) fn sizes(context: &Context) -> Result<Tally, Problem> {
    let component = component(context)?;
    let metadata = fs::metadata(&component);
    let bytes = metadata.map_err(|error| Problem(format!("{}: {error}", component.display())))?.len();
    say(&format!("the Spin component has {bytes} bytes (at most {MAX_COMPONENT_BYTES})"));

    wasm::add_targets(context)?;
    let said =
        wrangler(context, BUILD)?.args(["deploy", "--dry-run", "--env", "production"]).succeed()?.stdout;
    let kib =
        gzipped_kib(&said).ok_or_else(|| Problem("wrangler does not say how large the Worker is".into()))?;
    say(&format!("the Worker has {kib} KiB gzipped (at most {MAX_WORKER_KIB})"));
    Ok(Tally::one(bytes <= MAX_COMPONENT_BYTES) + Tally::one(kib <= MAX_WORKER_KIB))
}

/// From wrangler's line `Total Upload: 2127.01 KiB / gzip: 789.12 KiB`.
fn gzipped_kib(said: &str) -> Option<f64> {
    let (_, gzip) = said.lines().find_map(|line| line.split_once("/ gzip: "))?;
    gzip.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrangler_says_how_large_an_upload_is() {
        let said = "\n \u{26c5} wrangler 4.156.0\nTotal Upload: 2127.01 KiB / gzip: 789.12 KiB\nYour Worker has access to";
        assert_eq!(gzipped_kib(said), Some(789.12));
        assert_eq!(gzipped_kib("Total Upload: 2127.01 KiB"), None);
    }
}
