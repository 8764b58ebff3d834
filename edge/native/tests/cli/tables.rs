//! Where the store is: file, variables and flags; and what is said of a table that cannot be used.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::support::{Place, SOON, eventually, exchange};

#[test]
fn a_flag_counts_before_a_variable_and_that_before_the_file() {
    let mut place = Place::with_engine();
    let file = place.write("a.toml", "[store]\ntable = \"from-file\"\nregion = \"eu-west-1\"\n");
    let init = |place: &Place, arguments: &[&str]| {
        let arguments = [&["store", "init", "--json", "--config", &file][..], arguments].concat();
        let made = place.run(&arguments).expect(0).json();
        [&made[0]["table"], &made[0]["region"]].map(|value| value.as_str().unwrap().to_owned())
    };
    assert_eq!(
        init(&place, &["--table", "from-flag", "--region", "eu-north-1"]),
        ["from-flag", "eu-north-1"]
    );
    assert_eq!(init(&place, &[]), ["fleet", "eu-central-1"]);
    place.unset("AWS_REGION");
    assert_eq!(init(&place, &[]), ["fleet", "eu-west-1"], "each by itself");
    place.set("DYAD_TABLE", "");
    assert_eq!(init(&place, &[]), ["from-file", "eu-west-1"], "what is empty is not there");
}

#[test]
fn variables_that_aws_has_anyway_name_no_table() {
    let mut place = Place::new();
    place.set("AWS_REGION", "eu-central-1");
    place.set("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1");
    place.run(&["keys", "create"]).expect(0);
    assert!(place.data_dir().exists());
}

#[test]
fn the_key_secret_may_be_in_a_file() {
    let mut place = Place::on_table();
    let key = place.run(&["keys", "create"]).expect(0).stdout.trim().to_owned();
    // The end of the line is not part of it.
    let secret = place.write("key.secret", "a secret that is long enough for tests\n");
    place.unset("DYAD_KEY_SECRET");
    let config = place.write("a.toml", &format!("[store]\nkey_secret = \"file:{secret}\"\n"));
    assert_eq!(place.up(&["--config", &config]).get("/v1/models", &key), 200);
}

#[test]
fn another_key_secret_than_the_tables_is_said_to_be_one() {
    let place = Place::on_table();
    let key = place.run(&["keys", "create"]).expect(0).stdout.trim().to_owned();
    let running = place.up(&[]);
    let mut other = place.beside();
    other.set("DYAD_KEY_SECRET", "another secret, long enough for tests");
    for arguments in [&["up", "--listen", "127.0.0.1:0"][..], &["keys", "create"]] {
        let ran = other.run(arguments).expect(2);
        assert!(ran.stderr.contains("hashed under another secret"), "{ran:#?}");
        assert!(ran.stderr.contains("DYAD_KEY_SECRET"), "{ran:#?}");
    }
    let doctor = other.run(&["doctor", "--no-discovery"]).expect(1);
    assert!(doctor.stdout.contains("hashed under another secret"), "{doctor:#?}");
    other.run(&["keys", "list"]).expect(0);
    assert_eq!(running.ask_ready()["key_secret"], "ok");

    other.run(&["store", "init", "--replace-key-secret"]).expect(0);
    assert_eq!(other.up(&[]).get("/v1/models", &key), 401, "it was hashed under the former secret");
    let key = other.run(&["keys", "create"]).expect(0).stdout.trim().to_owned();
    assert_eq!(other.up(&[]).get("/v1/models", &key), 200);
    let told = || {
        // It asks for changes as long as it has requests.
        running.get("/v1/models", &key);
        let ready = running.ask_ready();
        (ready["key_secret"] == "mismatch").then_some(ready)
    };
    assert_eq!(eventually("who still has the former secret says so", told)["status"], "degraded");
    let log = running.stop();
    assert_eq!(log.matches("no API key is valid here").count(), 1, "{log}");
}

#[test]
fn what_is_wrong_is_said_before_anything_starts() {
    let place = Place::on_table();
    let file = place.write("a.toml", "[store]\ntable = 7\nkey_secret = \"hunter2\"\ncolour = \"red\"\n");
    for (change, arguments, code, words) in [
        (Some(("AWS_REGION", "")), &["up"][..], 2, "AWS_REGION"),
        (Some(("AWS_REGION", "eu central")), &["up"], 2, "AWS_REGION: must be an AWS region"),
        (Some(("DYAD_TABLE", "a table")), &["up"], 2, "DYAD_TABLE: must be a table's name"),
        (None, &["up", "--endpoint", "127.0.0.1:8000"], 2, "--endpoint: must be http://HOST"),
        (
            Some(("DYAD_TABLE", "")),
            &["up", "--region", "eu-central-1"],
            2,
            "--region: it says where a table is",
        ),
        (Some(("DYAD_KEY_SECRET", "")), &["up"], 2, "DYAD_KEY_SECRET"),
        (Some(("DYAD_KEY_SECRET", "too short")), &["up"], 2, "fewer than 32 bytes"),
        (Some(("DYAD_KEEPALIVE_MS", "soon")), &["up"], 2, "DYAD_KEEPALIVE_MS"),
        (None, &["up", "--config", &file], 2, "store.table"),
        (None, &["keys", "list", "--config", &file], 2, "store.key_secret: must be \"env:NAME\""),
        (None, &["keys", "list", "--config", &file], 2, "store.colour: unknown key"),
        (Some(("DYAD_TABLE", "none")), &["up"], 1, "there is no such table"),
        (Some(("DYAD_TABLE", "none")), &["keys", "list"], 1, "'dyad-gateway store init' makes it"),
        (Some(("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1")), &["keys", "list"], 1, "no connection"),
    ] {
        let mut place = place.beside();
        if let Some((variable, value)) = change {
            place.set(variable, value);
        }
        let began = Instant::now();
        let ran = place.run(
            &[arguments, &["--listen", "127.0.0.1:0"][..if arguments[0] == "up" { 2 } else { 0 }]].concat(),
        );
        let ran = ran.expect(code);
        assert!(ran.stderr.contains(words), "{change:?} {arguments:?}: {ran:#?}");
        for secret in ["hunter2", "too short", "wJalrXUtnFEMI", "long enough"] {
            assert!(!ran.all_output().contains(secret), "{ran:#?}");
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{change:?}: {:?}", began.elapsed());
    }
}

#[test]
fn a_mistake_elsewhere_in_the_file_does_not_keep_a_key_from_being_revoked() {
    for place in Place::on_each_store() {
        let id =
            place.run(&["keys", "create", "--json"]).expect(0).json()[0]["id"].as_str().unwrap().to_owned();
        let file = place.write("a.toml", "keepalive_ms = \"soon\"\n[runners]\nca = \"/no/such\"\n");
        place.run(&["up", "--config", &file]).expect(2);
        place.run(&["keys", "revoke", &id, "--config", &file]).expect(0);
    }
}

#[test]
fn a_key_that_one_gateway_is_given_is_refused_by_all_once_it_is_revoked() {
    let place = Place::on_table();
    let gateways = [place.up(&[]), place.beside().up(&[])];
    let created = &place.beside().run(&["keys", "create", "--json"]).expect(0).json()[0];
    let (id, key) = (created["id"].as_str().unwrap(), created["api_key"].as_str().unwrap());
    for gateway in &gateways {
        assert_eq!(gateway.get("/v1/models", key), 200);
    }
    place.beside().run(&["keys", "revoke", id]).expect(0);
    let revoked = Instant::now();
    for gateway in &gateways {
        eventually("the key is refused", || (gateway.get("/v1/models", key) == 401).then_some(()));
    }
    assert!(revoked.elapsed() < Duration::from_secs(10), "{:?}", revoked.elapsed());
}

/// An engine that lets its callers do what a gateway's role may (`infra/terraform`), and nothing else: for tables of
/// this one.
fn with_a_gateways_role(place: &mut Place) {
    let engine =
        place.engine().ready["endpoint"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    place.set("AWS_ENDPOINT_URL_DYNAMODB", &format!("http://{}", listener.local_addr().unwrap()));
    // The thread ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let _ = pass_on(stream, &engine);
        }
    });
}

/// One request.
fn pass_on(mut stream: TcpStream, engine: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SOON))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut line, mut length) = (String::new(), String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
        if !name.eq_ignore_ascii_case("connection") {
            head.push_str(&line);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).unwrap();
    let is_to = |operation: &str| head.contains(&format!("DynamoDB_20120810.{operation}\r\n"));
    let is_allowed = is_to("GetItem")
        || (is_to("Query") && !body.contains("KEY#"))
        || (is_to("UpdateItem") && body.contains("LIMIT#"));
    let answer = if is_allowed {
        exchange(TcpStream::connect(engine)?, format!("{head}connection: close\r\n\r\n{body}").as_bytes())
    } else {
        let denied =
            r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"not authorized"}"#;
        format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{denied}",
            denied.len()
        )
    };
    stream.write_all(answer.as_bytes())
}

#[test]
fn a_gateway_may_have_no_other_rights_than_it_needs() {
    let place = Place::on_table();
    let mut served = place.beside();
    with_a_gateways_role(&mut served);
    let gateway = served.up(&[]);
    assert!(gateway.ready.get("api_key").is_none(), "it could not be stored: {}", gateway.ready);
    let key = place.run(&["keys", "create"]).expect(0).stdout.trim().to_owned();
    assert_eq!(gateway.get("/v1/models", &key), 200);
    let doctor = served.run(&["doctor", "--no-discovery"]);
    for words in ["may not describe the table", "may not list the API keys"] {
        assert!(doctor.stdout.contains(&format!("hint  the credentials {words}")), "{doctor:#?}");
    }
    let refused = served.run(&["keys", "create"]).expect(1);
    assert!(refused.stderr.contains("AccessDeniedException"), "{refused:#?}");
}
