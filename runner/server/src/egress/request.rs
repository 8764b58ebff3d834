//! What a sandbox's request asks for: which upstream, which path, with which query. No I/O.

use http::Uri;

/// A request of the reverse proxy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// The first segment of the path.
    pub(super) upstream: &'a str,
    /// What follows it; begins with `/`.
    pub(super) path: &'a str,
    /// With what may be passed on only.
    pub(super) query: Option<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TargetError {
    #[error("this is a reverse proxy: ask for a path, not for a whole URL")]
    Absolute,
    #[error("a path may have letters, digits and any of -._~:@ between single slashes, and no dots alone")]
    Path,
}

/// What vendors' clients put in a query, as far as it is not a key. Anything else is left out: vendors take
/// credentials and methods there too, under names of which no complete list exists.
const QUERY_NAMES: [&str; 9] = [
    "alt",
    "after_id",
    "before_id",
    "beta",
    "client_version",
    "limit",
    "pageSize",
    "pageToken",
    "prettyPrint",
];

impl<'a> Target<'a> {
    pub(super) fn parse(uri: &'a Uri) -> Result<Self, TargetError> {
        if uri.authority().is_some() || uri.scheme().is_some() {
            return Err(TargetError::Absolute);
        }
        let path = uri.path().strip_prefix('/').ok_or(TargetError::Path)?;
        if !path.split('/').all(is_plain_segment) {
            return Err(TargetError::Path);
        }
        let end = path.find('/').ok_or(TargetError::Path)?;
        let (upstream, path) = path.split_at(end);
        Ok(Self { upstream, path, query: uri.query().and_then(passed_on) })
    }
}

/// Without an escape or anything else that two parsers could understand differently.
fn is_plain_segment(segment: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte);
    !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain)
}

fn passed_on(query: &str) -> Option<String> {
    let kept: Vec<_> = query.split('&').filter(|pair| QUERY_NAMES.contains(&name_of(pair))).collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

fn name_of(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default()
}

/// Where Google's clients may put their key.
pub(super) fn key_in_query(uri: &Uri) -> impl Iterator<Item = &[u8]> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs.filter_map(|pair| pair.strip_prefix("key=")).map(str::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Result<(String, String, Option<String>), TargetError> {
        let uri: Uri = uri.parse().unwrap();
        let Target { upstream, path, query } = Target::parse(&uri)?;
        Ok((upstream.to_owned(), path.to_owned(), query))
    }

    #[test]
    fn upstream_path_and_query_are_told_apart() {
        let (upstream, path, query) = parse(
            "/google/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse&key=t&access_token=x&$m=y",
        )
        .unwrap();
        assert_eq!(upstream, "google");
        assert_eq!(path, "/v1beta/models/gemini-2.5-pro:streamGenerateContent");
        assert_eq!(query.as_deref(), Some("alt=sse"));
        assert_eq!(parse("/a/b?key=t").unwrap(), ("a".to_owned(), "/b".to_owned(), None));
    }

    #[test]
    fn what_could_mean_another_path_is_refused() {
        for path in [
            "/",
            "/a",
            "/a/",
            "//a/b",
            "/a//b",
            "/a/../b",
            "/a/..",
            "/a/./b",
            "/a/%2e%2e/b",
            "/a/%2E./b",
            "/a/..%2fb",
            "/a/b%2fc",
            "/a/%252e%252e/b",
            "/a/b;c",
            "/a/..;/b",
            "/a/b%00",
            "/a/b%5cc",
            "/a%2fb/c",
            "*",
        ] {
            assert_eq!(parse(path), Err(TargetError::Path), "{path}");
        }
        for uri in ["http://169.254.169.254/latest", "https://a/b/c", "a:443"] {
            assert_eq!(parse(uri), Err(TargetError::Absolute), "{uri}");
        }
    }

    #[test]
    fn a_key_is_found_in_the_query() {
        let uri: Uri = "/a/b?alt=sse&key=1&monkey=2&key=3".parse().unwrap();
        assert_eq!(key_in_query(&uri).collect::<Vec<_>>(), [b"1", b"3"]);
    }
}
