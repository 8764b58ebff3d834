//! Where a table is, as people write it.

use std::fmt;

/// How the table is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAccess {
    pub table: String,
    /// An AWS region, such as `eu-central-1`. Part of each request's signature, so compatible servers need one too.
    pub region: String,
    /// Where the API is, if it is not AWS's own endpoint of the region.
    pub endpoint_url: Option<String>,
}

/// A part of a [`StoreAccess`], which every host calls by a name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessPart {
    Table,
    Region,
    Endpoint,
}

impl StoreAccess {
    /// What cannot be right, and what it must be. Empty parts are for the host to notice.
    pub fn violations(&self) -> Vec<(AccessPart, &'static str)> {
        let mut violations = Vec::new();
        let is_of = |text: &str, others: &[u8]| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
        };
        let is_name = (3..=255).contains(&self.table.len()) && is_of(&self.table, b"_.-");
        if !(self.table.is_empty() || is_name) {
            violations.push((
                AccessPart::Table,
                "must be a table's name: 3 to 255 of A-Z, a-z, 0-9, '_', '.' and '-'",
            ));
        }
        if !(self.region.len() <= 63 && is_of(&self.region, b"-")) {
            violations.push((AccessPart::Region, "must be an AWS region, such as eu-central-1"));
        }
        if !self.endpoint_url.as_deref().is_none_or(is_endpoint) {
            violations.push((AccessPart::Endpoint, "must be http://HOST[:PORT] or https://HOST[:PORT]"));
        }
        violations
    }

    /// Whether AWS itself serves the table, as far as the endpoint tells.
    pub fn is_aws(&self) -> bool {
        let host = self.endpoint_url.as_deref().and_then(authority).map(host);
        host.is_none_or(|host| {
            [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].iter().any(|aws| host.ends_with(aws))
        })
    }
}

/// For messages: `table NAME in REGION`, with the endpoint if one was named.
impl fmt::Display for StoreAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the table {} in {}", self.table, self.region)?;
        self.endpoint_url.as_ref().map_or(Ok(()), |endpoint| write!(f, " at {endpoint}"))
    }
}

fn authority(endpoint: &str) -> Option<&str> {
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"))?;
    Some(rest.strip_suffix('/').unwrap_or(rest))
}

fn host(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.split_inclusive(']').next().unwrap_or(authority);
    }
    authority.split(':').next().unwrap_or(authority)
}

fn is_endpoint(text: &str) -> bool {
    let Some(authority) = authority(text) else { return false };
    let host = host(authority);
    let port = &authority[host.len()..];
    let is_port = port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_ipv6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    (is_ipv6 || (!host.is_empty() && host.bytes().all(of_name))) && (port.is_empty() || is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(table: &str, region: &str, endpoint: Option<&str>) -> StoreAccess {
        StoreAccess {
            table: table.to_owned(),
            region: region.to_owned(),
            endpoint_url: endpoint.map(str::to_owned),
        }
    }

    #[test]
    fn what_can_be_right_is_taken() {
        for endpoint in [
            None,
            Some("http://127.0.0.1:8000"),
            Some("http://localhost:8000/"),
            Some("https://[::1]:8000"),
            Some("https://dynamodb.eu-central-1.amazonaws.com"),
        ] {
            assert_eq!(access("dyad-gateway", "eu-central-1", endpoint).violations(), []);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (access, part) in [
            (access("no", "eu-central-1", None), AccessPart::Table),
            (access("a table", "eu-central-1", None), AccessPart::Table),
            (access("arn:aws:dynamodb:x", "eu-central-1", None), AccessPart::Table),
            (access("table", "eu central 1", None), AccessPart::Region),
            (access("table", "https://example.com", None), AccessPart::Region),
        ] {
            let found: Vec<_> = access.violations().into_iter().map(|(part, _)| part).collect();
            assert_eq!(found, [part], "{access:?}");
        }
        for endpoint in [
            "127.0.0.1:8000",
            "ftp://127.0.0.1",
            "http://",
            "http://:8000",
            "http://me@example.com",
            "http://example.com/path",
            "http://example.com?x",
            "http://example.com:x",
            "http://example.com:0",
            "http://[::1",
            "http://[x]:1",
        ] {
            let found = access("table", "eu-central-1", Some(endpoint)).violations();
            assert_eq!(
                found.iter().map(|(part, _)| *part).collect::<Vec<_>>(),
                [AccessPart::Endpoint],
                "{endpoint}"
            );
        }
    }

    #[test]
    fn aws_is_told_from_compatible_servers() {
        for (endpoint, is_aws) in [
            (None, true),
            (Some("https://dynamodb.eu-central-1.amazonaws.com"), true),
            (Some("https://vpce-1.dynamodb.eu-central-1.vpce.amazonaws.com:443"), true),
            (Some("http://127.0.0.1:8000"), false),
            (Some("http://[::1]:8000"), false),
            (Some("https://amazonaws.com.example.org"), false),
        ] {
            assert_eq!(access("table", "eu-central-1", endpoint).is_aws(), is_aws, "{endpoint:?}");
        }
    }
}
