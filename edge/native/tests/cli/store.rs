//! `dyad-gateway store …`: a table and what it takes, and an engine that is served.

use std::net::TcpStream;

use serde_json::json;

use super::support::{Place, Served, exchange, mode};

#[test]
fn a_table_is_made_once_and_found_from_then_on() {
    let place = Place::with_engine();
    let secret = place.path("key.secret");
    let arguments = ["store", "init", "--new-key-secret", secret.to_str().unwrap(), "--json"];
    let made = &place.run(&arguments).expect(0).json()[0];
    assert_eq!((&made["created"], &made["table"]), (&json!(true), &json!("fleet")));
    assert_eq!(made["items_expire"], true);
    assert_eq!(mode(&secret), 0o600);
    let first = std::fs::read_to_string(&secret).unwrap();
    assert_eq!(first.len(), 64);

    let found = &place.run(&["store", "init", "--json"]).expect(0).json()[0];
    assert_eq!(found["created"], false);
    // A secret that was made is not lost to a repetition, neither in the table nor in its file.
    let again = place.run(&arguments).expect(1);
    assert!(again.stderr.contains("have a secret already"), "{again:#?}");
    let again = place.run(&[&arguments[..], &["--replace-key-secret"]].concat()).expect(1);
    assert!(again.stderr.contains("never overwritten"), "{again:#?}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), first);
}

#[test]
fn a_data_directory_is_set_up_too() {
    let place = Place::new();
    place.run(&["store", "init"]).expect(0);
    assert_eq!(mode(&place.data_dir().join("key-hash.secret")), 0o600);
    let ran = place.run(&["store", "init", "--new-key-secret", "x"]).expect(2);
    assert!(ran.stderr.contains("--table"), "{ran:#?}");
}

#[test]
fn a_table_that_keeps_what_has_expired_is_found_and_mended() {
    let place = Place::with_engine();
    let table = json!({
        "TableName": "fleet", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "S"},
        ],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    });
    place.engine_call("CreateTable", &table);
    let doctor = place.run(&["doctor", "--no-discovery"]);
    assert!(doctor.stdout.contains("hint  what has expired stays in the table"), "{doctor:#?}");
    let found = &place.run(&["store", "init", "--json"]).expect(0).json()[0];
    assert_eq!((&found["created"], &found["items_expire"]), (&json!(false), &json!(true)));
    let doctor = place.run(&["doctor", "--no-discovery"]);
    assert!(doctor.stdout.contains("ok    the table's keys and its time to live"), "{doctor:#?}");
    assert!(doctor.stdout.contains("ok    this machine's clock is the store's"), "{doctor:#?}");
}

#[test]
fn another_kind_of_table_is_left_alone() {
    let place = Place::with_engine();
    let table = json!({
        "TableName": "fleet", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    });
    place.engine_call("CreateTable", &table);
    let ran = place.run(&["store", "init"]).expect(1);
    assert!(ran.stderr.contains("another kind of table") && ran.stderr.contains("pk"), "{ran:#?}");
    let doctor = place.run(&["doctor", "--no-discovery"]).expect(1);
    assert!(doctor.stdout.contains("FAIL"), "{doctor:#?}");
}

#[test]
fn what_is_served_is_the_data_directorys_store() {
    let place = Place::new();
    let key = place.run(&["keys", "create"]).expect(0).stdout.trim().to_owned();
    let serve = ["store", "serve", "--listen", "127.0.0.1:0", "--json"];
    let engine = Served::start(place.command(&serve));
    let mut elsewhere = Place::new();
    let secret = std::fs::read_to_string(place.data_dir().join("key-hash.secret")).unwrap();
    for (variable, value) in [
        ("DYAD_TABLE", engine.ready["table"].as_str().unwrap()),
        ("AWS_REGION", "local"),
        ("AWS_ENDPOINT_URL_DYNAMODB", engine.ready["endpoint"].as_str().unwrap()),
        ("AWS_ACCESS_KEY_ID", "any"),
        ("AWS_SECRET_ACCESS_KEY", "any"),
        ("DYAD_KEY_SECRET", &secret),
    ] {
        elsewhere.set(variable, value);
    }
    let gateway = elsewhere.up(&[]);
    assert!(gateway.ready.get("api_key").is_none(), "there is a key: {}", gateway.ready);
    assert_eq!(gateway.get("/v1/models", &key), 200);
    assert!(!elsewhere.data_dir().exists(), "nothing is kept there");
    // The engine ends in good order, while somebody is connected to it.
    engine.stop();
    assert_eq!(gateway.get("/v1/models", &key), 200, "what is known serves on");
}

#[test]
fn an_engine_is_not_served_to_the_network_by_accident() {
    let place = Place::new();
    let ran = place.run(&["store", "serve", "--listen", "0.0.0.0:0"]).expect(2);
    assert!(ran.stderr.contains("--allow-remote"), "{ran:#?}");
    Served::start(place.command(&["store", "serve", "--listen", "0.0.0.0:0", "--allow-remote", "--json"]))
        .stop();
}

#[test]
fn a_web_page_cannot_use_the_engine() {
    let place = Place::with_engine();
    for line in ["host: localhost\r\norigin: https://example.com", "host: rebound.example.com"] {
        let head = format!(
            "POST / HTTP/1.1\r\n{line}\r\ncontent-type: application/x-amz-json-1.0\r\nconnection: close\r\n\
             x-amz-target: DynamoDB_20120810.ListTables\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        let answer = exchange(TcpStream::connect(place.engine_address()).unwrap(), head.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
}
