//! What must be refused, and how: with the right status, in OpenAI's shape, naming what is wrong,
//! on a connection that is of further use or closed, by a gateway that still answers.

mod authentication;
mod bodies;
mod requests;

use serde_json::Value;
use system_tests::fixture::Fixture;
use system_tests::raw::Connection;

/// Sends `bytes` and checks the refusal; its `error` member.
async fn refused(fixture: &Fixture, what: &str, bytes: impl AsRef<[u8]>, status: u16) -> Value {
    let mut connection = Connection::open(&fixture.gateway).await;
    connection.send(bytes).await;
    let response = connection.response().await;
    assert_eq!(response.status, status, "{what}: {}", response.text());
    let error = response.error();
    connection.assert_usable_or_closed(&fixture.gateway).await;
    fixture.assert_serving().await;
    error
}
