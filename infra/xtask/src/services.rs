//! Servers that run beside the steps: started one after the other, stopped in reverse when dropped.

use std::{
    collections::VecDeque,
    io,
    process::ExitStatus,
    sync::mpsc::{self, Receiver, Sender},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::process::{Event, Interrupts, Problem, Step};

/// Lines of a server's output that are kept, to explain its end.
const KEPT_LINES: usize = 20;
/// How long a server may take to end after SIGTERM, before SIGKILL. Longer than the gateway takes at most, where it is
/// told to drain for 2 s: its runner has 6 s for its registry, 10 s for its containers, which would stay otherwise, and
/// 2 s for its listeners.
const GRACE: Duration = Duration::from_secs(30);
/// How long output is still read after a server has ended by itself.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The servers of a command. While they exist, a signal does not end this process.
pub(crate) struct Services {
    started: Vec<Service>,
    /// Each event with its service's place in `started`.
    events: Sender<(usize, Event)>,
    inbox: Receiver<(usize, Event)>,
    _interrupts: Interrupts,
}

struct Service {
    name: &'static str,
    group: Pid,
    output: VecDeque<String>,
    running: bool,
}

impl Services {
    pub(crate) fn new() -> Self {
        let (events, inbox) = mpsc::channel();
        let to_stop = events.clone();
        // The place means nothing: everything is to stop.
        let interrupts = Interrupts::listen(move || _ = to_stop.send((0, Event::Interrupted)));
        Self { started: Vec::new(), events, inbox, _interrupts: interrupts }
    }

    /// Starts a server and waits, for the step's time limit, until `ready` finds what it looks for in a line of its
    /// output.
    pub(crate) fn start<T>(
        &mut self,
        name: &'static str,
        mut step: Step,
        ready: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Problem> {
        let place = self.started.len();
        let events = self.events.clone();
        let group = step.spawn(move |event| events.send((place, event)).is_ok())?;
        self.started.push(Service { name, group, output: VecDeque::new(), running: true });
        let until = Instant::now() + step.limit();
        loop {
            match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((_, Event::Interrupted)) => return Err(Problem("interrupted".into())),
                Ok((from, Event::Stdout(line) | Event::Stderr(line))) => {
                    let found = if from == place { ready(&line) } else { None };
                    self.started[from].keep(line);
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Ok((from, Event::Ended(status))) => return Err(self.ended(from, status)),
                Err(_) => {
                    let what = format!("was not ready after {} s", step.limit().as_secs());
                    return Err(self.started[place].problem(&what));
                }
            }
        }
    }

    /// Takes note of what happened meanwhile. A server that has ended is a problem, told once.
    pub(crate) fn check(&mut self) -> Result<(), Problem> {
        while let Ok((from, event)) = self.inbox.try_recv() {
            match event {
                Event::Ended(status) => return Err(self.ended(from, status)),
                event => self.note(from, event),
            }
        }
        Ok(())
    }

    /// Waits for a signal, which may have come already. A server that ends before it is a problem.
    pub(crate) fn run_until_interrupted(&mut self) -> Result<(), Problem> {
        while let Ok((from, event)) = self.inbox.recv() {
            match event {
                Event::Interrupted => return Ok(()),
                Event::Stdout(line) | Event::Stderr(line) => self.started[from].keep(line),
                Event::Ended(status) => return Err(self.ended(from, status)),
            }
        }
        Ok(())
    }

    /// Notes that a server has ended by itself, and says so with its last words.
    fn ended(&mut self, place: usize, status: io::Result<ExitStatus>) -> Problem {
        self.started[place].running = false;
        // Its pipes are read by other threads than the one that waits for it.
        let until = Instant::now() + LAST_WORDS;
        while let Ok((from, event)) = self.inbox.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.note(from, event);
        }
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        self.started[place].problem(&format!("ended by itself ({how})"))
    }

    fn note(&mut self, from: usize, event: Event) {
        match event {
            Event::Stdout(line) | Event::Stderr(line) => self.started[from].keep(line),
            Event::Ended(_) => self.started[from].running = false,
            Event::Interrupted => {}
        }
    }

    /// Ends a server as a shell would, then with force, together with all it started.
    fn stop(&mut self, place: usize) {
        let group = self.started[place].group;
        let until = Instant::now() + GRACE;
        // An error means that there is no such group any more.
        if self.started[place].running && kill_process_group(group, Signal::TERM).is_ok() {
            while self.started[place].running {
                match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok((from, event)) => self.note(from, event),
                    Err(_) => break,
                }
            }
        }
        let _ = kill_process_group(group, Signal::KILL);
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for place in (0..self.started.len()).rev() {
            self.stop(place);
        }
    }
}

impl Service {
    fn keep(&mut self, line: String) {
        if self.output.len() == KEPT_LINES {
            self.output.pop_front();
        }
        self.output.push_back(line);
    }

    fn problem(&self, what: &str) -> Problem {
        let mut text = format!("{} {what}", self.name);
        for line in &self.output {
            text += "\n    ";
            text += line;
        }
        Problem(text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::process::tests::assert_ends;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Step {
        Step::new("sh", LIMIT).args(["-c", script])
    }

    /// What follows `ready `.
    fn ready(line: &str) -> Option<String> {
        line.strip_prefix("ready ").map(str::to_owned)
    }

    #[test]
    fn a_server_is_stopped_with_what_it_started() {
        let mut services = Services::new();
        let script = "echo starting; sleep 1000 & echo ready $!; wait";
        let grandchild = services.start("a", shell(script), ready).unwrap();
        drop(services);
        assert_ends(&grandchild);
    }

    #[test]
    fn servers_stop_in_reverse() {
        let mut services = Services::new();
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        for name in ["first", "second"] {
            let script = format!(
                "trap 'echo {name} >>{}; exit' TERM; echo ready 1; while :; do sleep 0.01; done",
                log.display()
            );
            services.start("a", shell(&script), ready).unwrap();
        }
        drop(services);
        assert_eq!(fs::read_to_string(log).unwrap(), "second\nfirst\n");
    }

    #[test]
    fn a_server_that_ends_says_why() {
        let problem =
            Services::new().start("The server", shell("echo no luck >&2; exit 3"), ready).unwrap_err();
        let text = problem.to_string();
        assert!(text.starts_with("The server ended by itself (exit status: 3)"), "{text}");
        assert!(text.ends_with("\n    no luck"), "{text}");
    }

    #[test]
    fn a_server_that_ends_later_is_a_problem() {
        let mut services = Services::new();
        services.start("a", shell("echo ready 1; exec sleep 1000"), ready).unwrap();
        kill_process_group(services.started[0].group, Signal::KILL).unwrap();
        assert!(services.run_until_interrupted().unwrap_err().to_string().contains("ended by itself"));
    }

    #[test]
    fn a_server_that_ended_is_noticed_once() {
        let mut services = Services::new();
        services.start("a", shell("echo ready 1; exec sleep 1000"), ready).unwrap();
        services.check().unwrap();
        kill_process_group(services.started[0].group, Signal::KILL).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let problem = loop {
            if let Err(problem) = services.check() {
                break problem;
            }
            assert!(Instant::now() < until, "nobody noticed");
            std::thread::yield_now();
        };
        assert!(problem.to_string().contains("ended by itself"), "{problem}");
        services.check().unwrap();
    }

    #[test]
    fn a_server_that_is_never_ready_is_a_problem() {
        let step = Step::new("sh", Duration::from_millis(300)).args(["-c", "echo loading; sleep 1000"]);
        let problem = Services::new().start("a", step, ready).unwrap_err();
        assert!(problem.to_string().contains("was not ready"), "{problem}");
    }

    #[test]
    fn kept_output_is_bounded() {
        let script = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; done; exit 1";
        let text = Services::new().start("a", shell(script), ready).unwrap_err().to_string();
        assert_eq!(text.lines().count(), 1 + KEPT_LINES);
        assert!(text.ends_with("line 100"), "{text}");
    }
}
