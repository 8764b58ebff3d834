//! Builds `dyad-sandbox-init` for the target, static, for [`include_bytes!`] in sandbox/program.rs.
//!
//! By rustc alone: it has no dependencies, and cargo cannot make one package's binary another one's input yet
//! (artifact dependencies are unstable).

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "../init/src";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-name", "dyad_sandbox_init", "--crate-type", "bin"]);
    rustc.args(["-C", "target-feature=+crt-static", "-C", "opt-level=s", "-C", "panic=abort"]);
    rustc.args(["-C", "codegen-units=1", "-C", "strip=symbols", "--target"]).arg(variable("TARGET"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    rustc.arg("-o").arg(PathBuf::from(variable("OUT_DIR")).join("dyad-sandbox-init"));
    rustc.arg(format!("{SOURCE}/main.rs"));
    let status = rustc.status().unwrap_or_else(|error| panic!("starting {rustc:?}: {error}"));
    assert!(
        status.success(),
        "dyad-sandbox-init could not be built as a static program ({status}): its errors are above. Where the linker \
         does not find -lc, the static C library is missing: on Debian and Ubuntu it is in libc6-dev, on Fedora in \
         glibc-static; or build for a musl target."
    );
}
