//! A certificate authority for one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore};

/// A server certificate for `localhost` and 127.0.0.1, and what it takes to trust it.
#[derive(Debug)]
pub struct ServerIdentity {
    certificate_pem: String,
    key_pem: String,
    roots: RootCertStore,
}

impl ServerIdentity {
    /// Makes an authority and has it sign a server certificate.
    pub fn generate() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().expect("the system gives randomness");
        let authority = CertifiedIssuer::self_signed(params, authority_key).expect("its own key signs it");
        let key = KeyPair::generate().expect("the system gives randomness");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("both are valid names");
        let certificate = params.signed_by(&key, &authority).expect("the authority signs");
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).expect("the authority is well formed");
        Self { certificate_pem: certificate.pem() + &authority.pem(), key_pem: key.serialize_pem(), roots }
    }

    /// Writes the chain and the key into `directory`; their paths.
    pub fn write_to(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let paths = (directory.join("cert.pem"), directory.join("key.pem"));
        fs::write(&paths.0, &self.certificate_pem).expect("the directory is writable");
        fs::write(&paths.1, &self.key_pem).expect("the directory is writable");
        paths
    }

    /// A client that trusts the authority alone and offers `alpn`.
    pub fn client_config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder =
            builder.expect("ring supports the default versions").with_root_certificates(self.roots.clone());
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}
