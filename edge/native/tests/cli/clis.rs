//! `dyad-gateway clis`, with a Docker engine that only says that it builds. Building is tested with a real one, in the
//! suite `clis`.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use url::Url;

use super::support::Place;

/// An engine on a socket of the place, and what it is asked. It has a base, and what it was told to build.
fn engine(place: &mut Place) -> mpsc::Receiver<String> {
    let path = place.path("docker.sock");
    let listener = UnixListener::bind(&path).expect("nothing else is in the place");
    place.set("DOCKER_HOST", &format!("unix://{}", path.display()));
    let (asked, requests) = mpsc::channel();
    std::thread::spawn(move || {
        // The labels of each image, as JSON.
        let mut built = HashMap::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().expect("a socket can be read and written"));
            let Some(request) = read_request(&mut reader) else { continue };
            let url = request.split(' ').nth(1).expect("a path");
            let url = Url::parse(&format!("http://engine{url}")).expect("a URL");
            let inspected =
                url.path().split_once("/images/").and_then(|(_, rest)| rest.strip_suffix("/json"));
            let (status, body) = match inspected {
                Some(image) if image.contains("node:22") => (200, r#"{"Id":"sha256:0b"}"#.to_owned()),
                Some(image) => match built.get(image) {
                    Some(labels) => (
                        200,
                        format!(r#"{{"Id":"sha256:0a","Size":248000000,"Config":{{"Labels":{labels}}}}}"#),
                    ),
                    None => (404, r#"{"message":"no such image"}"#.to_owned()),
                },
                None if url.path().ends_with("/version") => (200, r#"{"ApiVersion":"1.41"}"#.to_owned()),
                None if url.path().ends_with("/build") => {
                    let query: HashMap<_, _> = url.query_pairs().into_owned().collect();
                    built.insert(query["t"].clone(), query["labels"].clone());
                    (200, String::new())
                }
                None if url.path().ends_with("/prune") => (200, "{}".to_owned()),
                None => (200, "[]".to_owned()),
            };
            let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close");
            // The command may have ended.
            let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if asked.send(request).is_err() {
                return;
            }
        }
    });
    requests
}

/// The request line, once the whole request was read.
fn read_request(reader: &mut impl BufRead) -> Option<String> {
    let (mut request, mut length) = (None, Some(0));
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok(),
            Some(("transfer-encoding", "chunked")) => length = None,
            _ => {}
        }
        request.get_or_insert_with(|| line.to_owned());
    }
    match length {
        Some(length) => io::copy(&mut reader.take(length), &mut io::sink()).map(drop).ok()?,
        None => loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = u64::from_str_radix(size.trim_end(), 16).ok()?;
            io::copy(&mut reader.take(size + 2), &mut io::sink()).ok()?;
            if size == 0 {
                break;
            }
        },
    }
    request
}

#[test]
fn clis_are_added_listed_and_removed() {
    let mut place = Place::new();
    let requests = engine(&mut place);
    place.set("GEMINI_API_KEY", "sk-gemini");
    let key = place.write("key", "sk-anthropic");
    let none = place.run(&["clis", "list"]).expect(0);
    assert!(none.stdout.contains("clis add"), "{none:#?}");

    // Built once, and again where something else goes in.
    for (more, built) in
        [(&[][..], true), (&[], false), (&["--base", "b"], true), (&[], true), (&["--rebuild"], true)]
    {
        let ran = place.run(&[&["clis", "add", "gemini", "--json"], more].concat()).expect(0);
        let added = &ran.json()[0];
        assert_eq!(
            (&added["built"], &added["image"]),
            (&built.into(), &"dyad-cli-gemini:0.61.0".into()),
            "{ran:#?}"
        );
    }
    let said = place.run(&["clis", "add", "gemini"]).expect(0).stdout;
    assert!(said.contains("Start the gateway with GEMINI_API_KEY set"), "{said}");
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
fn an_entry_that_the_runner_would_refuse_is_not_written() {
    let mut place = Place::new();
    let requests = engine(&mut place);
    place.set("GEMINI_API_KEY", "sk-gemini");
    let ran = place.run(&["clis", "add", "gemini", "--base-url", "htp:/nope"]).expect(2);
    assert!(ran.stderr.contains("gemini: egress.upstream[0].url: "), "{ran:#?}");
    assert!(!place.data_dir().join("runner.toml").exists());
    assert_eq!(requests.try_iter().count(), 0, "nothing was built for it");
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
