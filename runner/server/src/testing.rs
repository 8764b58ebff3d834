//! What the tests of several modules need.

pub(crate) mod fake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cli_dialect::{Kind, Settings};

use crate::config::model::{CapacityLimits, Cli, Isolated, Limits, Mode, PoolSize};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn capacity() -> CapacityLimits {
    CapacityLimits {
        runs: 2,
        queue: 8,
        queue_per_caller: 4,
        memory_bytes: 1024 * MIB,
        starts: 2,
        drain_grace: Duration::from_secs(10),
    }
}

/// A CLI that takes 100 MiB and has no parameters.
pub(crate) fn cli(name: &str) -> Cli {
    Cli {
        name: name.to_owned(),
        isolated: Isolated::Process,
        mode: Mode::Parked,
        argv: Vec::new(),
        parameters: BTreeMap::new(),
        dialect: Kind::Text,
        settings: Settings::default(),
        environment: Vec::new(),
        limits: Limits {
            memory_bytes: 100 * MIB,
            cpu_milli: 1000,
            pids: 64,
            open_files: 256,
            file_bytes: MIB,
            tmpfs_bytes: MIB,
            tmpfs_inodes: 100,
            output_bytes: MIB,
            wall_time: Duration::from_secs(60),
            idle_time: Duration::from_secs(20),
            boot_time: Duration::from_secs(10),
        },
        egress: None,
        pool: PoolSize { min: 0, max: 4, max_age: Duration::from_secs(600) },
        images: false,
    }
}

pub(crate) fn cli_of(name: &str, memory_mib: u64) -> Arc<Cli> {
    let mut cli = cli(name);
    cli.limits.memory_bytes = memory_mib * MIB;
    Arc::new(cli)
}
