//! SIGTERM: what runs is finished, nothing new begins, the exit is clean.

use std::os::unix::process::ExitStatusExt;

use serde_json::json;
use system_tests::clients::Clients;
use system_tests::fixture::{Fixture, MODEL, standard_config};
use system_tests::gateway::Gateway;
use system_tests::raw::{Connection, Request};
use system_tests::sse::EventStream;
use system_tests::turn::Turn;
use system_tests::upstream::{FakeUpstream, Gate, Reply, Step};
use system_tests::{SOON, within};
use tokio::net::TcpStream;

/// A stream of which the first word has come; the rest waits for the gate.
async fn begun(fixture: &Fixture) -> (Connection, Gate, String) {
    let gate = Gate::default();
    let rest = Turn::says("one two three").frames("m", true)[2..].concat();
    let begin = Reply::turn(Turn::says("one two three")).first_frames(2);
    fixture.upstream_answers(begin.then(Step::Hold(gate.clone())).then(Step::Send(rest.into())));
    let mut connection = fixture.open_stream(json!({})).await;
    let beginning = connection.until("one").await;
    (connection, gate, beginning)
}

async fn refuses_connections(fixture: &Fixture) {
    within(SOON, "new connections are refused", async {
        while TcpStream::connect(fixture.gateway.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn open_streams_finish_and_nothing_new_begins() {
    let mut fixture = Fixture::start().await;
    let (mut connection, gate, beginning) = begun(&fixture).await;
    // One connection that is kept and idle, and one that has not said anything.
    let mut idle = Connection::open(&fixture.gateway).await;
    assert_eq!(idle.request(&Request::new(&fixture.gateway, "GET", "/healthz")).await.status, 200);
    let silent = TcpStream::connect(fixture.gateway.address()).await.unwrap();
    fixture.gateway.terminate();
    refuses_connections(&fixture).await;
    idle.closed(SOON).await;
    gate.open();
    let rest = connection.rest().await;
    let stream = EventStream::parse(&[beginning.as_bytes(), &rest].concat()).ok(MODEL);
    assert_eq!(stream.text(), "one two three");
    let status = fixture.gateway.exited(SOON).await;
    assert!(status.success(), "{status}");
    drop(silent);
}

#[tokio::test]
async fn an_idle_gateway_ends_at_once() {
    let mut fixture = Fixture::start().await;
    fixture.assert_serving().await;
    fixture.gateway.terminate();
    assert!(fixture.gateway.exited(SOON).await.success());
}

#[tokio::test]
async fn a_second_sigterm_does_not_wait() {
    let mut fixture = Fixture::start().await;
    let (connection, _gate, _) = begun(&fixture).await;
    fixture.gateway.terminate();
    refuses_connections(&fixture).await;
    fixture.gateway.terminate();
    let status = fixture.gateway.exited(SOON).await;
    // Cut off on request: by the signal or by its own exit, but not as if all had been finished.
    assert!(status.signal().is_some() || !status.success(), "{status}");
    drop(connection);
}

#[tokio::test]
async fn a_drain_has_its_limit() {
    let upstream = FakeUpstream::start().await;
    let config = standard_config(&upstream.base_url());
    let gateway = Gateway::start_with_arguments(&config, &["--drain-timeout", "1"]).await;
    let mut fixture = Fixture { gateway, upstream, clients: Clients::default() };
    let (connection, _gate, _) = begun(&fixture).await;
    fixture.gateway.terminate();
    let status = fixture.gateway.exited(SOON).await;
    assert!(!status.success(), "not everything was finished: {status}");
    fixture.upstream.last_request().peer_left(SOON).await;
    drop(connection);
}
