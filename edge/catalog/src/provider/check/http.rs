//! The rules for upstreams that speak OpenAI's API.

use http::HeaderName;
use url::{Host, Url};

use super::{check_models, check_timeouts, required};
use crate::Violations;
use crate::provider::fields::{Fields, kind};
use crate::provider::{CredentialRef, HttpAdapterConfig, Model, ProviderKind};

const MAX_FORWARD_HEADERS: usize = 32;
const MAX_URL_BYTES: usize = 2_048;

/// Credentials (upstreams get the provider's own, never the client's), what belongs to one connection, and what the
/// gateway sets itself because it reads and changes bodies.
const NEVER_FORWARDED: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-amz-security-token",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "accept-encoding",
    "expect",
];

/// The configuration, the credential and the models. `None` only if a violation was noted.
pub(super) fn check(
    fields: &mut Fields<'_>,
    kind: Option<ProviderKind>,
    violations: &mut Violations,
) -> (Option<HttpAdapterConfig>, CredentialRef, Option<Vec<Model>>) {
    let base_url = required(fields, "base_url", violations, |fields, violations| {
        let text = fields.string("base_url", violations)?;
        check_base_url(text, kind).map_err(|message| violations.add("base_url", message)).ok()
    });
    let credential = check_credential(fields, violations);
    let discover = fields.boolean("discover_models", violations);
    let forward_headers = check_forward_headers(fields, violations);
    let timeouts = check_timeouts(fields, violations);
    let models = check_models(fields, violations);
    let lists_none = models.as_ref().is_some_and(Vec::is_empty);
    if discover == Some(false) && lists_none {
        violations.add("models", "list at least one model, or set discover_models to true");
    }
    let discover_models = discover.unwrap_or(lists_none);
    let config =
        base_url.map(|base_url| HttpAdapterConfig { base_url, discover_models, forward_headers, timeouts });
    (config, credential, models)
}

/// The URL in its canonical form, without what people paste along with it.
fn check_base_url(text: &str, kind: Option<ProviderKind>) -> Result<String, String> {
    if text.len() > MAX_URL_BYTES {
        return Err(format!("has {} bytes; at most {MAX_URL_BYTES} are allowed", text.len()));
    }
    let mut url = Url::parse(text.trim())
        .map_err(|error| format!("is not an absolute URL such as https://api.example.com/v1: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with https:// or http://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user or password: a key is written as the credential".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not contain ? or #".to_owned());
    }
    if url.scheme() == "http"
        && kind == Some(ProviderKind::Proxy)
        && !url.host().is_some_and(|host| is_private(&host))
    {
        return Err("must use https: the credential would cross the network in clear \
                    (http is for loopback and private addresses, or for type \"local\")"
            .to_owned());
    }
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/chat/completions").unwrap_or(path).trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Loopback, or reachable only from a private network. Names other than localhost may resolve to anything.
fn is_private(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback() || address.is_private(),
        Host::Ipv6(address) => match address.to_ipv4_mapped() {
            Some(address) => address.is_loopback() || address.is_private(),
            None => address.is_loopback() || address.is_unique_local(),
        },
    }
}

/// Never repeats what was written: it may be the credential itself.
fn check_credential(fields: &mut Fields<'_>, violations: &mut Violations) -> CredentialRef {
    let Some(text) = fields.string("credential", violations) else { return CredentialRef::None };
    CredentialRef::parse(text).unwrap_or_else(|refused| {
        violations.add("credential", refused);
        CredentialRef::None
    })
}

fn check_forward_headers(fields: &mut Fields<'_>, violations: &mut Violations) -> Vec<String> {
    let mut headers = Vec::new();
    let listed = fields.list("forward_headers", MAX_FORWARD_HEADERS, violations).unwrap_or_default();
    for (index, value) in listed.iter().enumerate() {
        let message = match value.as_str() {
            None => format!("must be a string, not {}", kind(value)),
            Some(name) if HeaderName::from_lowercase(name.as_bytes()).is_err() => {
                "must be a header name in lower case".to_owned()
            }
            Some(name) if NEVER_FORWARDED.contains(&name) => {
                "is never passed on: it carries a credential, or belongs to the connection or the body"
                    .to_owned()
            }
            Some(name) if headers.iter().any(|other| other == name) => "is listed twice".to_owned(),
            Some(name) => {
                headers.push(name.to_owned());
                continue;
            }
        };
        violations.add(format!("forward_headers[{index}]"), message);
    }
    headers
}
