//! Where upstreams may be: who may write to the store must not be able to send requests into the network of the machine
//! that serves, and least of all to its cloud's metadata service, which gives out credentials (SSRF).
//!
//! Ranges are those of IANA's registries of special-purpose addresses (RFC 6890 and its updates).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use url::{Host, Url};

use crate::{HostList, Provider, ProviderKind};

/// Which addresses the host of an upstream may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Those of the internet.
    Public,
    /// This machine's and its networks' too: loopback, private and shared ones.
    Private,
    /// Any.
    Anywhere,
}

/// What a deployment says of the hosts of upstreams. The default: any host of the internet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamHosts {
    /// If there, the only ones: `upstream_hosts` of the settings.
    pub only: Option<HostList>,
    /// Those that stored providers may name although they are not of the internet: `private_upstream_hosts`.
    pub private: HostList,
}

/// What an address, or a name that says it itself, belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zone {
    Public,
    /// This machine or its networks.
    Private(&'static str),
    /// What no upstream has.
    Never(&'static str),
}

/// Names that clouds' metadata services have.
const METADATA_NAMES: [&str; 6] = [
    "metadata",
    "metadata.goog",
    "metadata.google.internal",
    "metadata.azure.internal",
    "instance-data",
    "instance-data.ec2.internal",
];
/// Ends of names that the internet does not have: RFC 6761, 6762 and 8375, and ICANN's reservation of `internal`.
const PRIVATE_ENDS: [&str; 5] = [".localhost", ".local", ".internal", ".home.arpa", ".localdomain"];

impl UpstreamHosts {
    /// How far calls to a provider go that whoever runs the gateway gave it: they may name any host of their own
    /// networks. `Err` says why it may not be called.
    pub fn of_given(&self, provider: &Provider) -> Result<Reach, String> {
        self.url(provider).map(|_| Reach::Anywhere)
    }

    /// The same of a provider of the store. A `local` one may be on this machine or in its networks, which is what that
    /// type is for; a `proxy` only where `private_upstream_hosts` has its host. What no upstream has, such as the
    /// address of a metadata service, must be in that list as it is: a pattern does not mean it.
    ///
    /// A name may lead anywhere: a host that looks it up itself holds the addresses to the answer.
    pub fn of_stored(&self, provider: &Provider) -> Result<Reach, String> {
        let Some((uri, host)) = self.url(provider)? else { return Ok(Reach::Public) };
        let (zone, is_address) = match host {
            Host::Domain(name) => (Zone::of_name(&name), false),
            Host::Ipv4(address) => (Zone::of(address.into()), true),
            Host::Ipv6(address) => (Zone::of(address.into()), true),
        };
        let may_be_private = provider.kind() == ProviderKind::Local || self.private.allows(&uri);
        match zone {
            Zone::Never(_) if is_address && self.private.names(&uri) => Ok(Reach::Anywhere),
            Zone::Never(what) => {
                Err(format!("its host is {what}, where a provider that is kept in the store may not lead"))
            }
            Zone::Public | Zone::Private(_) if may_be_private => Ok(Reach::Private),
            Zone::Private(what) => Err(format!(
                "its host is {what}: a provider of type proxy that is kept in the store may only lead there if \
                 private_upstream_hosts (DYAD_PRIVATE_UPSTREAM_HOSTS) has the host"
            )),
            Zone::Public => Ok(Reach::Public),
        }
    }

    /// `None` for a provider without a URL.
    fn url(&self, provider: &Provider) -> Result<Option<(Uri, Host)>, String> {
        let Some(config) = provider.adapter.http() else { return Ok(None) };
        // The URL's own form of an address is the usual one, however it was written.
        let url = Url::parse(&config.base_url).ok();
        let host = url.as_ref().and_then(Url::host).map(|host| host.to_owned());
        let uri = url.and_then(|url| url.as_str().parse::<Uri>().ok());
        let (Some(uri), Some(host)) = (uri, host) else {
            return Err("its base URL cannot be used".to_owned());
        };
        if self.only.as_ref().is_some_and(|only| !only.allows(&uri)) {
            return Err(
                "its host is not one of those that upstreams may have (DYAD_UPSTREAM_HOSTS)".to_owned()
            );
        }
        Ok(Some((uri, host)))
    }
}

impl Reach {
    /// What the address is, if it is beyond this reach.
    pub fn refusal(self, address: IpAddr) -> Option<&'static str> {
        match (self, Zone::of(address)) {
            (Self::Anywhere, _) | (_, Zone::Public) | (Self::Private, Zone::Private(_)) => None,
            (Self::Public, Zone::Private(what)) | (Self::Public | Self::Private, Zone::Never(what)) => {
                Some(what)
            }
        }
    }
}

impl Zone {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [127, ..] => Self::Private("a loopback address"),
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private("a private address"),
            // Alibaba Cloud's, and that of Azure's host, which also answers for its metadata.
            [100, 100, 100, 200] | [168, 63, 129, 16] => Self::Never("the address of a metadata service"),
            // Behind a carrier's NAT, and what overlay networks give out.
            [100, 64..=127, ..] => Self::Private("a shared address"),
            // In private networks; and what some tunnels resolve every name to.
            [198, 18..=19, ..] => Self::Private("an address for benchmarks"),
            [169, 254, ..] => Self::Never("a link-local address, as metadata services have"),
            [0, ..] => Self::Never("an unspecified address"),
            [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => {
                Self::Never("an address of documentation")
            }
            [224..=239, ..] => Self::Never("a multicast address"),
            // Oracle's metadata service among them.
            [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Self::Never("a reserved address"),
            _ => Self::Public,
        }
    }

    #[expect(
        clippy::unnested_or_patterns,
        reason = "each line is one kind of address, as the comment lists them"
    )]
    /// An address that stands for one of IPv4 is what that one is.
    fn of_v6(address: Ipv6Addr) -> Self {
        let v4 = |high: u16, low: u16| {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Self::of_v4(Ipv4Addr::new(a, b, c, d))
        };
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Self::Never("an unspecified address"),
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Private("a loopback address"),
            // Compatible (RFC 4291), mapped (likewise), translated (RFC 2765), NAT64 (RFC 6052), and 6to4 (RFC 3056).
            [0, 0, 0, 0, 0, 0, high, low]
            | [0, 0, 0, 0, 0, 0xFFFF, high, low]
            | [0, 0, 0, 0, 0xFFFF, 0, high, low]
            | [0x64, 0xFF9B, 0, 0, 0, 0, high, low]
            | [0x2002, high, low, ..] => v4(high, low),
            // AWS's, and Google's.
            [0xFD00, 0x0EC2, ..] | [0xFD20, 0x00CE, 0, 0, 0, 0, 0, 0x0254] => {
                Self::Never("the address of a metadata service")
            }
            // What was site-local is private all the same.
            [0xFC00..=0xFDFF | 0xFEC0..=0xFEFF, ..] => Self::Private("a private address"),
            [0xFE80..=0xFEBF, ..] => Self::Never("a link-local address"),
            [0xFF00..=0xFFFF, ..] => Self::Never("a multicast address"),
            [0x2001, 0x0DB8, ..] | [0x3FFF, 0..=0x0FFF, ..] => Self::Never("an address of documentation"),
            // Protocols' own: Teredo (whose addresses hide others), ORCHID and the like.
            [0x2001, 0..=0x01FF, ..] => Self::Never("a reserved address"),
            [0x2000..=0x3FFF, ..] => Self::Public,
            _ => Self::Never("a reserved address"),
        }
    }

    /// As far as the name itself says.
    fn of_name(name: &str) -> Self {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if METADATA_NAMES.contains(&name.as_str()) {
            Self::Never("a metadata service")
        } else if !name.contains('.') || PRIVATE_ENDS.iter().any(|end| name.ends_with(end)) {
            Self::Private("a name of private networks alone")
        } else {
            Self::Public
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn provider(kind: &str, base_url: &str) -> Provider {
        let raw = json!({"name": "a", "type": kind, "base_url": base_url});
        Provider::check(&raw.into()).unwrap_or_else(|error| panic!("{base_url}: {error}"))
    }

    fn hosts(private: &str) -> UpstreamHosts {
        UpstreamHosts { only: None, private: HostList::parse(private).unwrap() }
    }

    /// What is said of a stored proxy and of a stored local provider.
    fn of_stored(private: &str, base_url: &str) -> [Option<Reach>; 2] {
        ["proxy", "local"].map(|kind| hosts(private).of_stored(&provider(kind, base_url)).ok())
    }

    #[test]
    fn a_stored_proxy_does_not_lead_into_private_networks() {
        for url in [
            "https://127.0.0.1",
            "https://2130706433/v1",
            "https://0x7f000001",
            "https://0177.0.0.1",
            "https://127.1",
            "https://%31%32%37.0.0.1",
            "https://127.0.0.1.",
            "https://10.1.2.3",
            "https://172.31.255.255",
            "https://192.168.1.1",
            "https://100.64.0.1",
            "https://198.18.0.1",
            "https://[::1]",
            "https://[::ffff:127.0.0.1]",
            "https://[::ffff:a00:1]",
            "https://[::127.0.0.1]",
            "https://[::ffff:0:10.0.0.1]",
            "https://[64:ff9b::10.0.0.1]",
            "https://[2002:c0a8:101::1]",
            "https://[fd12:3456::1]",
            "https://[fec0::1]",
            "https://localhost",
            "https://LOCALHOST.",
            "https://api.localhost",
            "https://nas.local",
            "https://db.internal",
            "https://router.home.arpa",
            "https://ollama",
        ] {
            assert_eq!(of_stored("", url), [None, Some(Reach::Private)], "{url}");
            assert_eq!(hosts("").of_given(&provider("proxy", url)), Ok(Reach::Anywhere), "{url}");
            // A deployment that allows all of its network says so.
            assert_eq!(of_stored("*", url), [Some(Reach::Private); 2], "{url}");
        }
    }

    #[test]
    fn nothing_stored_leads_to_what_no_upstream_has() {
        for url in [
            "https://169.254.169.254",
            "https://2852039166",
            "https://0xa9fea9fe",
            "https://[::ffff:169.254.169.254]",
            "https://[64:ff9b::a9fe:a9fe]",
            "https://[2002:a9fe:a9fe::]",
            "https://169.254.170.2",
            "https://[fe80::1]",
            "https://[fd00:ec2::254]",
            "https://[fd20:ce::254]",
            "https://100.100.100.200",
            "https://168.63.129.16",
            "https://192.0.0.192",
            "https://0.0.0.0",
            "https://0",
            "https://[::]",
            "https://224.0.0.1",
            "https://255.255.255.255",
            "https://192.0.2.1",
            "https://[2001:db8::1]",
            "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
            "https://[64:ff9b:1::1]",
            "https://[100::1]",
            "https://[ff02::1]",
            "https://[4000::1]",
            "https://metadata.google.internal",
            "https://METADATA.google.internal.",
            "https://metadata",
        ] {
            assert_eq!(of_stored("", url), [None; 2], "{url}");
            assert_eq!(
                of_stored("*, *.internal, metadata.google.internal, metadata", url),
                [None; 2],
                "{url}"
            );
        }
        // Only the address itself says that it is meant.
        assert_eq!(of_stored("169.254.169.254", "https://2852039166"), [Some(Reach::Anywhere); 2]);
    }

    #[test]
    fn the_internet_is_open_and_a_name_may_be_allowed_to_be_private() {
        for url in [
            "https://api.example.com",
            "https://1.1.1.1",
            "https://[2606:4700::1111]",
            "https://[64:ff9b::1.1.1.1]",
            "https://11.0.0.1",
            "https://172.32.0.1",
            "https://localhost.example.com",
        ] {
            assert_eq!(of_stored("", url), [Some(Reach::Public), Some(Reach::Private)], "{url}");
        }
        let listed = of_stored("vllm.example.com:8443", "https://vllm.example.com:8443/v1");
        assert_eq!(listed[0], Some(Reach::Private));
        let other_port = of_stored("vllm.example.com:8443", "https://vllm.example.com");
        assert_eq!(other_port[0], Some(Reach::Public));
    }

    #[test]
    fn a_list_of_the_only_hosts_holds_for_all() {
        let hosts = UpstreamHosts { only: Some(HostList::parse("*.example.com").unwrap()), ..hosts("*") };
        for (url, allowed) in [("https://a.example.com", true), ("https://127.0.0.1", false)] {
            let provider = provider("proxy", url);
            assert_eq!(hosts.of_given(&provider).is_ok(), allowed, "{url}");
            assert_eq!(hosts.of_stored(&provider).is_ok(), allowed, "{url}");
        }
    }

    #[test]
    fn a_refusal_names_the_setting_that_would_allow_it() {
        let refused = hosts("").of_stored(&provider("proxy", "https://10.0.0.1")).unwrap_err();
        assert!(
            refused.contains("a private address") && refused.contains("private_upstream_hosts"),
            "{refused}"
        );
    }

    #[test]
    fn an_address_is_held_to_the_reach() {
        let refused = |reach: Reach, address: &str| reach.refusal(address.parse().unwrap());
        for (address, reaches) in [
            ("8.8.8.8", [true, true, true]),
            ("10.0.0.1", [false, true, true]),
            ("::1", [false, true, true]),
            ("169.254.169.254", [false, false, true]),
            ("fd00:ec2::254", [false, false, true]),
        ] {
            for (reach, allowed) in [Reach::Public, Reach::Private, Reach::Anywhere].into_iter().zip(reaches)
            {
                assert_eq!(refused(reach, address).is_none(), allowed, "{reach:?}: {address}");
            }
        }
    }
}
