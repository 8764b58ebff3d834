//! The headers that a call to a vendor, and its answer, may have.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::Secret;
use crate::config::model::Vendor;

/// For the connection, not for who is behind it (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// What a sandbox may say to a vendor. Anything else is left out: with some headers a call chooses whose account pays
/// (`openai-organization`, `x-goog-user-project`), where it seems to come from, or another method, and there is no
/// complete list of those.
const THE_SANDBOXS: [HeaderName; 14] = [
    header::ACCEPT,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::USER_AGENT,
    HeaderName::from_static("anthropic-beta"),
    HeaderName::from_static("anthropic-dangerous-direct-browser-access"),
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("x-app"),
    HeaderName::from_static("x-goog-api-client"),
    // Codex: which program it is, and which prompts share a cache.
    HeaderName::from_static("originator"),
    HeaderName::from_static("version"),
    HeaderName::from_static("session_id"),
    HeaderName::from_static("conversation_id"),
];
/// What the vendors' client libraries say of themselves.
const CLIENT_LIBRARY: &str = "x-stainless-";

/// Where vendors' clients put their key. All of what is there is tried.
pub(super) fn presented_keys(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearers = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
    let keys = headers.get_all(X_API_KEY).iter().chain(headers.get_all(X_GOOG_API_KEY));
    bearers.chain(keys.map(HeaderValue::as_bytes))
}

/// The passwords that a proxy's client gives: `Basic`, with any name, or `Bearer`.
pub(super) fn proxy_passwords(headers: &HeaderMap) -> impl Iterator<Item = Vec<u8>> {
    headers.get_all(header::PROXY_AUTHORIZATION).iter().filter_map(|value| {
        let value = value.as_bytes();
        if let Some(token) = bearer(value) {
            return Some(token.to_vec());
        }
        let decoded = BASE64_STANDARD.decode(after_scheme(value, b"basic ")?).ok()?;
        let colon = decoded.iter().position(|&byte| byte == b':')?;
        Some(decoded[colon + 1..].to_vec())
    })
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    after_scheme(value, b"bearer ")
}

/// `scheme` in lower case, with its space.
fn after_scheme<'a>(value: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (before, after) = value.split_at_checked(scheme.len())?;
    before.eq_ignore_ascii_case(scheme).then(|| after.trim_ascii())
}

/// Makes a sandbox's headers those of a call to the vendor.
pub(super) fn to_vendor(headers: &mut HeaderMap, vendor: Vendor, credential: Option<&Secret>) {
    remove_hop_by_hop(headers);
    let is_the_sandboxs =
        |name: &HeaderName| THE_SANDBOXS.contains(name) || name.as_str().starts_with(CLIENT_LIBRARY);
    let others: Vec<_> = headers.keys().filter(|name| !is_the_sandboxs(name)).cloned().collect();
    for name in others {
        headers.remove(name);
    }
    // What is compressed cannot be observed.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(credential) = credential {
        let (name, prefix) = match vendor {
            Vendor::Anthropic => (X_API_KEY, ""),
            Vendor::Gemini => (X_GOOG_API_KEY, ""),
            Vendor::OpenAi => (header::AUTHORIZATION, "Bearer "),
        };
        let text = zeroize::Zeroizing::new(format!("{prefix}{}", credential.expose()));
        let mut value = HeaderValue::from_str(&text)
            .expect("a credential has visible characters only: it was checked when read");
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

/// Makes a vendor's headers those of an answer to the sandbox.
pub(super) fn to_sandbox(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    headers.remove(header::SET_COOKIE);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named.into_iter().chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let parse =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        headers.iter().map(parse).collect()
    }

    #[test]
    fn keys_are_found_wherever_clients_put_them() {
        let headers = map(&[
            ("authorization", "bearer  a"),
            ("x-api-key", "b"),
            ("x-goog-api-key", "c"),
            ("x-api-key", "d"),
            ("authorization", "Basic e"),
        ]);
        let keys: Vec<_> = presented_keys(&headers).collect();
        assert_eq!(keys, [&b"a"[..], b"b", b"d", b"c"]);
    }

    #[test]
    fn a_proxys_password_is_found_in_both_schemes() {
        // "run:a:b", "c"
        let headers = map(&[
            ("proxy-authorization", "Basic cnVuOmE6Yg=="),
            ("proxy-authorization", "Basic Yw=="),
            ("proxy-authorization", "Basic !"),
            ("proxy-authorization", "BEARER d"),
            ("authorization", "Bearer e"),
        ]);
        let passwords: Vec<_> = proxy_passwords(&headers).collect();
        assert_eq!(passwords, [&b"a:b"[..], b"d"]);
    }

    #[test]
    fn a_vendor_hears_what_is_listed_and_nothing_else() {
        let mut headers = map(&[
            ("host", "h"),
            ("connection", "close, x-once"),
            ("x-once", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("expect", "100-continue"),
            ("proxy-authorization", "t"),
            ("authorization", "Bearer t"),
            ("x-api-key", "t"),
            ("x-goog-api-key", "t"),
            ("cookie", "c"),
            ("accept-encoding", "gzip, br"),
            ("x-http-method-override", "DELETE"),
            ("openai-organization", "o"),
            ("openai-project", "p"),
            ("x-goog-user-project", "p"),
            ("chatgpt-account-id", "a"),
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("x-new", "1"),
            ("anthropic-version", "2023-06-01"),
            ("content-type", "application/json"),
            ("x-stainless-lang", "js"),
        ]);
        to_vendor(&mut headers, Vendor::Anthropic, Some(&Secret::new("sk")));
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["accept-encoding", "anthropic-version", "content-type", "x-api-key", "x-stainless-lang"]
        );
        assert_eq!(headers["accept-encoding"], "identity");
        assert_eq!(headers["x-api-key"], "sk");
        assert!(!format!("{headers:?}").contains("sk"), "{headers:?}");
    }

    #[test]
    fn each_vendor_gets_its_credential_where_it_looks() {
        for (vendor, name, value) in [
            (Vendor::Anthropic, "x-api-key", "sk"),
            (Vendor::Gemini, "x-goog-api-key", "sk"),
            (Vendor::OpenAi, "authorization", "Bearer sk"),
        ] {
            let mut headers = map(&[("authorization", "Bearer t")]);
            to_vendor(&mut headers, vendor, Some(&Secret::new("sk")));
            assert_eq!(headers[name], value);
            assert_eq!(headers.len(), 2);
            to_vendor(&mut headers, vendor, None);
            assert_eq!(headers.len(), 1);
        }
    }

    #[test]
    fn an_answer_keeps_what_is_the_clients() {
        let mut headers = map(&[
            ("set-cookie", "c"),
            ("connection", "keep-alive"),
            ("retry-after", "7"),
            ("content-type", "text/event-stream"),
        ]);
        to_sandbox(&mut headers);
        assert_eq!(headers, map(&[("retry-after", "7"), ("content-type", "text/event-stream")]));
    }
}
