//! The engines that the suite runs on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use catalog::{AdminStore, LimitStore, MemoryStore};
use dynoxide::Database;
use serde_json::{Value, json};
use store::sdk::{
    Credentials, SharedAsyncSleep, SharedCredentialsProvider, SharedHttpClient, SharedTimeSource,
};
use store::{DynamoOptions, DynamoStore, HostPorts, Timing};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::http_client::PlainHttp;

pub(crate) const TABLE: &str = "dyad-gateway";

/// An empty store, and a way past it to what it keeps.
pub(crate) struct Backend {
    pub(crate) store: Arc<dyn AdminStore>,
    pub(crate) limits: Arc<dyn LimitStore>,
    /// The engine below the store; the memory store has none.
    pub(crate) engine: Option<Database>,
    _directory: Option<TempDir>,
}

impl Backend {
    #[expect(clippy::unused_async, reason = "made like the others")]
    pub(crate) async fn memory() -> Self {
        Self::new(Arc::new(MemoryStore::default()), None, None)
    }

    pub(crate) async fn embedded() -> Self {
        let (directory, path) = scratch_file();
        let store = Arc::new(DynamoStore::open_embedded(&path).await.unwrap());
        let engine = Database::new(path.to_str().unwrap()).unwrap();
        Self::new(store, Some(engine), Some(directory))
    }

    pub(crate) async fn over_http() -> Self {
        let (address, engine) = serve().await;
        let store = over_http(address, Timing::default());
        store.create_table().await.unwrap();
        Self::new(Arc::new(store), Some(engine), None)
    }

    fn new<S: AdminStore + LimitStore + 'static>(
        store: Arc<S>,
        engine: Option<Database>,
        directory: Option<TempDir>,
    ) -> Self {
        Self { store: store.clone(), limits: store, engine, _directory: directory }
    }
}

/// A place for a store's file that goes with the first value.
pub(crate) fn scratch_file() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("data").join("store.db");
    (directory, path)
}

/// Somebody's DynamoDB server on a loopback port, without a table.
pub(crate) async fn serve() -> (SocketAddr, Database) {
    let engine = Database::memory().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(dynoxide::server::serve_on(listener, engine.clone()));
    (address, engine)
}

pub(crate) fn over_http(address: SocketAddr, timing: Timing) -> DynamoStore {
    over_http_at(address, timing, SharedTimeSource::new(SystemTimeSource::new()))
}

/// As [`over_http`], by another clock.
pub(crate) fn over_http_at(address: SocketAddr, timing: Timing, time: SharedTimeSource) -> DynamoStore {
    DynamoStore::new(
        HostPorts {
            http_client: SharedHttpClient::new(PlainHttp::new()),
            sleep: SharedAsyncSleep::new(TokioSleep::new()),
            time,
        },
        DynamoOptions {
            table: TABLE.to_owned(),
            region: "eu-central-1".to_owned(),
            endpoint_url: Some(format!("http://{address}")),
            credentials: SharedCredentialsProvider::new(Credentials::from_keys(
                "AKIAEXAMPLE",
                "hunter2",
                None,
            )),
            timing,
        },
    )
}

/// Writes an item in DynamoDB's JSON, past the store.
pub(crate) fn put_raw(engine: &Database, item: &Value) {
    let request = serde_json::from_value(json!({ "TableName": TABLE, "Item": item })).unwrap();
    engine.put_item(request).unwrap();
}

/// Removes an item, past the store.
pub(crate) fn delete_raw(engine: &Database, pk: &str, sk: &str) {
    let key = json!({ "pk": { "S": pk }, "sk": { "S": sk } });
    let request = serde_json::from_value(json!({ "TableName": TABLE, "Key": key })).unwrap();
    engine.delete_item(request).unwrap();
}

/// Reads an item in DynamoDB's JSON, past the store.
pub(crate) fn get_raw(engine: &Database, pk: &str, sk: &str) -> Value {
    let key = json!({ "pk": { "S": pk }, "sk": { "S": sk } });
    let request = serde_json::from_value(json!({ "TableName": TABLE, "Key": key })).unwrap();
    serde_json::to_value(engine.get_item(request).unwrap()).unwrap()["Item"].clone()
}
