//! What a network namespace of its own costs a sandbox: starts with one, and starts that share an idle holder's, in
//! turns. Needs a Docker engine.
//!
//! `cargo bench -p dyad-runner --bench netns`
//!
//! Sharing is no option, only a figure: sandboxes would see each other's ports and abstract sockets, as the test
//! `a_shared_network_would_not_isolate` shows.

#![expect(clippy::unwrap_used, reason = "what fails here ends the benchmark")]
#![expect(clippy::print_stdout, reason = "the result")]

#[path = "../tests/docker_sandbox/support.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod support;

use std::time::{Duration, Instant};

use dyad_runner::sandbox::{Engine, Output, PROGRAM, Prepared, Tampering};
use futures_util::future::join_all;
use support::{TestNode, echo, prepare, spec};
use tokio::io::AsyncWriteExt as _;

const ROUNDS: usize = 30;
const PARALLEL: [usize; 2] = [1, 4];

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(compare());
}

async fn compare() {
    let node = TestNode::new();
    let own = node.engine().await;
    let prepared = prepare(&own, &echo()).await;
    let holder = own.start(spec(&prepared, &[PROGRAM, "echo"])).await.unwrap();
    let mode = format!("container:{}", holder.id);
    let change = Box::new(move |body: &mut bollard::models::ContainerCreateBody| {
        body.hostname = None;
        let host = body.host_config.as_mut().unwrap();
        host.network_mode = Some(mode.clone());
        (host.dns, host.dns_search) = (None, None);
    });
    let shared =
        Engine::connect_tampering(&node.config, Tampering { change, is_checked: false }).await.unwrap();

    println!("from the call to the CLI's first answer, ms      p50    p90");
    for parallel in PARALLEL {
        let (mut of_own, mut of_shared) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            of_own.extend(start(&own, &prepared, parallel).await);
            of_shared.extend(start(&shared, &prepared, parallel).await);
        }
        print(&format!("a namespace of its own, {parallel} at once"), of_own);
        print(&format!("the holder's, {parallel} at once"), of_shared);
    }
    holder.remove().await;
}

/// So many sandboxes at the same time. They are gone when this returns.
async fn start(engine: &Engine, prepared: &Prepared, parallel: usize) -> Vec<Duration> {
    let starts = (0..parallel).map(|_| async {
        let begin = Instant::now();
        let mut sandbox = engine.start(spec(prepared, &[PROGRAM, "echo"])).await.unwrap();
        sandbox.stdin.write_all(b"x").await.unwrap();
        assert_eq!(sandbox.output.recv().await, Some(Output::Stdout("x".into())));
        (begin.elapsed(), sandbox)
    });
    let (times, sandboxes): (Vec<_>, Vec<_>) = join_all(starts).await.into_iter().unzip();
    join_all(sandboxes.into_iter().map(dyad_runner::sandbox::Sandbox::remove)).await;
    times
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let quantile = |part: usize| times[(times.len() - 1) * part / 100].as_millis();
    println!("{what:<45} {:>6} {:>6}", quantile(50), quantile(90));
}
