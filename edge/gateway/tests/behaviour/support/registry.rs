//! A registry with faults, and the nodes in it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gateway::BoxFuture;
use runner_api::node::MemoryRegistry;
use runner_api::{NodeList, NodeRecord, Registry, RegistryError};
use serde_json::json;

use super::START_MS;

#[derive(Default)]
pub(crate) struct FaultyRegistry {
    /// Without faults: for the test's own writes.
    pub(super) inner: MemoryRegistry,
    is_down: AtomicBool,
    look_ups: AtomicUsize,
}

impl FaultyRegistry {
    pub(crate) fn is_down(&self, down: bool) {
        self.is_down.store(down, Ordering::SeqCst);
    }

    /// How often the nodes were read.
    pub(crate) fn look_ups(&self) -> usize {
        self.look_ups.load(Ordering::SeqCst)
    }
}

impl Registry for FaultyRegistry {
    fn announce<'a>(&'a self, node: &'a NodeRecord) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.inner.announce(node)
    }

    fn withdraw<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.inner.withdraw(id)
    }

    fn nodes(&self) -> BoxFuture<'_, Result<NodeList, RegistryError>> {
        self.look_ups.fetch_add(1, Ordering::SeqCst);
        if self.is_down.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(RegistryError { reason: "it is down".to_owned() })));
        }
        self.inner.nodes()
    }
}

/// A node at `https://<id>.example:4200` with eight slots, the CLI `claude` and its models `opus` and `haiku`, for an
/// hour.
pub(crate) fn node(id: &str, change: impl FnOnce(&mut NodeRecord)) -> NodeRecord {
    let node = json!({
        "id": id, "url": format!("https://{id}.example:4200"), "version": "0.1.0",
        "capacity": {"slots": 8, "running": 0, "queued": 0, "queue_limit": 8, "parked": 1, "draining": false},
        "clis": [{
            "name": "claude", "isolation": "container", "images": false,
            "parameters": {"model": {"values": ["opus", "haiku"], "default": "opus"}},
        }],
        "expires_unix_ms": START_MS + 3_600_000,
    });
    let mut node = serde_json::from_value(node).unwrap();
    change(&mut node);
    node
}
