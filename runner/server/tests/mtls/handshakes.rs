//! One handshake at a time.

use std::time::Duration;

use rcgen::{ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::HandshakeKind;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::authority::{Authority, Certified, DAY, EDGE, dns, set_validity};
use super::support::{Files, Node, is_open, logged, soon};

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

#[tokio::test]
async fn a_listed_name_gets_in_and_is_known_by_it() {
    let mut node = Files::new().serve().await;
    let authority = &node.files.authority;
    for (client, name) in [
        (authority.edge(), EDGE),
        (
            authority.client(|params| params.subject_alt_names = vec![uri("spiffe://fleet/edge")]),
            "spiffe://fleet/edge",
        ),
        (authority.client(|params| params.subject_alt_names = vec![dns("other.example"), dns(EDGE)]), EDGE),
        (authority.client(|params| params.extended_key_usages.clear()), EDGE),
    ] {
        let config = node.client(Some(&client));
        let mut stream = node.connect(config).await.unwrap();
        let identity = node.outcome().await.unwrap();
        assert_eq!((identity.name.as_str(), identity.subject.as_str()), (name, "CN=the edge"));
        assert!(is_open(&mut stream).await);
    }
}

#[tokio::test]
async fn dns_names_have_no_case_and_uris_have() {
    let mut node = Files::new().serve().await;
    let shouted = node.files.authority.client(|params| params.subject_alt_names = vec![dns("Edge.EXAMPLE")]);
    let (_, client) = node.enter(&shouted).await;
    assert_eq!(client.name, EDGE, "as the list has it");
    let other =
        node.files.authority.client(|params| params.subject_alt_names = vec![uri("spiffe://fleet/EDGE")]);
    assert_eq!(node.refuse(node.client(Some(&other))).await.code(), "not_listed");
}

#[tokio::test]
async fn the_protocol_above_is_agreed_upon() {
    let node = Files::new().serve().await;
    let edge = node.files.authority.edge();
    for (offered, agreed) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1")] {
        let mut config = node.client(Some(&edge));
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = node.connect(config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(agreed.as_bytes()));
    }
}

#[tokio::test]
async fn everybody_else_gets_a_failed_handshake_and_the_log_a_line() {
    let mut node = Files::new().serve().await;
    let now = node.files.clock.now();
    let authority = &node.files.authority;
    let named = |names: Vec<SanType>| authority.client(|params| params.subject_alt_names = names);
    let revoked = authority.edge();
    let clients: Vec<(&str, Certified, &str)> = vec![
        // The same names, but for the key.
        ("wrong authority", Authority::new(now).edge(), "bad_certificate"),
        ("expired", authority.client(|params| set_validity(params, now - 2 * DAY, now - 1)), "expired"),
        (
            "not yet valid",
            authority.client(|params| set_validity(params, now + DAY, now + 2 * DAY)),
            "bad_certificate",
        ),
        (
            "a server's",
            authority.client(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "bad_certificate",
        ),
        ("the node's own", authority.node(), "bad_certificate"),
        ("another name", named(vec![dns("evil.example")]), "not_listed"),
        ("a name below", named(vec![dns("a.edge.example")]), "not_listed"),
        ("a name above", named(vec![dns("example")]), "not_listed"),
        ("a longer name", named(vec![dns("edge.example.evil.example")]), "not_listed"),
        ("a wildcard", named(vec![dns("*.example")]), "not_listed"),
        ("another URI", named(vec![uri("spiffe://fleet/edge/2")]), "not_listed"),
        ("the name as a URI", named(vec![uri("https://edge.example")]), "not_listed"),
        (
            "a mail address",
            named(vec![SanType::Rfc822Name("edge@edge.example".try_into().unwrap())]),
            "not_listed",
        ),
        ("an address", named(vec![SanType::IpAddress([127, 0, 0, 1].into())]), "not_listed"),
        ("no name", named(Vec::new()), "not_listed"),
        (
            "a common name only",
            authority.client(|params| {
                params.subject_alt_names.clear();
                params.distinguished_name.push(rcgen::DnType::CommonName, EDGE);
            }),
            "not_listed",
        ),
        ("revoked", revoked, "revoked"),
    ];
    let serial = clients.last().unwrap().1.serial;
    node.files.write("ca.crl", &node.files.authority.revoke(&[serial]));
    super::support::is_logged("the new ones are in use").await;
    for (what, client, code) in clients {
        let before = logged("was not let in").len();
        let refused = node.refuse(node.client(Some(&client))).await;
        assert_eq!(refused.code(), code, "{what}: {refused}");
        let lines = logged("was not let in").split_off(before);
        assert_eq!(lines.len(), 1, "{what}: {lines:?}");
        for part in ["peer=127.0.0.1:", "subject=\"CN=", code] {
            assert!(lines[0].contains(part), "{what}: {lines:?}");
        }
    }
    let refused = node.refuse(node.client(None)).await;
    assert_eq!(refused.code(), "no_certificate");
}

#[tokio::test]
async fn a_certificate_is_worth_nothing_without_its_key() {
    let mut node = Files::new().serve().await;
    let mut stolen = node.files.authority.edge();
    stolen.key = PrivateKeyDer::Pkcs8(KeyPair::generate().unwrap().serialize_der().into());
    let mut config = node.client(None);
    // As a thief's client would do it, which does not care whether they fit.
    let signer = rustls::crypto::ring::sign::any_supported_type(&stolen.key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(stolen.chain.clone(), signer);
    config.client_auth_cert_resolver = std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    assert_eq!(node.refuse(config).await.code(), "bad_certificate");
}

#[tokio::test]
async fn older_versions_are_not_spoken() {
    let mut node = Files::new().serve().await;
    let edge = node.files.authority.edge();
    let refused = node.refuse(node.client_of(Some(&edge), &rustls::version::TLS12)).await;
    assert_eq!(refused.code(), "protocol");
}

/// What a client gets that sends this and then waits.
async fn say(node: &mut Node, bytes: &[u8]) -> (Vec<u8>, &'static str) {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = soon("the end", stream.read_to_end(&mut answer)).await;
    (answer, node.outcome().await.unwrap_err().code())
}

#[tokio::test]
async fn what_is_no_handshake_gets_an_alert_at_most() {
    let mut node = Files::new().serve().await;
    for bytes in [
        &b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09",
        b"\x16\x03\x01\xff\xff\x01\xff\xff\xff",
        // A handshake record with something else in it, application data, and an alert.
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
        b"\x17\x03\x03\x00\x05hello",
        b"\x15\x03\x03\x00\x02\x02\x28",
        &vec![0x16; 70_000],
    ] {
        let (answer, code) = say(&mut node, bytes).await;
        assert_eq!(code, "protocol", "{bytes:?}");
        // An alert record has seven bytes (RFC 8446, section 6).
        assert!(answer.is_empty() || (answer.len() == 7 && answer[0] == 0x15), "{answer:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_ended() {
    let files = Files::new();
    let mut options = files.options();
    options.handshake_timeout = Duration::from_millis(50);
    let mut node = files.serve_with(options).await;
    // Nothing, and the beginning of a record.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let (answer, code) = say(&mut node, bytes).await;
        assert!(answer.is_empty());
        assert_eq!(code, "timed_out");
    }
    // Who leaves earlier is told apart.
    drop(TcpStream::connect(node.address).await.unwrap());
    assert_eq!(node.outcome().await.unwrap_err().code(), "closed");
}

#[tokio::test]
async fn no_session_is_resumed() {
    let mut node = Files::new().serve().await;
    let edge = node.files.authority.edge();
    let config = node.client(Some(&edge));
    for _ in 0..3 {
        let mut stream = node.connect(config.clone()).await.unwrap();
        node.outcome().await.unwrap();
        // Tickets would have come with what was read by now.
        assert!(is_open(&mut stream).await);
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_revocation_list_that_is_not_renewed_keeps_everybody_out() {
    let mut node = Files::new().serve().await;
    let edge = node.files.authority.edge();
    node.enter(&edge).await;
    node.files.clock.move_by(DAY + 1);
    assert_eq!(node.refuse(node.client(Some(&edge))).await.code(), "stale_revocation_list");
}
