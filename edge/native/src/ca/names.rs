use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rcgen::SanType;

use super::CaError;

/// A subject alternative name: by it a certificate's holder is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectAltName {
    Dns(String),
    Ip(IpAddr),
    Uri(String),
}

impl FromStr for SubjectAltName {
    type Err = CaError;

    /// An IP address, a URI (`spiffe://fleet/edge`), or a DNS name, which may have a single label (`edge`). No wildcards:
    /// identities are compared whole.
    fn from_str(text: &str) -> Result<Self, CaError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        if text.contains("://") {
            let is_uri = text.len() <= 2048
                && text.bytes().all(|byte| byte.is_ascii_graphic())
                && url::Url::parse(text).is_ok();
            let wrong = || CaError::Refused(format!("{text}: a URI has a scheme, a host and no spaces"));
            return if is_uri { Ok(Self::Uri(text.to_owned())) } else { Err(wrong()) };
        }
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(is_label) {
            Ok(Self::Dns(text.to_ascii_lowercase()))
        } else {
            Err(CaError::Refused(format!(
                "{text}: write a DNS name (letters, digits, '-', '.', no wildcard), an IP address or a URI"
            )))
        }
    }
}

impl fmt::Display for SubjectAltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

impl SubjectAltName {
    pub(super) fn to_rcgen(&self) -> Result<SanType, rcgen::Error> {
        Ok(match self {
            Self::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            Self::Ip(address) => SanType::IpAddress(*address),
            Self::Uri(uri) => SanType::URI(uri.as_str().try_into()?),
        })
    }
}

/// A name that is also a file's.
pub(super) fn check_name(name: &str) -> Result<(), CaError> {
    let is_name = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !name.starts_with(['.', '-']);
    if is_name {
        Ok(())
    } else {
        let rule =
            "a name is 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', and begins with a letter, a digit or '_'";
        Err(CaError::Refused(format!("{name}: {rule}")))
    }
}
