//! The certificate by which runners know this gateway, and the authority by which it knows them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, parse_x509_certificate};

use super::RunnerIdentity;
use crate::tls;

/// A file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct IdentityError(String);

/// What the files say at one time.
pub(super) struct Identity {
    pub(super) tls: ClientConfig,
    /// When the first of the revocation lists is stale.
    lists_end: Option<SystemTime>,
    stamp: Stamp,
}

/// Tells whether files have changed: when they were written, and how long they are.
#[derive(PartialEq, Eq)]
struct Stamp(Vec<Option<(SystemTime, u64)>>);

impl Stamp {
    fn of(files: &RunnerIdentity) -> Self {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        let all = [&files.client_cert, &files.client_key, &files.ca].into_iter().chain(&files.crl);
        Self(all.map(stamp).collect())
    }
}

impl Identity {
    pub(super) fn read(files: &RunnerIdentity) -> Result<Self, IdentityError> {
        // Taken before: a change while they are read is seen at the next look.
        let stamp = Stamp::of(files);
        let authorities = tls::certificates(&files.ca).map_err(IdentityError)?;
        let lists = files.crl.as_deref().map(|path| Lists::read(path, &authorities));
        let lists = lists.transpose().map_err(IdentityError)?;
        let lists_end = lists.as_ref().map(|lists| lists.end);
        let lists = lists.map(|lists| lists.lists).unwrap_or_default();
        let tls = client_config(files, authorities, lists).map_err(IdentityError)?;
        Ok(Self { tls, lists_end, stamp })
    }

    /// Whether its revocation lists are stale: no handshake succeeds any more.
    pub(super) fn is_over(&self) -> bool {
        self.lists_end.is_some_and(|end| end < SystemTime::now())
    }

    pub(super) fn is_stale(&self, files: &RunnerIdentity) -> bool {
        Stamp::of(files) != self.stamp
    }
}

/// What is revoked.
struct Lists {
    lists: Vec<CertificateRevocationListDer<'static>>,
    end: SystemTime,
}

impl Lists {
    /// As nodes do, takes none that is stale, and not only those of authorities that nobody asked about.
    fn read(path: &Path, authorities: &[CertificateDer<'_>]) -> Result<Self, String> {
        let lists = tls::revocation_lists(path)?;
        let mut is_by_one_of_them = false;
        let mut end: Option<SystemTime> = None;
        for list in &lists {
            let (_, list) = CertificateRevocationList::from_der(list).map_err(|error| wrong(path, &error))?;
            let next = list.next_update().and_then(|next| u64::try_from(next.timestamp()).ok());
            let next = next.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
            let next = next.ok_or_else(|| wrong(path, &"a list in it does not say when the next comes"))?;
            if next < SystemTime::now() {
                return Err(wrong(path, &"a list in it is stale: bring the authority's newest"));
            }
            end = Some(end.map_or(next, |end| end.min(next)));
            is_by_one_of_them |= authorities.iter().any(|authority| {
                parse_x509_certificate(authority)
                    .is_ok_and(|(_, authority)| authority.subject().as_raw() == list.issuer().as_raw())
            });
        }
        match end {
            Some(end) if is_by_one_of_them => Ok(Self { lists, end }),
            _ => Err(wrong(path, &"no list in it is by an authority of ca: no node would be spoken to")),
        }
    }
}

/// TLS 1.3 and HTTP/2 only.
fn client_config(
    files: &RunnerIdentity,
    authorities: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate).map_err(|error| wrong(&files.ca, &error))?;
    }
    let chain = tls::certificates(&files.client_cert)?;
    let key = tls::private_key(&files.client_key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .with_crls(lists)
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| wrong(&files.ca, &error))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(|error| {
            let (cert, key) = (files.client_cert.display(), files.client_key.display());
            format!("{cert} and {key} do not go together: {error}")
        })?;
    // A session that is resumed does not look at the node's certificate again.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
