//! `dyad-runner serve`: from its start to its end.

#![expect(clippy::unwrap_used, reason = "an answer that cannot be read ends its test")]

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use runner_api::{FinishReason, RunEvent, frame};
use rustix::process::Signal;

use super::support::{ECHO, Place, Runner, SLEEPER, SOON, eventually, start_run};

const PROCESSES: &str = "engine = { allow_process = true }";

/// Two containers that wait.
const PARKED: &str = r#"
[[cli]]
name = "cli-echo"
dialect = "text"
mode = "parked"
image = { builtin = "echo" }
[cli.limits]
memory = "64MiB"
pids = 32
[cli.pool]
min = 2
max = 2
"#;

fn events(body: &[u8]) -> Vec<RunEvent> {
    let mut decoder = frame::Decoder::default();
    decoder.push(body);
    std::iter::from_fn(|| decoder.next_event().unwrap()).collect()
}

/// What is left of an answer, as far as it comes.
async fn rest(response: &mut http::Response<hyper::body::Incoming>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = tokio::time::timeout(SOON, response.body_mut().frame()).await.unwrap() {
        bytes.extend(frame.into_data().unwrap_or_default());
    }
    bytes
}

#[tokio::test]
async fn a_request_over_mutual_tls_runs_a_cli_in_a_container() {
    let place = Place::new("", ECHO);
    let runner = place.serve();
    let mut client = place.client(runner.addr()).await;
    let mut response = start_run(&mut client, "r1", "cli-echo", "Hello").await;
    assert_eq!(response.status(), 200);
    let events = events(&rest(&mut response).await);
    assert!(matches!(events[0], RunEvent::Started { .. }), "{events:?}");
    let text: String = events
        .iter()
        .filter_map(|event| if let RunEvent::Text { text } = event { Some(text.as_str()) } else { None })
        .collect();
    assert!(text.contains("Hello"), "{events:?}");
    assert_eq!(events.last(), Some(&RunEvent::Finished { reason: FinishReason::Stop }));
    let response = start_run(&mut client, "r1", "cli-echo", "Hello").await;
    assert_eq!(response.status(), 409, "a run id is accepted once");
    assert!(
        runner.probe("/metrics").contains("dyad_runner_runs_total{cli=\"cli-echo\",class=\"finished\"} 1")
    );
    assert!(runner.probe("/ready").starts_with("HTTP/1.1 200 "));
    assert!(runner.probe("/v1/clis").starts_with("HTTP/1.1 404 "), "probes have no API");
    let log = runner.stop();
    assert!(!log.contains("Hello"), "no prompts in logs: {log}");
    assert!(place.containers().is_empty(), "{:?}", place.containers());
}

#[tokio::test]
async fn without_a_certificate_there_is_no_answer() {
    let place = Place::new("", ECHO);
    let runner = place.serve();
    let mut stream = std::net::TcpStream::connect(runner.addr()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
    assert!(!answer.windows(5).any(|window| window == b"HTTP/"), "{answer:?}");
    eventually("it is counted", || {
        runner.probe("/metrics").contains("dyad_runner_refused_connections_total{").then_some(())
    });
    runner.stop();
}

/// A run that goes on, seen to have begun.
async fn sleeping(place: &Place, runner: &Runner) -> http::Response<hyper::body::Incoming> {
    let mut client = place.client(runner.addr()).await;
    let mut response = start_run(&mut client, "r1", "sleeper", "Hello").await;
    assert_eq!(response.status(), 200);
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("asleep") {
        let frame = tokio::time::timeout(SOON, response.body_mut().frame()).await.unwrap().unwrap().unwrap();
        seen.extend(frame.into_data().unwrap_or_default());
    }
    // Its connection lives as long as somebody can send on it.
    response.extensions_mut().insert(client);
    response
}

/// Whether a process has these words in its arguments.
fn is_running(words: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut arguments = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    arguments.any(|line| String::from_utf8_lossy(&line).replace('\0', " ").contains(words))
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_cli_along_within_a_second() {
    // Nobody else sleeps for just as long.
    let seconds = format!("1000{}", std::process::id());
    let place = Place::new(PROCESSES, &SLEEPER.replace("1000", &seconds));
    let runner = place.serve();
    let response = sleeping(&place, &runner).await;
    let words = format!("sleep {seconds}");
    assert!(is_running(&words));
    drop(response);
    let left = Instant::now();
    // Lets the connection's task see that nobody wants it any more.
    tokio::task::spawn_blocking(move || eventually("it ends", || (!is_running(&words)).then_some(())))
        .await
        .unwrap();
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
    let is_counted = || runner.probe("/metrics").contains("class=\"cancelled\"} 1").then_some(());
    eventually("it is counted", is_counted);
    runner.stop();
}

#[tokio::test]
async fn a_drain_ends_what_still_runs_after_its_grace() {
    let grace = format!("capacity = {{ drain_grace = \"2s\" }}\n{PROCESSES}");
    let place = Place::new(&grace, SLEEPER);
    let mut runner = place.serve();
    let mut response = sleeping(&place, &runner).await;
    runner.signal(Signal::TERM);
    runner.logged("draining: no new runs; those under way may finish");
    eventually("it says so", || runner.probe("/ready").starts_with("HTTP/1.1 503 ").then_some(()));
    let mut client = place.client(runner.addr()).await;
    let refused = start_run(&mut client, "r2", "sleeper", "Hello").await;
    assert_eq!(refused.status(), 503);
    let events = events(&rest(&mut response).await);
    assert!(matches!(events.last(), Some(RunEvent::Error { .. })), "the client hears of it: {events:?}");
    let (status, log) = runner.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("grace"), "{log}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let place = Place::new(&format!("capacity = {{ drain_grace = \"10m\" }}\n{PROCESSES}"), SLEEPER);
    let mut runner = place.serve();
    let mut response = sleeping(&place, &runner).await;
    runner.signal(Signal::TERM);
    runner.logged("draining: no new runs; those under way may finish");
    let at = Instant::now();
    runner.signal(Signal::TERM);
    let events = events(&rest(&mut response).await);
    assert!(matches!(events.last(), Some(RunEvent::Error { .. })), "the client hears of it: {events:?}");
    let (status, log) = runner.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(at.elapsed() < Duration::from_secs(10), "{log}");
}

/// A pool's containers, once they wait.
fn parked(place: &Place, count: usize) -> Vec<String> {
    eventually("the pool is full", || Some(place.containers()).filter(|containers| containers.len() == count))
}

#[test]
fn sandboxes_that_wait_go_with_the_runner() {
    let place = Place::new("", PARKED);
    let runner = place.serve();
    assert_eq!(parked(&place, 2).len(), 2);
    runner.stop();
    assert!(place.containers().is_empty(), "{:?}", place.containers());
}

#[test]
fn what_a_killed_runner_left_goes_at_the_next_start() {
    let place = Place::new("", PARKED);
    let runner = place.serve();
    let orphans = parked(&place, 2);
    runner.signal(Signal::KILL);
    runner.ended();
    assert_eq!(place.containers().len(), 2, "nobody was there to remove them");
    let runner = place.serve();
    let now = place.containers();
    let ids = |containers: &[String]| containers.iter().map(|line| line[..64].to_owned()).collect::<Vec<_>>();
    assert!(!ids(&now).iter().any(|id| ids(&orphans).contains(id)), "{orphans:?} {now:?}");
    // A try of one CLI beside it touches nothing of it.
    let before = parked(&place, 2);
    place.run_with(&["run", "cli-echo"], "Hello").expect(0);
    assert_eq!(ids(&place.containers()), ids(&before));
    runner.stop();
    assert!(place.containers().is_empty(), "{:?}", place.containers());
}

#[test]
fn an_idle_runner_ends_with_0() {
    let place = Place::new("", ECHO);
    let log = place.serve().stop();
    assert!(log.contains("drained"), "{log}");
}

#[test]
fn two_runners_do_not_share_a_state_directory() {
    let place = Place::new("", ECHO);
    let runner = place.serve();
    let ran = place.run(&["serve"]).expect(1);
    assert!(ran.stderr.contains("another runner"), "{ran:#?}");
    runner.stop();
    place.serve().stop();
}

#[test]
fn a_taken_port_is_a_clear_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let place = Place::new("", ECHO);
    let config = std::fs::read_to_string(place.path("runner.toml")).unwrap();
    place.write("runner.toml", &config.replacen("127.0.0.1:0", &addr, 1));
    let ran = place.run(&["serve"]).expect(1);
    assert!(ran.stderr.contains(&format!("error: {addr} cannot be listened on")), "{ran:#?}");
}

#[test]
fn a_second_runner_with_the_same_id_does_not_start() {
    let place = Place::new("", ECHO);
    let _first = place.serve();
    let again = place.run(&["serve"]).expect(1);
    assert!(again.stderr.contains("another runner uses"), "{again:#?}");
    // A copy of the first one's files, with a state directory of its own.
    let config = std::fs::read_to_string(place.path("runner.toml")).unwrap();
    place.write("runner.toml", &config.replace("state_dir = \"state\"", "state_dir = \"copy\""));
    let copy = place.run(&["serve"]).expect(1);
    let words = format!("another runner with the id {}", place.node_id);
    assert!(copy.stderr.contains(&words), "{copy:#?}");
}
