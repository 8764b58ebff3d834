//! Tells the fleet that this node is there, and what it can take on.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runner_api::{Capacity, CliInfo, NodeRecord, Registry, RegistryError, VERSION};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::model::Node;

const EVERY: Duration = Duration::from_secs(3);
/// Two announcements may be lost.
const VALID_FOR: Duration = Duration::from_secs(10);
/// For each call of the registry.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Announces the node until it is [stopped](Self::stop). Dropping it stops the announcements; the last one expires.
#[derive(Debug)]
pub struct Heartbeat {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Heartbeat {
    /// `load` is asked for every announcement. One is made at once, one when the node begins to drain, and one every
    /// few seconds. A registry that does not answer is asked again. Must be called in a tokio runtime.
    pub fn start(
        registry: Arc<dyn Registry>,
        node: Node,
        clis: Vec<CliInfo>,
        load: impl Fn() -> Capacity + Send + Sync + 'static,
        draining: watch::Receiver<bool>,
    ) -> Self {
        let stop = CancellationToken::new();
        let announcer = Announcer { registry, node, clis, load, answers: true };
        let task = tokio::spawn(announcer.run(draining, stop.clone()));
        Self { stop, task }
    }

    /// Withdraws the node.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // An announcement under way, and the withdrawal.
        let _ = timeout(2 * ANSWER_WITHIN, &mut self.task).await;
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Announcer<L> {
    registry: Arc<dyn Registry>,
    node: Node,
    clis: Vec<CliInfo>,
    load: L,
    /// Whether the registry answered the last call.
    answers: bool,
}

impl<L: Fn() -> Capacity> Announcer<L> {
    async fn run(mut self, mut draining: watch::Receiver<bool>, stop: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut may_change = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                changed = draining.changed(), if may_change => may_change = changed.is_ok(),
            }
            let record = self.record();
            let announced = timeout(ANSWER_WITHIN, self.registry.announce(&record)).await;
            self.note(announced.unwrap_or_else(|_| Err(too_slow())));
        }
        let withdrawn = timeout(ANSWER_WITHIN, self.registry.withdraw(&self.node.id)).await;
        self.note(withdrawn.unwrap_or_else(|_| Err(too_slow())));
    }

    fn record(&self) -> NodeRecord {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        NodeRecord {
            id: self.node.id.clone(),
            url: self.node.url.clone(),
            version: VERSION.to_owned(),
            capacity: (self.load)(),
            clis: self.clis.clone(),
            expires_unix_ms: u64::try_from((now + VALID_FOR).as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Logs when the registry stops answering, and when it answers again.
    fn note(&mut self, outcome: Result<(), RegistryError>) {
        let answers = outcome.is_ok();
        match outcome {
            Ok(()) if !self.answers => tracing::info!("the registry answers again"),
            Err(error) if self.answers => tracing::warn!(%error, "this node could not be announced"),
            Ok(()) | Err(_) => {}
        }
        self.answers = answers;
    }
}

fn too_slow() -> RegistryError {
    RegistryError { reason: format!("no answer within {} s", ANSWER_WITHIN.as_secs()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use runner_api::NodeList;
    use runner_api::node::MemoryRegistry;
    use tokio::time::{Instant, sleep};

    use super::*;

    fn node() -> Node {
        Node { id: "n1".to_owned(), url: "https://127.0.0.1:1".to_owned() }
    }

    async fn only_record(registry: &MemoryRegistry) -> Option<NodeRecord> {
        let mut nodes = registry.nodes().await.unwrap().nodes;
        assert!(nodes.len() <= 1);
        nodes.pop()
    }

    #[tokio::test(start_paused = true)]
    async fn the_node_is_announced_at_once_again_and_again_and_withdrawn() {
        let registry = Arc::new(MemoryRegistry::default());
        let running = Arc::new(AtomicUsize::new(1));
        let load = {
            let running = Arc::clone(&running);
            move || Capacity {
                running: u32::try_from(running.load(Ordering::Relaxed)).unwrap(),
                ..Capacity::default()
            }
        };
        let (_draining, changes) = watch::channel(false);
        let heartbeat = Heartbeat::start(registry.clone(), node(), Vec::new(), load, changes);
        sleep(Duration::from_millis(1)).await;
        let before =
            u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let record = only_record(&registry).await.expect("announced");
        assert_eq!((record.id.as_str(), record.capacity.running), ("n1", 1));
        assert!(runner_api::understands(&record.version));
        assert!((before..=before + 10_000).contains(&record.expires_unix_ms));

        running.store(2, Ordering::Relaxed);
        sleep(EVERY).await;
        assert_eq!(only_record(&registry).await.unwrap().capacity.running, 2);

        heartbeat.stop().await;
        assert!(only_record(&registry).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_announced_at_once() {
        let registry = Arc::new(MemoryRegistry::default());
        let (drain, changes) = watch::channel(false);
        let load = {
            let changes = changes.clone();
            move || Capacity { draining: *changes.borrow(), ..Capacity::default() }
        };
        let _heartbeat = Heartbeat::start(registry.clone(), node(), Vec::new(), load, changes);
        sleep(Duration::from_millis(1)).await;
        assert!(!only_record(&registry).await.unwrap().capacity.draining);
        drain.send_replace(true);
        sleep(Duration::from_millis(1)).await;
        assert!(only_record(&registry).await.unwrap().capacity.draining);
    }

    /// Does not answer until it is told to, and counts.
    #[derive(Default)]
    struct Stuck {
        calls: Mutex<Vec<Instant>>,
        answers: std::sync::atomic::AtomicBool,
    }

    impl Registry for Stuck {
        fn announce<'a>(&'a self, _: &'a NodeRecord) -> BoxFuture<'a, Result<(), RegistryError>> {
            self.calls.lock().unwrap().push(Instant::now());
            async {
                if !self.answers.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
            .boxed()
        }

        fn withdraw<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), RegistryError>> {
            std::future::pending().boxed()
        }

        fn nodes(&self) -> BoxFuture<'_, Result<NodeList, RegistryError>> {
            std::future::pending().boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_does_not_answer_is_asked_again_and_never_waited_for_long() {
        let registry = Arc::new(Stuck::default());
        let (_draining, changes) = watch::channel(false);
        let heartbeat = Heartbeat::start(registry.clone(), node(), Vec::new(), Capacity::default, changes);
        sleep(Duration::from_secs(20)).await;
        let calls = registry.calls.lock().unwrap().len();
        assert!((3..=7).contains(&calls), "{calls}");
        let begun = Instant::now();
        heartbeat.stop().await;
        assert!(begun.elapsed() <= 2 * ANSWER_WITHIN);
    }
}
