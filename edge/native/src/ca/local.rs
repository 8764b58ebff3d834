use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use catalog::Secret;

use super::{CaError, CertificateAuthority, CertificateRequest, SubjectAltName, Usage, expires_of, read};
use crate::file::{self, PRIVATE};

const AUTHORITY: &str = "dyad-gateway-local";
const AUTHORITY_DAYS: u32 = 3650;
const DAYS: u32 = 90;
const NODE: &str = "node.pem";
const EDGE: &str = "edge.pem";
/// What expires sooner is made anew.
const RENEW_BEFORE: Duration = super::DAY.saturating_mul(30);
/// Long before, as everything depends on it.
const RENEW_AUTHORITY_BEFORE: Duration = super::DAY.saturating_mul(180);

/// The certificates with which the edge and the runner inside one process know each other.
///
/// Certificate and key of an end are in one file, which is replaced as a whole: who reads it again never finds one that
/// does not fit the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCertificates {
    /// Whom both ends trust.
    pub authority: PathBuf,
    /// The runner's: `localhost`, 127.0.0.1 and `::1`.
    pub node: PathBuf,
    /// The edge's: [`LocalCertificates::EDGE`].
    pub edge: PathBuf,
}

impl LocalCertificates {
    /// The subject alternative name by which the runner knows the edge.
    pub const EDGE: &str = "edge";

    /// Makes what is not there, and makes anew what ends within a month. To be called at every start and daily.
    pub fn ensure(directory: &Path, now: SystemTime) -> Result<Self, CaError> {
        let authority = authority(directory, now)?;
        let certificates = Self::in_directory(directory);
        let node = [
            SubjectAltName::Dns("localhost".to_owned()),
            SubjectAltName::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SubjectAltName::Ip(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ];
        let edge = [SubjectAltName::Dns(Self::EDGE.to_owned())];
        ensure_one(&authority, &certificates.node, ("node", &node, Usage::Server), now)?;
        ensure_one(&authority, &certificates.edge, ("edge", &edge, Usage::Client), now)?;
        Ok(certificates)
    }

    /// Where they are, or would be.
    pub(crate) fn in_directory(directory: &Path) -> Self {
        let file = |name: &str| directory.join(name);
        Self { authority: file("ca.pem"), node: file(NODE), edge: file(EDGE) }
    }
}

/// The directory's authority, a new one where there is none or it ends soon.
fn authority(directory: &Path, now: SystemTime) -> Result<CertificateAuthority, CaError> {
    match CertificateAuthority::open(directory) {
        Ok(authority) if authority.expires() > now + RENEW_AUTHORITY_BEFORE => return Ok(authority),
        Ok(_) | Err(CaError::NoAuthority(_)) => {}
        Err(error) => return Err(error),
    }
    // What it issued goes with it, and before it: a start that is cut short here is made good by the next.
    for name in [NODE, EDGE, "ca.pem", "ca.key"] {
        remove(&directory.join(name))?;
    }
    CertificateAuthority::create(directory, AUTHORITY, AUTHORITY_DAYS, now)
}

fn remove(path: &Path) -> Result<(), CaError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CaError::at(path)(error)),
        _ => Ok(()),
    }
}

fn ensure_one(
    authority: &CertificateAuthority,
    path: &Path,
    (name, names, usage): (&str, &[SubjectAltName], Usage),
    now: SystemTime,
) -> Result<(), CaError> {
    if is_good(path, now) {
        return Ok(());
    }
    let request = CertificateRequest { name: name.to_owned(), names: names.to_vec(), usage, days: DAYS };
    let issued = authority.issue(&request, now)?;
    let both = Secret::new(format!("{}{}", issued.certificate_pem, issued.key_pem().expose()));
    file::replace(path, both.expose(), PRIVATE).map_err(CaError::at(path))
}

/// Whether the file has a certificate that does not end soon. One that cannot be read is no good.
fn is_good(path: &Path, now: SystemTime) -> bool {
    let expires = read(path).and_then(|pem| expires_of(path, &pem));
    expires.is_ok_and(|expires| expires > now + RENEW_BEFORE)
}
