//! DynamoDB's API over the embedded engine, for development and tests: any credentials are taken, no signature is
//! checked, and nothing is ever throttled.

use std::path::PathBuf;

use dynoxide::{Database, DynoxideError};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use crate::DynamoStore;
use crate::embedded::{OpenError, open_database};

#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("no memory for a store")]
    Memory(#[from] Box<DynoxideError>),
    #[error("{0}")]
    Serve(String),
}

/// Serves until `shutdown` resolves and the requests under way have ended. On the file of an embedded store, whose
/// table [`EMBEDDED_TABLE`](crate::EMBEDDED_TABLE) is there from the start and may be in use by other processes; or, without a
/// file, in memory, without a table, and forgotten at the end. Needs a runtime with several threads: the engine works
/// on the thread that serves.
pub async fn emulate(
    file: Option<PathBuf>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), EmulatorError> {
    let database = match file {
        Some(path) => {
            // Makes the table.
            DynamoStore::open_embedded(&path).await?;
            spawn_blocking(move || open_database(&path)).await.map_err(OpenError::from)??
        }
        None => Database::memory().map_err(Box::new)?,
    };
    dynoxide::server::serve_with_shutdown(listener, database, shutdown).await.map_err(EmulatorError::Serve)
}
