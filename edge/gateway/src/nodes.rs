//! The runners' nodes, as the registry has them, and which of them a run goes to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use catalog::LeftOut;
use runner_api::{NodeList, NodeRecord, Registry, RegistryError, is_node_url};

use crate::HostList;
use crate::config::log_left_out;
use crate::freshness::{Failure, Freshness, Turn};
use crate::host::{BoxFuture, Host};
use crate::metrics::{Metrics, StoreCall};
use crate::runners::RunnerNode;

/// Nodes that are known at once; the registry is trusted, but not with all of the memory.
const MAX_NODES: usize = 10_000;
/// Nodes that one request is tried on.
const MAX_TRIED: usize = 4;
const REFRESH_AFTER: Duration = Duration::from_secs(2);
/// Less than what is left of a record that was read just before its node renewed it: after a pause in traffic no node
/// may seem to be gone.
const MAX_AGE: Duration = Duration::from_secs(5);
/// How long a node that failed comes after all others.
const AVOIDED_FOR: Duration = Duration::from_secs(5);

pub(crate) struct Nodes {
    registry: Arc<dyn Registry>,
    host: Arc<dyn Host>,
    metrics: Arc<Metrics>,
    freshness: Arc<Freshness>,
    known: ArcSwap<Known>,
    /// Nodes that failed lately, by id: avoided until then on the monotonic clock.
    avoided: Mutex<HashMap<String, Duration>>,
    /// Where nodes may be.
    hosts: Option<HostList>,
}

/// What was read in one turn.
#[derive(Default)]
struct Known {
    turn: u64,
    nodes: Vec<Arc<NodeRecord>>,
    left_out: Vec<LeftOut>,
}

impl Nodes {
    pub(crate) fn new(
        registry: Arc<dyn Registry>,
        host: Arc<dyn Host>,
        metrics: Arc<Metrics>,
        hosts: Option<HostList>,
    ) -> Self {
        let freshness = Freshness::new("runners", REFRESH_AFTER, MAX_AGE);
        let (known, avoided) = (ArcSwap::default(), Mutex::default());
        Self { registry, host, metrics, freshness, known, avoided, hosts }
    }

    pub(crate) fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Records of nodes that cannot be read.
    pub(crate) fn left_out(&self) -> Vec<LeftOut> {
        self.known.load().left_out.clone()
    }

    /// Looks into the registry when that is due. While it does not answer, what it last said holds until it expires.
    pub(crate) async fn ensure_fresh(self: &Arc<Self>) {
        let read = |turn| -> BoxFuture<'static, ()> {
            let nodes = self.clone();
            Box::pin(async move {
                // What went wrong is kept and logged by the turn.
                let _ = nodes.read(turn).await;
            })
        };
        self.freshness.ensure(&*self.host, read).await;
    }

    pub(crate) async fn refresh(&self) -> Result<(), RegistryError> {
        self.read(self.freshness.take_turn(&*self.host)).await
    }

    async fn read(&self, turn: Turn) -> Result<(), RegistryError> {
        let read = self.metrics.store_call(StoreCall::Nodes, &*self.host, self.registry.nodes()).await;
        let read = read.map(|list| self.learn(turn.number, list));
        turn.end(&*self.host, read.as_ref().copied().map_err(Failure::from));
        read
    }

    fn learn(&self, turn: u64, list: NodeList) {
        // Whoever can write to the registry must not choose where prompts go in the clear, or to which paths.
        let unreadable = list.unreadable.iter().map(|node| LeftOut::new(&node.name, &node.reason));
        let mut left_out: Vec<_> = unreadable.collect();
        let mut nodes = Vec::new();
        for node in list.nodes {
            match self.passed_over(&node) {
                Some(reason) => left_out.push(LeftOut::new(&node.id, reason)),
                None => nodes.push(Arc::new(node)),
            }
        }
        nodes.truncate(MAX_NODES);
        left_out.truncate(MAX_NODES);
        let new = Arc::new(Known { turn, nodes, left_out });
        // A later reading may have been faster.
        let before = self.known.rcu(|known| if known.turn > turn { known.clone() } else { new.clone() });
        for item in new.left_out.iter().filter(|item| !before.left_out.contains(item)) {
            log_left_out(item);
        }
    }

    /// Why a node that announced itself gets no runs.
    fn passed_over(&self, node: &NodeRecord) -> Option<&'static str> {
        if !is_node_url(&node.url) {
            return Some("its url is not https://HOST[:PORT]");
        }
        let url = node.url.parse();
        let is_allowed = self.hosts.as_ref().is_none_or(|hosts| url.is_ok_and(|url| hosts.allows(&url)));
        (!is_allowed).then_some("its host is not one of those that nodes may have (DYAD_RUNNER_HOSTS)")
    }

    /// For metrics: how many nodes there are in each state.
    pub(crate) fn by_state(&self) -> [(&'static str, u64); 4] {
        let (now, now_ms) = (self.host.monotonic(), self.host.unix_ms());
        let avoided = self.avoided.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut states = [("up", 0), ("avoided", 0), ("draining", 0), ("expired", 0)];
        for node in &self.known.load().nodes {
            let state = if node.expires_unix_ms <= now_ms {
                3
            } else if node.capacity.draining {
                2
            } else {
                usize::from(avoided.get(&node.id).is_some_and(|until| *until > now))
            };
            states[state].1 += 1;
        }
        states
    }

    /// All that are known.
    pub(crate) fn all(&self) -> Vec<RunnerNode> {
        let now_ms = self.host.unix_ms();
        let known = self.known.load();
        known
            .nodes
            .iter()
            .map(|node| RunnerNode { record: NodeRecord::clone(node), is_up: is_up(node, now_ms) })
            .collect()
    }

    /// Nodes that take runs now, in no order.
    pub(crate) fn up(&self) -> Vec<Arc<NodeRecord>> {
        let now_ms = self.host.unix_ms();
        self.known.load().nodes.iter().filter(|node| is_up(node, now_ms)).cloned().collect()
    }

    /// In the order in which they are to be tried, and no more than may be. First the less loaded of two that are
    /// picked at random: all edges see the same figures, and the least loaded of all would get everybody's requests.
    pub(crate) fn in_order<T>(&self, mut nodes: Vec<(Arc<NodeRecord>, T)>) -> Vec<(Arc<NodeRecord>, T)> {
        let now = self.host.monotonic();
        let avoided = {
            let mut avoided = self.avoided.lock().unwrap_or_else(PoisonError::into_inner);
            avoided.retain(|_, until| *until > now);
            avoided.clone()
        };
        let mut random = vec![0; (nodes.len() + 1) * 4];
        self.host.fill_random(&mut random);
        let (random, _) = random.as_chunks::<4>();
        let mut random = random.iter().map(|bytes| u32::from_le_bytes(*bytes));
        // Nodes that are alike keep no order of their own.
        for at in 0..nodes.len() {
            nodes.swap(at, below(at + 1, random.next().unwrap_or_default()));
        }
        nodes.sort_by_key(|(node, _)| (avoided.contains_key(&node.id), load(node)));
        let well = nodes.iter().filter(|(node, _)| !avoided.contains_key(&node.id)).count();
        if well > 2 {
            let [one, other] = two_of(well, random.next().unwrap_or_default());
            // The one before the other: they are sorted by load.
            nodes[..=one.min(other)].rotate_right(1);
        }
        nodes.truncate(MAX_TRIED);
        nodes
    }

    /// The node failed: for some seconds it is tried after all others.
    pub(crate) fn avoid(&self, node: &NodeRecord) {
        self.metrics.node_failed();
        let until = self.host.monotonic() + AVOIDED_FOR;
        let mut avoided = self.avoided.lock().unwrap_or_else(PoisonError::into_inner);
        avoided.insert(node.id.clone(), until);
    }
}

fn is_up(node: &NodeRecord, now_ms: u64) -> bool {
    node.expires_unix_ms > now_ms && !node.capacity.draining
}

/// Runs and waiting requests, in thousandths of what the node does at once.
fn load(node: &NodeRecord) -> u64 {
    let capacity = &node.capacity;
    let runs = u64::from(capacity.running) + u64::from(capacity.queued);
    runs * 1_000 / u64::from(capacity.slots.max(1))
}

/// Two different numbers below `count`, which is at least 2.
fn two_of(count: usize, random: u32) -> [usize; 2] {
    let one = below(count, random & 0xFFFF);
    let other = below(count - 1, random >> 16);
    [one, other + usize::from(other >= one)]
}

fn below(count: usize, random: u32) -> usize {
    // A remainder favours small numbers by less than one part in six.
    random as usize % count
}
