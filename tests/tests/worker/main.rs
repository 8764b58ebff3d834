//! What is special to the Worker host: requests that share an isolate, whose timers, fetches and streams the platform
//! keeps apart; what outlives a response; what is dropped when a client leaves. What every host does alike is in the
//! other suites.

mod configuration;
mod requests;

use futures_util::future::join_all;
use serde_json::{Value, json};
use system_tests::fixture::{UPSTREAM_MODEL, chat_body, standard_config};
use system_tests::raw::{Connection, Request, Response};
use system_tests::table::Table;
use system_tests::upstream::{FakeUpstream, Script};
use system_tests::worker::{Options, Worker};

/// A fake upstream, a table that knows it, and a Worker on it that is cold.
pub(crate) struct Scene {
    pub(crate) worker: Worker,
    pub(crate) table: Table,
    pub(crate) upstream: FakeUpstream,
}

impl Scene {
    pub(crate) async fn start(options: Options) -> Self {
        let upstream = FakeUpstream::start().await;
        let config = standard_config(&upstream.base_url());
        let table = Table::start(&config).await;
        let worker = Worker::start(&table.variables(), &table.api_key, &config, options).await;
        Self { worker, table, upstream }
    }

    pub(crate) fn upstream_answers(&self, script: impl Into<Script>) {
        self.upstream.on(UPSTREAM_MODEL, script);
    }

    /// A chat completion on a connection of its own.
    pub(crate) async fn chat(&self, members: Value) -> Response {
        let mut connection = Connection::open(&self.worker.gateway).await;
        connection.request(&Request::chat(&self.worker.gateway, &chat_body(members))).await
    }

    /// As many at once, each on a connection of its own.
    pub(crate) async fn chats(&self, count: usize) -> Vec<Response> {
        join_all((0..count).map(|_| self.chat(json!({})))).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        let mut connection = Connection::open(&self.worker.gateway).await;
        connection.request(&Request::new(&self.worker.gateway, "GET", path)).await
    }

    /// A stream whose head has been read.
    pub(crate) async fn stream(&self) -> Connection {
        let mut connection = Connection::open(&self.worker.gateway).await;
        let request = Request::chat(&self.worker.gateway, &chat_body(json!({"stream": true})));
        connection.send(request.bytes()).await;
        assert_eq!(connection.head().await.status, 200);
        connection
    }
}

/// Lines of requests that ended so.
pub(crate) fn settled(events: &[Value], outcome: &str) -> usize {
    let settled = |event: &&Value| event["message"] == "chat_completion" && event["outcome"] == outcome;
    events.iter().filter(settled).count()
}
