//! Who may come in.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use super::files;

/// Characters of a subject that are logged.
const MAX_SUBJECT_CHARS: usize = 200;

/// The rules.
pub(super) struct Clients {
    /// Authority, validity, usage and revocation.
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// DNS names and URIs.
    pub(super) allowed: Vec<String>,
}

impl Clients {
    /// The name on the list that the certificate has.
    pub(super) fn admit(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<String, rustls::Error> {
        self.verifier.verify_client_cert(certificate, intermediates, now)?;
        let not_listed = CertificateError::ApplicationVerificationFailure;
        names(certificate)
            .and_then(|names| names.iter().find_map(|name| self.listed(name)))
            .map(str::to_owned)
            .ok_or(rustls::Error::InvalidCertificate(not_listed))
    }
}

impl Clients {
    /// The name as the list has it. DNS names have no case (RFC 5280, 7.2); URIs have to be the same.
    fn listed(&self, name: &str) -> Option<&str> {
        let is_uri = name.contains("://");
        let mut allowed = self.allowed.iter();
        allowed
            .find(|allowed| *allowed == name || !is_uri && allowed.eq_ignore_ascii_case(name))
            .map(String::as_str)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

/// Subject alternative names, DNS and URI. The common name is none.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    Some(certificate.valid_dns_names().chain(certificate.valid_uri_names()).map(str::to_owned).collect())
}

/// Applies the rules to one connection, and remembers who asked.
#[derive(Debug)]
pub(super) struct Gate {
    clients: Arc<Clients>,
    presented: Mutex<Option<Presented>>,
}

/// What a client has shown.
#[derive(Clone, Debug)]
pub(super) struct Presented {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) subject: String,
    /// Seconds since the Unix epoch.
    pub(super) not_after: i64,
    /// On the list; none for a client who is not let in.
    pub(super) name: Option<String>,
}

impl Gate {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients, presented: Mutex::new(None) }
    }

    pub(super) fn presented(&self) -> Option<Presented> {
        self.presented.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientCertVerifier for Gate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let admitted = self.clients.admit(certificate, intermediates, now);
        let (subject, not_after) = match files::subject_and_end(certificate) {
            Some((subject, not_after)) => (subject.chars().take(MAX_SUBJECT_CHARS).collect(), not_after),
            None => return Err(rustls::Error::InvalidCertificate(CertificateError::BadEncoding)),
        };
        let chain = std::iter::once(certificate).chain(intermediates);
        let presented = Presented {
            chain: chain.map(|certificate| certificate.clone().into_owned()).collect(),
            subject,
            not_after,
            name: admitted.as_ref().ok().cloned(),
        };
        *self.presented.lock().unwrap_or_else(PoisonError::into_inner) = Some(presented);
        admitted.map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.verifier.supported_verify_schemes()
    }
}
