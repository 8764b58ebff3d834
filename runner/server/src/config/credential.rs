//! Whether a credential that the file refers to is there.

use std::path::Path;

use super::model::CredentialRef;
use crate::egress::read_credential;

impl CredentialRef {
    /// `env:NAME` or `file:PATH`, counted from `folder`. The error never repeats the text, which may be the secret itself.
    pub(super) fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if is_variable_name(name) => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(folder.join(path))),
            _ => {
                Err("must say where the credential is, \"env:NAME\" or \"file:PATH\", not what it is"
                    .to_owned())
            }
        }
    }

    /// Whether there is a credential, by the rules by which a run reads it. The error names the variable or the file, and
    /// says what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        read_credential(self).map(drop)
    }
}

/// What the name of an environment variable may be (POSIX, XBD 8.1, with lower-case letters).
pub(super) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_in_the_place_of_its_reference_is_not_repeated() {
        for text in ["sk-secret", "env:sk-secret", "env:", "file:", "vault:sk-secret", ""] {
            let error = CredentialRef::parse(text, Path::new("/etc")).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        assert_eq!(
            CredentialRef::parse("env:A_1", Path::new("/etc")),
            Ok(CredentialRef::Env("A_1".to_owned()))
        );
        assert_eq!(
            CredentialRef::parse("file:a:b", Path::new("/etc")),
            Ok(CredentialRef::File(Path::new("/etc/a:b").to_owned()))
        );
    }

    #[test]
    fn files_and_variables_are_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            std::fs::write(folder.path().join(name), content).unwrap();
            CredentialRef::File(folder.path().join(name)).check()
        };
        assert_eq!(file("key", "sk-1\n"), Ok(()));
        assert!(file("two", "sk-1\nsk-2\n").unwrap_err().contains("more than one credential"));
        assert!(file("blank", " \n").unwrap_err().contains("empty"));
        assert!(file("empty", "").unwrap_err().contains("empty"));
        assert!(file("long", &"a".repeat((64 << 10) + 1)).unwrap_err().contains("longer"));
        assert!(CredentialRef::File(folder.path().into()).check().unwrap_err().contains("not a file"));
        assert!(CredentialRef::File(folder.path().join("none")).check().unwrap_err().contains("none"));
        // Cargo sets the one for tests; the other is nobody's.
        assert_eq!(CredentialRef::Env("CARGO_MANIFEST_DIR".to_owned()).check(), Ok(()));
        let missing = CredentialRef::Env("DYAD_RUNNER_NO_SUCH_VARIABLE".to_owned()).check();
        assert!(missing.unwrap_err().contains("DYAD_RUNNER_NO_SUCH_VARIABLE is not set"));
    }
}
