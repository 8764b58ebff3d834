//! A gateway whose credentials may read configuration and nothing more, as the policy `edge` of infra/terraform has it.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::support::{Place, SOON, exchange};

const DENIED: &str =
    r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"not authorized"}"#;

/// Passes requests on to an engine, one a connection, but for those that the policy has not, which it counts.
fn guard(engine: SocketAddr) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let denied = Arc::new(AtomicUsize::new(0));
    let count = denied.clone();
    // The thread ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let count = count.clone();
            // A peer that leaves early is its own affair.
            std::thread::spawn(move || _ = pass(stream, engine, &count));
        }
    });
    (endpoint, denied)
}

fn pass(mut stream: TcpStream, engine: SocketAddr, denied: &AtomicUsize) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SOON))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length, mut operation) = (String::new(), 0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "x-amz-target" => value.trim().clone_into(&mut operation),
            "connection" => continue,
            _ => {}
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).unwrap();
    let lists_keys = operation.ends_with(".Query") && body.contains("KEY#");
    let answer = if lists_keys || operation.ends_with(".TransactWriteItems") {
        denied.fetch_add(1, Ordering::Relaxed);
        let length = DENIED.len();
        format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{DENIED}")
    } else {
        let request = format!("{head}connection: close\r\n\r\n{body}");
        exchange(TcpStream::connect(engine)?, request.as_bytes())
    };
    stream.write_all(answer.as_bytes())
}

#[test]
fn it_serves_with_keys_that_others_made() {
    let administrator = Place::on_table();
    let key = administrator.run(&["keys", "create"]).expect(0).stdout.trim().to_owned();
    let mut edge = administrator.beside();
    let (endpoint, denied) = guard(administrator.engine_address());
    edge.set("AWS_ENDPOINT_URL_DYNAMODB", &endpoint);
    assert_eq!(edge.up(&[]).get("/v1/models", &key), 200);
    assert_eq!(denied.load(Ordering::Relaxed), 0, "it does not ask for what it may not have");
}

#[test]
fn it_serves_before_there_are_any() {
    let administrator = Place::on_table();
    let mut edge = administrator.beside();
    edge.set("AWS_ENDPOINT_URL_DYNAMODB", &guard(administrator.engine_address()).0);
    let gateway = edge.up(&[]);
    let key = administrator.run(&["keys", "create"]).expect(0).stdout.trim().to_owned();
    assert_eq!(gateway.get("/v1/models", &key), 200);
    edge.run(&["keys", "create"]).expect(1);
}
