//! `dyad-sandbox-init` as it is built into this program, and what it wants to be told.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cli_dialect::WorkspaceFile;
use sha2::{Digest, Sha256};

use crate::own_directory::own_directory;

/// Static, for the target of this crate. See build.rs.
static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dyad-sandbox-init"));

const MAX_FILES: usize = 64;
const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;
const MAX_NAME: usize = 128;

/// Writes the program into `directory`, if it is not there already, and returns its path.
pub(super) fn install(directory: &Path) -> io::Result<PathBuf> {
    own_directory(directory)?;
    // Named by its content: another version of the runner may use the directory, and sandboxes the old file.
    let path = directory.join(format!("dyad-sandbox-init-{}", digest(BYTES)));
    if fs::read(&path).is_ok_and(|present| present == BYTES) {
        return Ok(path);
    }
    let partial = directory.join(format!(".dyad-sandbox-init-{}", std::process::id()));
    // A process of this number may have been killed here before.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Follows no link.
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&partial)?;
    file.write_all(BYTES)?;
    drop(file);
    // The mode above is subject to the umask, and the sandbox's user is nobody of this host.
    fs::set_permissions(&partial, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::rename(&partial, &path)?;
    Ok(path)
}

/// The first 16 hexadecimal digits of the SHA-256.
pub(super) fn digest(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes).iter().take(8) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Its arguments for starting `argv`.
pub(super) fn arguments(argv: &[String], relay: Option<(u16, &str)>, waits_for_files: bool) -> Vec<String> {
    let mut arguments = vec!["run".to_owned()];
    if let Some((port, socket)) = relay {
        arguments.extend(["--relay".to_owned(), format!("{port}={socket}")]);
    }
    if waits_for_files {
        arguments.push("--files".to_owned());
    }
    arguments.push("--".to_owned());
    arguments.extend_from_slice(argv);
    arguments
}

/// Why files cannot be given to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    #[error("{0:?} is not a plain file name")]
    Name(String),
    #[error("more than 64 files or 64 MiB")]
    TooMuch,
}

/// What precedes the CLI's own input for [`SandboxSpec::waits_for_files`](super::SandboxSpec::waits_for_files).
pub fn files_header(files: &[WorkspaceFile]) -> Result<Vec<u8>, FilesError> {
    let total = files.iter().map(|file| file.bytes.len()).sum::<usize>();
    if files.len() > MAX_FILES || total > MAX_FILE_BYTES {
        return Err(FilesError::TooMuch);
    }
    let mut header = format!("dyad-files {}\n", files.len()).into_bytes();
    for file in files {
        if !is_plain(&file.name) {
            return Err(FilesError::Name(file.name.clone()));
        }
        header.extend_from_slice(format!("{} {}\n", file.name, file.bytes.len()).as_bytes());
        header.extend_from_slice(&file.bytes);
    }
    Ok(header)
}

/// Letters, digits, `.`, `_` and `-`, no dot first: as dyad-sandbox-init has it.
fn is_plain(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
