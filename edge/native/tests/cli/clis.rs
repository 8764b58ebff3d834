//! `dyad-gateway clis`, with a Docker engine that has every image already. Building is tested with a real one, in the
//! suite `clis`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use super::support::Place;

/// An engine on a socket of the place, and what it is asked.
fn engine(place: &mut Place) -> mpsc::Receiver<String> {
    let path = place.path("docker.sock");
    let listener = UnixListener::bind(&path).expect("nothing else is in the place");
    place.set("DOCKER_HOST", &format!("unix://{}", path.display()));
    let (asked, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let reader = stream.try_clone().expect("a socket can be read and written");
            let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
            let Some(request) = lines.next() else { continue };
            assert!(lines.any(|line| line.is_empty()), "a whole head");
            let body = match request.split(['/', '?', ' ']).collect::<Vec<_>>() {
                words if words.contains(&"version") => r#"{"ApiVersion":"1.41","Version":"20.10"}"#,
                words if words.contains(&"GET") => r#"{"Id":"sha256:0a","Size":248000000}"#,
                _ => "[]",
            };
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            // The command may have ended.
            let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if asked.send(request).is_err() {
                return;
            }
        }
    });
    requests
}

#[test]
fn clis_are_added_listed_and_removed() {
    let mut place = Place::new();
    let requests = engine(&mut place);
    place.set("GEMINI_API_KEY", "sk-gemini");
    let key = place.write("key", "sk-anthropic");
    let none = place.run(&["clis", "list"]).expect(0);
    assert!(none.stdout.contains("clis add"), "{none:#?}");

    let added = &place.run(&["clis", "add", "gemini", "--json"]).expect(0).json()[0];
    assert_eq!((&added["built"], &added["image"]), (&false.into(), &"dyad-cli-gemini:0.61.0".into()));
    let claude = ["clis", "add", "claude", "--api-key-file", &key, "--base-url", "http://127.0.0.1:9"];
    place.run(&[&claude[..], &["--model", "a", "--model", "b"]].concat()).expect(0);
    let listed = place.run(&["clis", "list", "--json"]).expect(0).json();
    assert_eq!(listed[0]["credentials"], serde_json::json!(["env:GEMINI_API_KEY"]));
    assert_eq!(listed[1]["models"], serde_json::json!(["a", "b"]));
    assert_eq!(listed[1]["upstreams"], serde_json::json!(["http://127.0.0.1:9"]));
    assert!(listed[1]["credentials"][0].as_str().unwrap().starts_with("file:/"));
    let file = std::fs::read_to_string(place.data_dir().join("runner.toml")).unwrap();
    assert!(!file.contains("sk-"), "no key is written anywhere: {file}");

    place.run(&["clis", "remove", "claude", "--keep-image"]).expect(0);
    place.run(&["clis", "remove", "gemini"]).expect(0);
    assert!(place.run(&["clis", "list", "--json"]).expect(0).stdout.is_empty());
    let removals: Vec<_> = requests.try_iter().filter(|request| request.starts_with("DELETE")).collect();
    assert_eq!(removals.len(), 1, "{removals:?}");
    assert!(removals[0].contains("dyad-cli-gemini:0.61.0"), "{removals:?}");
}

#[test]
fn what_cannot_be_done_is_said_with_what_to_do() {
    let mut place = Place::new();
    for (arguments, code, what) in [
        (&["clis", "add", "gemini"][..], 2, "GEMINI_API_KEY"),
        (&["clis", "add", "codex", "--api-key-file", "/no/such/file"], 2, "/no/such/file"),
        (&["clis", "add", "codex", "--api-key-env", "sk-1"], 2, "not a key"),
        (&["clis", "add", "codex", "--api-key-env", "A", "--api-key-file", "b"], 2, "cannot be used with"),
        (&["clis", "add", "codex", "--api-key-env", "A", "--model=-m"], 2, "does not begin with"),
        (&["clis", "add", "emacs"], 2, "gemini, claude, codex"),
        (&["clis", "remove", "gemini"], 1, "clis list"),
    ] {
        let ran = place.run(arguments).expect(code);
        assert!(ran.stderr.contains(what), "{arguments:?}: {ran:#?}");
    }
    place.set("DOCKER_HOST", "unix:///no/such/docker.sock");
    let ran = place.run(&["clis", "add", "codex", "--api-key-env", "SOME_KEY"]).expect(1);
    assert!(ran.stderr.contains("no Docker engine answers at /no/such/docker.sock"), "{ran:#?}");
    assert!(!place.data_dir().join("runner.toml").exists(), "what does not run is not written down");
    place.set("DOCKER_HOST", "tcp://10.0.0.1:2375");
    let ran = place.run(&["clis", "add", "codex", "--api-key-env", "SOME_KEY"]).expect(2);
    assert!(ran.stderr.contains("on this machine"), "{ran:#?}");
}
