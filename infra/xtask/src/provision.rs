//! What suites need from the machine, and how it is had.
//!
//! Everything is checked first and had only when missing. What cannot be had is a problem that says what to do.

use std::{fs, io, path::Path, time::Duration};

use crate::{
    context::Context,
    engine,
    process::{Problem, Step},
    say,
    services::Services,
};

const PROBE: Duration = Duration::from_secs(60);
const INSTALL: Duration = Duration::from_secs(900);
/// llama.cpp is compiled from source, a few minutes on four cores.
const INSTALL_CLIENT: Duration = Duration::from_secs(1800);

/// Something a suite needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    System(Package),
    Tool(CargoTool),
    /// Node, at least [`NODE_MAJOR`].
    Node,
    /// What `edge/worker/package.json` pins: wrangler, workerd, and the helpers of the Worker's build.
    WorkerTools,
    /// One directory of `tests/clients`.
    Client(&'static str),
    /// Every directory of `tests/clients` that pins something.
    AllClients,
    /// A directory of the repository that pins something, installed beside the clients under its own name.
    Pins(&'static str),
    /// A Docker engine that answers.
    Docker,
}

/// A Debian package, and the command that works once it (or another system's equivalent) is installed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package {
    name: &'static str,
    probe: &'static [&'static str],
}

/// A program from cargo's package registry, installed into the cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CargoTool {
    name: &'static str,
    version: Version,
    /// What prints the version.
    probe: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
enum Version {
    /// This one is installed where there is none.
    Any(&'static str),
    /// That of this crate in Cargo.lock, and no other: the two speak with each other.
    OfCrate(&'static str),
}

const fn package(name: &'static str, probe: &'static [&'static str]) -> Need {
    Need::System(Package { name, probe })
}

pub(crate) const C_COMPILER: Need = package("gcc", &["cc", "--version"]);
pub(crate) const CPP_COMPILER: Need = package("g++", &["c++", "--version"]);
/// Ubuntu has none as a package; its machines often have Google's.
pub(crate) const CHROMIUM: Need = package(
    "chromium",
    &["sh", "-c", "chromium --version || chromium-browser --version || google-chrome --version"],
);
pub(crate) const CMAKE: Need = package("cmake", &["cmake", "--version"]);
pub(crate) const NINJA: Need = package("ninja-build", &["ninja", "--version"]);
pub(crate) const NGINX: Need = package("nginx", &["sh", "-c", "PATH=$PATH:/usr/sbin exec nginx -v"]);
pub(crate) const NPM: Need = package("npm", &["npm", "--version"]);
pub(crate) const OPENSSL: Need = package("openssl", &["openssl", "version"]);
pub(crate) const SYSTEMD: Need = package("systemd", &["systemd-analyze", "--version"]);
pub(crate) const SHELLCHECK: Need = package("shellcheck", &["shellcheck", "--version"]);
pub(crate) const COMPOSE: Need =
    package("docker-compose", &["sh", "-c", "docker compose version || docker-compose version"]);
pub(crate) const PYTHON: Need = package("python3-venv", &["python3", "-c", "import venv, ensurepip"]);

const fn tool(name: &'static str, version: Version, probe: &'static [&'static str]) -> Need {
    Need::Tool(CargoTool { name, version, probe })
}

pub(crate) const NEXTEST: Need =
    tool("cargo-nextest", Version::Any("0.9.143"), &["cargo", "nextest", "--version"]);
pub(crate) const FUZZ: Need = tool("cargo-fuzz", Version::Any("0.13.1"), &["cargo", "fuzz", "--version"]);
pub(crate) const WASM_BINDGEN: Need =
    tool("wasm-bindgen-cli", Version::OfCrate("wasm-bindgen"), &["wasm-bindgen", "--version"]);
pub(crate) const WORKER_BUILD: Need =
    tool("worker-build", Version::OfCrate("worker"), &["worker-build", "--version"]);

/// openai-node's and wrangler's oldest. Debian 12 has an older one.
const NODE_MAJOR: u32 = 22;
/// What is installed where there is none or an older one.
const NODE_PACKAGE: &str = "node@22";

/// Sees to it that every need is met. What must run meanwhile is started among `services`.
pub(crate) fn provide(context: &Context, services: &mut Services, needs: &[Need]) -> Result<(), Problem> {
    services.check()?;
    fs::create_dir_all(&context.cache).map_err(|error| no_access(&context.cache, &error))?;
    // Two runs at once would install over each other.
    let path = context.cache.join("provision.lock");
    let lock = fs::File::create(&path).map_err(|error| no_access(&path, &error))?;
    lock.lock().map_err(|error| no_access(&path, &error))?;

    let packages = needs.iter().filter_map(|need| if let Need::System(p) = need { Some(*p) } else { None });
    provide_packages(context, packages)?;
    for need in needs {
        match need {
            Need::System(_) => {}
            Need::Tool(tool) => provide_tool(context, *tool)?,
            Need::Node => provide_node(context)?,
            Need::WorkerTools => provide_worker_tools(context)?,
            Need::Client(name) => provide_client(context, &context.root.join("tests/clients").join(name))?,
            Need::AllClients => provide_all_clients(context)?,
            Need::Pins(path) => provide_client(context, &context.root.join(path))?,
            Need::Docker => engine::provide(context, services)?,
        }
    }
    Ok(())
}

/// Installs the Debian packages whose probes fail, all at once.
fn provide_packages(context: &Context, packages: impl Iterator<Item = Package>) -> Result<(), Problem> {
    let missing: Vec<_> = packages.filter(|package| !is_there(context, package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    install_debian(context, &names)?;
    match missing.iter().find(|package| !is_there(context, package)) {
        None => Ok(()),
        Some(Package { name, probe }) => {
            Err(Problem(format!("{name} is installed, yet `{}` does not work", probe.join(" "))))
        }
    }
}

fn is_there(context: &Context, package: &Package) -> bool {
    package.probe.split_first().is_some_and(|(program, args)| context.step(program, PROBE).args(args).works())
}

/// Installs Debian packages as root or through sudo.
pub(crate) fn install_debian(context: &Context, names: &[&str]) -> Result<(), Problem> {
    let by_hand = format!("apt-get update && apt-get install -y --no-install-recommends {}", names.join(" "));
    let missing =
        |why: &str| Problem(format!("missing: {} ({why}). Do as root: {by_hand}", names.join(", ")));
    if !context.step("apt-get", PROBE).arg("--version").works() {
        return Err(missing("no apt-get here; install your system's equivalent"));
    }
    let root = rustix::process::geteuid().is_root();
    if !root && !context.step("sudo", PROBE).args(["-n", "true"]).works() {
        return Err(missing("neither root nor sudo without a password"));
    }
    say(&format!("installing {}", names.join(", ")));
    let install = [&["install", "-y", "--no-install-recommends"], names].concat();
    if apt(context, &install).run()?.status.success() {
        return Ok(());
    }
    // Fresh images come without package lists, old ones with stale lists.
    apt(context, &["update"]).succeed()?;
    apt(context, &install).succeed().map_err(|problem| missing(&problem.0))?;
    Ok(())
}

/// `apt-get` as root.
fn apt(context: &Context, args: &[&str]) -> Step {
    let step = if rustix::process::geteuid().is_root() {
        context.step("apt-get", INSTALL)
    } else {
        context.step("sudo", INSTALL).args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
    };
    step.env("DEBIAN_FRONTEND", "noninteractive").args(args)
}

/// Prometheus's `promtool`, out of Debian's package: to install the package would set up a server.
pub(crate) fn promtool(context: &Context) -> Result<Step, Problem> {
    let step = || context.step("promtool", PROBE);
    if step().arg("--version").works() {
        return Ok(step());
    }
    say("fetching promtool (once)");
    let directory =
        tempfile::tempdir().map_err(|error| Problem(format!("no temporary directory: {error}")))?;
    let download =
        || context.step("apt-get", INSTALL).args(["download", "prometheus"]).current_dir(directory.path());
    if !download().works() {
        // Fresh images come without package lists.
        apt(context, &["update"]).succeed()?;
        download().succeed()?;
    }
    let unpack =
        "dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --strip-components 3 -C \"$1\" ./usr/bin/promtool";
    let tools = context.cache.join("tools/bin");
    fs::create_dir_all(&tools).map_err(|error| no_access(&tools, &error))?;
    let unpack = context.step("sh", PROBE).args(["-euc", unpack, "unpack"]).arg(tools);
    unpack.current_dir(directory.path()).succeed()?;
    Ok(step())
}

fn provide_tool(context: &Context, CargoTool { name, version, probe }: CargoTool) -> Result<(), Problem> {
    let (version, exactly) = match version {
        Version::Any(version) => (version.to_owned(), false),
        Version::OfCrate(name) => (context.locked_version(name)?, true),
    };
    let is_there = || {
        let (program, args) = probe.split_first()?;
        let program = if *program == "cargo" { context.cargo(PROBE) } else { context.step(program, PROBE) };
        let said = program.args(args).quiet().succeed().ok()?.stdout;
        (!exactly || said.split_whitespace().any(|word| word == version)).then_some(())
    };
    if is_there().is_some() {
        return Ok(());
    }
    say(&format!("building {name} {version} (once)"));
    let root = context.cache.join("tools");
    let install = context.cargo(INSTALL).args(["install", name, "--locked", "--version", &version]);
    install.arg("--root").arg(root).succeed()?;
    is_there().ok_or_else(|| Problem(format!("{name} is installed, yet `{}` does not work", probe.join(" "))))
}

/// Installs Node into the cache, from npm's registry.
fn provide_node(context: &Context) -> Result<(), Problem> {
    let major = format!("process.exit(parseInt(process.versions.node) >= {NODE_MAJOR} ? 0 : 1)");
    if context.step("node", PROBE).args(["-e", &major]).works() {
        return Ok(());
    }
    say(&format!("installing {NODE_PACKAGE} (once)"));
    let npm =
        context.step("npm", INSTALL).args(["install", "--global", "--no-audit", "--no-fund", NODE_PACKAGE]);
    npm.arg("--prefix").arg(context.cache.join("tools")).succeed()?;
    Ok(())
}

fn provide_worker_tools(context: &Context) -> Result<(), Problem> {
    let from = context.root.join("edge/worker");
    install_npm(context, &from, &context.worker_tools())
}

fn provide_all_clients(context: &Context) -> Result<(), Problem> {
    let pinned = context.root.join("tests/clients");
    let entries = fs::read_dir(&pinned).map_err(|error| no_access(&pinned, &error))?;
    let mut clients: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    clients.sort();
    clients.iter().try_for_each(|from| provide_client(context, from))
}

/// Installs what a directory of `tests/clients` pins into the one of the same name in the cache.
fn provide_client(context: &Context, from: &Path) -> Result<(), Problem> {
    let Some(name) = from.file_name() else { return Ok(()) };
    let to = context.clients().join(name);
    if from.join("requirements.txt").exists() {
        install_once(from, &to, &["requirements.txt"], || install_python(context, from, &to))
    } else if from.join("package-lock.json").exists() {
        install_npm(context, from, &to)
    } else {
        Ok(())
    }
}

/// Runs `install` unless `to` holds what exactly these pins gave. The stamp is written last, so that an
/// installation that was cut short does not count.
fn install_once(
    from: &Path,
    to: &Path,
    pins: &[&str],
    install: impl FnOnce() -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut wanted = String::new();
    for pin in pins {
        let path = from.join(pin);
        wanted += &fs::read_to_string(&path).map_err(|error| no_access(&path, &error))?;
    }
    let stamp = to.join(".installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    say(&format!("installing what {} pins (once)", from.display()));
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(no_access(to, &error)),
        _ => fs::create_dir_all(to).map_err(|error| no_access(to, &error))?,
    }
    install()?;
    fs::write(&stamp, wanted).map_err(|error| no_access(&stamp, &error))
}

fn install_python(context: &Context, from: &Path, to: &Path) -> Result<(), Problem> {
    context.step("python3", INSTALL).args(["-m", "venv"]).arg(to).succeed()?;
    let pip = context.step(to.join("bin/python"), INSTALL_CLIENT).args(["-m", "pip", "install", "--quiet"]);
    pip.arg("--requirement")
        .arg(from.join("requirements.txt"))
        // For llama-cpp-python, which is compiled: a build that runs on any machine of this architecture.
        .env("CMAKE_ARGS", "-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DGGML_OPENMP=OFF")
        .succeed()?;
    Ok(())
}

/// Installs what the package files in `from` pin into `to`.
fn install_npm(context: &Context, from: &Path, to: &Path) -> Result<(), Problem> {
    let files = ["package.json", "package-lock.json"];
    install_once(from, to, &files, || {
        for file in files {
            fs::copy(from.join(file), to.join(file)).map_err(|error| no_access(&to.join(file), &error))?;
        }
        let npm =
            context.step("npm", INSTALL_CLIENT).args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
        npm.current_dir(to).succeed()?;
        Ok(())
    })
}

fn no_access(path: &Path, error: &io::Error) -> Problem {
    Problem(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn installs_once_per_pins() {
        let base = std::env::temp_dir().join(format!("xtask-provision-{}", std::process::id()));
        let (from, to) = (base.join("from"), base.join("to"));
        fs::create_dir_all(&from).unwrap();
        fs::write(from.join("pins"), "a==1").unwrap();
        let installs = Cell::new(0);
        let install = |result: Result<(), Problem>| {
            install_once(&from, &to, &["pins"], || {
                installs.set(installs.get() + 1);
                result
            })
        };

        assert!(install(Err(Problem("cut short".into()))).is_err());
        install(Ok(())).unwrap();
        install(Ok(())).unwrap();
        assert_eq!(installs.get(), 2, "a failed installation is repeated, a good one is not");
        fs::write(to.join("leftover"), "").unwrap();
        fs::write(from.join("pins"), "a==2").unwrap();
        install(Ok(())).unwrap();
        assert_eq!(installs.get(), 3);
        assert!(!to.join("leftover").exists(), "other pins start from nothing");
        fs::remove_dir_all(base).unwrap();
    }
}
