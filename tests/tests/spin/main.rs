//! What is special to the Spin host: instances that come and go and are shared by requests, variables, allowed hosts. What
//! every host does alike is in the other suites.

mod instances;
mod manifest;

use futures_util::future::join_all;
use serde_json::{Value, json};
use system_tests::config::Config;
use system_tests::fixture::{UPSTREAM_MODEL, chat_body, standard_config};
use system_tests::raw::{Connection, Request, Response};
use system_tests::spin::{Options, Spin};
use system_tests::table::Table;
use system_tests::upstream::{FakeUpstream, Script};

/// A fake upstream, a table that knows it, and the application on it.
pub(crate) struct Scene {
    pub(crate) spin: Spin,
    pub(crate) table: Table,
    pub(crate) upstream: FakeUpstream,
}

impl Scene {
    pub(crate) async fn start(options: Options) -> Self {
        Self::start_with(options, |_| {}).await
    }

    pub(crate) async fn start_with(options: Options, change: impl FnOnce(&mut Config)) -> Self {
        let upstream = FakeUpstream::start().await;
        let mut config = standard_config(&upstream.base_url());
        change(&mut config);
        let table = Table::start(&config).await;
        let spin = Spin::start(&table.variables(), &table.api_key, &config, options).await;
        Self { spin, table, upstream }
    }

    pub(crate) fn upstream_answers(&self, script: impl Into<Script>) {
        self.upstream.on(UPSTREAM_MODEL, script);
    }

    /// A chat completion on a connection of its own.
    pub(crate) async fn chat(&self, members: Value) -> Response {
        let mut connection = Connection::open(&self.spin.gateway).await;
        connection.request(&Request::chat(&self.spin.gateway, &chat_body(members))).await
    }

    /// As many at once, each on a connection of its own.
    pub(crate) async fn chats(&self, count: usize) -> Vec<Response> {
        join_all((0..count).map(|_| self.chat(json!({})))).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        let mut connection = Connection::open(&self.spin.gateway).await;
        connection.request(&Request::new(&self.spin.gateway, "GET", path)).await
    }

    /// A stream whose head has been read.
    pub(crate) async fn stream(&self) -> Connection {
        let mut connection = Connection::open(&self.spin.gateway).await;
        let request = Request::chat(&self.spin.gateway, &chat_body(json!({"stream": true})));
        connection.send(request.bytes()).await;
        assert_eq!(connection.head().await.status, 200);
        connection
    }
}

/// The instance that answered: ids of requests are random per instance and counted within it.
pub(crate) fn instance(response: &Response) -> String {
    let id = response.headers.get("x-request-id").expect("every answer has one");
    id[..id.len() - 8].to_owned()
}
