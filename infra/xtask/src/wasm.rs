//! Compiles the host-free crates and the edges for the targets of the WASM hosts.

use std::{path::PathBuf, time::Duration};

use crate::{
    arrows,
    context::Context,
    process::{Problem, Step},
    provision::install_debian,
    say,
    tally::Tally,
};

/// Of the Cloudflare host and of the Spin host.
pub(crate) const TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];

/// The crates of these hosts.
const EDGES: [&str; 2] = ["edge-worker", "edge-spin"];

const PROBE: Duration = Duration::from_secs(60);
const FETCH: Duration = Duration::from_secs(300);
const CHECK: Duration = Duration::from_secs(1200);

/// Debian's compiler. Its standard library for these targets has no package, so cargo builds it from
/// Debian's source of the same version.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// What compiles for WASM here.
enum Toolchain {
    /// The toolchain that runs this program, with the targets' standard libraries.
    Own,
    /// Debian's toolchain, which compiles the standard library along.
    Debian,
}

/// Has the toolchain that runs this program build for the targets. Debian's only checks: linking takes tools that come with
/// rustup's.
pub(crate) fn add_targets(context: &Context) -> Result<(), Problem> {
    match toolchain(context)? {
        Toolchain::Own => Ok(()),
        Toolchain::Debian => Err(Problem(format!(
            "no toolchain here builds for the edges: install rustup (https://rustup.rs), then run `rustup target add {}`",
            TARGETS.join(" ")
        ))),
    }
}

/// Compiles every host-free crate for every target, and each edge for its own; one check per target. No lint fires, where
/// there is a linter: that of the workspace does not see what is for these targets only.
pub(crate) fn check(context: &Context) -> Result<Tally, Problem> {
    let toolchain = toolchain(context)?;
    let mut tally = Tally::default();
    for (target, edge) in TARGETS.into_iter().zip(EDGES) {
        let mut step = match toolchain {
            Toolchain::Own => context.cargo(CHECK).arg("clippy"),
            Toolchain::Debian => debian_check(context),
        };
        // Features are off where a native host would switch them on (`store/embedded`).
        step = step.args(["--locked", "--no-default-features", "--target", target]);
        for name in arrows::host_free_members().chain([edge]) {
            step = step.args(["-p", name]);
        }
        if matches!(toolchain, Toolchain::Own) {
            step = step.args(["--", "-D", "warnings"]);
        }
        tally = tally + Tally::one(step.run()?.status.success());
    }
    Ok(tally)
}

fn debian_check(context: &Context) -> Step {
    context
        .step(DEBIAN_CARGO, CHECK)
        .args(["check", "-Zbuild-std=std,panic_abort"])
        .env("RUSTC", DEBIAN_RUSTC)
        // -Z is for nightly compilers otherwise.
        .env("RUSTC_BOOTSTRAP", "1")
        // Of its own, so that two compilers do not undo each other's work; in the cache, as it holds `std`.
        .env("CARGO_TARGET_DIR", context.cache.join("wasm-target"))
}

fn toolchain(context: &Context) -> Result<Toolchain, Problem> {
    let missing = missing_targets(context)?;
    if missing.is_empty() {
        return Ok(Toolchain::Own);
    }
    if context.step("rustup", FETCH).args(["target", "add"]).args(&missing).works() {
        say(&format!("rustup added {}", missing.join(", ")));
        return Ok(Toolchain::Own);
    }
    say("rustup cannot add the WASM targets here: compiling their standard library with Debian's compiler");
    if !debian_is_there(context) {
        install_debian(context, &DEBIAN_PACKAGES).map_err(|problem| {
            Problem(format!("no WASM targets: run `rustup target add {}`, or {problem}", TARGETS.join(" ")))
        })?;
    }
    Ok(Toolchain::Debian)
}

/// The targets whose standard library the running toolchain lacks, however it was installed.
fn missing_targets(context: &Context) -> Result<Vec<&'static str>, Problem> {
    let sysroot = context.step("rustc", PROBE).args(["--print", "sysroot"]).quiet().succeed()?;
    let libraries = PathBuf::from(sysroot.stdout.trim()).join("lib/rustlib");
    Ok(TARGETS.into_iter().filter(|target| !libraries.join(target).join("lib").exists()).collect())
}

fn debian_is_there(context: &Context) -> bool {
    let installed = |name: &str| {
        let query = context.step("dpkg-query", PROBE).args(["-W", "-f", "${db:Status-Status}", name]);
        query.quiet().run().is_ok_and(|finished| finished.stdout == "installed")
    };
    DEBIAN_PACKAGES.into_iter().all(installed)
}
