//! Where things are, and what every child of this run gets from us.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use cargo_metadata::{Metadata, MetadataCommand};

use crate::process::{Problem, Step};

/// The repository, the cache, and the environment of children.
#[derive(Debug)]
pub(crate) struct Context {
    /// The repository.
    pub(crate) root: PathBuf,
    /// `${XDG_CACHE_HOME:-$HOME/.cache}/dyad-cli-gateway`: what is built or fetched once and outlives a clone.
    pub(crate) cache: PathBuf,
    /// `PATH` with the cache's own tools in front.
    path: OsString,
    /// `CARGO_TARGET_DIR` for children, where this run chooses it.
    target: Option<PathBuf>,
}

impl Context {
    pub(crate) fn new() -> Result<Self, Problem> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize();
        let root = root.map_err(|error| Problem(format!("the repository is not where it was: {error}")))?;
        let cache = cache_home(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))?.join("dyad-cli-gateway");
        let mut path = OsString::from(cache.join("tools/bin"));
        if let Some(inherited) = env::var_os("PATH") {
            path.push(":");
            path.push(inherited);
        }
        // CI clones anew each time, so its build lives in the cache. A developer's ./target stays where it is.
        let chosen = env::var_os("CARGO_TARGET_DIR").is_none() && env::var_os("CI").is_some();
        let target = chosen.then(|| cache.join("target"));
        Ok(Self { root, cache, path, target })
    }

    /// A child in the repository that may run for `limit`.
    pub(crate) fn step(&self, program: impl AsRef<OsStr>, limit: Duration) -> Step {
        let step = Step::new(program, limit).current_dir(&self.root).env("PATH", &self.path);
        match &self.target {
            Some(target) => step.env("CARGO_TARGET_DIR", target),
            None => step,
        }
    }

    /// Where the real clients and servers are installed, each in a directory named as in `tests/clients`.
    pub(crate) fn clients(&self) -> PathBuf {
        self.cache.join("clients")
    }

    /// Where what `edge/worker/package.json` pins is installed.
    pub(crate) fn worker_tools(&self) -> PathBuf {
        self.cache.join("worker-tools")
    }

    /// The version of a crate in Cargo.lock.
    pub(crate) fn locked_version(&self, name: &str) -> Result<String, Problem> {
        let path = self.root.join("Cargo.lock");
        let lock = fs::read_to_string(&path);
        let lock = lock.map_err(|error| Problem(format!("{}: {error}", path.display())))?;
        locked_version(&lock, name).ok_or_else(|| Problem(format!("Cargo.lock has no crate {name}")))
    }

    /// Cargo, the one that runs this program.
    pub(crate) fn cargo(&self, limit: Duration) -> Step {
        self.step(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), limit)
    }

    /// The workspace and the resolved graph of its crates.
    pub(crate) fn metadata(&self) -> Result<Metadata, Problem> {
        let args = ["metadata", "--format-version", "1", "--locked", "--no-deps"];
        let finished = self.cargo(Duration::from_secs(120)).args(args).quiet().succeed()?;
        MetadataCommand::parse(finished.stdout)
            .map_err(|error| Problem(format!("cargo's metadata cannot be read: {error}")))
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target_directory(&self) -> Result<PathBuf, Problem> {
        Ok(self.metadata()?.target_directory.into())
    }

    /// Builds the gateway (dev profile: overflow checks and debug assertions are on) and says where it is.
    pub(crate) fn gateway_binary(&self) -> Result<PathBuf, Problem> {
        self.binary("dyad-gateway")
    }

    /// The runner's.
    pub(crate) fn runner_binary(&self) -> Result<PathBuf, Problem> {
        self.binary("dyad-runner")
    }

    fn binary(&self, package: &str) -> Result<PathBuf, Problem> {
        self.cargo(Duration::from_secs(1800)).args(["build", "--locked", "-p", package]).succeed()?;
        Ok(self.target_directory()?.join("debug").join(package))
    }
}

fn locked_version(lock: &str, name: &str) -> Option<String> {
    let name = format!("name = \"{name}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    Some(lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')?.to_owned())
}

/// The XDG base directory for caches; a relative one is to be ignored (XDG Base Directory Specification).
fn cache_home(xdg: Option<OsString>, home: Option<OsString>) -> Result<PathBuf, Problem> {
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    xdg.or_else(|| Some(PathBuf::from(home?).join(".cache")))
        .ok_or_else(|| Problem("neither XDG_CACHE_HOME nor HOME is set: set one".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock() {
        let lock = "[[package]]\nname = \"wasm-bindgen-futures\"\nversion = \"0.4.1\"\n\n\
                    [[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.130\"\nsource = \"x\"\n";
        assert_eq!(locked_version(lock, "wasm-bindgen").as_deref(), Some("0.2.130"));
        assert_eq!(locked_version(lock, "wasm"), None);
    }

    #[test]
    fn the_cache_follows_xdg() {
        let home = || Some("/home/me".into());
        assert_eq!(cache_home(Some("/c".into()), home()).unwrap(), Path::new("/c"));
        assert_eq!(cache_home(Some("c".into()), home()).unwrap(), Path::new("/home/me/.cache"));
        assert_eq!(cache_home(None, home()).unwrap(), Path::new("/home/me/.cache"));
        assert!(cache_home(None, None).is_err());
    }
}
