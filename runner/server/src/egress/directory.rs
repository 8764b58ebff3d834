//! Where endpoints have their sockets: `STATE_DIR/egress/RANDOM/egress.sock`.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::EgressError;
use crate::own_directory::own_directory;

const SOCKET: &str = "egress.sock";
const NAME_LENGTH: usize = 32;
/// `sun_path` has 108 bytes, the last of them 0 (`unix(7)`).
const MAX_PATH_BYTES: usize = 107;
/// Closed to everybody else on this host: names in it are no secret, as /proc/net/unix shows them. What is mounted into
/// a sandbox is the socket, by somebody whom this does not keep out: Docker, or the runner's own user.
const DIRECTORY_MODE: u32 = 0o700;
/// Connecting needs the right to write, and a sandbox's user is not the runner's.
const SOCKET_MODE: u32 = 0o666;

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Shared by all processes whose sockets are here; whoever has it alone may remove what it finds.
    lock: Arc<File>,
}

impl Directory {
    /// Creates it, and removes what crashed processes left, if no other process uses it.
    pub(super) fn open(state_dir: &Path) -> Result<Self, EgressError> {
        let path = state_dir.join("egress");
        let longest = path.join("x".repeat(NAME_LENGTH)).join(SOCKET);
        if longest.as_os_str().len() > MAX_PATH_BYTES {
            return Err(EgressError::PathTooLong { path: longest, max: MAX_PATH_BYTES });
        }
        match own_directory(state_dir).and_then(|()| prepare(&path)) {
            Ok(lock) => Ok(Self { path, lock: Arc::new(lock) }),
            Err(source) => Err(EgressError::Directory { path, source }),
        }
    }

    /// A directory for one endpoint.
    pub(super) fn claim(&self) -> Result<Claim, EgressError> {
        let mut random = [0; NAME_LENGTH / 2];
        getrandom::fill(&mut random)?;
        let path = self.path.join(format!("{:032x}", u128::from_be_bytes(random)));
        let made = make(&path).map(|()| Claim { path: path.clone(), _lock: Arc::clone(&self.lock) });
        made.map_err(|source| EgressError::Directory { path, source })
    }
}

/// Removed, with the socket in it, when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    /// As long as this is there, nobody else removes it.
    _lock: Arc<File>,
}

impl Claim {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn socket_path(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    pub(super) fn bind(&self) -> io::Result<tokio::net::UnixListener> {
        let path = self.socket_path();
        let listener = tokio::net::UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(SOCKET_MODE))?;
        Ok(listener)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "an egress socket could not be removed");
        }
    }
}

/// Takes a share of the lock.
fn prepare(path: &Path) -> io::Result<File> {
    own_directory(path)?;
    // A former version of the runner left it open.
    fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))?;
    let lock = File::create(path.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => sweep(path)?,
        // Another process lives: what it uses cannot be told from what a crashed one left.
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // At most until another process has swept.
    lock.lock_shared()?;
    Ok(lock)
}

fn sweep(path: &Path) -> io::Result<()> {
    let mut removed = 0_u32;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
            removed += 1;
        }
    }
    if removed > 0 {
        tracing::info!(removed, "sockets that a crashed runner left were removed");
    }
    Ok(())
}

fn make(path: &Path) -> io::Result<()> {
    // The mode is given again, as the process's umask may have taken some of it.
    fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[test]
    fn what_a_crashed_process_left_is_removed_unless_another_lives() {
        let state = tempfile::tempdir().unwrap();
        let first = Directory::open(state.path()).unwrap();
        let left = first.claim().unwrap();
        let path = left.path().to_owned();

        let second = Directory::open(state.path()).unwrap();
        assert!(path.exists(), "the first lives");
        drop((first, second));
        assert!(Directory::open(state.path()).is_ok() && path.exists(), "what the first made lives");
        drop(left);
        assert!(!path.exists());

        // As a crash would leave it: a directory, and nobody who has the lock.
        make(&path).unwrap();
        std::fs::write(path.join(SOCKET), "").unwrap();
        let alone = Directory::open(state.path()).unwrap();
        assert!(!path.exists());
        let claim = alone.claim().unwrap();
        let path = claim.path().to_owned();
        assert!(path.is_dir());
        drop(claim);
        assert!(!path.exists());
    }

    #[test]
    fn another_user_of_this_host_does_not_get_in() {
        let state = tempfile::tempdir().unwrap();
        // As a system's own directories are.
        fs::set_permissions(state.path(), Permissions::from_mode(0o755)).unwrap();
        let directory = Directory::open(state.path()).unwrap();
        let claim = directory.claim().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(claim.socket_path()).unwrap();
        let ways = [claim.path(), claim.path().parent().unwrap()];
        for path in ways {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o700);
        }
        // Only root can be somebody else.
        if rustix::process::geteuid().is_root() {
            let is_reached = || {
                let mut test = std::process::Command::new("test");
                test.arg("-S").arg(claim.socket_path()).uid(65_534).gid(65_534).current_dir("/");
                test.status().unwrap().success()
            };
            assert!(!is_reached());
            for path in ways {
                fs::set_permissions(path, Permissions::from_mode(0o711)).unwrap();
            }
            assert!(is_reached(), "nothing but the directories' modes keeps others out");
        }
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_told_at_once() {
        let state = tempfile::tempdir().unwrap();
        let long = state.path().join("d".repeat(100));
        let fault = Directory::open(&long).unwrap_err();
        assert!(matches!(fault, EgressError::PathTooLong { .. }), "{fault}");
        assert!(!long.exists());
    }
}
