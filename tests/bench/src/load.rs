//! The load generator: a process that sends what its [`Load`] says, checks every answer, and reports times.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    Method, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, sleep_until},
};

use crate::{Fault, wire};

/// What to send, and where to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    pub address: SocketAddr,
    pub api_key: Option<String>,
    /// Asked for, and expected in the answer.
    pub model: String,
    /// About how long the request's message is.
    pub message_bytes: usize,
    pub shape: Shape,
}

/// How the requests follow each other. Each connection is kept alive and carries one request at a time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Whole answers, the next request as soon as one is there.
    Saturate { connections: usize, requests: usize },
    /// Whole answers, at a fixed rate whatever the answers do.
    Rate { connections: usize, per_second: usize, requests: usize },
    /// Streams read to their end, the first ones started over `spread_ms`.
    Streams { connections: usize, streams: usize, spread_ms: usize },
    /// Streams that stay open until stdin closes; the report comes when all have begun.
    Hold { streams: usize },
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Report {
    pub seconds: f64,
    /// Of whole answers the time to the end, of streams to the first content.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

type Times = Vec<Duration>;

/// Runs the load and prints its report as a line of JSON. The first wrong answer ends it.
pub async fn run(load: Load) -> Result<(), Fault> {
    let started = Instant::now();
    let mut open = JoinSet::new();
    let times = match load.shape {
        Shape::Saturate { connections, requests } => saturate(load, connections, requests).await?,
        Shape::Rate { connections, per_second, requests } => {
            rate(load, connections, per_second, requests).await?
        }
        Shape::Streams { connections, streams, spread_ms } => {
            streamed(load, connections, streams, spread_ms).await?
        }
        Shape::Hold { streams } => hold(load, streams, &mut open).await?,
    };
    print(&report(times, started.elapsed())?)?;
    if !open.is_empty() {
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    }
    Ok(())
}

fn print(report: &Report) -> Result<(), Fault> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(report)?)?;
    Ok(stdout.flush()?)
}

fn report(mut times: Times, elapsed: Duration) -> Result<Report, Fault> {
    times.sort_unstable();
    let percentile = |percent: usize| {
        // Nearest rank.
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).map(|time| time.as_secs_f64() * 1e3).ok_or("nothing was measured")
    };
    Ok(Report { seconds: elapsed.as_secs_f64(), p50_ms: percentile(50)?, p99_ms: percentile(99)? })
}

async fn saturate(load: Load, connections: usize, requests: usize) -> Result<Times, Fault> {
    let left = Countdown::new(requests);
    on_each(connections, load, |mut client, _| {
        let left = left.clone();
        async move {
            let mut times = Times::new();
            while left.take() {
                let sent = Instant::now();
                client.ask().await?;
                times.push(sent.elapsed());
            }
            Ok(times)
        }
    })
    .await
}

async fn rate(load: Load, connections: usize, per_second: usize, requests: usize) -> Result<Times, Fault> {
    let start = Instant::now() + Duration::from_millis(50);
    on_each(connections, load, |mut client, at| async move {
        let mut times = Times::new();
        for request in (at..requests).step_by(connections) {
            let due = start + Duration::from_secs_f64(as_f64(request) / as_f64(per_second));
            // A connection that is still busy when its next request is due delays it: that counts. That a timer
            // fires late does not.
            let late = Instant::now() > due;
            sleep_until(due.into()).await;
            let from = if late { due } else { Instant::now() };
            client.ask().await?;
            times.push(from.elapsed());
        }
        Ok(times)
    })
    .await
}

async fn streamed(load: Load, connections: usize, streams: usize, spread_ms: usize) -> Result<Times, Fault> {
    let left = Countdown::new(streams);
    on_each(connections, load, |mut client, at| {
        let left = left.clone();
        async move {
            sleep(Duration::from_secs_f64(as_f64(spread_ms * at) / as_f64(connections) / 1e3)).await;
            let mut times = Times::new();
            while left.take() {
                times.push(client.stream().await?);
            }
            Ok(times)
        }
    })
    .await
}

async fn hold(load: Load, streams: usize, open: &mut JoinSet<()>) -> Result<Times, Fault> {
    let mut times = Times::new();
    for _ in 0..streams {
        let mut client = Client::connect(&load).await?;
        let (time, start, mut body) = client.stream_start().await?;
        times.push(time);
        wire::check_stream_start(&start, &client.load.model)?;
        open.spawn(async move {
            // Until the process ends, or the proxy gives up on the stream.
            while let Some(Ok(_)) = body.frame().await {}
            drop(client);
        });
    }
    Ok(times)
}

/// Runs `task` on so many connections at once, each told its number, and gathers their times.
async fn on_each<F, T>(connections: usize, load: Load, task: F) -> Result<Times, Fault>
where
    F: Fn(Client, usize) -> T,
    T: Future<Output = Result<Times, Fault>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for at in 0..connections {
        tasks.spawn(task(Client::connect(&load).await?, at));
    }
    let mut times = Times::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    Ok(times)
}

/// Requests that are still to be sent, by whichever connection is free.
#[derive(Clone)]
struct Countdown(Arc<AtomicUsize>);

impl Countdown {
    fn new(from: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(from)))
    }

    fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// One connection.
struct Client {
    load: Load,
    body: Bytes,
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Client {
    async fn connect(load: &Load) -> Result<Self, Fault> {
        let socket = TcpStream::connect(load.address).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        // Its failure shows as a failure of the request.
        tokio::spawn(connection);
        let stream = matches!(load.shape, Shape::Streams { .. } | Shape::Hold { .. });
        let body = wire::request(&load.model, stream, load.message_bytes);
        Ok(Self { load: load.clone(), body, sender })
    }

    async fn send(&mut self) -> Result<Incoming, Fault> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(wire::PATH)
            .header(HOST, self.load.address.to_string())
            .header(ACCEPT, "*/*")
            .header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.load.api_key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(self.body.clone()))?).await?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into())
    }

    async fn ask(&mut self) -> Result<(), Fault> {
        let body = self.send().await?.collect().await?.to_bytes();
        Ok(wire::check_completion(&body, &self.load.model)?)
    }

    /// The time to the first content.
    async fn stream(&mut self) -> Result<Duration, Fault> {
        let (time, mut received, mut body) = self.stream_start().await?;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                received.extend_from_slice(&data);
            }
        }
        wire::check_stream(&received, &self.load.model)?;
        Ok(time)
    }

    /// The time to the first content, what had come by then, and the rest.
    async fn stream_start(&mut self) -> Result<(Duration, Vec<u8>, Incoming), Fault> {
        let sent = Instant::now();
        let mut body = self.send().await?;
        let mut received = Vec::with_capacity(32 * 1024);
        while !wire::has_content(&received) {
            let frame = body.frame().await.ok_or("the stream ended before its first content")?;
            if let Ok(data) = frame?.into_data() {
                received.extend_from_slice(&data);
            }
        }
        Ok((sent.elapsed(), received, body))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let report = report(times, Duration::from_secs(1)).unwrap();
        assert!((report.p50_ms - 100.0).abs() < 1e-9);
        assert!((report.p99_ms - 198.0).abs() < 1e-9);
        assert!(super::report(Times::new(), Duration::from_secs(1)).is_err());
    }

    #[test]
    fn a_countdown_ends() {
        let left = Countdown::new(2);
        assert_eq!([left.take(), left.take(), left.take(), left.take()], [true, true, false, false]);
    }
}
