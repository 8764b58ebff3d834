//! The runner's file on one machine: what its operator wrote, and what one machine has no choice about.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use dyad_runner::config::Violation;
use dyad_runner::config::model::RunnerConfig;
use toml::{Table, Value};

use super::ECHO;
use crate::ca::LocalCertificates;

/// What the file says, as far as it can be used.
pub(crate) struct Checked {
    pub(crate) config: RunnerConfig,
    /// The `[[cli]]` entries that are wrong, by name, and what is wrong with them.
    pub(crate) left_out: Vec<(String, String)>,
}

/// What the file does not say.
pub(super) struct Machine<'a> {
    pub(super) id: &'a str,
    pub(super) certificates: &'a LocalCertificates,
    pub(super) state_dir: &'a Path,
    /// The variable `DOCKER_HOST`.
    pub(super) docker_host: Option<&'a OsStr>,
}

/// `DOCKER_HOST` leads to an engine that cannot serve here: sandboxes get sockets of this machine.
#[derive(Debug, thiserror::Error)]
#[error("DOCKER_HOST is {0}, but sandboxes need an engine on this machine: unset it, or give unix:///PATH")]
pub(crate) struct NotLocal(String);

/// Where `DOCKER_HOST` says that the engine listens; None where it says nothing.
pub(crate) fn docker_socket(docker_host: Option<&OsStr>) -> Result<Option<PathBuf>, NotLocal> {
    let Some(host) = docker_host.filter(|host| !host.is_empty()) else { return Ok(None) };
    let path = host.to_str().and_then(|host| host.strip_prefix("unix://")).map(PathBuf::from);
    let path = path.filter(|path| path.is_absolute());
    path.map(Some).ok_or_else(|| NotLocal(host.to_string_lossy().into_owned()))
}

/// Adds to the operator's file what it does not say.
pub(super) fn fill_in(table: &mut Table, machine: &Machine<'_>) -> Result<(), NotLocal> {
    let text = |path: &Path| Value::from(path.display().to_string());
    let node = Table::from_iter([
        ("id".to_owned(), machine.id.into()),
        // Its port is the one that it gets.
        ("url".to_owned(), "https://localhost:0".into()),
    ]);
    let certificates = machine.certificates;
    let tls = Table::from_iter([
        ("certificate".to_owned(), text(&certificates.node)),
        ("key".to_owned(), text(&certificates.node)),
        ("client_ca".to_owned(), text(&certificates.authority)),
        ("allowed_clients".to_owned(), vec![LocalCertificates::EDGE].into()),
    ]);
    table.insert("listen".to_owned(), "127.0.0.1:0".into());
    table.insert("node".to_owned(), node.into());
    table.insert("tls".to_owned(), tls.into());
    table.entry("state_dir").or_insert_with(|| text(machine.state_dir));
    // Whoever names a socket in the file means it.
    if let Value::Table(engine) = table.entry("engine").or_insert_with(|| Table::new().into())
        && !engine.contains_key("socket")
        && let Some(socket) = docker_socket(machine.docker_host)?
    {
        engine.insert("socket".to_owned(), text(&socket));
    }
    let echo = toml::toml! {
        name = "cli-echo"
        dialect = "text"
        mode = "parked"
        image = { builtin = "echo" }
        [limits]
        memory = "64MiB"
        pids = 32
    };
    if let Value::Array(clis) = table.entry("cli").or_insert_with(|| Value::Array(Vec::new()))
        && !clis.iter().any(|cli| name(cli) == Some(ECHO))
    {
        clis.push(echo.into());
    }
    Ok(())
}

/// Checks a whole file. One entry that is wrong does not take the others along; the error is what is wrong otherwise.
pub(super) fn check(mut table: Table, folder: &Path) -> Result<Checked, Vec<String>> {
    let mut left_out = Vec::new();
    loop {
        let violations = match RunnerConfig::from_table(&table, folder) {
            Ok(config) => return Ok(Checked { config, left_out }),
            Err(violations) => violations,
        };
        let clis = table.get_mut("cli").and_then(Value::as_array_mut);
        let Some((clis, wrong)) = clis.zip(by_entry(&violations)) else {
            return Err(violations.iter().map(ToString::to_string).collect());
        };
        // From the last one, so that the places of the others stay. There is at least one: the loop ends.
        for (place, lines) in wrong.into_iter().rev() {
            let cli = clis.remove(place);
            let name = name(&cli).map_or_else(|| format!("[[cli]] number {}", place + 1), str::to_owned);
            left_out.push((name, lines.join("; ")));
        }
    }
}

/// What is wrong with which entry; None if something else is wrong as well.
fn by_entry(violations: &[Violation]) -> Option<BTreeMap<usize, Vec<String>>> {
    let mut wrong = BTreeMap::<_, Vec<_>>::new();
    for Violation { path, message } in violations {
        let (place, field) = path.strip_prefix("cli[")?.split_once(']')?;
        let field = field.trim_start_matches('.');
        let line = if field.is_empty() { message.clone() } else { format!("{field}: {message}") };
        wrong.entry(place.parse().ok()?).or_default().push(line);
    }
    Some(wrong)
}

fn name(cli: &Value) -> Option<&str> {
    cli.get("name").and_then(Value::as_str)
}
