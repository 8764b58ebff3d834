//! `dyad-gateway ca`: certificates for a fleet.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::support::Place;

#[test]
fn a_fleet_gets_its_certificates() {
    let place = Place::new();
    let made = &place.run(&["ca", "init", "--json"]).expect(0).json()[0];
    let directory = place.data_dir().join("ca");
    assert_eq!(made["authority"].as_str().map(Path::new), Some(&*directory.join("ca.pem")));

    let out = place.path("out");
    let issue = ["ca", "issue", "runner-1", "--server", "--san", "runner-1.example.com", "--san", "10.0.0.1"];
    let out = ["--out", out.to_str().unwrap()];
    let issued = &place.run(&[&issue[..], &out, &["--json"]].concat()).expect(0).json()[0];
    assert_eq!(issued["names"], serde_json::json!(["runner-1.example.com", "10.0.0.1"]));
    assert_eq!([&issued["usage"], &issued["state"]], ["server", "good"]);
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(issued["key"].as_str().unwrap()), 0o600);
    assert_eq!(mode(issued["certificate"].as_str().unwrap()), 0o644);

    // Files are not lost to a repetition; a renewal is one that is asked for.
    let again = place.run(&[&issue[..], &out].concat()).expect(1);
    assert!(again.stderr.contains("--replace"), "{again:#?}");
    let renewed = &place.run(&[&issue[..], &out, &["--replace", "--json"]].concat()).expect(0).json()[0];
    assert_ne!(renewed["serial"], issued["serial"]);

    place.run(&["ca", "issue", "edge", "--client", "--san", "spiffe://fleet/edge"]).expect(0);
    let revoked = place.run(&["ca", "revoke", issued["serial"].as_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(revoked.len(), 1);
    let states: Vec<_> = place.run(&["ca", "list", "--json"]).expect(0).json();
    let states: Vec<_> =
        states.iter().map(|it| (it["name"].as_str().unwrap(), it["state"].as_str().unwrap())).collect();
    assert_eq!(states, [("runner-1", "revoked"), ("runner-1", "good"), ("edge", "good")]);
    let before = std::fs::read(directory.join("ca.crl")).unwrap();
    place.run(&["ca", "crl", "--days", "7"]).expect(0);
    assert_ne!(std::fs::read(directory.join("ca.crl")).unwrap(), before);
}

#[test]
fn what_cannot_be_done_is_said_with_what_to_do() {
    let place = Place::new();
    for arguments in [&["ca", "list"][..], &["ca", "crl"], &["ca", "issue", "a", "--san", "a"]] {
        let ran = place.run(arguments).expect(1);
        assert!(ran.stderr.contains("'dyad-gateway ca init'"), "{ran:#?}");
    }
    place.run(&["ca", "init"]).expect(0);
    for (arguments, code, what) in [
        (&["ca", "init"][..], 1, "never overwritten"),
        (&["ca", "issue", "a"], 2, "--san"),
        (&["ca", "issue", "../a", "--san", "a"], 2, "a name is"),
        (&["ca", "issue", "a", "--san", "*.example.com"], 2, "no wildcard"),
        (&["ca", "issue", "a", "--san", "a", "--days", "0"], 2, "--days"),
        (&["ca", "revoke", "nobody"], 1, "'ca list'"),
    ] {
        let ran = place.run(arguments).expect(code);
        assert!(ran.stderr.contains(what), "{arguments:?}: {ran:#?}");
    }
    assert!(place.run(&["ca", "list"]).expect(0).stdout.contains("Nothing was issued"));
}
