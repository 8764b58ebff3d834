//! The registry of the runners' nodes.
//!
//! An announcement is one small write: what a node runs hardly ever changes, and most nodes of a fleet run the same,
//! so that is kept beside the node, under its hash, and read once by whoever sees the hash for the first time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_smithy_async::time::TimeSource;
use catalog::{LeftOut, StoreError};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use runner_api::{CliInfo, NodeList, NodeRecord, Registry, RegistryError, UnreadableNode};

use crate::DynamoStore;
use crate::dynamo::PARALLEL;
use crate::error::store_error;
use crate::item::{Key, node};

type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Different sets of CLIs that are read at once; the rest comes with the next look.
const MAX_NEW_CLIS: usize = 64;
/// What a node runs is written again after this time, long before it is forgotten.
const CLIS_WRITTEN_EVERY_MS: u64 = 6 * 3_600_000;

/// What this process knows of sets of CLIs.
#[derive(Debug, Default)]
pub(crate) struct KnownClis {
    /// By hash: those that the last look needed.
    read: HashMap<String, Arc<Vec<CliInfo>>>,
    /// The hash that was written last, and when.
    written: Option<(String, u64)>,
}

impl DynamoStore {
    fn known_clis(&self) -> MutexGuard<'_, KnownClis> {
        // Nothing panics between two changes that belong together.
        self.clis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store's time, by which records expire whatever the clocks of nodes and edges say.
    pub(crate) fn fleet_ms(&self) -> u64 {
        let since = self.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    async fn write_node(&self, record: &NodeRecord) -> Result<(), StoreError> {
        node::check(record).map_err(|reason| StoreError::Refused { reason })?;
        let now_ms = self.fleet_ms();
        let clis = node::Clis::new(&record.clis)?;
        let is_written = self.known_clis().written.as_ref().is_some_and(|(hash, at_ms)| {
            *hash == clis.hash && now_ms.saturating_sub(*at_ms) < CLIS_WRITTEN_EVERY_MS
        });
        if !is_written {
            let item = node::from_clis(&clis, now_ms);
            let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
            put.send().await.map_err(|error| store_error(&error))?;
            self.known_clis().written = Some((clis.hash.clone(), now_ms));
        }
        let expires_ms = record.expires_unix_ms.saturating_add_signed(self.clock.offset_ms());
        let item = node::from_record(record, &clis.hash, expires_ms);
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
        put.send().await.map_err(|error| store_error(&error))?;
        Ok(())
    }

    async fn delete_node(&self, id: &str) -> Result<(), StoreError> {
        let key = Key::node(id).to_item();
        let delete = self.client.delete_item().table_name(&self.table).set_key(Some(key));
        delete.send().await.map_err(|error| store_error(&error))?;
        Ok(())
    }

    async fn read_nodes(&self) -> Result<NodeList, StoreError> {
        let mut partitions =
            stream::iter(0..node::PARTITIONS)
                // A node's last announcement may be missing: its next one is seconds away.
                .map(|partition| async move {
                    self.list(&node::partition(partition), false, node::to_stored).await
                })
                .buffered(PARALLEL);
        let (mut stored, mut left_out) = (Vec::new(), Vec::new());
        while let Some((nodes, unreadable)) = partitions.try_next().await? {
            stored.extend(nodes);
            left_out.extend(unreadable);
        }
        let now_ms = self.fleet_ms();
        stored.retain(|node| node.expires_ms > now_ms);
        left_out.extend(self.read_clis(&stored).await?);

        let clis = self.known_clis().read.clone();
        // The reader compares with its own clock.
        let offset_ms = self.clock.offset_ms().saturating_neg();
        let nodes = stored.into_iter().filter_map(|node| {
            let clis = clis.get(&node.clis)?;
            Some(NodeRecord {
                id: node.id,
                url: node.url,
                version: node.version,
                capacity: node.capacity,
                clis: (**clis).clone(),
                expires_unix_ms: node.expires_ms.saturating_add_signed(offset_ms),
            })
        });
        let unreadable =
            left_out.into_iter().map(|item| UnreadableNode { name: item.name, reason: item.reason });
        Ok(NodeList { nodes: nodes.collect(), unreadable: unreadable.collect() })
    }

    /// Reads the sets of CLIs that these nodes run and that are not known, and forgets those that nobody runs.
    async fn read_clis(&self, nodes: &[node::Stored]) -> Result<Vec<LeftOut>, StoreError> {
        let mut unknown: Vec<String> = {
            let mut known = self.known_clis();
            known.read.retain(|hash, _| nodes.iter().any(|node| node.clis == *hash));
            let hashes = nodes.iter().map(|node| &node.clis);
            hashes.filter(|hash| !known.read.contains_key(*hash)).cloned().collect()
        };
        unknown.sort_unstable();
        unknown.dedup();
        unknown.truncate(MAX_NEW_CLIS);
        let mut reading = stream::iter(unknown)
            .map(|hash| async move {
                let found = self.find(Key::clis(&hash), node::to_clis).await;
                (hash, found)
            })
            .buffer_unordered(PARALLEL);
        let mut left_out = Vec::new();
        while let Some((hash, found)) = reading.next().await {
            match found {
                Ok(Some(clis)) => {
                    self.known_clis().read.insert(hash, Arc::new(clis));
                }
                Ok(None) => left_out
                    .push(LeftOut::new(&format!("CLIS#{hash}"), "nodes refer to it, and it is not there")),
                Err(StoreError::Unreadable(item)) => left_out.push(item),
                Err(error) => return Err(error),
            }
        }
        Ok(left_out)
    }
}

impl Registry for DynamoStore {
    fn announce<'a>(&'a self, node: &'a NodeRecord) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(
            async move { self.call(self.write_node(node)).await.map_err(|error| registry_error(&error)) },
        )
    }

    fn withdraw<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move { self.call(self.delete_node(id)).await.map_err(|error| registry_error(&error)) })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<NodeList, RegistryError>> {
        Box::pin(async move { self.call(self.read_nodes()).await.map_err(|error| registry_error(&error)) })
    }
}

fn registry_error(error: &StoreError) -> RegistryError {
    RegistryError { reason: error.to_string() }
}

pub(crate) type SharedClis = Arc<Mutex<KnownClis>>;
