//! Files that change while the node runs.

use super::authority::{Authority, DAY};
use super::support::{Files, is_closed, is_logged, is_open, logged};

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_open_connections_go_on() {
    let mut node = Files::new().serve().await;
    let edge = node.files.authority.edge();
    let (mut open, _) = node.enter(&edge).await;
    let renewed = node.files.authority.node();
    // The one before the other: the pair that does not fit is not used, and nobody is kept out.
    node.files.write("node.crt", &renewed.pem);
    is_logged("issue both together").await;
    let (mut between, _) = node.enter(&edge).await;
    node.files.write("node.key", &renewed.key_pem);
    is_logged("the new ones are in use").await;
    let (after, _) = node.enter(&edge).await;
    assert_eq!(after.get_ref().1.peer_certificates().unwrap()[0], renewed.chain[0]);
    assert_ne!(between.get_ref().1.peer_certificates().unwrap()[0], renewed.chain[0]);
    assert!(is_open(&mut open).await && is_open(&mut between).await);
}

#[tokio::test]
async fn a_revoked_client_is_thrown_out_without_a_restart_and_nobody_else() {
    let mut node = Files::new().serve().await;
    let (good, bad) = (node.files.authority.edge(), node.files.authority.edge());
    let (mut kept, _) = node.enter(&good).await;
    let (mut first, _) = node.enter(&bad).await;
    let (mut second, _) = node.enter(&bad).await;
    node.files.write("ca.crl", &node.files.authority.revoke(&[bad.serial]));
    is_closed(&mut first).await;
    is_closed(&mut second).await;
    assert_eq!(node.refuse(node.client(Some(&bad))).await.code(), "revoked");
    assert!(is_open(&mut kept).await);
    node.enter(&good).await;
    let closed = logged("a client's connection was closed");
    assert_eq!(closed.len(), 2, "{closed:?}");
    for line in closed {
        assert!(line.contains("peer=127.0.0.1:") && line.contains("subject=\"CN=the edge\""), "{line}");
    }
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_certificate() {
    let files = Files::new();
    let mut config = files.config.clone();
    config.revocation_list = None;
    let mut node = Files { config, ..files }.serve().await;
    let edge = node.files.authority.edge();
    let (mut open, _) = node.enter(&edge).await;
    node.files.clock.move_by(30 * DAY);
    assert!(is_open(&mut open).await, "its last second");
    node.files.clock.move_by(1);
    is_closed(&mut open).await;
    is_logged("the client's certificate has expired").await;
}

#[tokio::test]
async fn a_connection_does_not_outlive_the_revocation_list_that_it_was_judged_by() {
    let mut node = Files::new().serve().await;
    let edge = node.files.authority.edge();
    let (mut open, _) = node.enter(&edge).await;
    assert!(is_open(&mut open).await);
    node.files.clock.move_by(DAY + 1);
    is_closed(&mut open).await;
}

#[tokio::test]
async fn another_authority_lets_its_clients_in_and_throws_the_others_out() {
    let mut node = Files::new().serve().await;
    let edge = node.files.authority.edge();
    let (mut open, _) = node.enter(&edge).await;
    let other = Authority::new(node.files.clock.now());
    let theirs = other.edge();
    // Not before its list is there too.
    node.files.write("ca.crl", &format!("{}{}", other.revoke(&[]), node.files.authority.revoke(&[])));
    node.files.write("ca.crt", &other.pem());
    is_closed(&mut open).await;
    assert_eq!(node.refuse(node.client(Some(&edge))).await.code(), "bad_certificate");
    node.enter(&theirs).await;
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing() {
    let mut node = Files::new().serve().await;
    let edge = node.files.authority.edge();
    let (mut open, _) = node.enter(&edge).await;
    for (name, content, reason) in [
        ("ca.crl", "not a list", "there is no revocation list in it"),
        ("ca.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "malformed"),
        ("node.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n", "not a PEM file with a private key"),
    ] {
        node.files.write(name, content);
        let path = node.files.path(name).display().to_string();
        is_logged(&format!("{path}: ")).await;
        let lines = logged(&path);
        assert!(lines.iter().any(|line| line.contains(reason)), "{lines:?}");
        node.enter(&edge).await;
    }
    assert!(is_open(&mut open).await);
    assert!(logged("AAAA").is_empty(), "a key is never logged");
    // Said once for each change, not with every look, of which there are some meanwhile.
    for _ in 0..20 {
        node.enter(&edge).await;
    }
    assert_eq!(logged("there is no revocation list in it").len(), 3);
}
