//! The certificate by which runners know this gateway, and the authority by which it knows them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{ClientConfig, RootCertStore};

use super::RunnerIdentity;
use crate::tls;

/// A file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct IdentityError(String);

/// What the files say at one time.
pub(super) struct Identity {
    pub(super) tls: ClientConfig,
    stamp: Stamp,
}

/// Tells whether files have changed: when they were written, and how long they are.
#[derive(PartialEq, Eq)]
struct Stamp([Option<(SystemTime, u64)>; 3]);

impl Stamp {
    fn of(files: &RunnerIdentity) -> Self {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        Self([stamp(&files.client_cert), stamp(&files.client_key), stamp(&files.ca)])
    }
}

impl Identity {
    pub(super) fn read(files: &RunnerIdentity) -> Result<Self, IdentityError> {
        // Taken before: a change while they are read is seen at the next look.
        let stamp = Stamp::of(files);
        let tls = client_config(files).map_err(IdentityError)?;
        Ok(Self { tls, stamp })
    }

    pub(super) fn is_stale(&self, files: &RunnerIdentity) -> bool {
        Stamp::of(files) != self.stamp
    }
}

/// TLS 1.3 and HTTP/2 only.
fn client_config(files: &RunnerIdentity) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in tls::certificates(&files.ca)? {
        roots.add(certificate).map_err(|error| wrong(&files.ca, &error))?;
    }
    let chain = tls::certificates(&files.client_cert)?;
    let key = tls::private_key(&files.client_key)?;
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| {
            let (cert, key) = (files.client_cert.display(), files.client_key.display());
            format!("{cert} and {key} do not go together: {error}")
        })
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
