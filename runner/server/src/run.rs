//! Runs: a request in, the events of a CLI's run out.
//!
//! [`Runs::submit`] is the whole path: the request is checked against its CLI's entry, its id is claimed, it waits for
//! its turn and gets a sandbox; from there a task of its own carries the run to its end, and the sandbox with it.

mod check;
mod drive;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cli_dialect::PromptError;
use runner_api::node::ParameterInfo;
use runner_api::{Capacity, CliInfo, ErrorClass, Isolation, Refusal, RefusalCode, RunRequest};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::stream::RunStream;
use crate::admission::{Admission, RunIds};
use crate::config::model::{Allowed, CapacityLimits, Cli, Isolated, Mode};
use crate::pool::{Lease, Pool, Sandboxes, StartError, Variant};
use crate::server;

/// Events that wait for the client to take them.
const EVENTS: usize = 16;
/// For runs that were told to stop, and for the removal of their sandboxes.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// All runs of this node.
pub struct Runs {
    clis: BTreeMap<String, Arc<Cli>>,
    capacity: CapacityLimits,
    admission: Arc<Admission>,
    ids: RunIds,
    sandboxes: Arc<dyn Sandboxes>,
    pool: Pool,
    /// By id, from the moment it was claimed: how each is told to end.
    active: Arc<Mutex<HashMap<String, CancellationToken>>>,
    /// The runs, and the requests that wait to become one.
    tasks: TaskTracker,
    draining: watch::Sender<bool>,
}

impl Runs {
    /// Must be called in a tokio runtime: the pool begins to fill.
    pub fn new(clis: &[Arc<Cli>], capacity: CapacityLimits, sandboxes: Arc<dyn Sandboxes>) -> Arc<Self> {
        Arc::new(Self {
            clis: clis.iter().map(|cli| (cli.name.clone(), Arc::clone(cli))).collect(),
            admission: Admission::new(capacity.clone()),
            ids: RunIds::default(),
            pool: Pool::new(Arc::clone(&sandboxes), &capacity, clis),
            sandboxes,
            capacity,
            active: Arc::default(),
            tasks: TaskTracker::new(),
            draining: watch::Sender::new(false),
        })
    }

    /// Waits until the CLI can have the request, which has been [checked](RunRequest::check). `arrived` is where the run's time begins. Dropping the future takes
    /// the request back.
    pub async fn submit(&self, mut request: RunRequest, arrived: Instant) -> Result<RunStream, Refusal> {
        let cli = self
            .clis
            .get(&request.cli)
            .ok_or_else(|| Refusal::new(RefusalCode::NotFound, "this node has no such CLI").at("cli"))?;
        check::check(&request, cli)?;
        request.parameters = check::parameters(&request, cli)?;
        let entry = self.enter(&request.id)?;
        let cancelled = entry.cancelled.clone();
        let started = tokio::select! {
            started = self.tasks.track_future(self.start(&request, cli, arrived, entry)) => started,
            () = cancelled.cancelled() => {
                return Ok(RunStream::failed(ErrorClass::Cancelled, "the run was cancelled before it began"));
            }
        };
        // Nothing has run: the request may come again.
        started.inspect_err(|_| self.ids.release(&request.id))
    }

    /// From the queue to the run's own task.
    async fn start(
        &self,
        request: &RunRequest,
        cli: &Arc<Cli>,
        arrived: Instant,
        entry: Entry,
    ) -> Result<RunStream, Refusal> {
        let asked = request.timeout_ms.map_or(Duration::MAX, Duration::from_millis);
        let deadline = arrived + asked.min(cli.limits.wall_time);
        let permit = self.admission.admit(&request.caller, cli, deadline).await?;
        let lease = timeout_at(deadline, self.sandbox_with(request, cli)).await.map_err(|_| {
            Refusal::new(RefusalCode::Timeout, "the deadline passed while a sandbox was being made")
        })??;
        let (sender, events) = mpsc::channel(EVENTS);
        let run = drive::Run {
            lease,
            events: sender,
            cancelled: entry.cancelled.clone(),
            deadline,
            idle_time: cli.limits.idle_time,
            arrived,
        };
        self.tasks.spawn(async move {
            run.drive().await;
            drop((permit, entry));
        });
        Ok(RunStream::new(events))
    }

    /// A sandbox whose CLI has the request.
    async fn sandbox_with(&self, request: &RunRequest, cli: &Arc<Cli>) -> Result<Lease, Refusal> {
        let variant = Variant::new(cli, &request.parameters);
        let lease = match cli.mode {
            Mode::Parked => self.pool.lease(&variant).await.map_err(unavailable)?,
            Mode::OneShot => {
                let files = self.sandboxes.dialect(&variant).files(request).map_err(refused_prompt)?;
                check::files(&files, cli)?;
                let header = self.sandboxes.files_header(&files).map_err(unavailable)?;
                let mut lease = self.pool.lease(&variant).await.map_err(unavailable)?;
                lease.write(header);
                lease.boot().await.map_err(unavailable)?;
                lease
            }
        };
        let mut lease = lease;
        match lease.begin(request) {
            Ok(()) => Ok(lease),
            Err(error) => {
                self.pool.give_back(lease);
                Err(refused_prompt(error))
            }
        }
    }

    /// Claims the id.
    fn enter(&self, id: &str) -> Result<Entry, Refusal> {
        let mut active = lock(&self.active);
        // A run may outlast the memory of its id.
        if active.contains_key(id) || !self.ids.claim(id) {
            return Err(Refusal::new(RefusalCode::Replayed, "this run id was seen before").at("id"));
        }
        let cancelled = CancellationToken::new();
        active.insert(id.to_owned(), cancelled.clone());
        Ok(Entry { active: Arc::clone(&self.active), id: id.to_owned(), cancelled })
    }

    /// Ends a run, or takes it out of the queue. Whether there was one.
    pub fn cancel(&self, id: &str) -> bool {
        lock(&self.active).get(id).map(CancellationToken::cancel).is_some()
    }

    pub fn capacity(&self) -> Capacity {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Capacity {
            slots: count(self.capacity.runs),
            running: count(self.admission.running()),
            queued: count(self.admission.queued()),
            queue_limit: count(self.capacity.queue),
            parked: count(self.pool.idle()),
            draining: self.admission.is_draining(),
        }
    }

    pub fn clis(&self) -> Vec<CliInfo> {
        self.clis.values().map(|cli| info(cli)).collect()
    }

    /// The error says why the node should get no requests, draining aside.
    pub fn ready(&self) -> Result<(), String> {
        self.pool.trouble().map_or(Ok(()), |error| Err(format!("sandboxes cannot be made: {error}")))
    }

    /// From now on whoever waits or comes is refused. What runs goes on.
    pub fn drain(&self) {
        self.admission.drain();
        self.draining.send_replace(true);
    }

    /// Becomes true when the node drains.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Waits until nothing runs any more: after [`drain`](Self::drain), that is.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Drains, lets what runs come to its end within `grace`, ends the rest, and waits until no sandbox is left. False:
    /// some are still being removed, which the engine goes on with.
    pub async fn close(&self, grace: Duration) -> bool {
        self.drain();
        if timeout(grace, self.drained()).await.is_err() {
            for cancelled in lock(&self.active).values() {
                cancelled.cancel();
            }
            // They have little left to do; their sandboxes are waited for next.
            let _ = timeout(STOP_WITHIN, self.drained()).await;
        }
        self.pool.close(STOP_WITHIN).await
    }
}

impl server::Runs for Runs {
    type Stream = RunStream;

    async fn submit(&self, request: RunRequest, arrived: Instant) -> Result<RunStream, Refusal> {
        self.submit(request, arrived).await
    }

    fn cancel(&self, id: &str) -> bool {
        self.cancel(id)
    }

    fn capacity(&self) -> Capacity {
        self.capacity()
    }

    fn clis(&self) -> Vec<CliInfo> {
        self.clis()
    }

    fn drain(&self) {
        self.drain();
    }

    fn ready(&self) -> Result<(), String> {
        self.ready()
    }
}

/// A run's id among those that can be cancelled: gone when it is dropped. No two have the same id, so what a drop removes
/// is its own.
struct Entry {
    active: Arc<Mutex<HashMap<String, CancellationToken>>>,
    id: String,
    cancelled: CancellationToken,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.active).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unavailable(StartError(message): StartError) -> Refusal {
    Refusal::new(RefusalCode::Unavailable, message)
}

fn refused_prompt(error: PromptError) -> Refusal {
    Refusal::new(RefusalCode::InvalidRequest, error.message).at(error.param)
}

/// What the edge may know of a CLI.
pub(crate) fn info(cli: &Cli) -> CliInfo {
    let parameters = cli.parameters.iter().map(|(name, parameter)| {
        // A whole number's range is not told: it is no list of values.
        let values = match &parameter.allowed {
            Allowed::OneOf(values) => values.clone(),
            Allowed::Integer { .. } => Vec::new(),
        };
        (name.clone(), ParameterInfo { values, default: parameter.default.clone() })
    });
    let isolation = match &cli.isolated {
        Isolated::Container { runtime: Some(runtime), .. } if runtime == "runsc" => Isolation::Gvisor,
        Isolated::Container { .. } => Isolation::Container,
        Isolated::Process => Isolation::Process,
    };
    CliInfo { name: cli.name.clone(), parameters: parameters.collect(), images: cli.images, isolation }
}
