//! HTTP/2 clients, in clear (prior knowledge) and over TLS (ALPN).

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::gateway::Gateway;
use crate::raw::{Io, bearer};
use crate::tls::ServerIdentity;
use crate::{SOON, secrets, within};

/// One HTTP/2 connection.
#[derive(Clone, Debug)]
pub struct H2Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    authorization: String,
}

impl H2Connection {
    /// In clear, with prior knowledge.
    pub async fn open(gateway: &Gateway) -> Self {
        let stream = TcpStream::connect(gateway.address()).await.expect("the gateway accepts connections");
        Self::over(stream, gateway).await
    }

    /// Over TLS; ALPN must choose `h2`.
    pub async fn open_tls(gateway: &Gateway, identity: &ServerIdentity) -> Self {
        let stream = connect_tls(gateway, identity, &["h2", "http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "ALPN prefers HTTP/2");
        Self::over(stream, gateway).await
    }

    async fn over(stream: impl Io + 'static, gateway: &Gateway) -> Self {
        let handshake = handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) =
            within(SOON, "the HTTP/2 handshake", handshake).await.expect("the gateway speaks HTTP/2");
        tokio::spawn(connection);
        Self { sender, authority: gateway.address().to_owned(), authorization: bearer(gateway) }
    }

    /// Posts `body` to `path`; the head of the answer. Dropping the body resets the stream.
    pub async fn post(&mut self, path: &str, body: &Value) -> http::Response<Incoming> {
        let request = http::Request::post(format!("http://{}{path}", self.authority))
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("the parts are valid");
        within(SOON, "an answer over HTTP/2", self.sender.send_request(request))
            .await
            .expect("the gateway answers")
    }
}

/// Reads a whole body.
pub async fn body_of(response: http::Response<Incoming>) -> Bytes {
    let body =
        within(SOON, "the body", response.into_body().collect()).await.expect("the body is not cut short");
    let body = body.to_bytes();
    secrets::assert_none_in("a response", &body);
    body
}

/// Connects over TLS and offers the protocols of `alpn`.
pub async fn connect_tls(
    gateway: &Gateway,
    identity: &ServerIdentity,
    alpn: &[&str],
) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(gateway.address()).await.expect("the gateway accepts connections");
    let connector = TlsConnector::from(identity.client_config(alpn));
    let name = ServerName::try_from("localhost").expect("it is a name");
    within(SOON, "the TLS handshake", connector.connect(name, stream))
        .await
        .expect("the certificate is trusted")
}
