//! Sandboxes without any: CLIs are tasks of this process, and speak a protocol of lines.
//!
//! The CLI says `ready`, `text …`, `ask` (answered with `answer`), `done`, `fail`, `panic`; the request comes to it as
//! `request …`, a cancellation as `cancel`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cli_dialect::{Action, Dialect, Exit, Observed, PromptError, WorkspaceFile};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use runner_api::{ErrorClass, FinishReason, Part, RunEvent, RunRequest};
use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, Lines};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::config::model::Mode;
use crate::pool::{Hold, Place, Sandboxes, StartError, Variant};
use crate::sandbox::Output;

/// What a CLI does from its start to its end.
type Behaviour = dyn Fn(Process) -> BoxFuture<'static, i32> + Send + Sync;

#[derive(Clone)]
pub(crate) struct FakeSandboxes(Arc<Shared>);

struct Shared {
    behaviour: Mutex<Arc<Behaviour>>,
    /// None: it fails.
    start_takes: Mutex<Option<Duration>>,
    removal_takes: Duration,
    /// What happened, in order: `start NAME`, `remove NAME`.
    log: Mutex<Vec<String>>,
    /// Sandboxes that are there, and the most that ever were.
    alive: watch::Sender<usize>,
    most: Mutex<usize>,
}

impl FakeSandboxes {
    /// CLIs that are ready at once, and answer `text echo of …`.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            behaviour: Mutex::new(Arc::new(|process| process.polite().boxed())),
            start_takes: Mutex::new(Some(Duration::from_millis(250))),
            removal_takes: Duration::from_millis(100),
            log: Mutex::default(),
            alive: watch::Sender::new(0),
            most: Mutex::default(),
        }))
    }

    pub(crate) fn behave<F>(&self, behaviour: impl Fn(Process) -> F + Send + Sync + 'static)
    where
        F: Future<Output = i32> + Send + 'static,
    {
        *lock(&self.0.behaviour) = Arc::new(move |process| behaviour(process).boxed());
    }

    pub(crate) fn start_takes(&self, time: Duration) {
        *lock(&self.0.start_takes) = Some(time);
    }

    pub(crate) fn fail(&self) {
        *lock(&self.0.start_takes) = None;
    }

    pub(crate) fn log(&self) -> Vec<String> {
        lock(&self.0.log).clone()
    }

    pub(crate) fn starts(&self) -> usize {
        self.log().iter().filter(|line| line.starts_with("start ")).count()
    }

    pub(crate) fn alive(&self) -> usize {
        *self.0.alive.borrow()
    }

    pub(crate) fn most(&self) -> usize {
        *lock(&self.0.most)
    }

    /// Waits until so many sandboxes are there.
    pub(crate) async fn until_alive(&self, wanted: usize) {
        let mut alive = self.0.alive.subscribe();
        tokio::time::timeout(Duration::from_secs(3600), alive.wait_for(|alive| *alive == wanted))
            .await
            .unwrap_or_else(|_| panic!("{} sandboxes and not {wanted}", self.alive()))
            .unwrap();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandboxes for FakeSandboxes {
    fn start<'a>(&'a self, variant: &'a Variant) -> BoxFuture<'a, Result<Place, StartError>> {
        async move {
            let Shared { behaviour, start_takes, log, alive, most, .. } = &*self.0;
            lock(log).push(format!("start {}", variant.cli.name));
            alive.send_modify(|alive| *alive += 1);
            {
                let mut most = lock(most);
                *most = (*most).max(self.alive());
            }
            let takes = *lock(start_takes);
            let guard = Guard { fake: self.clone(), name: variant.cli.name.clone() };
            let Some(takes) = takes else {
                sleep(Duration::from_millis(10)).await;
                return Err(StartError("no such image".to_owned()));
            };
            sleep(takes).await;
            let (ours, theirs) = tokio::io::duplex(16 << 10);
            let (say, output) = mpsc::channel(16);
            let process = Process { stdin: BufReader::new(theirs).lines(), output: say };
            let behaviour = Arc::clone(&lock(behaviour));
            let waits_for_files = variant.cli.mode == Mode::OneShot;
            let task = tokio::spawn(async move {
                let mut process = process;
                if waits_for_files {
                    process.skip_files().await;
                }
                behaviour(process).await
            });
            let hold = Box::new(FakeHold { task, guard: Some(guard) });
            Ok(Place { stdin: Box::new(ours), output, hold })
        }
        .boxed()
    }

    fn dialect(&self, _: &Variant) -> Box<dyn Dialect> {
        Box::new(FakeDialect { buffer: String::new(), complete: false, said_last: false })
    }

    fn files_header(&self, files: &[WorkspaceFile]) -> Result<Vec<u8>, StartError> {
        Ok(format!("files {}\n", files.len()).into_bytes())
    }
}

struct Guard {
    fake: FakeSandboxes,
    name: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        lock(&self.fake.0.log).push(format!("remove {}", self.name));
        self.fake.0.alive.send_modify(|alive| *alive -= 1);
    }
}

struct FakeHold {
    task: tokio::task::JoinHandle<i32>,
    guard: Option<Guard>,
}

impl Hold for FakeHold {
    fn exit(&mut self) -> BoxFuture<'_, Exit> {
        async { Exit { code: (&mut self.task).await.ok(), limit: None } }.boxed()
    }

    fn observed(&self) -> Observed {
        Observed::default()
    }

    fn remove(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        self.task.abort();
        let guard = self.guard.take();
        async move {
            if let Some(guard) = guard {
                sleep(guard.fake.0.removal_takes).await;
            }
        }
        .boxed()
    }
}

impl Drop for FakeHold {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A CLI's own view.
pub(crate) struct Process {
    stdin: Lines<BufReader<DuplexStream>>,
    output: mpsc::Sender<Output>,
}

impl Process {
    async fn skip_files(&mut self) {
        let header = self.line().await;
        assert!(header.as_deref().is_none_or(|header| header.starts_with("files ")), "{header:?}");
    }

    pub(crate) async fn say(&self, line: &str) {
        // The runner may be gone.
        let _ = self.output.send(Output::Stdout(format!("{line}\n").into())).await;
    }

    pub(crate) async fn line(&mut self) -> Option<String> {
        self.stdin.next_line().await.unwrap()
    }

    pub(crate) async fn polite(mut self) -> i32 {
        self.say("ready").await;
        self.answer().await;
        0
    }

    pub(crate) async fn answer(&mut self) {
        if let Some(line) = self.line().await {
            self.say(&format!("text echo of {line}")).await;
            self.say("done").await;
        }
    }

    /// Lives until it is killed.
    pub(crate) async fn hang(self) -> i32 {
        let _process = self;
        std::future::pending().await
    }
}

struct FakeDialect {
    buffer: String,
    complete: bool,
    said_last: bool,
}

impl Dialect for FakeDialect {
    fn files(&self, request: &RunRequest) -> Result<Vec<WorkspaceFile>, PromptError> {
        refuse_bad(request)?;
        Ok(Vec::new())
    }

    fn boot(&mut self, _: &mut Vec<Action>) {}

    fn begin(&mut self, request: &RunRequest, out: &mut Vec<Action>) -> Result<(), PromptError> {
        refuse_bad(request)?;
        out.push(Action::Write(format!("request {}\n", text_of(request)).into_bytes()));
        Ok(())
    }

    fn stdout(&mut self, bytes: &[u8], out: &mut Vec<Action>) {
        self.buffer.push_str(std::str::from_utf8(bytes).unwrap());
        while let Some((line, rest)) = self.buffer.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            self.buffer = rest;
            match line.as_str() {
                "ready" => out.push(Action::Ready),
                "ask" => out.push(Action::Write(b"answer\n".to_vec())),
                "done" => self.complete = true,
                "fail" => {
                    self.said_last = true;
                    out.push(Action::Event(RunEvent::error(ErrorClass::Auth, "it said fail")));
                }
                "notice" => out.push(Action::Event(RunEvent::Notice { message: line })),
                "panic" => panic!("a dialect panics"),
                line => {
                    let text = line.strip_prefix("text ").unwrap_or(line).to_owned();
                    out.push(Action::Event(RunEvent::Text { text }));
                }
            }
        }
    }

    fn stderr(&mut self, _: &[u8], _: &mut Vec<Action>) {}

    fn cancel(&mut self, out: &mut Vec<Action>) {
        out.push(Action::Write(b"cancel\n".to_vec()));
    }

    fn end(&mut self, exit: Option<&Exit>, _: &Observed, out: &mut Vec<Action>) {
        if self.said_last {
            return;
        }
        let last = match exit {
            None => RunEvent::Finished { reason: FinishReason::Stop },
            Some(exit) => RunEvent::error(
                if exit.limit.is_some() { ErrorClass::Timeout } else { ErrorClass::Internal },
                format!("{exit:?}"),
            ),
        };
        out.push(Action::Event(last));
    }

    fn is_complete(&self) -> bool {
        self.complete
    }
}

fn refuse_bad(request: &RunRequest) -> Result<(), PromptError> {
    match text_of(request) {
        "bad" => Err(PromptError { param: "messages[0].parts[0]".to_owned(), message: "is bad".to_owned() }),
        _ => Ok(()),
    }
}

fn text_of(request: &RunRequest) -> &str {
    match &request.messages[0].parts[0] {
        Part::Text { text } => text,
        other => panic!("{other:?}"),
    }
}
