use std::fmt;

use serde::{Deserialize, Serialize};

const MAX_CHARS: usize = 63;

/// A provider's name in URLs, keys and metrics: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ProviderSlug(String);

/// The text is not `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a slug has 1 to 63 characters of a-z, 0-9 and -, and does not begin with -")]
pub struct ProviderSlugError;

impl ProviderSlug {
    pub fn parse(text: &str) -> Result<Self, ProviderSlugError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=MAX_CHARS).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(ProviderSlugError)
        }
    }

    /// The slug for a name: `LM Studio (desk)` becomes `lm-studio-desk`. `None` if nothing of it can be kept.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut slug = String::new();
        for character in name.chars() {
            if slug.len() == MAX_CHARS {
                break;
            }
            if character.is_ascii_alphanumeric() {
                slug.push(character.to_ascii_lowercase());
            } else if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
        }
        Self::parse(slug.trim_end_matches('-')).ok()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProviderSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ProviderSlug {
    type Error = ProviderSlugError;

    fn try_from(text: String) -> Result<Self, ProviderSlugError> {
        Self::parse(&text)
    }
}
