//! Wrong words and wrong configuration: exit code 2, before anything is done.

use std::net::{Ipv4Addr, TcpListener};

use super::support::{Place, SOON};

const BAD: &str = r#"
keepalive_ms = "soon"
colour = "red"

[[provider]]
name = "A"
type = "proxy"
base_url = "http://example.com/v1"
credential = "sk-this-is-a-secret"

[[provider]]
type = "local"
base_url = "http://127.0.0.1:1/v1"
"#;

#[test]
fn every_violation_is_shown_before_a_port_is_bound() {
    let place = Place::new();
    let config = place.write("bad.toml", BAD);
    // A taken port would be exit code 1.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = place.run(&["--config", &config, "--listen", &address, "--upstream", "nonsense"]).expect(2);
    for path in [
        "keepalive_ms",
        "colour",
        "provider[0].base_url",
        "provider[0].credential",
        "provider[1].name",
        "--upstream",
    ] {
        let is_named = |line: &str| line.starts_with("error: ") && line.contains(path);
        assert!(ran.stderr.lines().any(is_named), "{path} is not named: {ran:#?}");
    }
    assert!(!ran.all_output().contains("sk-this-is-a-secret"), "{ran:#?}");
    assert!(!place.data_dir().exists(), "nothing was begun");
    for command in [&["doctor"][..], &["providers", "list"], &["providers", "check"]] {
        let ran = place.run(&[command, &["--config", &config, "--no-discovery"]].concat());
        assert!(ran.code == Some(1) || ran.code == Some(2), "{ran:#?}");
        assert!(ran.all_output().contains("provider[1].name"), "{ran:#?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let place = Place::new();
    let broken = place.write("broken.toml", "keepalive_ms = \n");
    for (path, word) in [("/no/such/file.toml", "No such file"), (&broken, "TOML"), ("/", "director")] {
        let ran = place.run(&["up", "--config", path]).expect(2);
        assert!(ran.stderr.contains(path), "{ran:#?}");
        assert!(ran.stderr.to_lowercase().contains(&word.to_lowercase()), "{ran:#?}");
    }
}

#[test]
fn a_taken_port_is_a_clear_line_and_loses_no_key() {
    let place = Place::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = place.run(&["--listen", &address, "--no-discovery"]).expect(1);
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:#?}");
    assert!(ran.stderr.contains(&address) && ran.stderr.contains("--listen"), "{ran:#?}");
    let key = place.up(&[]).first_key().to_owned();
    assert!(key.starts_with("dgw_"), "the first start that serves shows the key");
}

#[test]
fn wrong_words_are_usage_errors_with_a_hint() {
    let place = Place::new();
    for (arguments, hint) in [
        (&["upp"][..], "'up'"),
        (&["--upstrea", "http://127.0.0.1:1/v1"], "--upstream"),
        (&["keys", "revok"], "'revoke'"),
        (&["keys"], "create"),
        (&["keys", "create", "--expires-in", "1w"], "90d"),
        (&["keys", "create", "--label", ""], "label"),
        (&["keys", "revoke", "not-an-id"], "12 characters"),
        (&["completions", "fishy"], "fish"),
        (&["--listen", "4100"], "127.0.0.1:4100"),
        (&["--tls-cert", "cert.pem"], "--tls-key"),
        (&["--log", "a=b=c"], "--log"),
    ] {
        let ran = place.run(arguments).expect(2);
        assert!(ran.stderr.contains(hint), "{arguments:?}: {ran:#?}");
        assert!(!ran.all_output().contains('\u{1b}'), "no colours outside a terminal: {ran:#?}");
    }
}

#[test]
fn names_can_be_listened_on() {
    let place = Place::new();
    let gateway = place.up(&["--upstream", "http://127.0.0.1:1/v1"]);
    drop(gateway);
    let mut child = place
        .command(&["--listen", "localhost:0", "--no-discovery", "--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let stdout = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line);
        let _ = sender.send(line);
    });
    let line = receiver.recv_timeout(SOON);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.unwrap().contains("\"event\":\"ready\""));
}
