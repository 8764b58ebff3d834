//! Which hosts may be called.

use http::Uri;
use http::uri::Authority;

/// A list of hosts, as whoever runs the gateway writes it: `api.example.com, *.example.org, https://localhost:8080`.
///
/// An entry is a name or an address, or `*.` and what a name ends with, or `*` for all. `http://` or `https://` before
/// it, and a port after it, narrow it down; `:*` is any port, as none is. It may so be the same as in Spin's
/// `allowed_outbound_hosts`.
/// Addresses are compared as such: `127.1` and `0x7f000001` are `127.0.0.1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostList(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    scheme: Option<&'static str>,
    host: Pattern,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    /// In lower case.
    Exact(String),
    /// In lower case, with the dot that it begins with.
    EndsWith(String),
}

impl HostList {
    /// Entries have commas between them. `Err` is the entry that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let read = |entry: &str| Entry::parse(entry).ok_or_else(|| entry.to_owned());
        entries.map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the list has the host of this URL.
    pub fn allows(&self, url: &Uri) -> bool {
        self.has(url, Pattern::matches)
    }

    /// Whether the list has this very host, and not only what it ends with or all hosts.
    pub fn names(&self, url: &Uri) -> bool {
        self.has(url, |pattern, host| matches!(pattern, Pattern::Exact(name) if name == host))
    }

    fn has(&self, url: &Uri, matches: impl Fn(&Pattern, &str) -> bool) -> bool {
        let Some(host) = url.host() else { return false };
        let host = canonical(host);
        let scheme = url.scheme_str();
        let port = url.port_u16().or(match scheme {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        });
        self.0.iter().any(|entry| {
            entry.scheme.is_none_or(|wanted| scheme == Some(wanted))
                && entry.port.is_none_or(|wanted| port == Some(wanted))
                && matches(&entry.host, &host)
        })
    }
}

impl Entry {
    fn parse(entry: &str) -> Option<Self> {
        let (scheme, rest) = match entry.split_once("://") {
            None => (None, entry),
            Some(("https", rest)) => (Some("https"), rest),
            Some(("http", rest)) => (Some("http"), rest),
            Some(_) => return None,
        };
        let rest = rest.strip_suffix(":*").unwrap_or(rest);
        let (stars, name) = match rest.strip_prefix('*') {
            None => (false, rest),
            Some(name) => (true, name),
        };
        if name.contains(['*', '@', '/']) {
            return None;
        }
        // A name that is a star alone, or begins with its dot, is none to the parser.
        let authority = format!("{}{name}", if stars { "x" } else { "" }).parse::<Authority>().ok()?;
        let port = match authority.as_str().strip_prefix(authority.host())? {
            "" => None,
            port => Some(port.strip_prefix(':')?.parse().ok().filter(|port| *port > 0)?),
        };
        let host = authority.host().to_ascii_lowercase();
        let host = match (stars, host.strip_prefix('x')) {
            (true, Some("")) => Pattern::Any,
            (true, Some(end)) if end.len() > 1 && end.starts_with('.') => Pattern::EndsWith(end.to_owned()),
            (true, _) => return None,
            (false, _) if host.is_empty() => return None,
            (false, _) => Pattern::Exact(canonical(&host)),
        };
        Some(Self { scheme, host, port })
    }
}

/// In lower case, addresses in their one usual form, and without the dot that a name may end with.
fn canonical(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    url::Host::parse(host).map_or_else(|_| host.to_ascii_lowercase(), |host| host.to_string())
}

impl Pattern {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => host == name,
            Self::EndsWith(end) => host.len() > end.len() && host.ends_with(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &str, url: &str) -> bool {
        HostList::parse(list).unwrap().allows(&url.parse().unwrap())
    }

    #[test]
    fn names_ends_schemes_and_ports() {
        for (list, url, allowed) in [
            ("api.example.com", "https://api.example.com/v1", true),
            ("API.Example.com", "https://api.example.COM:8443/v1", true),
            ("api.example.com", "https://xapi.example.com", false),
            ("api.example.com", "https://api.example.com.evil.net", false),
            ("*.example.com", "https://a.b.example.com", true),
            ("*.example.com", "https://example.com", false),
            ("*.example.com", "https://evilexample.com", false),
            ("https://api.example.com", "http://api.example.com", false),
            ("https://api.example.com:443", "https://api.example.com", true),
            ("api.example.com:8443", "https://api.example.com", false),
            ("http://127.0.0.1:*", "http://127.0.0.1:11434", true),
            ("[::1]:80", "http://[::1]", true),
            ("a.example, b.example,", "https://b.example", true),
            ("*", "https://anything.example", true),
            ("https://*:*", "http://anything.example", false),
            ("", "https://anything.example", false),
            ("a.example.", "https://a.example", true),
            ("a.example", "https://a.example.", true),
            ("0x7f.1", "http://127.0.0.1", true),
            ("[0:0:0:0:0:0:0:1]", "http://[::1]", true),
        ] {
            assert_eq!(allows(list, url), allowed, "{list}: {url}");
        }
    }

    #[test]
    fn a_pattern_names_nobody() {
        let list = HostList::parse("*, *.example.com, a.example.com, http://10.0.0.1:8080").unwrap();
        for (url, named) in [
            ("https://a.example.com", true),
            ("https://b.example.com", false),
            ("http://10.0.0.1:8080", true),
            ("http://10.0.0.1:8081", false),
        ] {
            assert_eq!(list.names(&url.parse().unwrap()), named, "{url}");
        }
    }

    #[test]
    fn what_is_no_host_is_named() {
        for wrong in [
            "a b",
            "https://",
            "ftp://a",
            "a/b",
            "u@a",
            "*a.example",
            "*.",
            "a.*.b",
            "a:0",
            "a:x",
            "a:",
            "**",
        ] {
            assert_eq!(HostList::parse(&format!("good.example, {wrong}")), Err(wrong.to_owned()));
        }
    }
}
