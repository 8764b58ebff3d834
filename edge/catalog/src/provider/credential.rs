//! Where an upstream credential comes from, as text and back.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{CredentialRef, InlineCredentialError};
use crate::SealedSecret;

impl CredentialRef {
    /// `env:NAME`, `file:PATH` or a [`SealedSecret`]. `Err` says what is wrong, and never repeats what was written: it
    /// may be the credential itself.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text.split_once(':') {
            Some(("env", name)) if is_variable_name(name) => {
                let credential = Self::Env(name.to_owned());
                credential.refusal().map_or(Ok(credential), Err)
            }
            Some(("file", path)) if !path.is_empty() && !path.chars().any(char::is_control) => {
                Ok(Self::File(path.to_owned()))
            }
            Some(("sealed", _)) => SealedSecret::parse(text)
                .map(Self::Sealed)
                .map_err(|_| "is no sealed credential of this version"),
            Some(("env", _)) => {
                Err("must name an environment variable: letters, digits and _, not beginning with a digit")
            }
            Some(("file", _)) => Err("must name a file"),
            _ => Err("must be \"env:NAME\" or \"file:PATH\"; a credential itself is not written here"),
        }
    }

    /// The text that [`parse`](Self::parse) reads; `None` if there is no credential.
    pub fn to_text(&self) -> Result<Option<String>, InlineCredentialError> {
        match self {
            Self::None => Ok(None),
            Self::Env(name) => Ok(Some(format!("env:{name}"))),
            Self::File(path) => Ok(Some(format!("file:{path}"))),
            Self::Sealed(sealed) => Ok(Some(sealed.to_string())),
            Self::Inline(_) => Err(InlineCredentialError),
        }
    }
}

fn is_variable_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(allowed) && !name.starts_with(|first: char| first.is_ascii_digit())
}

impl Serialize for CredentialRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_text().map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CredentialRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<String>::deserialize(deserializer)? {
            None => Ok(Self::None),
            Some(text) => Self::parse(&text).map_err(serde::de::Error::custom),
        }
    }
}
