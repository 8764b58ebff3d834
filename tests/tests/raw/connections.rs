//! Connections of clients: kept, pipelined, slow.

use serde_json::json;
use system_tests::fixture::{Fixture, chat_body};
use system_tests::raw::{Connection, Request};
use system_tests::turn::Turn;
use system_tests::upstream::Reply;

#[tokio::test]
async fn a_connection_is_kept_after_errors() {
    let fixture = Fixture::start().await;
    let gateway = &fixture.gateway;
    let mut connection = Connection::open(gateway).await;
    fixture.upstream_answers(Reply::error(500, "it broke", "server_error", None, None));
    for (request, status) in [
        (Request::chat(gateway, &json!({"model": 17})), 400),
        (Request::chat(gateway, &chat_body(json!({"model": "nope"}))), 404),
        (Request::new(gateway, "GET", "/v1/nothing"), 404),
        (Request::new(gateway, "DELETE", "/v1/models"), 405),
        (Request::bare("GET", "/v1/models").header("host", gateway.address()), 401),
        (Request::chat(gateway, &chat_body(json!({}))), 502),
        (Request::new(gateway, "GET", "/v1/models"), 200),
    ] {
        assert_eq!(connection.request(&request).await.status, status, "{request:?}");
    }
    fixture.upstream_answers(Turn::says("still here"));
    for stream in [true, false, true] {
        let response =
            connection.request(&Request::chat(gateway, &chat_body(json!({ "stream": stream })))).await;
        assert_eq!(response.status, 200);
        assert!(response.text().contains("here"));
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("pipelined"));
    let gateway = &fixture.gateway;
    let requests = [
        Request::chat(gateway, &chat_body(json!({"stream": true}))),
        Request::new(gateway, "GET", "/v1/nothing"),
        Request::chat(gateway, &chat_body(json!({}))),
        Request::new(gateway, "GET", "/healthz"),
    ];
    let mut connection = Connection::open(gateway).await;
    connection.send(requests.iter().flat_map(Request::bytes).collect::<Vec<u8>>()).await;
    let stream = connection.response().await;
    assert!(stream.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(connection.response().await.status, 404);
    assert_eq!(connection.response().await.json()["choices"][0]["message"]["content"], "pipelined");
    assert_eq!(connection.response().await.status, 200);
}

#[tokio::test]
async fn a_body_may_come_byte_by_byte() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("patience"));
    let request = Request::chat(&fixture.gateway, &chat_body(json!({})));
    let mut connection = Connection::open(&fixture.gateway).await;
    for byte in request.bytes() {
        connection.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(connection.response().await.status, 200);
}

#[tokio::test]
async fn a_chunked_body_is_accepted() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("in pieces"));
    let head = Request::new(&fixture.gateway, "POST", "/v1/chat/completions")
        .header("content-type", "application/json")
        .header("transfer-encoding", "chunked");
    let body = chat_body(json!({})).to_string();
    let mut connection = Connection::open(&fixture.gateway).await;
    connection.send(head.head_bytes()).await;
    for piece in body.as_bytes().chunks(9) {
        connection.send([format!("{:x};ext=1\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
    }
    connection.send("0\r\ntrailer: x\r\n\r\n").await;
    let response = connection.response().await;
    assert_eq!(response.status, 200, "{}", response.text());
}

#[tokio::test]
async fn expect_100_continue_is_answered() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("continued"));
    let request = Request::new(&fixture.gateway, "POST", "/v1/chat/completions")
        .header("expect", "100-continue")
        .json(&chat_body(json!({})));
    let head_length = request.head_bytes().len();
    let mut connection = Connection::open(&fixture.gateway).await;
    connection.send(&request.bytes()[..head_length]).await;
    assert_eq!(connection.interim().await, 100);
    connection.send(&request.bytes()[head_length..]).await;
    assert_eq!(connection.response().await.status, 200);
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let fixture = Fixture::start().await;
    let mut connection = Connection::open(&fixture.gateway).await;
    connection.send("GET /healthz HTTP/1.0\r\n\r\n").await;
    assert_eq!(connection.response().await.status, 200);
    connection.closed(system_tests::SOON).await;
}

#[tokio::test]
async fn head_requests_have_no_body() {
    let fixture = Fixture::start().await;
    let mut connection = Connection::open(&fixture.gateway).await;
    let head = Request::new(&fixture.gateway, "HEAD", "/healthz").bytes();
    let get = Request::new(&fixture.gateway, "GET", "/healthz").bytes();
    connection.send([head, get].concat()).await;
    assert_eq!(connection.head().await.status, 200);
    // The next head follows at once.
    assert_eq!(connection.response().await.status, 200);
}
