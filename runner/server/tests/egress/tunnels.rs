//! CONNECT.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dyad_runner::egress::{Endpoint, Lookup};
use tokio::net::UnixStream;

use super::support::{FakeVendor, Peer, Place, enter};

/// Says the same of every host, and counts how often it is asked.
#[derive(Debug)]
struct FakeLookup {
    addresses: Vec<SocketAddr>,
    asked: AtomicUsize,
}

impl FakeLookup {
    fn new(addresses: &[SocketAddr]) -> Arc<Self> {
        Arc::new(Self { addresses: addresses.to_vec(), asked: AtomicUsize::new(0) })
    }
}

impl Lookup for FakeLookup {
    fn lookup<'a>(
        &'a self,
        _host: &'a str,
        _port: u16,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(self.addresses.clone())))
    }
}

async fn connect(endpoint: &Endpoint, authority: &str) -> Peer<UnixStream> {
    let mut sandbox = enter(endpoint).await;
    let token = endpoint.token().expose();
    sandbox
        .send(format!(
            "CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\nproxy-authorization: Bearer {token}\r\n\r\n"
        ))
        .await;
    sandbox.until("\r\n\r\n").await;
    sandbox
}

#[tokio::test]
async fn a_listed_host_is_reached_and_bytes_pass_both_ways() {
    for name in ["127.0.0.1", "localhost", "LocalHost"] {
        let host = FakeVendor::start().await;
        let mut place = Place::new();
        place.allow(&name.to_ascii_lowercase(), host.address().port());
        let endpoint = place.open();
        let mut sandbox = connect(&endpoint, &format!("{name}:{}", host.address().port())).await;
        assert_eq!(sandbox.status(), 200);
        sandbox.send("hello\r\n\r\n").await;
        let mut called = host.call().await;
        assert_eq!(called.text(), "hello\r\n\r\n", "and nothing of the runner's");
        called.send("good day").await;
        sandbox.until("good day").await;
        // With the endpoint the tunnel ends, on both sides.
        drop(endpoint);
        called.closed().await;
        sandbox.closed().await;
    }
}

#[tokio::test]
async fn what_is_not_listed_is_refused_however_it_is_written() {
    let host = FakeVendor::start().await;
    let port = host.address().port();
    let mut place = Place::new();
    place.allow("localhost", port);
    place.allow("vendor.example", 443);
    let endpoint = place.open();
    for authority in [
        format!("127.0.0.1:{port}"),
        format!("2130706433:{port}"),
        format!("0x7f000001:{port}"),
        format!("127.1:{port}"),
        format!("[::1]:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("localhost.:{port}"),
        format!("a.localhost:{port}"),
        format!("vendor.example:{port}"),
        "vendor.example:80".to_owned(),
        "vendor.example.evil:443".to_owned(),
        "evil.vendor.example:443".to_owned(),
        "localhost:22".to_owned(),
        "169.254.169.254:80".to_owned(),
    ] {
        assert_eq!(connect(&endpoint, &authority).await.status(), 403, "{authority}");
    }
    assert!(matches!(connect(&endpoint, "localhost").await.status(), 400 | 403), "without a port");
    assert!(host.is_untouched().await);
}

#[tokio::test]
async fn a_tunnel_needs_the_token() {
    let host = FakeVendor::start().await;
    let mut place = Place::new();
    place.allow("127.0.0.1", host.address().port());
    let endpoint = place.open();
    let token = endpoint.token().expose();
    for header in [
        String::new(),
        "proxy-authorization: Bearer guessed\r\n".to_owned(),
        // As a vendor's key is given, which a proxy's client would not do.
        format!("authorization: Bearer {token}\r\n"),
    ] {
        let mut sandbox = enter(&endpoint).await;
        sandbox.send(format!("CONNECT {} HTTP/1.1\r\n{header}\r\n", host.address())).await;
        sandbox.until("\r\n\r\n").await;
        assert_eq!(sandbox.status(), 407, "{header}");
    }
    assert!(host.is_untouched().await);
}

#[tokio::test]
async fn a_listed_name_that_means_a_private_address_is_refused() {
    let host = FakeVendor::start().await;
    let private: Vec<SocketAddr> = vec![
        host.address(),
        "169.254.169.254:80".parse().unwrap(),
        "10.0.0.1:80".parse().unwrap(),
        "[::1]:80".parse().unwrap(),
        "[::ffff:127.0.0.1]:80".parse().unwrap(),
        "[fd00:ec2::254]:80".parse().unwrap(),
        "0.0.0.0:80".parse().unwrap(),
    ];
    for addresses in private.iter().map(std::slice::from_ref).chain([private.as_slice(), &[]]) {
        let mut place = Place::new();
        place.allow("vendor.example", 443);
        let lookup = FakeLookup::new(addresses);
        place.lookup = Arc::clone(&lookup) as Arc<dyn Lookup>;
        let endpoint = place.open();
        let sandbox = connect(&endpoint, "vendor.example:443").await;
        assert_eq!(sandbox.status(), 403, "{addresses:?}");
        // Asked once: a second answer, which could be another, is never used.
        assert_eq!(lookup.asked.load(Ordering::Relaxed), 1);
    }
    assert!(host.is_untouched().await);
}

#[tokio::test]
async fn localhost_is_loopback_and_nothing_else() {
    let mut place = Place::new();
    place.allow("localhost", 80);
    place.lookup = FakeLookup::new(&["169.254.169.254:80".parse().unwrap(), "1.1.1.1:80".parse().unwrap()]);
    assert_eq!(connect(&place.open(), "localhost:80").await.status(), 403);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told() {
    let host = FakeVendor::start().await;
    let address = host.address();
    let mut place = Place::new();
    place.allow("127.0.0.1", address.port());
    drop(host);
    assert_eq!(connect(&place.open(), &address.to_string()).await.status(), 502);
}

#[tokio::test]
async fn a_silent_tunnel_is_closed_and_a_tunnels_bytes_count() {
    let host = FakeVendor::start().await;
    let mut place = Place::new();
    place.allow("127.0.0.1", host.address().port());
    place.timeouts.idle = Duration::from_millis(50);
    let endpoint = place.open();
    let mut sandbox = connect(&endpoint, &host.address().to_string()).await;
    sandbox.closed().await;

    place.timeouts.idle = Duration::from_secs(60);
    place.egress.max_bytes = 10_000;
    let endpoint = place.open();
    let mut sandbox = connect(&endpoint, &host.address().to_string()).await;
    sandbox.try_send("x".repeat(1 << 20)).await;
    sandbox.closed().await;
    assert!(endpoint.observed().broken);
}
