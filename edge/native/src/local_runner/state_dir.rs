//! Where the runner's sockets lie: in the data directory, or where that is too long for a socket's path, in a short
//! directory of one's own.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dyad_runner::config::MAX_STATE_DIR_BYTES;

/// Outlives a restart, and programs on it may be run, which is not so of /run everywhere.
const SHORT: &str = "/var/tmp";
/// Characters of the node's id in the directory's name: all of one that we made.
const ID_CHARS: usize = 21;

/// The directory that fits. By the node's id it is always the same one, and nobody else can guess it beforehand.
pub(super) fn choose(data_dir: &Path, node_id: &str) -> PathBuf {
    let usual = data_dir.join("run");
    if usual.as_os_str().len() <= MAX_STATE_DIR_BYTES {
        return usual;
    }
    let id: String = node_id.chars().filter(char::is_ascii_alphanumeric).take(ID_CHARS).collect();
    Path::new(SHORT).join(format!("{}{id}", prefix()))
}

fn prefix() -> String {
    format!("dyad-{}-", rustix::process::geteuid().as_raw())
}

/// Makes a directory that [`choose`] had to find elsewhere, and keeps it from being cleaned away as long as the file is
/// open. Others are the runner's to make.
pub(super) fn secure_if_short(directory: &Path) -> io::Result<Option<File>> {
    let is_ours = directory.parent() == Some(Path::new(SHORT))
        && directory
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(&prefix()));
    is_ours.then(|| secure(directory, rustix::process::geteuid().as_raw())).transpose()
}

/// Everybody may write beside it: it must be a directory of this user that nobody else may look into.
fn secure(directory: &Path, user: u32) -> io::Result<File> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(directory)?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        return Err(io::Error::other(
            "it is there already and is not a directory that belongs to this user alone: remove it, or set state_dir in runner.toml",
        ));
    }
    let open = File::open(directory)?;
    // systemd-tmpfiles(8) passes over directories that are locked so.
    open.lock_shared()?;
    Ok(open)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_data_directory_with_a_long_path_has_its_sockets_elsewhere() {
        let short = Path::new("/home/ada/.local/share/dyad-gateway");
        assert_eq!(choose(short, "local-0123456789abcdef"), short.join("run"));
        let long = Path::new("/home/christopher.mueller/.local/share/dyad-gateway");
        let chosen = choose(long, "local-0123456789abcdef");
        assert!(chosen.to_str().unwrap().ends_with("-local0123456789abcdef"), "{chosen:?}");
        let longest = format!("{SHORT}/dyad-{}-{}", u32::MAX, "x".repeat(ID_CHARS));
        assert!(longest.len() <= MAX_STATE_DIR_BYTES, "{longest}");
        assert_eq!(choose(long, "../../etc").parent(), Some(Path::new(SHORT)));
    }

    #[test]
    fn only_a_directory_of_ones_own_is_taken() {
        let place = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let directory = place.path().join("a");
        secure(&directory, user).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        secure(&directory, user).unwrap();
        assert!(secure(&directory, user + 1).is_err(), "somebody else's");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(secure(&directory, user).is_err(), "others may look into it");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        assert!(secure(&link, user).is_err(), "a link to one");
    }
}
