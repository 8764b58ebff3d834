//! `[capacity]`: how much the node takes on.

use std::sync::Arc;
use std::time::Duration;

use super::Fields;
use super::model::{CapacityLimits, Cli};
use super::units::show_size;

const DEFAULT_RUNS: usize = 8;
const DEFAULT_QUEUE: usize = 64;
const DEFAULT_QUEUE_PER_CALLER: usize = 16;
/// On four cores an engine makes about ten sandboxes a second, however many it is asked for at once.
const DEFAULT_STARTS: usize = 4;
const DEFAULT_DRAIN_GRACE: Duration = Duration::from_secs(60);

pub(super) fn capacity(fields: &mut Fields<'_>, clis: &[Arc<Cli>]) -> Option<CapacityLimits> {
    fields.table_or_empty("capacity", |fields| limits(fields, clis))
}

fn limits(fields: &mut Fields<'_>, clis: &[Arc<Cli>]) -> CapacityLimits {
    let runs = fields.count("runs", 1..=1024).unwrap_or(DEFAULT_RUNS);
    let queue = fields.count("queue", 0..=10_000).unwrap_or(DEFAULT_QUEUE);
    let queue_per_caller = fields.count("queue_per_caller", 0..=10_000);
    if queue_per_caller.is_some_and(|one| one > queue) {
        fields.violation("queue_per_caller", format!("must be at most {queue}, the length of the queue"));
    }
    let starts = fields.count("starts", 1..=64).unwrap_or(DEFAULT_STARTS);
    if starts == 1 && clis.iter().any(|cli| cli.pool.max > 0) {
        fields.violation(
            "starts",
            "must be at least 2 where a CLI has a pool: with 1, a request would wait for a pool's refill; or set max = 0 in every [cli.pool]",
        );
    }
    let drain_grace = fields.duration("drain_grace", Duration::ZERO..=Duration::from_secs(86_400));
    let largest = clis.iter().map(|cli| cli.limits.memory_bytes).max().unwrap_or(0);
    // A size is at most 1 TiB, a pool has at most 1024 sandboxes, and there are few entries: nothing overflows.
    let pools = clis.iter().map(|cli| cli.limits.memory_bytes * cli.pool.min as u64).sum::<u64>();
    let memory = fields.size("memory", 1 << 20..=1 << 50);
    if let Some(memory) = memory {
        if memory < largest {
            fields.violation(
                "memory",
                format!(
                    "must be at least {}, the memory of one sandbox of the largest CLI",
                    show_size(largest)
                ),
            );
        } else if memory < pools {
            fields.violation(
                "memory",
                format!(
                    "must be at least {}, the memory of all that the pools keep (pool.min)",
                    show_size(pools)
                ),
            );
        }
    }
    CapacityLimits {
        runs,
        queue,
        queue_per_caller: queue_per_caller.unwrap_or(DEFAULT_QUEUE_PER_CALLER.min(queue)),
        memory_bytes: memory.unwrap_or(runs as u64 * largest + pools),
        starts,
        drain_grace: drain_grace.unwrap_or(DEFAULT_DRAIN_GRACE),
    }
}
