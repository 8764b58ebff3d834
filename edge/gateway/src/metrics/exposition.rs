//! The counts as Prometheus reads them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use catalog::HealthState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::limits::{PERIODS, QUANTITIES};
use super::{Count, Kind, Metrics, Series, StoreCall, locked};
use crate::Gateway;
use crate::error::FailureClass;
use crate::settle::Outcome;

/// Providers whose health is shown.
const MAX_PROVIDERS: usize = 200;
/// Items that are named because they cannot be read.
const MAX_LEFT_OUT: usize = 100;

/// A gateway's metrics, to be registered with `prometheus_client`'s registry: in one without a prefix, as the names
/// begin with `dyad_gateway_` already. They tell who uses what, so they are nothing for the public.
///
/// Labels: `provider` and `model` are those of the configuration (200 pairs, then `other`), both empty for what ended
/// before a model was found; every other label has values of this program's own.
pub struct GatewayMetrics(Gateway);

impl GatewayMetrics {
    pub(crate) fn new(gateway: Gateway) -> Self {
        Self(gateway)
    }
}

impl fmt::Debug for GatewayMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayMetrics")
    }
}

impl Collector for GatewayMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let inner = &self.0.0;
        let metrics = &inner.metrics;
        metrics.encode_requests(&mut page)?;
        metrics.encode_upstreams(&mut page)?;
        metrics.encode_store(&mut page)?;
        let status = self.0.status();
        page.gauge(
            "dyad_gateway_ready",
            "1 once there is a configuration to serve",
            status.is_loaded.into(),
        )?;
        page.gauge(
            "dyad_gateway_store_up",
            "1 if the store answered when its configuration was last asked for",
            (status.is_loaded && status.store_failure.is_none()).into(),
        )?;
        page.gauge(
            "dyad_gateway_registry_up",
            "1 unless the runners' registry did not answer when last asked",
            status.registry_failure.is_none().into(),
        )?;
        page.gauge(
            "dyad_gateway_limits_failing_keys",
            "API keys whose limits the store did not count when last asked, in the last ten seconds",
            status.limits_failing_keys as u64,
        )?;
        if let Some(age) = status.config_age {
            page.seconds(
                "dyad_gateway_config_age",
                "Time since the configuration was last checked with success",
                age,
            )?;
        }
        page.gauge("dyad_gateway_models", "Models that are served", status.models as u64)?;
        let mut family = page.gauges("dyad_gateway_runner_nodes", "Nodes of the registry, by state")?;
        for (state, count) in inner.nodes.by_state() {
            family.gauge(&[("state", state)], count)?;
        }
        let health = self.0.health();
        let mut family = page.gauges(
            "dyad_gateway_provider_health",
            "1 for the state that the last checks of a provider found, 0 for the others",
        )?;
        for (provider, health) in health.iter().take(MAX_PROVIDERS) {
            for state in HealthState::ALL {
                let labels = [("provider", provider.as_str()), ("state", state.as_str())];
                family.gauge(&labels, (health.state == state).into())?;
            }
        }
        page.gauge(
            "dyad_gateway_usage_pending_rows",
            "Rows of usage that are not in the store yet",
            inner.usage.pending() as u64,
        )?;
        page.gauge(
            "dyad_gateway_left_out_items",
            "Items of the store that cannot be read",
            status.left_out.len() as u64,
        )?;
        let mut family =
            page.gauges("dyad_gateway_left_out", "1 for an item of the store that cannot be read")?;
        let names: BTreeSet<_> = status.left_out.iter().map(|item| item.name.as_str()).collect();
        for name in names.into_iter().take(MAX_LEFT_OUT) {
            family.gauge(&[("item", name)], 1)?;
        }
        Ok(())
    }
}

impl Metrics {
    /// All that have a name, and then those that have none.
    fn all_series(&self) -> Vec<Arc<Series>> {
        locked(&self.series).values().cloned().chain([self.unresolved.clone()]).collect()
    }

    fn encode_requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let all = self.all_series();
        // Before those that have begun are counted: no request ends more often than it begins.
        let ended = all.iter().map(|series| series.ended()).sum();
        let kinds = || all.iter().flat_map(|series| Kind::ALL.map(|kind| (series, kind)));

        let mut family = page.counter(
            "dyad_gateway_requests",
            "Requests that were admitted and have ended, by what came of them",
        )?;
        for (series, kind) in kinds() {
            for outcome in Outcome::all() {
                let count = series.requests[kind as usize].outcomes[outcome.index()].get();
                if count > 0 {
                    let labels = [("outcome", outcome.class())];
                    family.count(&(series.labels(), (kind.labels(), labels)), count)?;
                }
            }
        }
        let mut family = page.histogram(
            "dyad_gateway_request_duration",
            "How long requests took that were answered in full",
        )?;
        for (series, kind) in kinds() {
            let duration = &series.requests[kind as usize].duration;
            if !duration.is_empty() {
                duration.encode(family.of(&(series.labels(), kind.labels()))?)?;
            }
        }
        let mut family = page.histogram(
            "dyad_gateway_first_output",
            "From the arrival of a request for a stream to the first content on its way to the client",
        )?;
        for series in all.iter().filter(|series| !series.first_output.is_empty()) {
            series.first_output.encode(family.of(&(series.labels(), Kind::Stream.labels()))?)?;
        }
        let mut family = page.counter("dyad_gateway_tokens", "Tokens of answers, reported or estimated")?;
        for series in &all {
            for (direction, count) in
                [("prompt", series.prompt_tokens.get()), ("completion", series.completion_tokens.get())]
            {
                if count > 0 {
                    family.count(&(series.labels(), [("direction", direction)]), count)?;
                }
            }
        }
        page.gauge(
            "dyad_gateway_requests_in_flight",
            "Requests that were admitted and have not ended",
            self.begun.get().saturating_sub(ended),
        )?;
        let errors = locked(&self.errors).clone();
        let mut family = page.counter("dyad_gateway_errors", "Error answers, by code")?;
        for (code, count) in errors {
            family.count(&[("code", code)], count)?;
        }
        let refusals = locked(&self.limit_refusals).clone();
        let mut family = page.counter("dyad_gateway_limit_refusals", "Requests over a limit of their key")?;
        for (limit, count) in refusals {
            family.count(&[("limit", limit)], count)?;
        }
        Ok(())
    }

    fn encode_upstreams(&self, page: &mut Page<'_>) -> fmt::Result {
        let all = self.all_series();
        let mut family = page.counter(
            "dyad_gateway_upstream_calls",
            "Calls to upstreams, by how they went up to their first content",
        )?;
        for series in &all {
            let failed =
                FailureClass::ALL.map(|class| (class.as_str(), &series.calls_failed[class as usize]));
            for (outcome, count) in [("ok", &series.calls_ok)].into_iter().chain(failed) {
                if count.get() > 0 {
                    family.count(&(series.labels(), [("outcome", outcome)]), count.get())?;
                }
            }
        }
        let mut family =
            page.counter("dyad_gateway_upstream_retries", "Requests sent to the same upstream again")?;
        for series in &all {
            for (reason, count) in [
                ("corrected", &series.corrections),
                ("connection_closed", &series.reconnections),
                ("previous_credential", &series.previous_credentials),
            ] {
                if count.get() > 0 {
                    family.count(&(series.labels(), [("reason", reason)]), count.get())?;
                }
            }
        }
        let mut family = page.counter(
            "dyad_gateway_upstream_fallbacks",
            "Requests that came to this upstream because another had failed",
        )?;
        for series in all.iter().filter(|series| series.fallbacks.get() > 0) {
            family.count(&series.labels(), series.fallbacks.get())?;
        }
        page.total(
            "dyad_gateway_runner_node_failures",
            "Times that a runner's node failed and was avoided for some seconds",
            self.node_failures.get(),
        )
    }

    fn encode_store(&self, page: &mut Page<'_>) -> fmt::Result {
        let mut family = page.counter("dyad_gateway_store_calls", "Calls to the store, by how they went")?;
        for call in StoreCall::ALL {
            for (outcome, count) in locked(&self.store_calls[call as usize].outcomes).clone() {
                family.count(&[("call", call.as_str()), ("outcome", outcome)], count)?;
            }
        }
        let mut family =
            page.histogram("dyad_gateway_store_call_duration", "How long calls to the store took")?;
        for call in StoreCall::ALL {
            let duration = &self.store_calls[call as usize].duration;
            if !duration.is_empty() {
                duration.encode(family.of(&[("call", call.as_str())])?)?;
            }
        }
        page.total(
            "dyad_gateway_usage_lost_requests",
            "Requests whose usage could not be added to the store, nor kept",
            self.usage_lost.get(),
        )?;
        let units = &self.limit_units;
        for (name, help, units) in [
            ("dyad_gateway_limit_granted", "What was taken from limits' windows, to be used", &units.granted),
            (
                "dyad_gateway_limit_wasted",
                "What was taken from limits' windows and could not be used",
                &units.wasted,
            ),
            ("dyad_gateway_limit_charged", "What was used beyond what had been taken", &units.charged),
            ("dyad_gateway_limit_given_back", "What was taken, not used and given back", &units.given_back),
        ] {
            let mut family = page.counter(name, help)?;
            for (quantity, quantity_name) in QUANTITIES {
                for (period, period_name) in PERIODS {
                    let count = units.get(quantity, period).get();
                    if count > 0 {
                        family.count(&[("quantity", quantity_name), ("period", period_name)], count)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Series {
    fn ended(&self) -> u64 {
        self.requests.iter().flat_map(|requests| &requests.outcomes).map(Count::get).sum()
    }

    fn labels(&self) -> [(&'static str, &str); 2] {
        [("provider", &self.provider), ("model", &self.model)]
    }
}

impl Kind {
    fn labels(self) -> [(&'static str, &'static str); 2] {
        let streamed = if self == Self::Stream { "true" } else { "false" };
        [("operation", self.operation().as_str()), ("streamed", streamed)]
    }
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Samples<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, MetricType::Counter).map(Samples)
    }

    /// A counter without labels.
    fn total(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        encode_count(self.0.encode_descriptor(name, help, None, MetricType::Counter)?, value)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Samples<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge).map(Samples)
    }

    fn seconds(&mut self, name: &str, help: &str, value: Duration) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        encoder.encode_gauge(&value.as_secs_f64())
    }

    /// Of seconds.
    fn histogram<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Samples<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram).map(Samples)
    }
}

struct Samples<'a>(MetricEncoder<'a>);

impl Samples<'_> {
    fn of<'s>(&'s mut self, labels: &'s impl EncodeLabelSet) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_family(labels)
    }

    fn gauge(&mut self, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
        self.of(labels)?.encode_gauge(&value)
    }

    fn count(&mut self, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
        encode_count(self.of(labels)?, value)
    }
}

fn encode_count(mut encoder: MetricEncoder<'_>, value: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}
