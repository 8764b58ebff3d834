//! What a node says of itself, and the port through which nodes and edges find each other.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One CLI that a node runs, as its operator's file declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CliInfo {
    pub name: String,
    /// The parameters that a request may fill in, each with its allowed values. No values: the type alone decides.
    #[serde(default)]
    pub parameters: BTreeMap<String, ParameterInfo>,
    /// Whether messages may have images.
    #[serde(default)]
    pub images: bool,
    pub isolation: Isolation,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterInfo {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// What is taken where a request says nothing. None: the request must say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// How far a CLI is kept from its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A hardened container.
    Container,
    /// A hardened container on gVisor.
    Gvisor,
    /// A process of an unprivileged user: for development only.
    #[serde(other)]
    Process,
}

/// How much a node can take on right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Runs at once, at most.
    pub slots: u32,
    /// Runs that go on.
    pub running: u32,
    /// Requests that wait.
    pub queued: u32,
    /// Requests that may wait, at most.
    pub queue_limit: u32,
    /// Sandboxes that wait for a request.
    pub parked: u32,
    pub draining: bool,
}

/// Whether a node may be reached by this: `https://HOST[:PORT]`, and nothing else in it. Records come from wherever nodes
/// announce themselves, and requests go to where they say.
pub fn is_node_url(url: &str) -> bool {
    let Some(authority) = url.strip_prefix("https://") else { return false };
    let (host, port) = match authority.rsplit_once(':') {
        // The colon of an IPv6 address in brackets.
        Some((_, rest)) if rest.ends_with(']') => (authority, None),
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with('+');
    let is_ipv6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    (is_ipv6 || is_name) && port.is_none_or(is_port)
}

/// A node as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Unique in the fleet; stays the same over restarts.
    pub id: String,
    /// `https://HOST:PORT`, as the edge reaches it.
    pub url: String,
    pub version: String,
    pub capacity: Capacity,
    pub clis: Vec<CliInfo>,
    /// Milliseconds since the Unix epoch after which the record says nothing any more.
    pub expires_unix_ms: u64,
}

/// What a registry has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeList {
    /// The expired ones perhaps among them.
    pub nodes: Vec<NodeRecord>,
    /// Records that were written by another version, or are damaged.
    pub unreadable: Vec<UnreadableNode>,
}

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableNode {
    /// Where it is in the registry.
    pub name: String,
    pub reason: String,
}

#[derive(Debug, thiserror::Error)]
#[error("the registry does not answer: {reason}")]
pub struct RegistryError {
    pub reason: String,
}

/// Where nodes announce themselves and edges look for them.
pub trait Registry: Send + Sync {
    /// Writes the record, replacing the node's earlier one.
    fn announce<'a>(&'a self, node: &'a NodeRecord) -> BoxFuture<'a, Result<(), RegistryError>>;

    /// Removes the node's record. Removing what is not there is no error.
    fn withdraw<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), RegistryError>>;

    /// All records.
    fn nodes(&self) -> BoxFuture<'_, Result<NodeList, RegistryError>>;
}

/// A registry in this process: for one machine, and for tests.
#[derive(Debug, Default)]
pub struct MemoryRegistry {
    nodes: std::sync::Mutex<BTreeMap<String, NodeRecord>>,
}

impl MemoryRegistry {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, NodeRecord>> {
        self.nodes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Registry for MemoryRegistry {
    fn announce<'a>(&'a self, node: &'a NodeRecord) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.lock().insert(node.id.clone(), node.clone());
        Box::pin(std::future::ready(Ok(())))
    }

    fn withdraw<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.lock().remove(id);
        Box::pin(std::future::ready(Ok(())))
    }

    fn nodes(&self) -> BoxFuture<'_, Result<NodeList, RegistryError>> {
        let nodes = self.lock().values().cloned().collect();
        Box::pin(std::future::ready(Ok(NodeList { nodes, unreadable: Vec::new() })))
    }
}
