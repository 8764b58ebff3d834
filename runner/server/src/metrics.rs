//! What this node counts. Labels have few values: CLIs of the operator's file, classes and codes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use runner_api::{Capacity, ErrorClass, RefusalCode, RunEvent, RunUsage};
use tokio::time::Instant;

/// Seconds. A parked CLI answers within a tenth of a second, an agent's turn takes minutes.
const BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CliLabel {
    cli: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    cli: String,
    /// Whether the CLI had been booted before its request came.
    warm: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    cli: String,
    /// `finished`, or the class of the error.
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    cli: String,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

type Seconds = Family<CliLabel, Histogram, fn() -> Histogram>;

/// All of it. One for each runner in a process.
pub struct Metrics {
    registry: Registry,
    runs: Family<EndLabels, Counter>,
    refusals: Family<CodeLabel, Counter>,
    refused_connections: Family<ReasonLabel, Counter>,
    waits: Family<WaitLabels, Histogram, fn() -> Histogram>,
    first_texts: Seconds,
    durations: Seconds,
    tokens: Family<TokenLabels, Counter>,
    slots: Gauge,
    running: Gauge,
    queued: Gauge,
    queue_limit: Gauge,
    parked: Gauge,
    draining: Gauge,
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let mut metrics = Self {
            registry: Registry::with_prefix("dyad_runner"),
            runs: Family::default(),
            refusals: Family::default(),
            refused_connections: Family::default(),
            waits: Family::new_with_constructor(histogram),
            first_texts: Family::new_with_constructor(histogram),
            durations: Family::new_with_constructor(histogram),
            tokens: Family::default(),
            slots: Gauge::default(),
            running: Gauge::default(),
            queued: Gauge::default(),
            queue_limit: Gauge::default(),
            parked: Gauge::default(),
            draining: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("runs", "Runs that have ended", metrics.runs.clone());
        registry.register("refusals", "Requests that did not become a run", metrics.refusals.clone());
        registry.register(
            "refused_connections",
            "Connections of peers that were not let in",
            metrics.refused_connections.clone(),
        );
        registry.register(
            "wait_seconds",
            "From a request's arrival to its CLI having it",
            metrics.waits.clone(),
        );
        registry.register(
            "first_text_seconds",
            "From a request's arrival to the first text of its answer",
            metrics.first_texts.clone(),
        );
        registry.register(
            "run_seconds",
            "From a request's arrival to the end of its run",
            metrics.durations.clone(),
        );
        registry.register("tokens", "Tokens, as far as vendors told", metrics.tokens.clone());
        registry.register("slots", "Runs at once, at most", metrics.slots.clone());
        registry.register("running", "Runs that go on", metrics.running.clone());
        registry.register("queued", "Requests that wait", metrics.queued.clone());
        registry.register("queue_limit", "Requests that may wait, at most", metrics.queue_limit.clone());
        registry.register("parked", "Sandboxes that wait for a request", metrics.parked.clone());
        registry.register("draining", "1 while the node takes nothing new", metrics.draining.clone());
        Arc::new(metrics)
    }

    /// In the `OpenMetrics` text format.
    pub(crate) fn encode(&self, capacity: &Capacity) -> Result<String, fmt::Error> {
        self.slots.set(capacity.slots.into());
        self.running.set(capacity.running.into());
        self.queued.set(capacity.queued.into());
        self.queue_limit.set(capacity.queue_limit.into());
        self.parked.set(capacity.parked.into());
        self.draining.set(capacity.draining.into());
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }

    pub(crate) fn refused(&self, code: RefusalCode) {
        self.refusals.get_or_create(&CodeLabel { code: code.as_str() }).inc();
    }

    pub(crate) fn connection_refused(&self, reason: &'static str) {
        self.refused_connections.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// For a run that was admitted: its CLI is one of the operator's file.
    pub(crate) fn run(self: &Arc<Self>, id: String, cli: String, arrived: Instant) -> RunRecord {
        RunRecord {
            metrics: Arc::clone(self),
            id,
            cli,
            arrived,
            first_text: None,
            usage: RunUsage::default(),
            ended: None,
        }
    }
}

/// What is to be told of one run. When it is dropped it writes the log line and counts, however the run ended.
pub(crate) struct RunRecord {
    metrics: Arc<Metrics>,
    id: String,
    cli: String,
    arrived: Instant,
    /// After the arrival.
    first_text: Option<Duration>,
    usage: RunUsage,
    /// `finished`, or the class of the error. None: nobody was there any more to hear the end.
    ended: Option<&'static str>,
}

impl RunRecord {
    pub(crate) fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Started { waited_ms, warm } => {
                let labels = WaitLabels { cli: self.cli.clone(), warm: warm.to_string() };
                let waited = Duration::from_millis(*waited_ms).as_secs_f64();
                self.metrics.waits.get_or_create(&labels).observe(waited);
            }
            RunEvent::Text { .. } if self.first_text.is_none() => {
                let after = self.arrived.elapsed();
                self.first_text = Some(after);
                self.metrics.first_texts.get_or_create(&self.label()).observe(after.as_secs_f64());
            }
            RunEvent::Usage(usage) => self.usage = *usage,
            // Not their messages: a CLI may say its prompt there, and no log may have that. The edge is told.
            RunEvent::Notice { .. } => {
                tracing::debug!(run = self.id, cli = self.cli, "the CLI said something aside");
            }
            RunEvent::Error { class, status, .. } => {
                self.ended = Some(class.as_str());
                tracing::info!(run = self.id, cli = self.cli, class = class.as_str(), status, "a run failed");
            }
            RunEvent::Finished { .. } => self.ended = Some("finished"),
            _ => {}
        }
    }

    fn label(&self) -> CliLabel {
        CliLabel { cli: self.cli.clone() }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for RunRecord {
    fn drop(&mut self) {
        let class = self.ended.unwrap_or(ErrorClass::Cancelled.as_str());
        let took = self.arrived.elapsed();
        self.metrics.runs.get_or_create(&EndLabels { cli: self.cli.clone(), class }).inc();
        self.metrics.durations.get_or_create(&self.label()).observe(took.as_secs_f64());
        let RunUsage { input_tokens, output_tokens, .. } = self.usage;
        for (direction, tokens) in [("input", input_tokens), ("output", output_tokens)] {
            if let Some(tokens) = tokens {
                let labels = TokenLabels { cli: self.cli.clone(), direction };
                self.metrics.tokens.get_or_create(&labels).inc_by(tokens);
            }
        }
        tracing::info!(
            run = self.id,
            cli = self.cli,
            class,
            took_ms = milliseconds(took),
            first_text_ms = self.first_text.map(milliseconds),
            input_tokens,
            output_tokens,
            "a run ended"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn words_of_a_cli_are_in_no_log() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut record = Metrics::new().run("r1".to_owned(), "cli-echo".to_owned(), Instant::now());
            let message = "Error: the prompt was 'my secret'".to_owned();
            record.event(&RunEvent::Notice { message: message.clone() });
            let class = ErrorClass::Internal;
            record.event(&RunEvent::Error { class, message, status: Some(500), retry_after_ms: None });
        });
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(
            log.contains("a run failed") && log.contains("internal") && log.contains("status=500"),
            "{log}"
        );
        assert!(log.contains("r1") && !log.contains("prompt"), "{log}");
    }
}
