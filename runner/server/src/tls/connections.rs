//! The connections that are open, and whose they are.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::UnixTime;
use tokio::sync::oneshot;

use super::clients::{Clients, Presented};

#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last_id: u64,
    connections: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    peer: Option<SocketAddr>,
    client: Presented,
    close: oneshot::Sender<()>,
}

/// Held by a connection as long as it lives.
#[derive(Debug)]
pub(super) struct Registration {
    connections: Arc<Connections>,
    id: u64,
    /// Resolves when the connection is to be closed.
    pub(super) closed: oneshot::Receiver<()>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.connections.lock().connections.remove(&self.id);
    }
}

impl Connections {
    pub(super) fn register(self: &Arc<Self>, peer: Option<SocketAddr>, client: Presented) -> Registration {
        let (close, closed) = oneshot::channel();
        let mut open = self.lock();
        open.last_id += 1;
        let id = open.last_id;
        open.connections.insert(id, Connection { peer, client, close });
        Registration { connections: Arc::clone(self), id, closed }
    }

    /// Closes what the rules would not let in.
    pub(super) fn recheck(&self, clients: &Clients, now: UnixTime) {
        self.close(|client| {
            let (certificate, intermediates) = client.chain.split_first()?;
            clients.admit(certificate, intermediates, now).err().map(|error| error.to_string())
        });
    }

    pub(super) fn close_expired(&self, now: UnixTime) {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.close(|client| {
            (client.not_after < now).then(|| "the client's certificate has expired".to_owned())
        });
    }

    fn close(&self, reason: impl Fn(&Presented) -> Option<String>) {
        let mut open = self.lock();
        for (_, connection) in
            open.connections.extract_if(|_, connection| reason(&connection.client).is_some())
        {
            let Connection { peer, client, close } = connection;
            let reason = reason(&client);
            let peer = peer.map(tracing::field::display);
            tracing::warn!(peer, reason, subject = client.subject, "a client's connection was closed");
            // It may have ended by itself.
            let _ = close.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
