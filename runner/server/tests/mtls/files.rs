//! What is wrong with files at the start.

use dyad_runner::tls::{TlsFacts, TlsIdentity};

use super::authority::{Authority, DAY};
use super::support::Files;

fn faults(files: &Files) -> Vec<String> {
    let faults = TlsIdentity::load_with(&files.config, files.options()).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn files_that_are_right_tell_when_they_end() {
    let files = Files::new();
    files.write("ca.crl", &files.authority.revoke(&[7, 8]));
    let identity = TlsIdentity::load_with(&files.config, files.options()).unwrap();
    let TlsFacts { names, certificate_hours_left, client_ca_hours_left, revocation_list, .. } =
        identity.facts();
    assert_eq!(names, ["localhost"]);
    assert_eq!((certificate_hours_left, client_ca_hours_left), (30 * 24, 1000 * 24));
    let revocation_list = revocation_list.unwrap();
    assert_eq!((revocation_list.revoked, revocation_list.hours_left), (2, 24));
}

#[test]
fn a_key_that_everybody_may_read_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let files = Files::new();
    for (mode, expected) in [(0o600, false), (0o640, false), (0o644, true)] {
        std::fs::set_permissions(&files.config.key, std::fs::Permissions::from_mode(mode)).unwrap();
        let identity = TlsIdentity::load_with(&files.config, files.options()).unwrap();
        assert_eq!(identity.facts().key_is_readable_by_all, expected, "{mode:o}");
    }
}

#[test]
fn every_fault_is_told_at_once_with_its_file() {
    let files = Files::new();
    files.write("node.key", "");
    files.write("ca.crt", "nothing");
    std::fs::remove_file(files.path("ca.crl")).unwrap();
    let told = faults(&files);
    assert_eq!(told.len(), 3, "{told:?}");
    for (fault, name) in told.iter().zip(["node.key", "ca.crt", "ca.crl"]) {
        assert!(fault.contains(name), "{fault}");
    }
    std::fs::remove_file(files.path("node.crt")).unwrap();
    assert_eq!(faults(&files).len(), 4);
}

#[test]
fn each_fault_says_what_to_do() {
    type Break = fn(&Files);
    let cases: [(&str, Break, &str); 9] = [
        ("node.key", |files| files.write("node.key", &files.authority.node().key_pem), "issue both together"),
        (
            "node.crt",
            |files| files.write("node.crt", &files.authority.node().key_pem),
            "there is no certificate in it",
        ),
        (
            "node.key",
            |files| files.write("node.key", &files.authority.pem()),
            "there is no private key in it",
        ),
        ("node.crt", |files| files.clock.move_by(31 * DAY), "renew it"),
        ("ca.crl", |files| files.clock.move_by(DAY + 1), "issue a new list"),
        ("ca.crt", |files| files.write("ca.crt", &files.authority.node().pem), "is no authority"),
        (
            "ca.crl",
            |files| files.write("ca.crl", &unrelated(files).revoke(&[])),
            "no list in it is by an authority of client_ca",
        ),
        (
            "ca.crl",
            |files| files.write("ca.crl", &files.authority.pem()),
            "there is no revocation list in it",
        ),
        (
            "ca.crt",
            |files| {
                std::fs::remove_file(files.path("ca.crt")).unwrap();
                std::fs::create_dir(files.path("ca.crt")).unwrap();
            },
            "it is not a file",
        ),
    ];
    for (name, break_it, advice) in cases {
        let files = Files::new();
        break_it(&files);
        let told = faults(&files);
        let fault =
            told.iter().find(|fault| fault.contains(name)).unwrap_or_else(|| panic!("{name}: {told:?}"));
        assert!(fault.contains(advice), "{advice}: {fault}");
        assert!(!fault.contains("PRIVATE KEY"), "{fault}");
    }
}

#[test]
fn a_clock_that_is_wrong_is_suspected() {
    let files = Files::new();
    let early = super::support::FakeClock::new();
    early.move_back(10 * DAY);
    let options = dyad_runner::tls::TlsOptions { clock: early, ..files.options() };
    let told: Vec<_> =
        TlsIdentity::load_with(&files.config, options).unwrap_err().iter().map(ToString::to_string).collect();
    assert!(told.iter().all(|fault| fault.contains("is this host's clock right?")), "{told:?}");
}

/// An authority of another name.
fn unrelated(files: &Files) -> Authority {
    Authority::named("another authority", files.clock.now())
}
