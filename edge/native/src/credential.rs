//! Upstream credentials, read from where their references point.

use std::io;

use catalog::{CredentialRef, Secret};

/// Longest credential file.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The credential, without white space around it; an error says, without the credential, why there is none.
pub(crate) fn read(reference: &CredentialRef) -> Result<Option<Secret>, String> {
    let (text, from) = match reference {
        CredentialRef::None => return Ok(None),
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
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("{from} is empty"));
    }
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(format!("{from} has more than one line, or characters that no header may hold"));
    }
    Ok(Some(Secret::new(text)))
}

fn read_file(path: &str) -> io::Result<String> {
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
    fn what_is_not_there_is_named() {
        let missing = read(&CredentialRef::Env("DYAD_GATEWAY_NO_SUCH_VARIABLE".to_owned())).unwrap_err();
        assert_eq!(missing, "the environment variable DYAD_GATEWAY_NO_SUCH_VARIABLE is not set");
        let missing = read(&CredentialRef::File("/no/such/file".to_owned())).unwrap_err();
        assert!(missing.contains("/no/such/file"), "{missing}");
        let directory = read(&CredentialRef::File("/".to_owned())).unwrap_err();
        assert!(directory.contains("not a file"), "{directory}");
    }
}
