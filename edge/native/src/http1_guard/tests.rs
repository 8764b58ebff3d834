//! The guard between hyper and a stream in memory, where every cut of the input arrives as it was made.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// Answers with the body that it got.
async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let response = Response::builder().header("x-request-id", "echo");
    Ok(response.body(Full::new(body.unwrap_or_default())).unwrap())
}

/// The client's end of a served stream that holds `capacity` bytes each way.
fn served(capacity: usize, first_head_timeout: Duration) -> DuplexStream {
    let (client, server) = duplex(capacity);
    tokio::spawn(async move {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(SOON).max_buf_size(64 * 1024);
        let io = TokioIo::new(Http1Guard::new(server, first_head_timeout, SOON, SOON));
        let _ = builder.serve_connection(io, service_fn(echo)).await;
    });
    client
}

/// Everything that is answered to these pieces, each of which the server has read before the next is sent.
async fn answer<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut client = served(1 << 20, SOON);
    for piece in pieces {
        // The server may have closed.
        let _ = client.write_all(piece).await;
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(SOON, client.read_to_end(&mut answer)).await.expect("the server closes").unwrap();
    String::from_utf8(answer).unwrap()
}

/// The error in the last of the answers in `text`, which has everything that an error of the gateway has.
fn error(text: &str, status: &str) -> Value {
    let at = text.rfind("HTTP/1.1 ").unwrap_or_else(|| panic!("no answer in {text:?}"));
    let (head, body) = text[at..].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    for header in ["content-type: application/json", "connection: close", "x-request-id: req_", "date: "] {
        assert_eq!(head.matches(header).count(), 1, "{header} in {head}");
    }
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    let error = body["error"].as_object().unwrap();
    assert!(["message", "type", "param", "code"].iter().all(|member| error.contains_key(*member)), "{body}");
    body["error"].clone()
}

const GOOD: &str = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGOOD";
const BOTH: &str =
    "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
const BOTH_TURNED: &str =
    "POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\nHost: a\r\n\r\n0\r\n\r\n";

#[tokio::test]
async fn a_head_with_both_is_refused_wherever_it_is_cut() {
    for both in [BOTH, BOTH_TURNED] {
        for cut in 0..both.len() {
            let (a, b) = both.as_bytes().split_at(cut);
            let text = answer([a, b]).await;
            assert_eq!(error(&text, "400")["code"], "conflicting_length", "cut at {cut}");
            assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
        }
        assert_eq!(error(&answer(both.as_bytes().chunks(1)).await, "400")["code"], "conflicting_length");
    }
}

#[tokio::test]
async fn earlier_requests_of_a_pipeline_are_answered_first() {
    let chunked = "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGOOD\r\n0\r\n\r\n";
    for first in [GOOD, chunked] {
        let pipeline = format!("{first}{BOTH}{GOOD}");
        for cut in 0..pipeline.len() {
            let (a, b) = pipeline.as_bytes().split_at(cut);
            let text = answer([a, b]).await;
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            assert_eq!(error(&text, "400")["code"], "conflicting_length", "cut at {cut}");
            assert_eq!(text.matches("HTTP/1.1 ").count(), 2, "what follows is not answered: {text}");
        }
    }
}

#[tokio::test]
async fn bodies_that_look_like_heads_pass() {
    let text = answer([format!("{}{GOOD}", with_length(BOTH)).as_bytes()]).await;
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    assert!(text.contains(BOTH), "{text}");
}

#[tokio::test]
async fn an_answer_that_looks_like_hypers_own_passes() {
    let own = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let text = answer([with_length(own).as_bytes(), GOOD.as_bytes()]).await;
    assert!(text.contains(own), "{text}");
    assert!(text.ends_with("GOOD"), "the connection goes on: {text}");
}

fn with_length(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn what_hyper_refuses_gets_a_body() {
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
    let long_head = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(200_000));
    for (request, status, code) in [
        (many_headers.as_str(), "431", "headers_too_large"),
        (&long_head, "431", "headers_too_large"),
        ("GET / HTTP/1.1\r\nbad header: x\r\n\r\n", "400", "malformed_request"),
        ("GET / HTTP/9.9\r\n\r\n", "400", "malformed_request"),
        ("\u{16}\u{3}\u{1} this is TLS\r\n\r\n", "400", "malformed_request"),
        ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "400", "malformed_request"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "400", "malformed_request"),
    ] {
        assert_eq!(error(&answer([request.as_bytes()]).await, status)["code"], code, "{request:.60?}");
        let text = answer([GOOD.as_bytes(), request.as_bytes()]).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert_eq!(error(&text, status)["code"], code, "after a good request: {request:.60?}");
    }
}

#[tokio::test]
async fn the_answer_arrives_through_a_stream_that_takes_few_bytes_at_a_time() {
    let mut client = served(7, SOON);
    let mut answer = Vec::new();
    let (mut reading, mut writing) = tokio::io::split(&mut client);
    let exchange = async {
        tokio::join!(reading.read_to_end(&mut answer), writing.write_all(b"GET / HTTP/9.9\r\n\r\n")).0
    };
    // The server lingers until it sees our end, so a short while is waited for the rest of the answer only.
    let _ = tokio::time::timeout(Duration::from_millis(300), exchange).await;
    assert_eq!(error(&String::from_utf8(answer).unwrap(), "400")["code"], "malformed_request");
}

#[tokio::test(start_paused = true)]
async fn a_first_head_that_does_not_come_ends_the_connection() {
    for said in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut client = served(1 << 20, Duration::from_secs(1));
        let begun = tokio::time::Instant::now();
        client.write_all(said.as_bytes()).await.unwrap();
        let dribbling = async {
            // One byte now and then must not help.
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                if said.ends_with('\n') && client.write_all(b"a").await.is_err() {
                    return;
                }
                if !said.ends_with('\n') {
                    let _ = client.read(&mut [0; 1]).await;
                    return;
                }
            }
        };
        tokio::time::timeout(SOON, dribbling).await.unwrap_or_else(|_| panic!("{said:?} is waited for"));
        assert!(begun.elapsed() < Duration::from_millis(1_400), "{said:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_heads_timer_does_not_count_after_it() {
    let mut client = served(1 << 20, Duration::from_secs(1));
    client.write_all(&GOOD.as_bytes()[..GOOD.len() - 4]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.write_all(b"GOOD").await.unwrap();
    let mut status = [0; 15];
    client.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_given_up() {
    let (mut client, server) = duplex(64);
    let guard = Http1Guard::new(server, SOON, SOON, Duration::from_secs(60));
    let serving = tokio::spawn(async move {
        let builder = auto::Builder::new(TokioExecutor::new()).http1_only();
        builder
            .serve_connection(TokioIo::new(guard), service_fn(echo))
            .await
            .map_err(|error| error.to_string())
    });
    let body = "x".repeat(10_000);
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    client.write_all(request.as_bytes()).await.unwrap();
    // Time passes by itself while nobody can do anything.
    let ended =
        tokio::time::timeout(Duration::from_secs(90), serving).await.expect("it does not wait for ever");
    assert!(ended.unwrap().is_err());
    drop(client);
}
