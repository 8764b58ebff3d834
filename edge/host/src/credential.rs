//! Upstream credentials: what every host holds them to, and, on an edge, the platform's secrets by their names.

use catalog::{CredentialRef, Secret};

/// The credential on an edge; an error says, without the credential, why there is none. `get` reads a secret of the
/// platform.
pub fn credential(
    reference: &CredentialRef,
    get: impl Fn(&str) -> Option<String>,
) -> Result<Option<Secret>, String> {
    if let Some(refused) = reference.refusal() {
        return Err(format!("the credential {refused}"));
    }
    match reference {
        CredentialRef::None => Ok(None),
        CredentialRef::Sealed(_) => {
            Err("a sealed credential belongs to the record of a store that it was sealed for".to_owned())
        }
        CredentialRef::Inline(secret) => credential_of(secret.expose(), "the given credential").map(Some),
        CredentialRef::Env(name) => {
            let text = get(name).ok_or_else(|| format!("the secret {name} is not set"))?;
            credential_of(&text, &format!("the secret {name}")).map(Some)
        }
        CredentialRef::File(path) => {
            Err(format!("the file {path} cannot be read: an edge has no files; make it env:NAME"))
        }
    }
}

/// The credential in a text, without white space around it. `from` says where the text is from; an error repeats
/// nothing else.
pub fn credential_of(text: &str, from: &str) -> Result<Secret, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("{from} is empty"));
    }
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(format!("{from} has more than one line, or characters that no header may hold"));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_secret(content: &str) -> Result<Option<Secret>, String> {
        credential(&CredentialRef::Env("UPSTREAM_KEY".to_owned()), |name| {
            assert_eq!(name, "UPSTREAM_KEY");
            Some(content.to_owned())
        })
    }

    #[test]
    fn white_space_around_a_credential_is_not_part_of_it() {
        assert_eq!(from_secret(" sk-1=\r\n").unwrap().unwrap().expose(), "sk-1=");
    }

    #[test]
    fn what_is_no_credential_is_refused_without_being_shown() {
        for (content, reason) in [(" \n", "is empty"), ("sk-1\nsk-2", "more than one line")] {
            let error = from_secret(content).unwrap_err();
            assert!(error.contains("UPSTREAM_KEY") && error.contains(reason), "{error}");
            assert!(!error.contains("sk-"), "{error}");
        }
    }

    /// Stored before it was refused, or by something else than this program.
    #[test]
    fn the_deployments_own_secrets_are_not_read() {
        for own in ["DYAD_KEY_SECRET", "aws_secret_access_key"] {
            let own = CredentialRef::Env(own.to_owned());
            let error = credential(&own, |_| panic!("it is not looked at")).unwrap_err();
            assert!(error.contains("DYAD_ or AWS_"), "{error}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let missing = credential(&CredentialRef::Env("UPSTREAM_KEY".to_owned()), |_| None).unwrap_err();
        assert_eq!(missing, "the secret UPSTREAM_KEY is not set");
        let file = credential(&CredentialRef::File("/run/key".to_owned()), |_| None).unwrap_err();
        assert!(file.contains("/run/key") && file.contains("env:NAME"), "{file}");
        assert!(credential(&CredentialRef::None, |_| None).unwrap().is_none());
    }
}
