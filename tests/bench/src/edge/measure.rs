//! One host, measured from its start to its end.

use std::net::SocketAddr;

use bench::{
    Fault,
    generator::Generator,
    load::{Load, Shape},
    wire::Behaviour,
};

use crate::{
    hosts::{Artifacts, Host, Kind},
    http,
    report::{Report, Row},
    store::Store,
};

/// How much of each workload makes a round.
pub(crate) struct Sizes {
    warm_up: usize,
    requests: usize,
    streams: usize,
}

pub(crate) const FULL: Sizes = Sizes { warm_up: 1_000, requests: 2_000, streams: 500 };
pub(crate) const QUICK: Sizes = Sizes { warm_up: 20, requests: 50, streams: 10 };

const SMALL_BYTES: usize = 1_000;
const LARGE_BYTES: usize = 100_000;
const CONNECTIONS: usize = 8;
/// Most of the time their streams have nothing to say.
const PACED_CONNECTIONS: usize = 100;
/// Requests to code that has run little: what an isolate that lives shortly mostly does.
const EARLY: usize = 20;

pub(crate) fn host(
    kind: Kind,
    artifacts: &Artifacts,
    store: &Store,
    upstream: SocketAddr,
    sizes: &Sizes,
    report: &mut Report,
) -> Result<(), Fault> {
    let calls = store.calls();
    let host = Host::start(kind, artifacts, store, upstream)?;
    let model = model(kind, Behaviour::Whole);
    let milliseconds = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    let first = http::first_answer(host.address, model, &store.api_key)?;
    report.record(Row::Start, kind, milliseconds(first));
    if kind.is_gateway() {
        report.record(Row::FirstCalls, kind, as_f64(store.calls() - calls));
    }
    let run = Run { kind, host: &host, store };

    let early = run.cpu_ms(Behaviour::Whole, LARGE_BYTES, saturate(1, EARLY), EARLY)?;
    report.record(Row::EarlyLarge, kind, early);
    run.cpu_ms(Behaviour::Whole, SMALL_BYTES, saturate(CONNECTIONS, sizes.warm_up), sizes.warm_up)?;
    let warm =
        (0..9).map(|_| http::answer(host.address, model, &store.api_key)).collect::<Result<Vec<_>, _>>()?;
    report.record(Row::Warm, kind, milliseconds(median(warm)));

    let calls = store.calls();
    let whole = saturate(CONNECTIONS, sizes.requests);
    report.record(Row::Small, kind, run.cpu_ms(Behaviour::Whole, SMALL_BYTES, whole, sizes.requests)?);
    report.record(Row::Large, kind, run.cpu_ms(Behaviour::Whole, LARGE_BYTES, whole, sizes.requests)?);
    let paced = Shape::Streams { connections: PACED_CONNECTIONS, streams: sizes.streams, spread_ms: 1_000 };
    report.record(Row::PacedStream, kind, run.cpu_ms(Behaviour::Paced, SMALL_BYTES, paced, sizes.streams)?);
    let streams = Shape::Streams { connections: CONNECTIONS, streams: sizes.streams, spread_ms: 0 };
    report.record(Row::SmallStream, kind, run.cpu_ms(Behaviour::Burst, SMALL_BYTES, streams, sizes.streams)?);
    report.record(Row::LargeStream, kind, run.cpu_ms(Behaviour::Burst, LARGE_BYTES, streams, sizes.streams)?);
    if kind.is_gateway() {
        let requests = as_f64(u64::try_from(2 * sizes.requests + 3 * sizes.streams)?);
        report.record(Row::Calls, kind, as_f64(store.calls() - calls) / requests * 1e3);
    }
    Ok(())
}

struct Run<'a> {
    kind: Kind,
    host: &'a Host,
    store: &'a Store,
}

impl Run<'_> {
    /// CPU time of the host per request, in milliseconds.
    fn cpu_ms(
        &self,
        behaviour: Behaviour,
        message_bytes: usize,
        shape: Shape,
        count: usize,
    ) -> Result<f64, Fault> {
        let load = Load {
            address: self.host.address,
            api_key: Some(self.store.api_key.clone()),
            model: model(self.kind, behaviour).to_owned(),
            message_bytes,
            shape,
        };
        let before = self.host.process.cpu_seconds()?;
        Generator::start(&load)?.report()?;
        let cpu = self.host.process.cpu_seconds()? - before;
        Ok(cpu * 1e3 / as_f64(u64::try_from(count)?))
    }
}

fn saturate(connections: usize, requests: usize) -> Shape {
    Shape::Saturate { connections, requests }
}

/// Only a gateway translates.
fn model(kind: Kind, behaviour: Behaviour) -> &'static str {
    if kind.is_gateway() { behaviour.public_name() } else { behaviour.upstream_name() }
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
