//! Vendors behind TLS.

use std::sync::Arc;

use dyad_runner::config::model::Vendor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::support::{Peer, Place, enter, request, soon};

const CALL: &str = "POST /v/v1/messages";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn server(&self, name: &str) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }
}

/// A call of `https://localhost`, where a server of `config` listens, by a runner that trusts `authority`.
async fn call(authority: &Authority, mut config: ServerConfig) -> u16 {
    // If both offer it, it is taken.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let mut place = Place::with(Vendor::Anthropic, &url);
    let ca = place.directory.path().join("ca.pem");
    std::fs::write(&ca, authority.0.pem()).unwrap();
    place.egress.upstreams[0].ca = Some(ca);
    let endpoint = place.open();
    let serving = async {
        let (stream, _) = soon("a connection", listener.accept()).await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        // A refusal is the client's.
        let Ok(stream) = soon("a handshake", acceptor.accept(stream)).await else { return };
        assert_eq!(stream.get_ref().1.alpn_protocol().unwrap_or(b"http/1.1"), b"http/1.1");
        let mut call = Peer::new(stream);
        call.until("\r\n\r\n{}").await;
        call.answer("200 OK", "connection: close\r\n", "{}").await;
    };
    let asking = async {
        let mut sandbox = enter(&endpoint).await;
        sandbox.send(request(&endpoint, CALL, "connection: close\r\n", "{}")).await;
        sandbox.closed().await;
        sandbox.status()
    };
    tokio::join!(serving, asking).1
}

#[tokio::test]
async fn the_entrys_authority_is_trusted_and_no_other() {
    let (ours, other) = (Authority::new(), Authority::new());
    assert_eq!(call(&ours, ours.server("localhost")).await, 200);
    assert_eq!(call(&ours, other.server("localhost")).await, 502);
    assert_eq!(call(&ours, ours.server("elsewhere.example")).await, 502);
}
