//! Certificates and revocation lists.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) const DAY: u64 = 24 * 60 * 60;
pub(crate) const EDGE: &str = "edge.example";

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Seconds since the Unix epoch.
    now: u64,
    serial: AtomicU64,
}

pub(crate) struct Certified {
    pub(crate) serial: u64,
    pub(crate) pem: String,
    pub(crate) key_pem: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Authority {
    pub(crate) fn new(now: u64) -> Self {
        Self::named("the operator's authority", now)
    }

    pub(crate) fn named(name: &str, now: u64) -> Self {
        let mut params = params(name, now);
        set_validity(&mut params, now - DAY, now + 1000 * DAY);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, now, serial: AtomicU64::new(1) }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// What the edge would have.
    pub(crate) fn edge(&self) -> Certified {
        self.client(|_| {})
    }

    /// The same with something else about it.
    pub(crate) fn client(&self, change: impl FnOnce(&mut CertificateParams)) -> Certified {
        let mut params = params("the edge", self.now);
        params.subject_alt_names = vec![dns(EDGE)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        self.issue(params)
    }

    pub(crate) fn node(&self) -> Certified {
        let mut params = params("the node", self.now);
        params.subject_alt_names = vec![dns("localhost")];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Certified {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certified {
            serial,
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }

    /// A list that is good for one day.
    pub(crate) fn revoke(&self, serials: &[u64]) -> String {
        let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(self.now);
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::from_secs(DAY),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// Valid from a day ago on, for thirty days.
fn params(name: &str, now: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    set_validity(&mut params, now - DAY, now + 30 * DAY);
    params
}

/// Both in seconds since the Unix epoch.
pub(crate) fn set_validity(params: &mut CertificateParams, from: u64, to: u64) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(to);
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}
