//! Directories that nobody else has a hand in.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

/// Write permission of group and others (`inode(7)`).
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Makes the directory, for us alone, if it is not there. One that is somebody else's, or that others can write to, is
/// refused: whoever can put a file there could have it used as ours.
pub(crate) fn own_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let metadata = fs::metadata(path)?;
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        let owner = metadata.uid();
        return Err(io::Error::other(format!("it belongs to user {owner}, and this is user {us}")));
    }
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(io::Error::other(format!(
            "others can write to it (mode {mode:04o}): take that away with chmod go-w"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_made_is_ours_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        own_directory(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        own_directory(&path).unwrap();
    }

    #[test]
    fn what_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, is_ours) in [(0o755, true), (0o711, true), (0o770, false), (0o1777, false)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            let outcome = own_directory(folder.path());
            assert_eq!(outcome.is_ok(), is_ours, "{mode:o}: {outcome:?}");
        }
    }

    #[test]
    fn what_is_somebody_elses_is_refused() {
        // Whoever runs the tests is either not root or can give things away.
        let error = if rustix::process::geteuid().is_root() {
            let folder = tempfile::tempdir().unwrap();
            std::os::unix::fs::chown(folder.path(), Some(65_534), None).unwrap();
            own_directory(folder.path()).unwrap_err()
        } else {
            own_directory(Path::new("/")).unwrap_err()
        };
        assert!(error.to_string().contains("belongs to user"), "{error}");
    }
}
