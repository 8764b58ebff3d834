//! What the benchmarks of the gateway share: the bare upstream, the load, and processes that are measured.

use std::{
    io::{self, BufRead as _, BufReader},
    process::Child,
    sync::mpsc,
    thread,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub mod generator;
pub mod load;
pub mod part;
pub mod process;
pub mod upstream;
pub mod wire;

/// Why a benchmark cannot go on.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Raises the limit of open files as far as it goes; children inherit it. A shell's is 1,024 as a rule.
pub fn allow_many_sockets() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

/// Lines of a child's stdout, read to its end whether anybody wants them or not.
pub fn lines(child: &mut Child) -> io::Result<mpsc::Receiver<String>> {
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("stdout is not a pipe"))?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    Ok(receiver)
}
