//! A small certificate authority, kept in a directory: for a fleet's nodes and edges, and for the two ends inside
//! `dyad-gateway up`.
//!
//! | file | |
//! |---|---|
//! | `ca.pem` | its certificate: who trusts it trusts all that it issued and did not revoke |
//! | `ca.key` | its private key; whoever has it can issue certificates |
//! | `ca.crl` | its revocation list, always there; stale after its next update |
//! | `index.json` | what it issued |
//!
//! Keys are ECDSA P-256, which every host of the gateway speaks.

mod error;
mod index;
mod local;
mod names;

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use catalog::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::OffsetDateTime;

use crate::file::{self, PRIVATE, PUBLIC};
use crate::random::hex_digits;
pub use error::CaError;
use index::Index;
pub use index::{IssuedCertificate, State};
pub use local::LocalCertificates;
pub use names::SubjectAltName;
use names::check_name;

const DAY: Duration = Duration::from_secs(86_400);
/// Clocks of a fleet differ.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
/// The longest life of anything: what a certificate's dates can say with room to spare.
pub const MAX_DAYS: u32 = 36_500;
/// How long a revocation list holds if nothing else is said.
pub const REVOCATION_LIST_DAYS: u32 = 90;

/// An opened authority. Others that want to issue or revoke meanwhile are told to come back.
pub struct CertificateAuthority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    expires: SystemTime,
    /// Held as long as this lives.
    _lock: fs::File,
}

/// What a certificate is to say.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// How the index calls it; also its common name, which identifies nobody.
    pub name: String,
    /// By these its holder is known. At least one.
    pub names: Vec<SubjectAltName>,
    pub usage: Usage,
    pub days: u32,
}

/// On which end of a connection a certificate's holder may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Usage {
    /// A runner's node.
    Server,
    /// An edge.
    Client,
    Both,
}

/// A certificate with its key. The key is not kept by the authority.
pub struct Issued {
    pub certificate_pem: String,
    key: KeyPair,
    pub record: IssuedCertificate,
}

impl CertificateRequest {
    /// Whether it can be issued: nothing is wrong with its name, its names and its days.
    pub fn check(&self) -> Result<(), CaError> {
        check_name(&self.name)?;
        life(self.days)?;
        if self.names.is_empty() {
            return Err(CaError::Refused(
                "a certificate needs a name by which its holder is known".to_owned(),
            ));
        }
        Ok(())
    }
}

impl Issued {
    /// PKCS #8. Whoever has it is who the certificate says.
    pub fn key_pem(&self) -> Secret {
        Secret::new(self.key.serialize_pem())
    }
}

impl CertificateAuthority {
    /// Makes an authority. One that is there already is never touched.
    pub fn create(directory: &Path, name: &str, days: u32, now: SystemTime) -> Result<Self, CaError> {
        check_name(name)?;
        let lock = lock(directory, true)?;
        let certificate_path = directory.join("ca.pem");
        let key_path = directory.join("ca.key");
        for path in [&certificate_path, &key_path] {
            if path.exists() {
                return Err(CaError::Exists(path.clone()));
            }
        }
        let key = KeyPair::generate()?;
        let mut params = params(name, days, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key)?.pem();
        // The certificate last: without it there is no authority yet.
        file::write_new(&key_path, &key.serialize_pem(), PRIVATE).map_err(CaError::at(&key_path))?;
        Index::default().write(directory)?;
        file::write_new(&certificate_path, &certificate_pem, PUBLIC)
            .map_err(CaError::at(&certificate_path))?;
        let expires = expires_of(&certificate_path, &certificate_pem)?;
        let issuer = Issuer::new(params, key);
        let authority =
            Self { directory: directory.to_owned(), issuer, certificate_pem, expires, _lock: lock };
        // An empty one, so that nodes can be told of it from the start.
        authority.renew_revocation_list(REVOCATION_LIST_DAYS, now)?;
        Ok(authority)
    }

    /// Opens the authority that [`CertificateAuthority::create`] made there.
    pub fn open(directory: &Path) -> Result<Self, CaError> {
        let certificate_path = directory.join("ca.pem");
        let key_path = directory.join("ca.key");
        if !certificate_path.exists() {
            return Err(CaError::NoAuthority(directory.to_owned()));
        }
        let lock = lock(directory, false)?;
        let certificate_pem = read(&certificate_path)?;
        let mode = fs::metadata(&key_path).map_err(CaError::at(&key_path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(CaError::KeyIsOpen(key_path));
        }
        let damaged = |path: &Path| {
            let path = path.to_owned();
            move |error: rcgen::Error| CaError::Damaged { path, reason: error.to_string() }
        };
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(damaged(&key_path))?;
        let expires = expires_of(&certificate_path, &certificate_pem)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(damaged(&certificate_path))?;
        Ok(Self { directory: directory.to_owned(), issuer, certificate_pem, expires, _lock: lock })
    }

    /// PEM; what both ends of a connection trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Issues a certificate, which never outlives the authority's own, and notes it in the index.
    pub fn issue(&self, request: &CertificateRequest, now: SystemTime) -> Result<Issued, CaError> {
        request.check()?;
        if self.expires <= now {
            return Err(CaError::Expired(self.directory.clone()));
        }
        let key = KeyPair::generate()?;
        let mut params = params(&request.name, request.days, now)?;
        params.not_after = params.not_after.min(self.expires.into());
        params.subject_alt_names =
            request.names.iter().map(SubjectAltName::to_rcgen).collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match request.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let record = IssuedCertificate {
            serial: hex_digits(&params.serial_number.map(|serial| serial.to_bytes()).unwrap_or_default()),
            name: request.name.clone(),
            names: request.names.iter().map(ToString::to_string).collect(),
            usage: request.usage,
            issued_unix: params.not_before.unix_timestamp() + unix(CLOCK_SKEW),
            expires_unix: params.not_after.unix_timestamp(),
            revoked_unix: None,
        };
        // First: what is not in the index cannot be revoked.
        let mut index = Index::read(&self.directory)?;
        index.certificates.push(record.clone());
        index.write(&self.directory)?;
        Ok(Issued { certificate_pem: certificate.pem(), key, record })
    }

    /// Revokes the certificate with this serial number, or all with this name that are still good, and writes the
    /// revocation list, which holds for `days`. Returns those that were good until now; revoking again is no error.
    pub fn revoke(&self, which: &str, days: u32, now: SystemTime) -> Result<Vec<IssuedCertificate>, CaError> {
        let mut index = Index::read(&self.directory)?;
        let at = OffsetDateTime::from(now).unix_timestamp();
        let mut is_known = false;
        let mut revoked = Vec::new();
        for certificate in &mut index.certificates {
            if certificate.serial.eq_ignore_ascii_case(which) || certificate.name == which {
                is_known = true;
                if certificate.state(now) == State::Good {
                    certificate.revoked_unix = Some(at);
                    revoked.push(certificate.clone());
                }
            }
        }
        if !is_known {
            return Err(CaError::Unknown(which.to_owned()));
        }
        self.write_revocation_list(index, days, now)?;
        Ok(revoked)
    }

    /// Writes the revocation list anew: before it is stale, as nodes then refuse everybody.
    pub fn renew_revocation_list(&self, days: u32, now: SystemTime) -> Result<(), CaError> {
        self.write_revocation_list(Index::read(&self.directory)?, days, now)
    }

    pub fn revocation_list_path(&self) -> PathBuf {
        self.directory.join("ca.crl")
    }

    /// Everything that the authority in `directory` issued, oldest first.
    pub fn list(directory: &Path) -> Result<Vec<IssuedCertificate>, CaError> {
        if !directory.join("ca.pem").exists() {
            return Err(CaError::NoAuthority(directory.to_owned()));
        }
        Ok(Index::read(directory)?.certificates)
    }

    fn write_revocation_list(&self, mut index: Index, days: u32, now: SystemTime) -> Result<(), CaError> {
        // First: a revocation that is only in the list would be lost with the next one.
        index.revocation_lists += 1;
        index.write(&self.directory)?;
        let revoked_certs = index.certificates.iter().filter_map(|certificate| {
            // What has expired counts no more anyway, and the list would grow for ever.
            let revoked = certificate.revoked_unix.filter(|_| certificate.expires() > now)?;
            Some((certificate.serial_bytes()?, OffsetDateTime::from_unix_timestamp(revoked).ok()?))
        });
        let list = CertificateRevocationListParams {
            this_update: (now - CLOCK_SKEW).into(),
            next_update: (now + life(days)?).into(),
            crl_number: SerialNumber::from(index.revocation_lists),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs
                .map(|(serial, revocation_time)| RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time,
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.revocation_list_path();
        file::replace(&path, &list.signed_by(&self.issuer)?.pem()?, PUBLIC).map_err(CaError::at(&path))
    }
}

/// One who changes the directory at a time. `make`: the directory too.
fn lock(directory: &Path, make: bool) -> Result<fs::File, CaError> {
    if make {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(CaError::at(directory))?;
    }
    let path = directory.join("lock");
    let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(CaError::at(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(CaError::Busy(directory.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(CaError::at(&path)(error)),
    }
}

/// What all certificates have: a random serial number, a common name, and dates.
fn params(name: &str, days: u32, now: SystemTime) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let mut serial = [0; 16];
    getrandom::fill(&mut serial)?;
    // Positive and of one length (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + life(days)?).into();
    Ok(params)
}

fn life(days: u32) -> Result<Duration, CaError> {
    if (1..=MAX_DAYS).contains(&days) {
        Ok(DAY * days)
    } else {
        Err(CaError::Refused(format!("a life is from 1 to {MAX_DAYS} days")))
    }
}

fn unix(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// The end of the first certificate in a PEM text.
fn expires_of(path: &Path, pem: &str) -> Result<SystemTime, CaError> {
    let damaged = |reason: String| CaError::Damaged { path: path.to_owned(), reason };
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| damaged(error.to_string()))?;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(&der).map_err(|error| damaged(error.to_string()))?;
    Ok(certificate.validity().not_after.to_datetime().into())
}

fn read(path: &Path) -> Result<String, CaError> {
    fs::read_to_string(path).map_err(CaError::at(path))
}

#[cfg(test)]
mod tests;
