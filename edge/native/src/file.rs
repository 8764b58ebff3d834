//! Files that are there whole or not at all.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// For its owner only.
pub(crate) const PRIVATE: u32 = 0o600;
/// For everybody to read.
pub(crate) const PUBLIC: u32 = 0o644;

/// Fails with [`io::ErrorKind::AlreadyExists`] where there is one already, and leaves that as it is.
pub(crate) fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    // Unlike a rename, a link does not replace what another process has put there meanwhile.
    draft(path, text, mode, |draft| fs::hard_link(draft, path))
}

/// Puts it in the place of the one that may be there: who reads finds the one or the other.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    draft(path, text, mode, |draft| fs::rename(draft, path))
}

/// Writes the text to disk under another name and lets `publish` give it its own.
fn draft(
    path: &Path,
    text: &str,
    mode: u32,
    publish: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut draft = name.to_owned();
    draft.push(format!(".draft-{}", std::process::id()));
    let draft = path.with_file_name(draft);
    let written = (|| {
        // One that a process left behind may have another mode.
        let _ = fs::remove_file(&draft);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        publish(&draft)
    })();
    let _ = fs::remove_file(&draft);
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_first_one_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write_new(&path, "first", PRIVATE).unwrap();
        let second = write_new(&path, "second", PRIVATE).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
    }

    #[test]
    fn a_replacement_has_its_own_mode_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("certificate.pem");
        fs::write(directory.path().join(format!("certificate.pem.draft-{}", std::process::id())), "old")
            .unwrap();
        replace(&path, "first", PUBLIC).unwrap();
        replace(&path, "second", PRIVATE).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left behind");
    }
}
