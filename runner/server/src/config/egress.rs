//! `[cli.egress]`: whom a sandbox may speak to.

use url::{Host, Url};

use super::Fields;
use super::fields::text;
use super::model::{CredentialRef, Egress, HostPort, Upstream, Vendor};

const MAX_UPSTREAMS: usize = 16;
const MAX_CONNECT: usize = 64;
const DEFAULT_PORT: u16 = 8080;
const DEFAULT_MAX_BYTES: u64 = 256 << 20;

pub(super) fn egress(fields: &mut Fields<'_>) -> Option<Egress> {
    // Ports below 1024 are not for the sandbox's user.
    let port = fields.number("port", 1024..=65_535).and_then(|port| u16::try_from(port).ok());
    let read = fields.tables("upstream", MAX_UPSTREAMS, upstream);
    let connect = fields.list("connect", MAX_CONNECT, |value| host_port(text(value)?)).unwrap_or_default();
    let max_bytes = fields.size("max_bytes", 1 << 10..=1 << 40);
    if !fields.has("upstream") && !fields.has("connect") {
        fields.violation(
            "",
            "must have an [[cli.egress.upstream]] or hosts in connect; leave it out for no network at all",
        );
    }
    for (index, upstream) in read.iter().enumerate() {
        let name = upstream.as_ref().map(|upstream| &upstream.name);
        if name.is_some() && read[..index].iter().any(|other| other.as_ref().map(|other| &other.name) == name)
        {
            fields.violation(&format!("upstream[{index}].name"), "another upstream has this name already");
        }
    }
    Some(Egress {
        port: port.unwrap_or(DEFAULT_PORT),
        upstreams: read.into_iter().collect::<Option<_>>()?,
        connect,
        max_bytes: max_bytes.unwrap_or(DEFAULT_MAX_BYTES),
    })
}

fn upstream(fields: &mut Fields<'_>) -> Option<Upstream> {
    let name = fields.required("name", "what {egress.NAME} calls it", |value| upstream_name(text(value)?));
    let url = fields.required("url", "the vendor's base URL", |value| upstream_url(text(value)?));
    let vendors = [("anthropic", Vendor::Anthropic), ("gemini", Vendor::Gemini), ("openai", Vendor::OpenAi)];
    if !fields.has("vendor") {
        fields.violation("vendor", "is missing: whose API it is, \"anthropic\", \"gemini\" or \"openai\"");
    }
    let vendor = fields.word("vendor", &vendors);
    let folder = fields.folder();
    let credential =
        fields.parsed("credential", |value| CredentialRef::parse(value.as_str().unwrap_or_default(), folder));
    let ca = fields.path("ca");
    Some(Upstream { name: name?, url: url?, vendor: vendor?, credential, ca })
}

/// It is a segment of a path inside the sandbox, and a name in templates.
fn upstream_name(name: &str) -> Result<String, String> {
    let is_name = name.len() <= 32
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    match name {
        "token" => Err("must not be \"token\": {egress.token} is the run's own token".to_owned()),
        name if is_name => Ok(name.to_owned()),
        _ => Err("must be at most 32 of a-z, 0-9 and '-', a letter first".to_owned()),
    }
}

fn upstream_url(text: &str) -> Result<Url, String> {
    let rule = || {
        "must be https://HOST, perhaps with a port and a path, and without user, query or fragment".to_owned()
    };
    let url = Url::parse(text).map_err(|_| rule())?;
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if is_loopback => {}
        "http" => return Err("must begin with https://; http:// is for this machine only".to_owned()),
        _ => return Err(rule()),
    }
    let is_plain = url.host_str().is_some_and(|host| !host.is_empty())
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if is_plain { Ok(url) } else { Err(rule()) }
}

/// `HOST:PORT`; the host in the form in which a CONNECT is compared with it.
fn host_port(text: &str) -> Result<HostPort, String> {
    let rule = || "must be HOST:PORT, such as \"api.example.com:443\", exact".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(rule)?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| is_number && *port != 0).ok_or_else(rule)?;
    let host = Host::parse(host).map_err(|_| rule())?;
    let is_exact = !matches!(&host, Host::Domain(name) if name.contains('*') || name.starts_with('.') || name.is_empty());
    if is_exact { Ok(HostPort { host: host.to_string(), port }) } else { Err(rule()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn upstreams_are_https_or_this_machine() {
        for text in [
            "https://api.example.com",
            "https://a.example:8443/v1/",
            "http://127.0.0.1:9",
            "http://[::1]:9/x",
            "http://localhost:1",
        ] {
            assert!(upstream_url(text).is_ok(), "{text}");
        }
        for text in [
            "http://api.example.com",
            "http://127.0.0.1.example.com",
            "ftp://a",
            "https://",
            "https://user@a.example",
            "https://:p@a.example",
            "https://a.example?x",
            "https://a.example/#x",
            "a.example",
            "http://169.254.169.254",
            "unix:/a",
        ] {
            assert!(upstream_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn connect_names_one_host_and_one_port() {
        let host_port = |text| host_port(text).map(|found| (found.host, found.port));
        assert_eq!(host_port("API.example.com:443"), Ok(("api.example.com".to_owned(), 443)));
        assert_eq!(host_port("[::1]:80"), Ok(("[::1]".to_owned(), 80)));
        // Every way to write an address is that address.
        assert_eq!(host_port("2130706433:1"), Ok(("127.0.0.1".to_owned(), 1)));
        for text in [
            "a.example",
            "a.example:",
            "a.example:0",
            "a.example:65536",
            "a.example:+1",
            ":443",
            "*.example:443",
            ".example:443",
            "a b:443",
            "https://a:443",
            "a/b:1",
        ] {
            assert!(host_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_segments() {
        assert_eq!(upstream_name("anthropic-2"), Ok("anthropic-2".to_owned()));
        for name in ["", "token", "a/b", "..", "A", "2a", "a_b", "-a"] {
            assert!(upstream_name(name).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_host_that_was_read_is_read_as_the_same(text in "[a-z0-9.:\\[\\]*-]{0,24}") {
            if let Ok(read) = host_port(&text) {
                let again = host_port(&format!("{}:{}", read.host, read.port));
                prop_assert_eq!(again, Ok(read));
            }
        }
    }
}
