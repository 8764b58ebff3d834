//! What the system knows of this process, under the names that all Prometheus clients use.

use std::fmt;
use std::time::Duration;

use procfs::ProcResult;
use procfs::process::{LimitValue, Process};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

#[derive(Debug)]
pub(super) struct ProcessMetrics;

struct Figures {
    cpu: Duration,
    /// Since the Unix epoch.
    started: Duration,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_fds: u64,
    /// None: any number.
    max_fds: Option<u64>,
}

impl Figures {
    fn read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = |ticks| Duration::from_millis(ticks * 1_000 / procfs::ticks_per_second());
        let max_fds = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit),
            LimitValue::Unlimited => None,
        };
        Ok(Self {
            cpu: ticks(stat.utime + stat.stime),
            started: Duration::from_secs(procfs::boot_time_secs()?) + ticks(stat.starttime),
            resident_bytes: stat.rss * procfs::page_size(),
            virtual_bytes: stat.vsize,
            open_fds: u64::try_from(process.fd_count()?).unwrap_or(u64::MAX),
            max_fds,
        })
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let figures = match Figures::read() {
            Ok(figures) => figures,
            // A page without them is better than none.
            Err(error) => {
                tracing::warn!(%error, "what the system knows of this process could not be read");
                return Ok(());
            }
        };
        let help = "CPU time used, by the user and the system";
        encoder
            .encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, f64, f64>(&figures.cpu.as_secs_f64(), None)?;
        encoder
            .encode_descriptor(
                "process_start_time_seconds",
                "When the process began, since the Unix epoch",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&figures.started.as_secs_f64())?;
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory that is resident", Some(figures.resident_bytes)),
            ("process_virtual_memory_bytes", "Address space in use", Some(figures.virtual_bytes)),
            ("process_open_fds", "File descriptors in use", Some(figures.open_fds)),
            ("process_max_fds", "File descriptors in use, at most", figures.max_fds),
        ] {
            if let Some(value) = value {
                encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}
