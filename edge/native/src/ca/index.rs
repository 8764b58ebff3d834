use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{CaError, Usage};
use crate::file::{self, PRIVATE};

const FILE: &str = "index.json";

/// What an authority remembers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    /// How many revocation lists there were: their number must grow (RFC 5280, 5.2.3).
    pub(super) revocation_lists: u64,
    /// Oldest first.
    pub(super) certificates: Vec<IssuedCertificate>,
}

/// What an authority remembers of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCertificate {
    /// Hexadecimal, as `openssl x509 -serial` shows it, in small letters.
    pub serial: String,
    pub name: String,
    /// Its subject alternative names.
    pub names: Vec<String>,
    pub usage: Usage,
    /// Seconds since the Unix epoch.
    pub issued_unix: i64,
    pub expires_unix: i64,
    pub revoked_unix: Option<i64>,
}

/// Whether a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Good,
    Revoked,
    Expired,
}

impl IssuedCertificate {
    pub fn state(&self, now: SystemTime) -> State {
        if self.expires() <= now {
            State::Expired
        } else if self.revoked_unix.is_some() {
            State::Revoked
        } else {
            State::Good
        }
    }

    pub fn expires(&self) -> SystemTime {
        OffsetDateTime::from_unix_timestamp(self.expires_unix).map_or(SystemTime::UNIX_EPOCH, Into::into)
    }

    pub(super) fn serial_bytes(&self) -> Option<Vec<u8>> {
        let digits = self.serial.as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
    }
}

impl Index {
    pub(super) fn read(directory: &Path) -> Result<Self, CaError> {
        let path = directory.join(FILE);
        let damaged = |reason: String| CaError::Damaged { path: path.clone(), reason };
        let text = std::fs::read_to_string(&path).map_err(CaError::at(&path))?;
        let index: Self = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        // Passed over, such a one could never be revoked.
        match index.certificates.iter().find(|certificate| certificate.serial_bytes().is_none()) {
            Some(wrong) => Err(damaged(format!("{:?} is no serial number", wrong.serial))),
            None => Ok(index),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), CaError> {
        let path = directory.join(FILE);
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other);
        text.and_then(|text| file::replace(&path, &(text + "\n"), PRIVATE)).map_err(CaError::at(&path))
    }
}
