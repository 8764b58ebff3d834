//! The node's sandboxes as a whole: connecting, starting, sweeping up, closing.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::ListContainersOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::stream::{self, StreamExt};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::container::{self, Container};
use super::image::{self, Prepared, PreparedKind, Progress};
use super::keeper::{Backend, Keeper};
use super::process::{self, Process};
use super::{Sandbox, SandboxError, SandboxSpec, hardening, program};
use crate::config::model::{Isolated, RunnerConfig};
use crate::error_chain::error_chain;

const SWEEP_EVERY: Duration = Duration::from_secs(60);
const INFO_TIMEOUT: Duration = Duration::from_secs(3);
/// For the engine's first word, which costs it nothing. One that hangs is not waited for as one at work is.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// Orphans that are removed at the same time.
const SWEEP_WIDTH: usize = 4;

/// Where sandboxes come from. Clones are the same engine; its sandboxes end with the last of them.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    /// None where Docker does not answer and processes are allowed instead.
    docker: Option<Docker>,
    socket: PathBuf,
    /// The label's value.
    node: String,
    /// `dyad-sandbox-init` on this host.
    program: PathBuf,
    allow_process: bool,
    /// An empty directory, over which processes mount what is theirs alone.
    stage: PathBuf,
    starts: Arc<Semaphore>,
    /// The names of all sandboxes that this process has or makes.
    owned: watch::Sender<BTreeSet<String>>,
    closing: watch::Sender<bool>,
    #[cfg(feature = "test-hooks")]
    tampering: Option<hardening::Tampering>,
}

/// Sandboxes that an engine could not remove before it had to end.
#[derive(Debug, thiserror::Error)]
#[error("left behind for the next start to remove: {}", self.0.join(", "))]
pub struct LeftBehind(pub Vec<String>);

impl Engine {
    /// Connects to Docker and makes sure that it can keep what a sandbox promises. Call [`sweep`](Self::sweep) next:
    /// a predecessor may have been killed. From then on, a sweep a minute happens by itself.
    ///
    /// Where [processes](Isolated::Process) are allowed, Docker may be absent.
    pub async fn connect(config: &RunnerConfig) -> Result<Self, SandboxError> {
        let socket = config.engine.socket.clone();
        let docker = match connect_docker(&socket).await {
            Ok(docker) => Some(docker),
            Err(error) if config.engine.allow_process => {
                tracing::warn!(error = %error_chain(&error), "no containers on this node");
                None
            }
            Err(error) => return Err(error),
        };
        let program =
            program::install(&config.state_dir).map_err(SandboxError::io("writing dyad-sandbox-init"))?;
        // Docker and mount(8) want it absolute.
        let program = program.canonicalize().map_err(SandboxError::io("finding dyad-sandbox-init"))?;
        let stage = config.state_dir.join("stage");
        std::fs::create_dir_all(&stage).map_err(SandboxError::io("making a directory"))?;
        let engine = Self(Arc::new(Inner {
            docker,
            socket,
            node: config.node.id.clone(),
            stage,
            program,
            allow_process: config.engine.allow_process,
            starts: Arc::new(Semaphore::new(config.capacity.starts.max(1))),
            owned: watch::Sender::new(BTreeSet::new()),
            closing: watch::Sender::new(false),
            #[cfg(feature = "test-hooks")]
            tampering: None,
        }));
        engine.sweep_regularly();
        Ok(engine)
    }

    /// Makes sure that what a CLI's entry names is there: pulls, builds or assembles its image.
    pub async fn prepare(
        &self,
        isolated: &Isolated,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Prepared, SandboxError> {
        match isolated {
            Isolated::Container { image, runtime } => {
                let docker = self.docker()?;
                if let Some(runtime) = runtime {
                    find_runtime(docker, runtime).await?;
                }
                let image = image::prepare(docker, image, progress).await?;
                Ok(Prepared(PreparedKind::Container { image, runtime: runtime.clone() }))
            }
            Isolated::Process if !self.0.allow_process => {
                Err(SandboxError::Process("the operator's file does not allow them".to_owned()))
            }
            Isolated::Process => {
                process::probe(&self.0.program, &self.0.stage).await?;
                Ok(Prepared(PreparedKind::Process))
            }
        }
    }

    /// Makes a sandbox and starts its CLI. Waits for its turn if [`CapacityLimits::starts`] others are being made.
    /// May be cancelled at any time.
    ///
    /// [`CapacityLimits::starts`]: crate::config::model::CapacityLimits::starts
    pub async fn start(&self, spec: SandboxSpec) -> Result<Sandbox, SandboxError> {
        let permit = Arc::clone(&self.0.starts).acquire_owned().await.map_err(|_| SandboxError::Closed)?;
        let owned = Owned::new(&self.0.owned)?;
        let name = owned.name().to_owned();
        let output_bytes = spec.limits.output_bytes;
        let backend = match &spec.prepared.0 {
            PreparedKind::Container { image, runtime } => {
                let own = hardening::Own { node: &self.0.node, program: &self.0.program };
                let body = hardening::container(&spec, image, runtime.as_deref(), &own);
                #[cfg_attr(not(feature = "test-hooks"), expect(unused_mut, reason = "for the hook"))]
                let mut container = Container::new(self.docker()?.clone(), name, body);
                #[cfg(feature = "test-hooks")]
                if let Some(tampering) = &self.0.tampering {
                    container.tamper(tampering);
                }
                Backend::Container(Box::new(container))
            }
            PreparedKind::Process => {
                Backend::Process(Box::new(Process::new(&spec, &self.0.program, &self.0.stage)))
            }
        };
        let (caller, started) = oneshot::channel();
        let keeper = Keeper { owned, backend, output_bytes, closing: self.0.closing.subscribe() };
        tokio::spawn(keeper.keep(permit, caller));
        // A keeper that says nothing went down with its runtime.
        started.await.unwrap_or(Err(SandboxError::Closed))
    }

    /// Removes all containers with this node's label that this process has not made, and says how many there were.
    pub async fn sweep(&self) -> Result<usize, SandboxError> {
        let Some(docker) = &self.0.docker else { return Ok(0) };
        let labels = HashMap::from([("label", vec![format!("{}={}", hardening::NODE_LABEL, self.0.node)])]);
        let labels = labels.into_iter().map(|(key, values)| (key.to_owned(), values)).collect();
        let options = ListContainersOptionsBuilder::default().all(true).filters(&labels).build();
        let listed = container::call("listing containers", docker.list_containers(Some(options))).await?;
        let orphans: Vec<_> = {
            // Looked up after the list was made: what this process makes is in here before it is in there.
            let owned = self.0.owned.borrow();
            let name =
                |names: Option<Vec<String>>| names?.pop().map(|name| name.trim_matches('/').to_owned());
            let names = listed.into_iter().filter_map(|listed| name(listed.names).or(listed.id));
            names.filter(|name| !owned.contains(name)).collect()
        };
        let count = orphans.len();
        let removals = orphans.into_iter().map(|name| {
            let docker = docker.clone();
            async move { container::remove(&docker, &name).await }
        });
        let outcomes: Vec<_> = stream::iter(removals).buffer_unordered(SWEEP_WIDTH).collect().await;
        outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(count)
    }

    /// How many sandboxes there are, those included that are being made or removed.
    pub fn sandboxes(&self) -> usize {
        self.0.owned.borrow().len()
    }

    /// Starts nothing any more, removes all sandboxes, and waits for that.
    pub async fn close(&self, grace: Duration) -> Result<(), LeftBehind> {
        self.0.starts.close();
        self.0.closing.send_replace(true);
        let mut owned = self.0.owned.subscribe();
        let gone = owned.wait_for(BTreeSet::is_empty);
        match tokio::time::timeout(grace, gone).await {
            Ok(_) => Ok(()),
            Err(_) => Err(LeftBehind(self.0.owned.borrow().iter().cloned().collect())),
        }
    }

    fn docker(&self) -> Result<&Docker, SandboxError> {
        self.0.docker.as_ref().ok_or_else(|| SandboxError::NoEngine { socket: self.0.socket.clone() })
    }

    /// As long as there is an engine.
    fn sweep_regularly(&self) {
        let engine = Arc::downgrade(&self.0);
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + SWEEP_EVERY, SWEEP_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::spawn(async move {
            loop {
                ticks.tick().await;
                let Some(engine) = engine.upgrade() else { return };
                match Self(engine).sweep().await {
                    Ok(0) => {}
                    Ok(count) => tracing::warn!(count, "containers that nobody owned were removed"),
                    Err(error) => tracing::warn!(error = %error_chain(&error), "sweeping containers failed"),
                }
            }
        });
    }

    /// The same engine, with containers that are not as they should be: see [`hardening::Tampering`].
    #[cfg(feature = "test-hooks")]
    pub async fn connect_tampering(
        config: &RunnerConfig,
        tampering: hardening::Tampering,
    ) -> Result<Self, SandboxError> {
        let mut engine = Self::connect(config).await?;
        // Nobody else has it yet, but for the sweeper's weak handle.
        let inner = Arc::into_inner(engine.0).ok_or(SandboxError::Closed)?;
        engine.0 = Arc::new(Inner { tampering: Some(tampering), ..inner });
        Ok(engine)
    }
}

/// Checks what can be known before any container is made.
async fn connect_docker(socket: &Path) -> Result<Docker, SandboxError> {
    let no_engine = || SandboxError::NoEngine { socket: socket.to_owned() };
    let path = socket.to_str().ok_or_else(no_engine)?;
    let docker = Docker::connect_with_unix(path, container::TIMEOUT.as_secs(), API_DEFAULT_VERSION)
        .map_err(|_| no_engine())?;
    match tokio::time::timeout(PING_TIMEOUT, docker.ping()).await {
        Ok(Ok(_)) => {}
        Ok(Err(source)) => return Err(SandboxError::Docker { doing: "saying hello", source }),
        Err(_) => return Err(SandboxError::Hangs { socket: socket.to_owned() }),
    }
    let docker = container::call("agreeing on a version", docker.negotiate_version()).await?;
    let Ok(info) = tokio::time::timeout(INFO_TIMEOUT, docker.info()).await else {
        // Docker 20.10 does not answer this, and only this, while any container of the host is stuck. What it cannot
        // do is noticed with the first container then.
        tracing::warn!("Docker does not tell its abilities: some container of this host may be stuck");
        return Ok(docker);
    };
    let doing = "asking for its abilities";
    let info = info.map_err(|source| SandboxError::Docker { doing, source })?;
    // Without these, Docker drops the limits with a warning that nobody reads.
    let abilities = [
        (info.memory_limit, "limit memory"),
        (info.swap_limit, "limit swap (cgroup v1 kernels want swapaccount=1)"),
        (info.pids_limit, "limit processes"),
        (info.cpu_cfs_quota, "limit CPU time"),
    ];
    for (ability, what) in abilities {
        if ability != Some(true) {
            return Err(SandboxError::Unable { what });
        }
    }
    Ok(docker)
}

/// Otherwise the first container would be refused, and with it the first request.
async fn find_runtime(docker: &Docker, runtime: &str) -> Result<(), SandboxError> {
    let info = container::call("asking for its runtimes", docker.info()).await?;
    let known: BTreeSet<_> = info.runtimes.unwrap_or_default().into_keys().collect();
    if known.contains(runtime) {
        return Ok(());
    }
    let known = known.into_iter().collect::<Vec<_>>().join(", ");
    Err(SandboxError::Runtime { runtime: runtime.to_owned(), known })
}

/// A name that this process answers for. Given up when dropped.
pub(super) struct Owned {
    name: String,
    all: watch::Sender<BTreeSet<String>>,
}

impl Owned {
    fn new(all: &watch::Sender<BTreeSet<String>>) -> Result<Self, SandboxError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| SandboxError::io("getting a random name")(std::io::Error::other(error)))?;
        let name = format!("dyad-sandbox-{:016x}", u64::from_ne_bytes(random));
        all.send_modify(|all| {
            all.insert(name.clone());
        });
        Ok(Self { name, all: all.clone() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.all.send_modify(|all| {
            all.remove(&self.name);
        });
    }
}
