//! A DynamoDB engine in this process, on one file: `dynoxide` on SQLite.
//!
//! The SDK's HTTP client is replaced by one that gives each request straight to the engine; there is no socket.
//!
//! **Durability.** The file is in SQLite's write-ahead mode with `synchronous = FULL`, SQLite's default, which the
//! engine leaves alone: a write is answered once it is on the disk. **Several processes** may use the file at once
//! (a command line that makes a key while the gateway runs): the engine takes SQLite's write lock before it
//! checks a condition, and waits up to 5 s for it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_runtime_api::http::StatusCode;
use catalog::StoreError;
use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::sdk::{
    ConnectorError, Credentials, HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings,
    HttpRequest, HttpResponse, RuntimeComponents, SdkBody, SharedAsyncSleep, SharedCredentialsProvider,
    SharedHttpClient, SharedHttpConnector, SharedTimeSource,
};
use crate::{DynamoOptions, DynamoStore, HostPorts, Timing};

/// The table of an embedded store, for those who reach the same file by DynamoDB's API.
pub const EMBEDDED_TABLE: &str = "dyad-gateway";

/// The engine waits 5 s for another process; an attempt outlasts that, and a call outlasts two of them.
const TIMING: Timing = Timing { attempt: Duration::from_secs(7), call: Duration::from_secs(15) };

const SWEEP_EVERY: Duration = Duration::from_secs(300);

/// Why a file cannot be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot make or open {path}")]
    File { path: PathBuf, source: io::Error },
    /// Not a store, or one of a newer version, or damaged.
    #[error("{path} cannot be used as a store")]
    Engine { path: PathBuf, source: Box<DynoxideError> },
    #[error("cannot make the table")]
    Table(#[from] StoreError),
    #[error("the runtime is shutting down")]
    Runtime(#[from] JoinError),
}

impl DynamoStore {
    /// A store in this process, on the file at `path`, made if it is not there (as are the directories above it):
    /// readable by its owner only. Needs a Tokio runtime with timers, now and later.
    pub async fn open_embedded(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let database = spawn_blocking(move || open_database(&path)).await??;
        let sweeper = Arc::new(Sweeper::start(database.clone()));
        let engine = Engine { database, turn: Arc::new(Semaphore::new(1)), _sweeper: sweeper };
        let store = DynamoStore::new(
            HostPorts {
                http_client: SharedHttpClient::new(engine),
                sleep: SharedAsyncSleep::new(TokioSleep::new()),
                time: SharedTimeSource::new(SystemTimeSource::new()),
            },
            DynamoOptions {
                table: EMBEDDED_TABLE.to_owned(),
                // Region, endpoint and credentials go into the request and are looked at by nobody.
                region: "embedded".to_owned(),
                endpoint_url: Some("http://embedded.invalid".to_owned()),
                credentials: SharedCredentialsProvider::new(Credentials::from_keys(
                    "embedded", "embedded", None,
                )),
                timing: TIMING,
            },
        );
        store.create_table().await?;
        Ok(store)
    }
}

pub(crate) fn open_database(path: &Path) -> Result<Database, OpenError> {
    let failed = |source| OpenError::File { path: path.to_owned(), source };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        create_directory(directory).map_err(failed)?;
    }
    let text = path.to_str().ok_or_else(|| failed(io::Error::other("the path is not valid UTF-8")))?;
    // One opens at a time: SQLite does not wait for its locks while it turns a new file into write-ahead mode.
    let opening = open_lock_file(path).map_err(failed)?;
    opening.lock().map_err(failed)?;
    // SQLite gives the files that it puts beside this one the same permissions.
    make_private_file(path).map_err(failed)?;
    Database::new(text).map_err(|error| OpenError::Engine { path: path.to_owned(), source: Box::new(error) })
}

#[cfg(unix)]
fn create_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;

    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).create(path)
}

/// The file beside the store whose lock says that somebody is opening the store.
fn open_lock_file(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".opening");
    private_file().create(true).truncate(false).open(name)
}

/// Makes the file, or takes from others what they may do with one that is there, copied by somebody perhaps. One that
/// is there is not opened: closing it would drop every lock that this process has on it.
fn make_private_file(path: &Path) -> io::Result<()> {
    match private_file().create_new(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => keep_others_out(path),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn private_file() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(not(unix))]
fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    options
}

#[cfg(unix)]
fn keep_others_out(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn keep_others_out(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The SDK's way to the engine. The engine works on one request at a time; the others wait here, where waiting costs
/// no thread and ends when the caller gives up.
#[derive(Clone)]
struct Engine {
    database: Database,
    turn: Arc<Semaphore>,
    _sweeper: Arc<Sweeper>,
}

/// Removes what has expired, every few minutes, as long as anybody has the store. Reading never relies on it.
struct Sweeper(JoinHandle<()>);

impl Sweeper {
    fn start(database: Database) -> Self {
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let database = database.clone();
                // Requests have their turn between two pages of it.
                match spawn_blocking(move || database.sweep_ttl()).await {
                    Ok(Ok(removed)) => tracing::debug!(removed, "expired items removed from the store"),
                    Ok(Err(error)) => tracing::warn!(%error, "expired items could not be removed"),
                    // The runtime is shutting down.
                    Err(_) => return,
                }
            }
        }))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl HttpClient for Engine {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Engine {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { database, turn, _sweeper } = self.clone();
        HttpConnectorFuture::new(async move {
            let turn =
                turn.acquire_owned().await.map_err(|closed| ConnectorError::other(closed.into(), None))?;
            // The permit goes along: a caller that gives up does not end the work, and the next one waits for it.
            let work = move || {
                let response = answer(&database, &request);
                drop(turn);
                response
            };
            spawn_blocking(work).await.map_err(|error| ConnectorError::other(error.into(), None))?
        })
    }
}

fn answer(database: &Database, request: &HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let target = request.headers().get("x-amz-target").unwrap_or_default();
    let (status, body) = perform(database, target, request.body().bytes().unwrap_or_default());
    let status = StatusCode::try_from(status).map_err(|error| ConnectorError::other(error.into(), None))?;
    Ok(HttpResponse::new(status, SdkBody::from(body)))
}

/// The engine's answer to one request, as DynamoDB's HTTP API would give it: the status and the JSON. `target` is the
/// header `x-amz-target`.
pub(crate) fn perform(database: &Database, target: &str, body: &[u8]) -> (u16, String) {
    let answered = match target.strip_prefix("DynamoDB_20120810.").unwrap_or_default() {
        "CreateTable" => run(body, |request| database.create_table(request)),
        "DescribeTable" => run(body, |request| database.describe_table(request)),
        "DescribeTimeToLive" => run(body, |request| database.describe_time_to_live(request)),
        "UpdateTimeToLive" => run(body, |request| database.update_time_to_live(request)),
        "PutItem" => run(body, |request| database.put_item(request)),
        "DeleteItem" => run(body, |request| database.delete_item(request)),
        "GetItem" => run(body, |request| database.get_item(request)),
        "Query" => run(body, |request| database.query(request)),
        "TransactWriteItems" => run(body, |request| database.transact_write_items(request)),
        "UpdateItem" => run(body, |request| database.update_item(request)),
        // Not for the store, but for whoever looks into it.
        "ListTables" => run(body, |request| database.list_tables(request)),
        "Scan" => run(body, |request| database.scan(request)),
        _ => {
            let reason = format!("x-amz-target: {target:?} is no operation that this store has");
            Err(DynoxideError::ValidationException(reason))
        }
    };
    answered.map_or_else(|error| (error.status_code(), error.to_json()), |body| (200, body))
}

fn run<Q: DeserializeOwned, A: Serialize>(
    body: &[u8],
    operation: impl FnOnce(Q) -> dynoxide::Result<A>,
) -> dynoxide::Result<String> {
    let request = serde_json::from_slice(body)
        .map_err(|error| DynoxideError::SerializationException(error.to_string()))?;
    let answer = operation(request)?;
    serde_json::to_string(&answer).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}
