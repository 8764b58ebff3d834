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

/// An engine that is ready to be served.
pub struct Emulator {
    database: Database,
    /// Cares for the file while it is served.
    _store: Option<DynamoStore>,
}

impl Emulator {
    /// On the file of an embedded store, whose table [`EMBEDDED_TABLE`](crate::EMBEDDED_TABLE) is there from the start
    /// and may be in use by other processes.
    pub async fn open(path: PathBuf) -> Result<Self, EmulatorError> {
        // Makes the table.
        let store = DynamoStore::open_embedded(&path).await?;
        let database = spawn_blocking(move || open_database(&path)).await.map_err(OpenError::from)??;
        Ok(Self { database, _store: Some(store) })
    }

    /// Without a table, and forgotten at the end.
    pub fn in_memory() -> Result<Self, EmulatorError> {
        Ok(Self { database: Database::memory().map_err(Box::new)?, _store: None })
    }

    /// Serves until `shutdown` resolves and the requests under way have ended. Needs a runtime with several threads: the
    /// engine works on the thread that serves.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), EmulatorError> {
        let served = dynoxide::server::serve_with_shutdown(listener, self.database, shutdown).await;
        served.map_err(EmulatorError::Serve)
    }
}
