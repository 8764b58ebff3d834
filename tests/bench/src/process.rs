//! Processes that are measured, and what the kernel says about them (proc(5)).

use std::{
    collections::BTreeSet,
    fs, io,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to end when asked to.
const GRACE: Duration = Duration::from_secs(5);

/// What counts as a process's memory.
#[derive(Clone, Copy, Debug)]
pub enum Memory {
    /// Every page it has in memory.
    Resident,
    /// The same, a page of n processes counted as an nth: right for sums and for growth.
    Proportional,
}

/// A child process that ends with this value.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn new(child: Child) -> Self {
        Self { child }
    }

    /// CPU time of the process and its descendants so far, user and system.
    pub fn cpu_seconds(&self) -> io::Result<f64> {
        let mut ticks = 0;
        for pid in self.tree()? {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let fields = stat_fields(&stat);
            for field in [UTIME, STIME] {
                ticks +=
                    fields.get(field).and_then(|value| value.parse::<u64>().ok()).ok_or_else(unreadable)?;
            }
        }
        Ok(as_f64(ticks) / as_f64(rustix::param::clock_ticks_per_second()))
    }

    /// Memory of the process and its descendants in KiB, summed up.
    pub fn memory_kib(&self, memory: Memory) -> io::Result<f64> {
        let mut sum = 0;
        for pid in self.tree()? {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            sum += memory_kib(&rollup, memory).ok_or_else(unreadable)?;
        }
        Ok(as_f64(sum))
    }

    /// Ids of the process and its descendants.
    fn tree(&self) -> io::Result<BTreeSet<u32>> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // A process may be gone since it was listed.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let parent = stat_fields(&stat).get(PARENT).and_then(|value| value.parse::<u32>().ok());
            parents.push((pid, parent.ok_or_else(unreadable)?));
        }
        let mut tree = BTreeSet::from([self.child.id()]);
        loop {
            let before = tree.len();
            tree.extend(
                parents
                    .iter()
                    .filter(|(_, parent)| tree.contains(parent))
                    .map(|(pid, _)| *pid)
                    .collect::<Vec<_>>(),
            );
            if tree.len() == before {
                return Ok(tree);
            }
        }
    }
}

impl Drop for Process {
    /// Asks first: a killed nginx leaves its workers behind.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Places in what [`stat_fields`] returns.
const PARENT: usize = 1;
const UTIME: usize = 11;
const STIME: usize = 12;

/// The fields of `/proc/PID/stat` from the third on; the second is a name that may contain anything.
fn stat_fields(stat: &str) -> Vec<&str> {
    stat.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| rest.split_ascii_whitespace().collect())
}

fn memory_kib(rollup: &str, memory: Memory) -> Option<u64> {
    let name = match memory {
        Memory::Resident => "Rss:",
        Memory::Proportional => "Pss:",
    };
    let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "/proc is not as proc(5) says")
}

#[expect(clippy::cast_precision_loss, reason = "ticks and sizes here are far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn names_do_not_shift_fields() {
        let stat = "7 (a) b (c)) S 5 7 7 0 -1 4194560 1 2 3 4 170 30 0 0 20 0 1 0 1 1 1";
        let fields = stat_fields(stat);
        assert_eq!([fields[PARENT], fields[UTIME], fields[STIME]], ["5", "170", "30"]);
    }

    #[test]
    fn memory_is_the_line_of_that_name() {
        let rollup = "0-1 ---p 0 00:00 0 [rollup]\nRss:   20 kB\nPss:      12 kB\nPss_Anon:  8 kB\n";
        assert_eq!(memory_kib(rollup, Memory::Resident), Some(20));
        assert_eq!(memory_kib(rollup, Memory::Proportional), Some(12));
    }

    #[test]
    fn descendants_are_counted_and_ended() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap 'kill $!; exit' TERM; (while :; do :; done) & echo; wait"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // The line says that the busy child has been started.
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let process = Process::new(child);
        assert!(process.memory_kib(Memory::Resident).unwrap() > 0.0);
        let tree = process.tree().unwrap();
        assert_eq!(tree.len(), 2);
        while process.cpu_seconds().unwrap() < 0.05 {}
        drop(process);
        // The child's child ends a moment after it; a zombie has no command line.
        let asked = Instant::now();
        let runs = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
        while tree.iter().any(runs) {
            assert!(asked.elapsed() < GRACE, "{tree:?} still run");
        }
    }
}
