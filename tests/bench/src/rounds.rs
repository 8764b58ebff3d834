//! A round: every workload on every server, one at a time.

use std::{
    io::{self, Write as _},
    path::Path,
};

use bench::{
    Fault,
    generator::Generator,
    load::{Load, Report, Shape},
    process::Memory,
    wire::Behaviour,
};

use crate::{
    server::{Kind, Server},
    table::{Round, Row},
};

/// How much of each workload makes a round.
pub(crate) struct Sizes {
    connections: usize,
    small_requests: usize,
    large_requests: usize,
    rate_requests: usize,
    paced_connections: usize,
    paced_streams: usize,
    burst_streams: usize,
    open_streams: usize,
}

/// About 20 s per server.
pub(crate) const FULL: Sizes = Sizes {
    connections: 64,
    small_requests: 60_000,
    large_requests: 5_000,
    rate_requests: 5_000,
    paced_connections: 250,
    paced_streams: 1_000,
    burst_streams: 4_000,
    open_streams: 2_000,
};

/// About 2 s per server.
pub(crate) const QUICK: Sizes = Sizes {
    connections: 8,
    small_requests: 200,
    large_requests: 20,
    rate_requests: 100,
    paced_connections: 10,
    paced_streams: 10,
    burst_streams: 20,
    open_streams: 20,
};

const SMALL_BYTES: usize = 1_000;
const LARGE_BYTES: usize = 200_000;
const PER_SECOND: usize = 1_000;

/// Measures so many rounds.
pub(crate) fn run(sizes: &Sizes, rounds: u32, gateway: &Path) -> Result<Vec<Round>, Fault> {
    let bare = Server::bare()?;
    let servers = [
        (Kind::Nginx, Server::nginx(bare.address)?),
        (Kind::Gateway, Server::gateway(gateway, bare.address)?),
        (Kind::Bare, bare),
    ];
    // Connections to the upstream, caches, lazily made threads and pages: not what is compared.
    for (kind, server) in &servers {
        let requests = sizes.small_requests / 20;
        drive(*kind, server, Behaviour::Whole, Shape::Saturate { connections: sizes.connections, requests })?;
    }
    let mut measured = Vec::new();
    for at in 0..rounds {
        progress(&format!("round {} of {rounds}", at + 1));
        // Another one begins each time: what a workload leaves behind (heat, closing sockets) hits all alike.
        let mut order: Vec<_> = servers.iter().collect();
        let begin = usize::try_from(at)? % order.len();
        order.rotate_left(begin);
        measured.push(round(sizes, &order, gateway)?);
    }
    Ok(measured)
}

/// A workload and the rows that come of it.
struct Workload {
    behaviour: Behaviour,
    message_bytes: usize,
    shape: Shape,
    /// Requests or streams, and per how many of them CPU time is told.
    count: usize,
    per: usize,
    rate: Option<Row>,
    cpu: Option<Row>,
    p50: Option<Row>,
    p99: Option<Row>,
}

fn workloads(sizes: &Sizes) -> [Workload; 5] {
    let connections = sizes.connections;
    let whole = Workload {
        behaviour: Behaviour::Whole,
        message_bytes: SMALL_BYTES,
        shape: Shape::Saturate { connections, requests: sizes.small_requests },
        count: sizes.small_requests,
        per: 10_000,
        rate: None,
        cpu: None,
        p50: None,
        p99: None,
    };
    [
        Workload { rate: Some(Row::SmallRate), cpu: Some(Row::SmallCpu), ..whole },
        Workload {
            message_bytes: LARGE_BYTES,
            shape: Shape::Saturate { connections, requests: sizes.large_requests },
            count: sizes.large_requests,
            rate: Some(Row::LargeRate),
            cpu: Some(Row::LargeCpu),
            ..whole
        },
        Workload {
            shape: Shape::Rate { connections, per_second: PER_SECOND, requests: sizes.rate_requests },
            count: sizes.rate_requests,
            p50: Some(Row::LatencyP50),
            p99: Some(Row::LatencyP99),
            ..whole
        },
        Workload {
            behaviour: Behaviour::Paced,
            shape: Shape::Streams {
                connections: sizes.paced_connections,
                streams: sizes.paced_streams,
                spread_ms: 1_000,
            },
            count: sizes.paced_streams,
            per: 1_000,
            cpu: Some(Row::PacedCpu),
            p50: Some(Row::TtftP50),
            p99: Some(Row::TtftP99),
            ..whole
        },
        Workload {
            behaviour: Behaviour::Burst,
            shape: Shape::Streams { connections, streams: sizes.burst_streams, spread_ms: 0 },
            count: sizes.burst_streams,
            per: 1_000,
            rate: Some(Row::BurstRate),
            cpu: Some(Row::BurstCpu),
            ..whole
        },
    ]
}

fn round(sizes: &Sizes, servers: &[&(Kind, Server)], gateway: &Path) -> Result<Round, Fault> {
    let mut round = Round::default();
    for workload in workloads(sizes) {
        for (kind, server) in servers {
            work(&mut round, &workload, *kind, server)?;
        }
    }
    // Memory is measured in servers of its own: what the work above left in their heaps is not a stream's.
    for (kind, _) in servers {
        memory(&mut round, *kind, sizes.open_streams, gateway)?;
    }
    Ok(round)
}

fn work(round: &mut Round, workload: &Workload, kind: Kind, server: &Server) -> Result<(), Fault> {
    let before = server.process.cpu_seconds()?;
    let report = drive_with(kind, server, workload.behaviour, workload.message_bytes, workload.shape)?;
    let cpu = server.process.cpu_seconds()? - before;
    let count = as_f64(workload.count);
    let values = [
        (workload.rate, count / report.seconds),
        (workload.cpu.filter(|_| kind != Kind::Bare), cpu * as_f64(workload.per) / count),
        (workload.p50, report.p50_ms),
        (workload.p99, report.p99_ms),
    ];
    for (row, value) in values {
        if let Some(row) = row {
            round.record(row, kind, value);
        }
    }
    Ok(())
}

fn memory(round: &mut Round, kind: Kind, streams: usize, gateway: &Path) -> Result<(), Fault> {
    let upstream = Server::bare()?;
    let server = match kind {
        Kind::Bare => return Ok(()),
        Kind::Nginx => Server::nginx(upstream.address)?,
        Kind::Gateway => Server::gateway(gateway, upstream.address)?,
    };
    round.record(Row::IdleMemory, kind, server.process.memory_kib(Memory::Resident)? / 1024.0);
    // The first request pays for what all share.
    drive(kind, &server, Behaviour::Whole, Shape::Saturate { connections: 8, requests: 80 })?;
    let before = server.process.memory_kib(Memory::Proportional)?;
    let load = load(kind, &server, Behaviour::Hold, SMALL_BYTES, Shape::Hold { streams });
    let mut generator = Generator::start(&load)?;
    generator.report()?;
    let grown = server.process.memory_kib(Memory::Proportional)? - before;
    round.record(Row::StreamMemory, kind, grown / as_f64(streams));
    Ok(())
}

fn drive(kind: Kind, server: &Server, behaviour: Behaviour, shape: Shape) -> Result<Report, Fault> {
    drive_with(kind, server, behaviour, SMALL_BYTES, shape)
}

fn drive_with(
    kind: Kind,
    server: &Server,
    behaviour: Behaviour,
    message_bytes: usize,
    shape: Shape,
) -> Result<Report, Fault> {
    Generator::start(&load(kind, server, behaviour, message_bytes, shape))?.report()
}

fn load(kind: Kind, server: &Server, behaviour: Behaviour, message_bytes: usize, shape: Shape) -> Load {
    Load {
        address: server.address,
        api_key: server.api_key.clone(),
        model: kind.model(behaviour).into(),
        message_bytes,
        shape,
    }
}

fn progress(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn as_f64(count: usize) -> f64 {
    count as f64
}
