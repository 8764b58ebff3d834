//! Credentials, read from where their references point.

use std::io;
use std::path::{Path, PathBuf};

use catalog::{CredentialRef, Secret};
use edge_host::{credential_of, variables};

/// Longest credential file.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The upstream credential of a provider that whoever runs this gateway has written. An error says, without the
/// credential, why there is none.
pub(crate) fn of_given(reference: &CredentialRef) -> Result<Option<Secret>, String> {
    match reference.refusal() {
        Some(refused) => Err(format!("the credential {refused}")),
        None => read(reference),
    }
}

/// The same of a stored provider: whoever may write to the store must not choose which file of this machine is sent
/// to which host. `directory` has the files that are meant for it.
pub(crate) fn of_stored(
    reference: &CredentialRef,
    directory: Option<&Path>,
) -> Result<Option<Secret>, String> {
    let CredentialRef::File(path) = reference else { return of_given(reference) };
    let Some(directory) = directory else {
        return Err(format!(
            "the file {path} is not read, since a stored provider names it: set {} or credential_dir to the directory that such files are in, or make it env:NAME",
            variables::CREDENTIAL_DIR
        ));
    };
    let below = file_below(path, directory).map_err(|error| format!("the file {path} {error}"))?;
    read(&CredentialRef::File(below))
}

/// Links may lead anywhere, so what counts is where they end.
fn file_below(path: &str, directory: &Path) -> Result<String, String> {
    let real = |path: PathBuf| path.canonicalize().map_err(|error| format!("cannot be read: {error}"));
    let file = real(directory.join(path))?;
    if !file.starts_with(real(directory.to_owned())?) {
        return Err("is not in the directory of the credentials of stored providers".to_owned());
    }
    file.into_os_string().into_string().map_err(|_| "has a path that is not text".to_owned())
}

/// A secret of this gateway's own, wherever it is.
pub(crate) fn read(reference: &CredentialRef) -> Result<Option<Secret>, String> {
    let (text, from) = match reference {
        CredentialRef::None => return Ok(None),
        CredentialRef::Sealed(_) => {
            return Err(
                "a sealed credential belongs to the record of a store that it was sealed for".to_owned()
            );
        }
        CredentialRef::Inline(secret) => (secret.expose().to_owned(), "the given credential".to_owned()),
        CredentialRef::Env(name) => {
            let text = std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => format!("the environment variable {name} is not set"),
                std::env::VarError::NotUnicode(_) => format!("the environment variable {name} is not text"),
            })?;
            (text, format!("the environment variable {name}"))
        }
        CredentialRef::File(path) => {
            let text = read_file(path).map_err(|error| format!("the file {path} cannot be read: {error}"))?;
            (text, format!("the file {path}"))
        }
    };
    credential_of(&text, &from).map(Some)
}

/// A file of a secret: short, and text.
pub(crate) fn read_file(path: impl AsRef<Path>) -> io::Result<String> {
    let path = path.as_ref();
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it is longer than {MAX_FILE_BYTES} bytes")));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(content: &str) -> Result<Option<Secret>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credential");
        std::fs::write(&path, content).unwrap();
        read(&CredentialRef::File(path.to_str().unwrap().to_owned()))
    }

    #[test]
    fn white_space_around_a_credential_is_not_part_of_it() {
        assert_eq!(from_file(" sk-1=\r\n").unwrap().unwrap().expose(), "sk-1=");
    }

    #[test]
    fn what_is_no_credential_is_refused_without_being_shown() {
        for (content, reason) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("sk-1\nsk-2", "more than one line"),
            ("sk-\u{7f}1", "no header"),
        ] {
            let error = from_file(content).unwrap_err();
            assert!(error.contains(reason) && !error.contains("sk-"), "{content:?}: {error}");
        }
        assert!(from_file(&"x".repeat(70_000)).unwrap_err().contains("longer than"));
    }

    #[test]
    fn a_stored_provider_names_files_of_one_directory_only() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("credentials");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("good"), "sk-good").unwrap();
        let outside = place.path().join("outside");
        std::fs::write(&outside, "sk-outside").unwrap();
        std::os::unix::fs::symlink(&outside, directory.join("link")).unwrap();
        let file = |path: &str| CredentialRef::File(path.to_owned());
        let good = directory.join("good");
        for path in [good.to_str().unwrap(), "good"] {
            let read = of_stored(&file(path), Some(&directory)).unwrap().unwrap();
            assert_eq!(read.expose(), "sk-good");
        }
        let outside = outside.to_str().unwrap();
        for path in [outside, "link", "../outside", "/etc/hostname", "none"] {
            let error = of_stored(&file(path), Some(&directory)).unwrap_err();
            assert!(error.contains(path) && !error.contains("sk-"), "{error}");
        }
        let error = of_stored(&file(outside), None).unwrap_err();
        assert!(error.contains("DYAD_CREDENTIAL_DIR"), "{error}");
        assert!(of_given(&file(outside)).is_ok(), "whoever runs the gateway may");
    }

    #[test]
    fn the_gateways_own_secrets_go_nowhere() {
        let own = CredentialRef::Env("DYAD_KEY_SECRET".to_owned());
        for refused in [of_given(&own), of_stored(&own, None)] {
            assert!(refused.unwrap_err().contains("DYAD_ or AWS_"));
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let missing = read(&CredentialRef::Env("DYAD_GATEWAY_NO_SUCH_VARIABLE".to_owned())).unwrap_err();
        assert_eq!(missing, "the environment variable DYAD_GATEWAY_NO_SUCH_VARIABLE is not set");
        let missing = read(&CredentialRef::File("/no/such/file".to_owned())).unwrap_err();
        assert!(missing.contains("/no/such/file"), "{missing}");
        let directory = read(&CredentialRef::File("/".to_owned())).unwrap_err();
        assert!(directory.contains("not a file"), "{directory}");
    }
}
