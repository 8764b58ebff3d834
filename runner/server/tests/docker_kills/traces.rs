//! What there is of a node's runs on this host.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Everything that a run has outside the runner's own process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traces {
    /// Their ids.
    pub(crate) containers: BTreeSet<String>,
    /// Ids and command lines: of CLIs, of whatever they left, and of the engine's shims.
    pub(crate) processes: BTreeSet<String>,
    /// Whatever lies under the state directory, sockets and their directories, but for what an idle node has.
    pub(crate) files: BTreeSet<String>,
}

/// Where to look.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) engine: String,
    pub(crate) node_id: String,
    /// In the command lines of the CLIs.
    pub(crate) mark: String,
    pub(crate) state_dir: std::path::PathBuf,
}

impl Scene {
    #[track_caller]
    pub(crate) fn containers(&self) -> BTreeSet<String> {
        let filter = format!("label=dyad.node={}", self.node_id);
        let listed = self.docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]);
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Removes the containers, if there still is an engine.
    pub(crate) fn clear(&self) {
        let filter = format!("label=dyad.node={}", self.node_id);
        let listed = self.docker(&["ps", "--all", "--quiet", "--filter", &filter]);
        for container in String::from_utf8_lossy(&listed.stdout).lines() {
            self.docker(&["rm", "--force", container]);
        }
    }

    fn docker(&self, arguments: &[&str]) -> Output {
        Command::new("docker").args(["--host", &self.engine]).args(arguments).output().unwrap()
    }

    /// `known`: containers that there were, whose shims may still be there.
    pub(crate) fn look(&self, known: &BTreeSet<String>) -> Traces {
        // Before the processes: a container that is seen here has its shim seen there.
        let containers = self.containers();
        let names: Vec<_> = known.iter().chain(&containers).chain([&self.mark]).collect();
        let of_a_run = |command: &String| names.iter().any(|name| command.contains(name.as_str()));
        let processes = processes().filter(of_a_run).collect();
        let mut files = BTreeSet::new();
        list(&self.state_dir.join("egress"), &mut files);
        files.retain(|file| !file.ends_with("egress/lock"));
        Traces { containers, processes, files }
    }

    /// Waits until nothing is left, for `within` at most, and says how long that was.
    #[track_caller]
    pub(crate) fn is_clear(&self, known: &BTreeSet<String>, within: Duration, after: &str) -> Duration {
        let begun = Instant::now();
        loop {
            // Looking takes its time, too, which is not the runner's.
            let looked = begun.elapsed();
            let left = self.look(known);
            if left == Traces::default() {
                return looked;
            }
            assert!(looked < within, "{looked:?} after {after}: {left:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn processes() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries.filter_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        // One that has just ended has none.
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        Some(format!("{id} {}", String::from_utf8_lossy(&command).replace('\0', " ")))
    })
}

fn list(directory: &Path, found: &mut BTreeSet<String>) {
    // One that has just been removed is not there.
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        found.insert(entry.path().display().to_string());
        list(&entry.path(), found);
    }
}
