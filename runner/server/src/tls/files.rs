//! Reads and checks the files.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{InconsistentKeys, RootCertStore};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use super::clients::{self, Clients};
use super::{Material, TlsError};
use crate::config::model::Tls;

const MAX_FILE_BYTES: u64 = 16 << 20;
const SECONDS_PER_HOUR: i64 = 60 * 60;

/// What an operator may want to know of the files before something runs out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// Of the node's certificate: the edge must use one of them.
    pub names: Vec<String>,
    pub certificate_hours_left: i64,
    /// Of the authority that ends first.
    pub client_ca_hours_left: i64,
    pub revocation_list: Option<RevocationFacts>,
    /// Whether others than the key's owner and group may read it.
    pub key_is_readable_by_all: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationFacts {
    /// Certificates that are revoked.
    pub revoked: usize,
    /// Until nobody is let in any more, unless a newer list comes.
    pub hours_left: i64,
}

/// By which a change of the files is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<FileStamp>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    /// When the file was changed: a time that cannot be set back, in seconds and nanoseconds.
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(config: &Tls) -> Self {
        let stamp = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some(FileStamp {
                device: metadata.dev(),
                inode: metadata.ino(),
                length: metadata.len(),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            })
        };
        let files = [&config.certificate, &config.key, &config.client_ca];
        Self(files.into_iter().chain(&config.revocation_list).map(stamp).collect())
    }
}

/// Reads everything, and tells everything that is wrong.
pub(super) fn read(config: &Tls, clock: &dyn TimeProvider) -> Result<Material, Vec<TlsError>> {
    let Some(now) = clock.current_time() else {
        return Err(vec![fault(&config.certificate, "this host does not know the time")]);
    };
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let certificate = read_certificate(config, now);
    let authorities = read_authorities(&config.client_ca, now);
    let revocations = config.revocation_list.as_deref().map(|path| read_revocations(path, now)).transpose();
    let (certificate, authorities, revocations) = match (certificate, authorities, revocations) {
        (Ok(certificate), Ok(authorities), Ok(revocations)) => (certificate, authorities, revocations),
        (certificate, authorities, revocations) => {
            let mut faults = certificate.err().unwrap_or_default();
            faults.extend(authorities.err());
            faults.extend(revocations.err());
            return Err(faults);
        }
    };
    if let (Some(revocations), Some(path)) = (&revocations, &config.revocation_list)
        && !revocations.issuers.iter().any(|issuer| authorities.subjects.contains(issuer))
    {
        return Err(vec![fault(
            path,
            "no list in it is by an authority of client_ca: nobody would be let in. Name that authority's list",
        )]);
    }
    let facts = TlsFacts {
        names: certificate.names,
        certificate_hours_left: certificate.hours_left,
        client_ca_hours_left: authorities.hours_left,
        revocation_list: revocations.as_ref().map(|revocations| revocations.facts.clone()),
        key_is_readable_by_all: certificate.key_is_readable_by_all,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities.roots), provider)
        .with_crls(revocations.into_iter().flat_map(|revocations| revocations.lists))
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| vec![fault(&config.client_ca, format!("it cannot be used: {error}"))])?;
    let clients = Clients { verifier, allowed: config.allowed_clients.clone() };
    Ok(Material { certificate: certificate.certified, clients: Arc::new(clients), facts })
}

struct OwnCertificate {
    certified: Arc<SingleCertAndKey>,
    names: Vec<String>,
    hours_left: i64,
    key_is_readable_by_all: bool,
}

fn read_certificate(config: &Tls, now: i64) -> Result<OwnCertificate, Vec<TlsError>> {
    let chain = read_pem::<CertificateDer<'static>>(&config.certificate, "certificate");
    let key = read_pem::<PrivateKeyDer<'static>>(&config.key, "private key");
    let (chain, mut keys) = match (chain, key) {
        (Ok(chain), Ok(keys)) => (chain, keys),
        (chain, keys) => return Err(chain.err().into_iter().chain(keys.err()).collect()),
    };
    let hours_left =
        chain.first().map_or(Err("there is no certificate in it".to_owned()), |first| valid(first, now));
    let hours_left = hours_left.map_err(|reason| vec![fault(&config.certificate, reason)])?;
    let names = clients::names(&chain[0]).unwrap_or_default();
    let provider = rustls::crypto::ring::default_provider();
    let certified = CertifiedKey::from_der(chain, keys.swap_remove(0), &provider).map_err(|error| {
        let reason = match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
                "it is not the key of the certificate in {}: issue both together",
                config.certificate.display()
            ),
            error => format!("it cannot be used: {error}"),
        };
        vec![fault(&config.key, reason)]
    })?;
    let key_is_readable_by_all = fs::metadata(&config.key).is_ok_and(|metadata| metadata.mode() & 0o004 != 0);
    Ok(OwnCertificate { certified: Arc::new(certified.into()), names, hours_left, key_is_readable_by_all })
}

struct Authorities {
    roots: RootCertStore,
    subjects: Vec<Vec<u8>>,
    hours_left: i64,
}

fn read_authorities(path: &Path, now: i64) -> Result<Authorities, TlsError> {
    let mut authorities =
        Authorities { roots: RootCertStore::empty(), subjects: Vec::new(), hours_left: i64::MAX };
    for certificate in read_pem::<CertificateDer<'static>>(path, "certificate")? {
        let hours_left = valid(&certificate, now).map_err(|reason| fault(path, reason))?;
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|error| fault(path, format!("a certificate in it is malformed: {error}")))?;
        if !parsed.is_ca() {
            let subject = parsed.subject();
            return Err(fault(path, format!("{subject} is no authority: name the one that signs clients")));
        }
        authorities.subjects.push(parsed.subject().as_raw().to_vec());
        authorities.hours_left = authorities.hours_left.min(hours_left);
        authorities
            .roots
            .add(certificate)
            .map_err(|error| fault(path, format!("it cannot be used: {error}")))?;
    }
    Ok(authorities)
}

struct Revocations {
    lists: Vec<CertificateRevocationListDer<'static>>,
    issuers: Vec<Vec<u8>>,
    facts: RevocationFacts,
}

fn read_revocations(path: &Path, now: i64) -> Result<Revocations, TlsError> {
    let lists = read_pem::<CertificateRevocationListDer<'static>>(path, "revocation list")?;
    let mut issuers = Vec::new();
    let mut facts = RevocationFacts { revoked: 0, hours_left: i64::MAX };
    for list in &lists {
        let (_, parsed) = CertificateRevocationList::from_der(list)
            .map_err(|error| fault(path, format!("a list in it is malformed: {error}")))?;
        let next_update = parsed.next_update().ok_or_else(|| {
            fault(path, "a list in it does not say when the next comes: issue it with that date")
        })?;
        if next_update.timestamp() < now {
            return Err(fault(path, format!("its time ended at {next_update}: issue a new list")));
        }
        facts.hours_left = facts.hours_left.min((next_update.timestamp() - now) / SECONDS_PER_HOUR);
        facts.revoked += parsed.iter_revoked_certificates().count();
        issuers.push(parsed.issuer().as_raw().to_vec());
    }
    Ok(Revocations { lists, issuers, facts })
}

/// The hours for which a certificate is still valid.
fn valid(certificate: &CertificateDer<'_>, now: i64) -> Result<i64, String> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("a certificate in it is malformed: {error}"))?;
    let (validity, subject) = (parsed.validity(), parsed.subject());
    if now < validity.not_before.timestamp() {
        return Err(format!(
            "the certificate of {subject} is not valid before {}: is this host's clock right?",
            validity.not_before
        ));
    }
    if validity.not_after.timestamp() < now {
        return Err(format!("the certificate of {subject} expired at {}: renew it", validity.not_after));
    }
    Ok((validity.not_after.timestamp() - now) / SECONDS_PER_HOUR)
}

/// Subject, and the end of its validity in seconds since the Unix epoch.
pub(super) fn subject_and_end(certificate: &CertificateDer<'_>) -> Option<(String, i64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some((parsed.subject().to_string(), parsed.validity().not_after.timestamp()))
}

/// All of one kind in a file; at least one.
fn read_pem<T: PemObject>(path: &Path, what: &str) -> Result<Vec<T>, TlsError> {
    let metadata = fs::metadata(path).map_err(|error| fault(path, format!("it cannot be read: {error}")))?;
    if !metadata.is_file() {
        return Err(fault(path, "it is not a file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(fault(path, format!("it is longer than {MAX_FILE_BYTES} bytes")));
    }
    let found = T::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|error| {
        let reason = match error {
            pem::Error::Io(error) => format!("it cannot be read: {error}"),
            // Says where, never what: the file may be the key.
            _ => format!("it is not a PEM file with a {what}"),
        };
        fault(path, reason)
    })?;
    if found.is_empty() { Err(fault(path, format!("there is no {what} in it"))) } else { Ok(found) }
}

fn fault(path: &Path, reason: impl Into<String>) -> TlsError {
    TlsError { path: path.to_owned(), reason: reason.into() }
}
