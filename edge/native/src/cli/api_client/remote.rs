//! The API of a gateway at a URL: which one is meant, and how it is reached.

use std::time::Duration;

use bytes::Bytes;
use catalog::Secret;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use url::{Host, Url};

use super::ApiArgs;
use crate::cli::Failure;
use crate::connect::{self, ConnectTimeout};
use crate::store_location::variable;
use crate::tls;

const URL: &str = "DYAD_ADMIN_URL";
const TOKEN: &str = "DYAD_ADMIN_TOKEN";
const DATA_DIR: &str = "DYAD_GATEWAY_DATA_DIR";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type HttpsClient = Client<ConnectTimeout<HttpsConnector<HttpConnector>>, Full<Bytes>>;

pub(super) struct RemoteApi {
    client: HttpsClient,
    /// Without the `admin` of its routes.
    base: Url,
    /// `Bearer` and the token.
    authorization: HeaderValue,
}

impl RemoteApi {
    /// `None`: the API is to work here, on the store.
    pub(super) fn of(args: &ApiArgs) -> Result<Option<Self>, Failure> {
        let usage = |line: String| Failure::Usage(vec![line]);
        let Some((name, url)) = args.named_url()? else {
            return match &args.ca {
                Some(_) => Err(usage(format!("--ca: it is for a gateway at a URL; add --url or {URL}"))),
                None => Ok(None),
            };
        };
        let base = base(&url).map_err(|wrong| usage(format!("{name}: {wrong}")))?;
        let authorization = authorization().map_err(usage)?;
        let roots = match &args.ca {
            None => tls::system_roots()
                .map_err(|error| Failure::failed("the authorities cannot be read", &error))?,
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in tls::certificates(path).map_err(usage)? {
                    let added = roots.add(certificate);
                    added.map_err(|error| usage(format!("{}: {error}", path.display())))?;
                }
                roots
            }
        };
        let tls =
            tls::client_config(roots).map_err(|error| Failure::failed("TLS cannot be set up", &error))?;
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connect::tcp());
        let client = Client::builder(TokioExecutor::new()).build(ConnectTimeout::new(https, CONNECT_TIMEOUT));
        Ok(Some(Self { client, base, authorization }))
    }

    /// Paths begin after it.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// Redirects are not followed: the token is for this gateway alone.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        request.headers_mut().insert(AUTHORIZATION, self.authorization.clone());
        self.client.request(request).await
    }
}

/// From the variable alone: others can see a command line.
fn authorization() -> Result<HeaderValue, String> {
    let token = Secret::new(variable(TOKEN).unwrap_or_default().trim());
    if token.is_empty() {
        return Err(format!(
            "{TOKEN} is not set: it must have an administrator's token ('dyad-gateway admin token' prints one where the gateway runs)"
        ));
    }
    let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .map_err(|_| format!("{TOKEN} has characters that no token has"))?;
    authorization.set_sensitive(true);
    Ok(authorization)
}

impl ApiArgs {
    /// Whether a store is named on the command line: that counts before the variable that names a URL.
    fn names_store(&self) -> Option<&'static str> {
        let store = &self.store;
        // Its variable fills the same member.
        let is_in_variable = std::env::var_os(DATA_DIR).map(Into::into) == self.common.data_dir;
        let named = [
            ("--table", store.table.is_some()),
            ("--region", store.region.is_some()),
            ("--endpoint", store.endpoint.is_some()),
            ("--data-dir", self.common.data_dir.is_some() && !is_in_variable),
        ];
        named.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
    }

    /// Whether a gateway at a URL is meant.
    pub(crate) fn is_remote(&self) -> bool {
        !matches!(self.named_url(), Ok(None))
    }

    /// The URL that is given, and by what.
    fn named_url(&self) -> Result<Option<(&'static str, String)>, Failure> {
        let named = match (&self.url, self.names_store()) {
            (Some(_), Some(store)) => {
                let line = format!("--url and {store} name two places; give one of them");
                return Err(Failure::Usage(vec![line]));
            }
            (Some(url), None) => Some(("--url", url.clone())),
            (None, Some(_)) => None,
            (None, None) => variable(URL).map(|url| (URL, url)),
        };
        Ok(named.filter(|(_, url)| !url.is_empty()))
    }
}

/// The URL of the gateway, without what people paste along with it. Errors do not repeat it.
fn base(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text.trim())
        .map_err(|error| format!("is not a URL such as https://gateway.example.com: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with https:// or http://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("must not have a user or password; the token belongs in {TOKEN}"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have ? or #".to_owned());
    }
    if url.scheme() == "http" && !url.host().is_some_and(|host| is_private(&host)) {
        return Err("must use https: the token would cross the network in clear (http is for loopback and private addresses)".to_owned());
    }
    let path = url.path().trim_end_matches('/');
    let path = ["/admin", "/console", "/v1"].iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path);
    let path = format!("{path}/");
    url.set_path(&path);
    Ok(url)
}

/// Loopback, or reachable only from a private network. Names other than localhost may resolve to anything.
fn is_private(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback() || address.is_private(),
        Host::Ipv6(address) => address.is_loopback() || address.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_along_is_cut_off() {
        for text in
            ["https://g.example", "https://g.example/", "https://g.example/v1", "https://g.example/admin/"]
        {
            assert_eq!(base(text).unwrap().as_str(), "https://g.example/", "{text}");
        }
        assert_eq!(base("https://g.example/ai/v1").unwrap().as_str(), "https://g.example/ai/");
        assert_eq!(base(" http://127.0.0.1:4100/v1 ").unwrap().as_str(), "http://127.0.0.1:4100/");
    }

    #[test]
    fn a_token_goes_nowhere_in_clear() {
        for text in ["http://localhost:4100", "http://10.0.0.1", "http://[::1]:4100", "http://[fd00::1]"] {
            assert!(base(text).is_ok(), "{text}");
        }
        for text in ["http://g.example", "http://8.8.8.8", "http://[2001:db8::1]", "http://localhost.example"]
        {
            assert!(base(text).unwrap_err().contains("https"), "{text}");
        }
    }

    #[test]
    fn other_urls_are_refused_without_being_shown() {
        for text in
            ["", "g.example", "ftp://g.example", "https://a:hunter2@g.example", "https://g.example?t=hunter2"]
        {
            let error = base(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
