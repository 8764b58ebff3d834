//! One process for each node: its containers and sockets are told from orphans by the node's name.

use std::fs::{File, TryLockError};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::config::model::RunnerConfig;
use crate::own_directory::own_directory;

/// Held as long as this lives; the kernel gives it up for a process that was killed.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
    /// Nobody connects to it: its name, which no file has, can be taken once.
    _name: UnixListener,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("another runner uses {} already", path.display())]
    InUse { path: PathBuf },
    #[error("{} cannot be used", path.display())]
    Unusable { path: PathBuf, source: io::Error },
    /// With a state directory of its own, a copied one perhaps: the two would remove each other's sandboxes.
    #[error("another runner with the id {id} runs on this host, on the same Docker engine")]
    SameNode { id: String },
}

impl StateLock {
    /// Makes the state directory if it is not there; one that others can write to is refused.
    pub(crate) fn take(config: &RunnerConfig) -> Result<Self, StateError> {
        let file = take_directory(&config.state_dir)?;
        let name = take_name(&config.node.id, &config.engine.socket)?;
        Ok(Self { _file: file, _name: name })
    }
}

fn take_directory(state_dir: &Path) -> Result<File, StateError> {
    let unusable = |source| StateError::Unusable { path: state_dir.to_owned(), source };
    own_directory(state_dir).map_err(unusable)?;
    let path = state_dir.join("lock");
    let file = File::options().create(true).append(true).open(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: state_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

/// An abstract Unix socket (unix(7)), which processes of one network namespace share, whatever directories they have.
fn take_name(id: &str, engine: &Path) -> Result<UnixListener, StateError> {
    let engine = engine.canonicalize().unwrap_or_else(|_| engine.to_owned());
    let mut digest = Sha256::new_with_prefix(id);
    digest.update([0]);
    digest.update(engine.as_os_str().as_encoded_bytes());
    let name = format!("dyad-runner-{:x}", digest.finalize());
    let taken = SocketAddr::from_abstract_name(name).and_then(|name| UnixListener::bind_addr(&name));
    taken.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StateError::SameNode { id: id.to_owned() },
        _ => StateError::Unusable { path: engine, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_runners() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("a/b");
        let lock = take_directory(&state_dir).unwrap();
        assert!(matches!(take_directory(&state_dir), Err(StateError::InUse { path }) if path == state_dir));
        drop(lock);
        take_directory(&state_dir).unwrap();
    }

    #[test]
    fn a_file_is_no_directory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        assert!(matches!(take_directory(&path), Err(StateError::Unusable { .. })));
    }

    #[test]
    fn an_id_is_one_runners_on_an_engine() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one.sock", "other.sock"].map(|name| folder.path().join(name));
        std::fs::write(&one, "").unwrap();
        let same = folder.path().join("same.sock");
        std::os::unix::fs::symlink(&one, &same).unwrap();
        let name = take_name("n1", &one).unwrap();
        assert!(matches!(take_name("n1", &same), Err(StateError::SameNode { id }) if id == "n1"));
        take_name("n2", &one).unwrap();
        take_name("n1", &other).unwrap();
        drop(name);
        take_name("n1", &same).unwrap();
    }
}
