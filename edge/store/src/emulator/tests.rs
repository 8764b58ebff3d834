use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

struct Serving {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

async fn start(emulator: Emulator) -> Serving {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(emulator.serve(listener, async {
        let _ = stopped.await;
    }));
    Serving { address, _stop: stop, ended }
}

/// What is answered to a request with these lines of its head, until the connection is closed.
async fn ask(address: SocketAddr, lines: &[&str], body: &str) -> (String, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = lines.join("\r\n");
    let length = body.len();
    let request = format!("{head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), serde_json::from_str(body).unwrap_or_default())
}

const POST: &str = "POST / HTTP/1.1";
const LIST: &str = "x-amz-target: DynamoDB_20120810.ListTables";

#[tokio::test]
async fn this_machine_is_answered_by_any_of_its_names() {
    let serving = start(Emulator::in_memory().unwrap()).await;
    for host in ["127.0.0.1:8000", "127.0.0.2", "[::1]:8000", "[::1]", "localhost", "LOCALHOST:1"] {
        let (head, body) = ask(serving.address, &[POST, LIST, &format!("host: {host}")], "{}").await;
        assert!(head.starts_with("http/1.1 200 "), "{host}: {head}");
        assert_eq!(body, serde_json::json!({"TableNames": []}), "{host}");
    }
}

#[tokio::test]
async fn a_name_that_leads_here_is_not_this_machine() {
    let serving = start(Emulator::in_memory().unwrap()).await;
    for lines in [
        &[POST, LIST, "host: rebound.example.com:8000"][..],
        &[POST, LIST, "host: localhost.example.com"],
        &[POST, LIST, "host: 127.0.0.1.example.com"],
        &[POST, LIST, "host: 10.0.0.1"],
        &[POST, LIST, "host: localhost@example.com"],
        &[POST, LIST, "host:"],
        &[POST, LIST],
        &[POST, LIST, "host: localhost", "host: example.com"],
        &["POST http://example.com/ HTTP/1.1", LIST, "host: localhost"],
    ] {
        let (head, body) = ask(serving.address, lines, "{}").await;
        assert!(head.starts_with("http/1.1 403 "), "{lines:?}: {head}");
        assert!(body["__type"].as_str().unwrap().ends_with("#AccessDeniedException"), "{lines:?}: {body}");
    }
    let anywhere = start(Emulator::in_memory().unwrap().with_any_host()).await;
    let (head, _) = ask(anywhere.address, &[POST, LIST, "host: store:8000"], "{}").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
}

#[tokio::test]
async fn a_web_page_gets_nothing() {
    for emulator in [Emulator::in_memory().unwrap(), Emulator::in_memory().unwrap().with_any_host()] {
        let serving = start(emulator).await;
        for origin in ["https://example.com", "null", "http://localhost:3000", ""] {
            let origin = format!("origin: {origin}");
            let preflight = "access-control-request-headers: x-amz-target,content-type";
            for lines in [
                &[POST, LIST, "host: localhost", &origin][..],
                &["GET / HTTP/1.1", "host: localhost", &origin],
                &["OPTIONS / HTTP/1.1", "host: localhost", &origin, preflight],
            ] {
                let (head, body) = ask(serving.address, lines, "{}").await;
                assert!(head.starts_with("http/1.1 403 "), "{lines:?}: {head}");
                assert!(!head.contains("access-control"), "{lines:?}: {head}");
                assert!(body.get("TableNames").is_none(), "{lines:?}: {body}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_request_of_the_api_is_refused() {
    let serving = start(Emulator::in_memory().unwrap()).await;
    let host = "host: localhost";
    let (head, _) = ask(serving.address, &["GET / HTTP/1.1", host], "").await;
    assert!(head.starts_with("http/1.1 405 "), "{head}");
    for target in ["x-amz-target: DynamoDB_20120810.DropEverything", "x-amz-target: ListTables", "x-other: a"]
    {
        let (head, body) = ask(serving.address, &[POST, host, target], "{}").await;
        assert!(head.starts_with("http/1.1 400 "), "{target}: {head}");
        assert!(body["__type"].as_str().unwrap().ends_with("#ValidationException"), "{target}: {body}");
    }
    let (head, _) = ask(serving.address, &[POST, host, LIST], "{").await;
    assert!(head.starts_with("http/1.1 400 "), "{head}");
}

#[tokio::test]
async fn no_body_is_longer_than_dynamodbs() {
    let serving = start(Emulator::in_memory().unwrap()).await;
    let mut stream = TcpStream::connect(serving.address).await.unwrap();
    let length = MAX_BODY_BYTES + 1;
    let head = format!("{POST}\r\n{LIST}\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
    // What is said of the length is enough; none of it is waited for.
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_their_turn() {
    let serving = start(Emulator::in_memory().unwrap()).await;
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(serving.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        held.push(stream);
    }
    let asked = ask(serving.address, &[POST, LIST, "host: localhost"], "{}");
    let mut asked = std::pin::pin!(asked);
    assert!(timeout(Duration::from_millis(200), &mut asked).await.is_err(), "it was let in");
    held.pop();
    let (head, _) = asked.await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
}

#[tokio::test]
async fn it_ends_when_it_is_told_to() {
    let Serving { address, _stop: stop, ended } = start(Emulator::in_memory().unwrap()).await;
    ask(address, &[POST, LIST, "host: localhost"], "{}").await;
    drop(stop);
    timeout(Duration::from_secs(20), ended).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
