//! `dyad-runner check`.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use super::support::{ECHO, Place};

#[test]
fn what_works_is_said() {
    let place = Place::new("", ECHO);
    let ran = place.run(&["check"]).expect(0);
    for words in [
        "the configuration",
        "the certificate for localhost",
        "the credentials",
        "the engine",
        "cli-echo: sha256:",
    ] {
        let is_said = |line: &str| line.starts_with("ok  ") && line.contains(words);
        assert!(ran.stdout.lines().any(is_said), "{words} is missing: {ran:#?}");
    }
    assert!(
        ran.stdout.lines().any(|line| line.starts_with("hint") && line.contains("no revocation list")),
        "{ran:#?}"
    );
    let verdicts = place.run(&["check", "--json"]).expect(0).json();
    assert!(verdicts.iter().all(|verdict| verdict["verdict"] != "fails"), "{verdicts:#?}");
    assert!(verdicts.len() >= 6, "{verdicts:#?}");
    assert!(place.containers().is_empty());
}

#[test]
fn what_does_not_work_is_said_with_advice() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let cli = "[[cli]]\nname = \"gone\"\ndialect = \"text\"\nimage = { local = \"dyad-test-no-such-image:1\" }\nargv = [\"x\"]\n[cli.egress]\nconnect = [\"127.0.0.1:1\"]\n";
    let place = Place::new("", &format!("{ECHO}{cli}"));
    let config = std::fs::read_to_string(place.path("runner.toml")).unwrap();
    place.write(
        "runner.toml",
        &config.replace("listen = \"127.0.0.1:0\"\nmetrics", &format!("listen = \"{addr}\"\nmetrics")),
    );
    std::fs::remove_file(place.path("node.key")).unwrap();
    let ran = place.run(&["check", "--reach"]).expect(1);
    for words in ["node.key", "gone: ", "gone does not reach 127.0.0.1:1"] {
        let is_said = |line: &str| line.starts_with("FAIL") && line.contains(words);
        assert!(ran.stdout.lines().any(is_said), "{words} is missing: {ran:#?}");
    }
    assert!(ran.stdout.contains(&format!("hint  {addr} is in use")), "{ran:#?}");
    assert!(
        ran.stdout.contains("ok    cli-echo: sha256:"),
        "one that fails does not hide the others: {ran:#?}"
    );
    assert!(ran.stderr.contains("3 problems"), "{ran:#?}");
}

#[test]
fn a_missing_engine_is_said_with_advice() {
    let place = Place::new("engine = { socket = \"no-such.sock\" }", ECHO);
    let ran = place.run(&["check"]).expect(1);
    assert!(ran.stdout.contains("FAIL") && ran.stdout.contains("no-such.sock"), "{ran:#?}");
    assert!(ran.stdout.contains("Start Docker"), "{ran:#?}");
}

#[test]
fn an_engine_that_hangs_is_told_from_one_that_is_missing() {
    let place = Place::new("engine = { socket = \"hung.sock\" }", ECHO);
    // Takes connections, and nobody ever reads from them.
    let _hung = UnixListener::bind(place.path("hung.sock")).unwrap();
    let began = Instant::now();
    let ran = place.run(&["check"]).expect(1);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(
        ran.stdout.contains("hung.sock does not answer") && ran.stdout.contains("Restart Docker"),
        "{ran:#?}"
    );
    assert!(!ran.stdout.contains("Start Docker"), "{ran:#?}");
}

#[test]
fn a_certificate_for_another_host_than_the_nodes_is_found() {
    let place = Place::new("", ECHO);
    let config = std::fs::read_to_string(place.path("runner.toml")).unwrap();
    for (url, is_right) in [
        ("https://localhost:1", true),
        ("https://LOCALHOST", true),
        ("https://runner-1.example.com:7443", false),
        ("https://sub.localhost", false),
        ("https://127.0.0.1:7443", false),
        ("https://[::1]:7443", false),
    ] {
        place.write("runner.toml", &config.replace("https://localhost:7443", url));
        let ran = place.run(&["check"]);
        assert_eq!(ran.code == Some(0), is_right, "{url}: {ran:#?}");
        assert_eq!(
            ran.stdout.contains("FAIL  the certificate is for localhost"),
            !is_right,
            "{url}: {ran:#?}"
        );
    }
}
