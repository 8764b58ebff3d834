//! The component's way out: to allowed hosts only, with client certificates where the runtime configuration has them.

use std::collections::HashMap;
use std::error::Error as _;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Uri, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower_service::Service;
use wasmtime::Result;
use wasmtime::error::{Context as _, bail};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::manifest::{Application, ClientTls, RuntimeConfig};

/// Spin's, for all three of a request's timeouts.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(10);

type HttpClient = Client<Bounded<HttpsConnector<HttpConnector>>, WasiBody>;

/// Cloning it is cheap and shares connections, as all instances of a component do.
#[derive(Clone)]
pub(crate) struct Outbound(Arc<Shared>);

struct Shared {
    allowed: Vec<AllowedHost>,
    /// For hosts that the runtime configuration does not name.
    client: HttpClient,
    clients: HashMap<String, HttpClient>,
}

impl Outbound {
    pub(crate) fn new(application: &Application, runtime: &RuntimeConfig) -> Result<Self> {
        let hosts = application.allowed_outbound_hosts.iter().filter(|host| !host.is_empty());
        let allowed = hosts.map(|host| AllowedHost::parse(host)).collect::<Result<_>>()?;
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let client = client(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
        let mut clients = HashMap::new();
        for tls in &runtime.client_tls {
            if !tls.component_ids.contains(&application.component_id) {
                continue;
            }
            let client = self::client(client_config(tls)?);
            for host in &tls.hosts {
                clients.entry(host.clone()).or_insert_with(|| client.clone());
            }
        }
        Ok(Self(Arc::new(Shared { allowed, client, clients })))
    }

    async fn send(
        self,
        mut request: http::Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<http::Response<WasiBody>, Error> {
        if !self.0.allowed.iter().any(|host| host.allows(request.uri())) {
            return Err(Error::HttpRequestDenied);
        }
        // HTTP/2 has it in another place, and hyper adds it for HTTP/1.
        request.headers_mut().remove(header::HOST);
        let host = request.uri().host().unwrap_or_default();
        let client = self.0.clients.get(host).unwrap_or(&self.0.client).clone();
        let connect_timeout = options.connect_timeout.unwrap_or(DEFAULT_TIMEOUT);
        let answer = CONNECT_TIMEOUT.scope(connect_timeout, client.request(request));
        let first_byte = options.first_byte_timeout.unwrap_or(DEFAULT_TIMEOUT);
        let answer = timeout(first_byte, answer).await.map_err(|_| Error::ConnectionReadTimeout)?;
        let limit = options.between_bytes_timeout.unwrap_or(DEFAULT_TIMEOUT);
        let answer = answer.map_err(|error| classify(&error))?;
        Ok(answer.map(|body| Idle { body, limit, sleep: Box::pin(sleep(limit)) }.boxed_unsync()))
    }
}

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, IoFuture), Error>> + Send> {
        let answer = self.clone().send(request, options.unwrap_or_default());
        Box::new(async {
            let done: IoFuture = Box::new(std::future::ready(Ok(())));
            Ok((answer.await?, done))
        })
    }
}

/// The client drives its connections itself: there is nothing left to do for a request.
type IoFuture = Box<dyn Future<Output = Result<(), Error>> + Send>;

fn client(tls: ClientConfig) -> HttpClient {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(Bounded(https))
}

fn client_config(tls: &ClientTls) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca_roots_file)? {
        roots.add(certificate).with_context(|| tls.ca_roots_file.display().to_string())?;
    }
    let key = PrivateKeyDer::from_pem_file(&tls.client_private_key_file);
    let key = key.with_context(|| tls.client_private_key_file.display().to_string())?;
    let chain = certificates(&tls.client_cert_file)?;
    Ok(ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let certificates = CertificateDer::pem_reader_iter(BufReader::new(file)).collect::<Result<_, _>>();
    certificates.with_context(|| path.display().to_string())
}

/// An entry of `allowed_outbound_hosts`: `SCHEME://HOST[:PORT]`. `*` stands for any scheme, host or port, `*.` before a
/// host for any below it; without a port it is the scheme's. What Spin knows beside that is refused here: networks
/// (`10.0.0.0/8`), `self`, and ranges of ports.
struct AllowedHost {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl AllowedHost {
    fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            bail!("allowed_outbound_hosts: {text} has no scheme");
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, "*")) => (host, None),
            Some((host, port)) => {
                let port = port.parse::<u16>().with_context(|| format!("allowed_outbound_hosts: {text}"))?;
                (host, Some(port))
            }
            None => (rest, default_port(scheme)),
        };
        // `*x.com` would let in evilx.com.
        let name = host.strip_prefix("*.").unwrap_or(host);
        let is_host =
            host == "*" || host.starts_with('[') || (!name.is_empty() && !name.contains(['*', '/', '{']));
        if !is_host || host == "self" || host.rsplit_once('.').is_some_and(|(_, last)| last == "alt") {
            bail!("allowed_outbound_hosts: {text}: a host, *.HOST or * is understood");
        }
        Ok(Self { scheme: scheme.to_owned(), host: host.to_owned(), port })
    }

    fn allows(&self, uri: &Uri) -> bool {
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return false };
        let port = uri.port_u16().or_else(|| default_port(scheme));
        let same_host = match self.host.strip_prefix('*') {
            // With its dot, and something before it.
            Some(suffix) => {
                let host = host.to_ascii_lowercase();
                host.len() > suffix.len() && host.ends_with(&suffix.to_ascii_lowercase())
            }
            None => host.eq_ignore_ascii_case(&self.host),
        };
        same_host
            && (self.scheme == "*" || self.scheme == scheme)
            && (self.port.is_none() || self.port == port)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

tokio::task_local! {
    static CONNECT_TIMEOUT: Duration;
}

/// Connects within the time of the request that wants it.
#[derive(Clone)]
struct Bounded<C>(C);

impl<C> Service<Uri> for Bounded<C>
where
    C: Service<Uri, Error = Box<dyn std::error::Error + Send + Sync>>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, C::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let limit = CONNECT_TIMEOUT.try_with(|limit| *limit).unwrap_or(DEFAULT_TIMEOUT);
        let connecting = self.0.call(uri);
        Box::pin(async move {
            match timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(elapsed) => Err(elapsed.into()),
            }
        })
    }
}

fn classify(error: &hyper_util::client::legacy::Error) -> Error {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<tokio::time::error::Elapsed>() {
            return Error::ConnectionTimeout;
        }
        // TLS errors travel inside I/O errors, whose source skips them.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) {
            return Error::TlsProtocolError;
        }
        cause = error.source();
    }
    if error.is_connect() { Error::ConnectionRefused } else { Error::HttpProtocolError }
}

/// A body that fails when nothing comes for too long.
struct Idle {
    body: hyper::body::Incoming,
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Body for Idle {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let deadline = Instant::now() + self.limit;
            self.sleep.as_mut().reset(deadline);
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| Error::HttpProtocolError)));
        }
        self.sleep.as_mut().poll(cx).map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, url: &str) -> bool {
        let pattern = AllowedHost::parse(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        pattern.allows(&url.parse().expect("a URL"))
    }

    #[test]
    fn a_pattern_lets_in_what_it_says() {
        for (pattern, url) in [
            ("https://api.example.com", "https://api.example.com/v1"),
            ("https://API.example.com", "https://api.EXAMPLE.com/v1"),
            ("https://*.example.com", "https://a.B.example.COM"),
            ("http://127.0.0.1:*", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("*://*:*", "http://anything:1"),
        ] {
            assert!(allows(pattern, url), "{pattern} {url}");
        }
        for (pattern, url) in [
            ("https://api.example.com", "http://api.example.com"),
            ("https://api.example.com", "https://api.example.com:8443"),
            ("https://*.example.com", "https://example.com"),
            ("https://*.example.com", "https://evilexample.com"),
            ("https://*.example.com", "https://a.example.com.evil.org"),
        ] {
            assert!(!allows(pattern, url), "{pattern} {url}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for pattern in [
            "api.example.com",
            "https://*example.com",
            "https://a.*.com",
            "https://*.*.com",
            "https://10.0.0.0/8",
            "http://self",
            "http://service.alt",
            "https://",
            "https://*.",
            "https://a.com:8000..9000",
            "https://{a,b}.com",
        ] {
            assert!(AllowedHost::parse(pattern).is_err(), "{pattern}");
        }
    }
}
