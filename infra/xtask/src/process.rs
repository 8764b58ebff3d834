//! Runs child processes. Each is in a process group of its own, so that whatever it started ends with it, and a
//! terminal's Ctrl-C reaches only this process, which then stops them.
//!
//! A [`Step`] runs to its end: its output is shown as it comes, and it has a time limit. What runs beside steps is
//! in `services.rs`.

use std::{
    collections::VecDeque,
    ffi::{OsStr, c_int},
    fmt,
    io::{self, BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{self, Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::iterator::Signals;

use crate::say;

/// How long a child may take to end after SIGTERM, before SIGKILL. nextest needs it to stop its tests, which
/// it runs in process groups of their own.
const GRACE: Duration = Duration::from_secs(15);
/// How long output is still read after the child has ended, should something else hold its pipes.
const DRAIN: Duration = Duration::from_secs(2);
/// Lines of output that are kept (each stream's newest).
const KEPT_LINES: usize = 20_000;

/// Why a step could not be done, with what to do about it.
#[derive(Debug)]
pub(crate) struct Problem(pub(crate) String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One child process to run.
#[derive(Debug)]
pub(crate) struct Step {
    command: Command,
    limit: Duration,
    quiet: bool,
}

/// How a child ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What happens to a child.
pub(crate) enum Event {
    Stdout(String),
    Stderr(String),
    Ended(io::Result<ExitStatus>),
    /// A signal asks this process to stop.
    Interrupted,
}

/// What is called at a signal, by the number of its [`Interrupts`].
type Listener = (u64, Box<dyn Fn() + Send>);

static LISTENERS: Mutex<Vec<Listener>> = Mutex::new(Vec::new());

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether a signal asked to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Lets `signals` stop what runs, and this process where nothing does.
pub(crate) fn stop_on(signals: &[c_int]) -> io::Result<()> {
    let mut signals = Signals::new(signals)?;
    thread::spawn(move || {
        for _ in signals.forever() {
            INTERRUPTED.store(true, Ordering::Relaxed);
            let listeners = listeners();
            if listeners.is_empty() {
                process::exit(130);
            }
            listeners.iter().for_each(|(_, tell)| tell());
        }
    });
    Ok(())
}

/// Somebody who stops children when a signal comes. While there is one, a signal does not end this process.
#[derive(Debug)]
pub(crate) struct Interrupts(u64);

impl Interrupts {
    /// Calls `tell` at every signal until the result is dropped.
    pub(crate) fn listen(tell: impl Fn() + Send + 'static) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        listeners().push((number, Box::new(tell)));
        Self(number)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        listeners().retain(|(number, _)| *number != self.0);
    }
}

fn listeners() -> MutexGuard<'static, Vec<Listener>> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Step {
    /// A child that may run for `limit`.
    pub(crate) fn new(program: impl AsRef<OsStr>, limit: Duration) -> Self {
        let mut command = Command::new(program);
        // What `cargo run` set for this program would make cargo rebuild crates whose build scripts look at it.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        Self { command, limit, quiet: false }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Keeps the output instead of showing it.
    pub(crate) fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Runs the child to its end. An exit code other than 0 is not an error here; not starting, and not ending
    /// within the limit, are.
    pub(crate) fn run(mut self) -> Result<Finished, Problem> {
        let shown = self.shown();
        if !self.quiet {
            say(&format!("$ {shown}"));
        }
        let (events, inbox) = mpsc::channel();
        let to_stop = events.clone();
        let interrupts = Interrupts::listen(move || _ = to_stop.send(Event::Interrupted));
        if interrupted() {
            return Err(Problem(format!("`{shown}` was not started: interrupted")));
        }
        // The inbox disconnects once the child and both pipes are done.
        let group = self.spawn(move |event| events.send(event).is_ok())?;
        let result = self.follow(&inbox, interrupts, group, &shown);
        // What the child left behind. No such group is the good case.
        let _ = kill_process_group(group, Signal::KILL);
        result
    }

    /// Starts the child in a process group of its own and lets threads `tell` what happens to it. They drop `tell`
    /// when the child has ended and its pipes are closed, or when `tell` says that nobody listens.
    pub(crate) fn spawn(
        &mut self,
        tell: impl Fn(Event) -> bool + Clone + Send + 'static,
    ) -> Result<Pid, Problem> {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = self
            .command
            .spawn()
            .map_err(|error| Problem(format!("`{}` did not start: {error}", self.shown())))?;
        let group = Pid::from_child(&child);
        if let Some(pipe) = child.stdout.take() {
            read_lines(pipe, tell.clone(), Event::Stdout);
        }
        if let Some(pipe) = child.stderr.take() {
            read_lines(pipe, tell.clone(), Event::Stderr);
        }
        thread::spawn(move || tell(Event::Ended(child.wait())));
        Ok(group)
    }

    /// Runs the child to its end and makes an exit code other than 0 a problem.
    pub(crate) fn succeed(self) -> Result<Finished, Problem> {
        let shown = self.shown();
        let quiet = self.quiet;
        let finished = self.run()?;
        if finished.status.success() {
            return Ok(finished);
        }
        let detail = if quiet { finished.stderr.trim() } else { "see above" };
        Err(Problem(format!("`{shown}` failed ({}): {detail}", finished.status)))
    }

    /// Whether the child can be started and ends with 0: for "is this tool here?".
    pub(crate) fn works(self) -> bool {
        self.quiet().run().is_ok_and(|finished| finished.status.success())
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    fn shown(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    }

    fn follow(
        &self,
        inbox: &mpsc::Receiver<Event>,
        interrupts: Interrupts,
        group: Pid,
        shown: &str,
    ) -> Result<Finished, Problem> {
        let mut interrupts = Some(interrupts);
        let mut stdout = Tail::default();
        let mut stderr = Tail::default();
        let mut until = Instant::now() + self.limit;
        let mut stopping: Option<Problem> = None;
        let mut ended: Option<ExitStatus> = None;
        loop {
            match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Stdout(line)) => stdout.push(line, self.quiet),
                Ok(Event::Stderr(line)) => stderr.push(line, self.quiet),
                Ok(Event::Ended(Ok(status))) => {
                    ended = Some(status);
                    until = Instant::now() + DRAIN;
                    // They hold a sender: without it the inbox disconnects as soon as the pipes close.
                    drop(interrupts.take());
                }
                Ok(Event::Ended(Err(error))) => {
                    return Err(Problem(format!("`{shown}` cannot be waited for: {error}")));
                }
                Ok(Event::Interrupted) => {
                    stopping = Some(Problem(format!("`{shown}` was interrupted")));
                    until = Instant::now() + GRACE;
                    let _ = kill_process_group(group, Signal::TERM);
                }
                Err(RecvTimeoutError::Timeout) if ended.is_none() && stopping.is_none() => {
                    let seconds = self.limit.as_secs();
                    stopping = Some(Problem(format!("`{shown}` had not ended after {seconds} s: stopped")));
                    until = Instant::now() + GRACE;
                    let _ = kill_process_group(group, Signal::TERM);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        match (stopping, ended) {
            (None, Some(status)) => Ok(Finished { status, stdout: stdout.join(), stderr: stderr.join() }),
            (Some(problem), _) => Err(problem),
            (None, None) => Err(Problem(format!("`{shown}` ended without a status"))),
        }
    }
}

#[derive(Default)]
struct Tail(VecDeque<String>);

impl Tail {
    fn push(&mut self, line: String, quiet: bool) {
        if !quiet {
            say(&line);
        }
        if self.0.len() == KEPT_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    fn join(self) -> String {
        Vec::from(self.0).join("\n")
    }
}

fn read_lines(
    pipe: impl Read + Send + 'static,
    tell: impl Fn(Event) -> bool + Send + 'static,
    event: fn(String) -> Event,
) {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        // Not `lines()`: fuzzers print bytes that are not UTF-8.
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line);
            if !tell(event(text.trim_end().to_owned())) {
                return;
            }
            line.clear();
        }
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Fails unless the process ends soon. A zombie that its new parent has not collected yet has ended.
    pub(crate) fn assert_ends(pid: &str) {
        let started = Instant::now();
        let stat = format!("/proc/{pid}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
            assert!(started.elapsed() < LIMIT, "process {pid} lives on");
            thread::yield_now();
        }
    }

    fn shell(script: &str, limit: Duration) -> Step {
        Step::new("sh", limit).args(["-c", script]).quiet()
    }

    #[test]
    fn output_and_status_are_returned() {
        let finished = shell("echo out; echo err >&2; exit 3", LIMIT).run().unwrap();
        assert_eq!(finished.stdout, "out");
        assert_eq!(finished.stderr, "err");
        assert_eq!(finished.status.code(), Some(3));
    }

    #[test]
    fn a_failed_step_says_why() {
        let problem = shell("echo no such luck >&2; exit 1", LIMIT).succeed().unwrap_err();
        assert!(problem.to_string().contains("no such luck"), "{problem}");
    }

    #[test]
    fn a_missing_program_is_a_problem() {
        assert!(!Step::new("no-such-program-anywhere", LIMIT).works());
    }

    #[test]
    fn a_hanging_child_is_stopped_with_its_children() {
        let started = Instant::now();
        let file = std::env::temp_dir().join(format!("xtask-hang-{}", process::id()));
        let script = format!("sleep 1000 & echo $! >{}; wait", file.display());
        let problem = shell(&script, Duration::from_millis(300)).run().unwrap_err();
        assert!(problem.to_string().contains("had not ended"), "{problem}");
        assert!(started.elapsed() < GRACE, "SIGTERM was enough");
        let grandchild = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        assert_ends(grandchild.trim());
    }

    #[test]
    fn a_child_that_left_something_on_its_pipes_still_ends() {
        let started = Instant::now();
        let finished = shell("sleep 1000 & exit 0", LIMIT).run().unwrap();
        assert!(finished.status.success());
        assert!(started.elapsed() < LIMIT / 2);
    }
}
