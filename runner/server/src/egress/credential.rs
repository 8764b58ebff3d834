//! Vendors' credentials, read from where the operator's file points, each time one is used: what is rotated takes
//! effect with the next call.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::Secret;
use crate::config::model::CredentialRef;

/// Longest credential file.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The credential without white space around it; an error says, without the credential, why there is none.
pub(crate) fn read(reference: &CredentialRef) -> Result<Secret, String> {
    let (text, from) = match reference {
        CredentialRef::Env(name) => {
            let text = std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => format!("the environment variable {name} is not set"),
                std::env::VarError::NotUnicode(_) => format!("the environment variable {name} is not text"),
            })?;
            (Secret::new(text), format!("the environment variable {name}"))
        }
        CredentialRef::File(path) => {
            let from = format!("the file {}", path.display());
            let text = read_file(path).map_err(|error| format!("{from} cannot be read: {error}"))?;
            (text, from)
        }
    };
    let text = text.expose().trim();
    if text.is_empty() {
        return Err(format!("{from} is empty"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{from} holds more than one credential, or characters that no credential has"));
    }
    Ok(Secret::new(text))
}

fn read_file(path: &Path) -> io::Result<Secret> {
    // Before it is opened: a pipe would be waited for.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it is longer than {MAX_FILE_BYTES} bytes")));
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1));
    File::open(path)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(Secret::new(text.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(content: &[u8]) -> Result<Secret, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credential");
        std::fs::write(&path, content).unwrap();
        read(&CredentialRef::File(path))
    }

    #[test]
    fn white_space_around_a_credential_is_not_part_of_it() {
        assert_eq!(from_file(b" sk-1=\r\n").unwrap().expose(), "sk-1=");
    }

    #[test]
    fn what_is_no_credential_is_refused_without_being_shown() {
        for (content, reason) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            (b"sk-1\nsk-2", "more than one credential"),
            (b"sk-\x7f1", "characters"),
            (b"sk-\xff1", "cannot be read"),
            (&vec![b'x'; 70_000], "longer than"),
        ] {
            let error = from_file(content).unwrap_err();
            assert!(error.contains(reason) && !error.contains("sk-"), "{error}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let missing = read(&CredentialRef::Env("DYAD_RUNNER_NO_SUCH_VARIABLE".to_owned())).unwrap_err();
        assert_eq!(missing, "the environment variable DYAD_RUNNER_NO_SUCH_VARIABLE is not set");
        for (path, reason) in [("/no/such/file", "/no/such/file"), ("/", "not a file")] {
            let missing = read(&CredentialRef::File(path.into())).unwrap_err();
            assert!(missing.contains(reason), "{missing}");
        }
    }
}
