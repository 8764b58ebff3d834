//! One process for each node: its containers and sockets are told from orphans by the node's name.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::own_directory::own_directory;

/// Held as long as this lives; the kernel gives it up for a process that was killed.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("another runner uses {} already", path.display())]
    InUse { path: PathBuf },
    #[error("{} cannot be used", path.display())]
    Unusable { path: PathBuf, source: io::Error },
}

impl StateLock {
    /// Makes the directory if it is not there; one that others can write to is refused.
    pub(crate) fn take(state_dir: &Path) -> Result<Self, StateError> {
        let unusable = |source| StateError::Unusable { path: state_dir.to_owned(), source };
        own_directory(state_dir).map_err(unusable)?;
        let path = state_dir.join("lock");
        let file = File::options().create(true).append(true).open(&path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: state_dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_runners() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("a/b");
        let lock = StateLock::take(&state_dir).unwrap();
        assert!(matches!(StateLock::take(&state_dir), Err(StateError::InUse { path }) if path == state_dir));
        drop(lock);
        StateLock::take(&state_dir).unwrap();
    }

    #[test]
    fn a_file_is_no_directory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        assert!(matches!(StateLock::take(&path), Err(StateError::Unusable { .. })));
    }
}
