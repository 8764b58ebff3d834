use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateRevocationListDer, UnixTime};

use super::*;

fn request(name: &str, usage: Usage) -> CertificateRequest {
    let names = ["edge.example.com", "127.0.0.1", "spiffe://fleet/edge"];
    let names = names.iter().map(|name| name.parse().unwrap()).collect();
    CertificateRequest { name: name.to_owned(), names, usage, days: 30 }
}

fn authority(directory: &Path) -> CertificateAuthority {
    CertificateAuthority::create(directory, "fleet", 3650, SystemTime::now()).unwrap()
}

fn openssl(args: &[&str], directory: &Path) -> (bool, String) {
    let output =
        Command::new("openssl").args(args).current_dir(directory).output().expect("openssl is installed");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Whether rustls accepts the certificate from a client, with the authority's revocation list.
fn accepts(directory: &Path, certificate_pem: &str, now: SystemTime) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("ca.pem")).unwrap()).unwrap();
    let list = CertificateRevocationListDer::from_pem_file(directory.join("ca.crl")).unwrap();
    let provider = rustls::crypto::ring::default_provider().into();
    let verifier = WebPkiClientVerifier::builder_with_provider(std::sync::Arc::new(roots), provider)
        .with_crls([list])
        .enforce_revocation_expiration()
        .build()
        .unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap();
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    verifier.verify_client_cert(&certificate, &[], now).map(|_| ())
}

#[test]
fn openssl_verifies_what_was_issued() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority(directory.path());
    let issued = authority.issue(&request("edge", Usage::Client), SystemTime::now()).unwrap();
    fs::write(directory.path().join("edge.pem"), &issued.certificate_pem).unwrap();
    fs::write(directory.path().join("edge.key"), issued.key_pem().expose()).unwrap();

    let verify = ["verify", "-x509_strict", "-CAfile", "ca.pem", "-CRLfile", "ca.crl", "-crl_check"];
    let (ok, text) =
        openssl(&[&verify[..], &["-purpose", "sslclient", "edge.pem"]].concat(), directory.path());
    assert!(ok, "{text}");
    let (ok, text) =
        openssl(&[&verify[..], &["-purpose", "sslserver", "edge.pem"]].concat(), directory.path());
    assert!(!ok, "a client's certificate is none for a server: {text}");

    let (_, text) = openssl(&["x509", "-in", "edge.pem", "-noout", "-text", "-serial"], directory.path());
    assert!(text.contains("DNS:edge.example.com, IP Address:127.0.0.1, URI:spiffe://fleet/edge"), "{text}");
    assert!(text.contains(&format!("serial={}", issued.record.serial.to_uppercase())), "{text}");
    let (_, of_certificate) = openssl(&["x509", "-in", "edge.pem", "-noout", "-pubkey"], directory.path());
    let (_, of_key) = openssl(&["pkey", "-in", "edge.key", "-pubout"], directory.path());
    assert_eq!(of_certificate, of_key);
}

#[test]
fn revoked_certificates_are_refused_by_openssl_and_rustls() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority(directory.path());
    let now = SystemTime::now();
    let issue = |name| authority.issue(&request(name, Usage::Client), now).unwrap();
    let (first, second, other) = (issue("edge"), issue("edge"), issue("other"));
    for issued in [&first, &second, &other] {
        accepts(directory.path(), &issued.certificate_pem, now).unwrap();
    }

    let revoked = authority.revoke(&first.record.serial.to_uppercase(), 7, now).unwrap();
    assert_eq!(revoked.len(), 1);
    assert!(accepts(directory.path(), &first.certificate_pem, now).is_err());
    accepts(directory.path(), &second.certificate_pem, now).unwrap();
    let revoked = authority.revoke("edge", 7, now).unwrap();
    assert_eq!(revoked.iter().map(|it| &it.serial).collect::<Vec<_>>(), [&second.record.serial]);
    assert!(accepts(directory.path(), &second.certificate_pem, now).is_err());
    accepts(directory.path(), &other.certificate_pem, now).unwrap();
    assert!(authority.revoke("edge", 7, now).unwrap().is_empty(), "once is enough");

    let (ok, text) =
        openssl(&["crl", "-in", "ca.crl", "-CAfile", "ca.pem", "-noout", "-text"], directory.path());
    assert!(ok && text.contains("verify OK"), "{text}");
    for issued in [&first, &second] {
        assert!(text.contains(&format!("Serial Number: {}", issued.record.serial.to_uppercase())), "{text}");
    }
    fs::write(directory.path().join("edge.pem"), &first.certificate_pem).unwrap();
    let verify = ["verify", "-CAfile", "ca.pem", "-CRLfile", "ca.crl", "-crl_check", "edge.pem"];
    let (ok, text) = openssl(&verify, directory.path());
    assert!(!ok && text.contains("revoked"), "{text}");
}

#[test]
fn a_stale_revocation_list_is_renewed_with_all_that_is_on_it() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority(directory.path());
    let now = SystemTime::now();
    let good = authority.issue(&request("good", Usage::Client), now).unwrap();
    let bad = authority.issue(&request("bad", Usage::Client), now).unwrap();
    authority.revoke("bad", 1, now).unwrap();
    let later = now + 2 * DAY;
    assert!(accepts(directory.path(), &good.certificate_pem, later).is_err(), "the list is stale");
    authority.renew_revocation_list(1, later).unwrap();
    accepts(directory.path(), &good.certificate_pem, later).unwrap();
    assert!(accepts(directory.path(), &bad.certificate_pem, later).is_err());

    // Once it has expired by itself, the list need not name it.
    authority.renew_revocation_list(1, now + 31 * DAY).unwrap();
    let (_, text) = openssl(&["crl", "-in", "ca.crl", "-noout", "-text"], directory.path());
    assert!(text.contains("No Revoked Certificates"), "{text}");
    assert!(text.contains("CRL Number: \n                4"), "numbers grow: {text}");
}

#[test]
fn private_files_are_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/ca");
    drop(authority(&path));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("ca.key")), 0o600);
    assert_eq!(mode(&path.join("index.json")), 0o600);
    assert_eq!(mode(&path.join("ca.pem")), 0o644);

    fs::set_permissions(path.join("ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(CertificateAuthority::open(&path), Err(CaError::KeyIsOpen(_))));
}

#[test]
fn an_authority_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    drop(authority(directory.path()));
    let before = fs::read(directory.path().join("ca.key")).unwrap();
    let create = || CertificateAuthority::create(directory.path(), "other", 1, SystemTime::now());
    assert!(matches!(create(), Err(CaError::Exists(_))));
    // Nor is what is left of one.
    fs::remove_file(directory.path().join("ca.pem")).unwrap();
    assert!(matches!(create(), Err(CaError::Exists(_))));
    assert_eq!(fs::read(directory.path().join("ca.key")).unwrap(), before);
}

#[test]
fn one_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let first = authority(directory.path());
    assert!(matches!(CertificateAuthority::open(directory.path()), Err(CaError::Busy(_))));
    first.issue(&request("edge", Usage::Both), SystemTime::now()).unwrap();
    drop(first);
    let second = CertificateAuthority::open(directory.path()).unwrap();
    second.issue(&request("edge", Usage::Both), SystemTime::now()).unwrap();
    let serials: Vec<_> =
        CertificateAuthority::list(directory.path()).unwrap().into_iter().map(|it| it.serial).collect();
    assert_eq!(serials.len(), 2);
    assert_ne!(serials[0], serials[1]);
}

#[test]
fn nothing_outlives_its_authority() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let authority = CertificateAuthority::create(directory.path(), "fleet", 10, now).unwrap();
    let issued = authority.issue(&request("edge", Usage::Client), now).unwrap();
    assert_eq!(issued.record.expires(), authority.expires());
    let late = now + 11 * DAY;
    assert!(matches!(authority.issue(&request("edge", Usage::Client), late), Err(CaError::Expired(_))));
    assert_eq!(issued.record.state(now), State::Good);
    assert_eq!(issued.record.state(late), State::Expired);
}

#[test]
fn what_is_wrong_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let text = |error: CaError| error.to_string();
    assert!(
        text(CertificateAuthority::open(directory.path()).err().unwrap()).contains("'dyad-gateway ca init'")
    );
    assert!(
        text(CertificateAuthority::list(directory.path()).unwrap_err()).contains("'dyad-gateway ca init'")
    );

    let authority = authority(directory.path());
    let refused = |change: &dyn Fn(&mut CertificateRequest)| {
        let mut request = request("edge", Usage::Client);
        change(&mut request);
        authority.issue(&request, now).err().map(text).unwrap_or_default()
    };
    for name in ["", ".", "..", "../edge", "a/b", "-rf", "a b", "ü", &"x".repeat(65)] {
        assert!(refused(&|request| request.name = name.to_owned()).contains("a name is"), "{name:?}");
    }
    assert!(refused(&|request| request.names.clear()).contains("needs a name"));
    assert!(refused(&|request| request.days = 0).contains("from 1 to"));
    assert!(refused(&|request| request.days = MAX_DAYS + 1).contains("from 1 to"));
    assert!(text(authority.revoke("nobody", 1, now).unwrap_err()).contains("'ca list'"));
    assert!(CertificateAuthority::list(directory.path()).unwrap().is_empty());

    fs::write(directory.path().join("index.json"), "{}").unwrap();
    assert!(text(authority.revoke("x", 1, now).unwrap_err()).contains("index.json is damaged"));
}

#[test]
fn subject_alternative_names() {
    let parse = |text: &str| text.parse::<SubjectAltName>();
    assert_eq!(parse("Edge.Example.com").unwrap(), SubjectAltName::Dns("edge.example.com".into()));
    assert_eq!(parse("edge").unwrap(), SubjectAltName::Dns("edge".into()));
    assert_eq!(parse("::1").unwrap(), SubjectAltName::Ip("::1".parse().unwrap()));
    assert_eq!(parse("spiffe://a/b").unwrap(), SubjectAltName::Uri("spiffe://a/b".into()));
    for wrong in
        ["", ".", "a..b", "*.example.com", "a b", "-a", "a_b", "a,b", "ü.example", "spiffe://a b", "://a"]
    {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    assert!(parse(&"a".repeat(64)).is_err());
}

#[test]
fn local_certificates_are_made_once_and_renewed_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("certs");
    let now = SystemTime::now();
    let certificates = LocalCertificates::ensure(&path, now).unwrap();
    let files =
        || [&certificates.authority, &certificates.node, &certificates.edge].map(|path| read(path).unwrap());
    let first = files();
    accepts(&path, &first[2], now).unwrap();
    assert!(accepts(&path, &first[1], now).is_err(), "the node is no client");
    assert_eq!(fs::metadata(&certificates.edge).unwrap().permissions().mode() & 0o777, 0o600);

    assert_eq!(LocalCertificates::ensure(&path, now + 59 * DAY).unwrap(), certificates);
    assert_eq!(files(), first, "nothing changes while all is well");
    LocalCertificates::ensure(&path, now + 61 * DAY).unwrap();
    let second = files();
    assert_eq!(second[0], first[0]);
    assert!(second[1] != first[1] && second[2] != first[2]);

    fs::write(&certificates.edge, "damaged").unwrap();
    LocalCertificates::ensure(&path, now + 61 * DAY).unwrap();
    let third = files();
    assert_eq!(third[1], second[1]);
    assert!(third[2] != "damaged" && third[2] != second[2]);

    // The authority ends: everything anew, and good together.
    let late = now + 3500 * DAY;
    LocalCertificates::ensure(&path, late).unwrap();
    let last = files();
    assert!(last.iter().zip(&third).all(|(new, old)| new != old));
    CertificateAuthority::open(&path).unwrap().renew_revocation_list(1, late).unwrap();
    accepts(&path, &last[2], late).unwrap();
}

#[test]
fn local_certificates_survive_a_start_that_was_cut_short() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    fs::write(directory.path().join("ca.key"), "half").unwrap();
    fs::write(directory.path().join("edge.pem"), "of an earlier authority").unwrap();
    let certificates = LocalCertificates::ensure(directory.path(), now).unwrap();
    accepts(directory.path(), &read(&certificates.edge).unwrap(), now).unwrap();
}
