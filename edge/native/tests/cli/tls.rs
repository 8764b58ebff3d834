//! The listener's TLS.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::support::{Place, SOON, Served};

struct Identity {
    cert: String,
    key: String,
    roots: RootCertStore,
}

fn identity(place: &Place, name: &str) -> Identity {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    Identity {
        cert: place.write(&format!("{name}.crt"), &cert.pem()),
        key: place.write(&format!("{name}.key"), &signing_key.serialize_pem()),
        roots,
    }
}

fn get(
    gateway: &Served,
    roots: &RootCertStore,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(gateway.address())?;
    stream.set_read_timeout(Some(SOON))?;
    let mut stream = StreamOwned::new(connection, stream);
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        gateway.first_key()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn tls_1_3_is_spoken_and_1_2_is_refused() {
    let place = Place::new();
    let Identity { cert, key, roots } = identity(&place, "a");
    let gateway = place.up(&["--tls-cert", &cert, "--tls-key", &key]);
    assert!(gateway.ready["base_url"].as_str().unwrap().starts_with("https://"), "{}", gateway.ready);
    let answer = get(&gateway, &roots, &rustls::version::TLS13).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let refused = get(&gateway, &roots, &rustls::version::TLS12).unwrap_err();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
}

#[test]
fn files_that_do_not_fit_are_named() {
    let place = Place::new();
    let (a, b) = (identity(&place, "a"), identity(&place, "b"));
    let empty = place.write("empty", "");
    for (cert, key, named) in [
        (&a.cert, &b.key, "do not go together"),
        (&a.key, &a.key, "there is no certificate in it"),
        (&a.cert, &a.cert, a.cert.as_str()),
        (&empty, &a.key, empty.as_str()),
        (&a.cert, &empty, empty.as_str()),
        (&"/no/such/cert".to_owned(), &a.key, "/no/such/cert"),
    ] {
        let ran = place.run(&["--tls-cert", cert, "--tls-key", key, "--no-discovery"]).expect(2);
        assert!(ran.stderr.contains(named), "{named}: {ran:#?}");
        assert!(!ran.all_output().contains("PRIVATE KEY"), "{ran:#?}");
    }
    assert!(!place.data_dir().exists(), "nothing was begun");
}
