//! Keys, and that no route but the two probes does anything without one.

use serde_json::json;
use system_tests::fixture::{EMBEDDER, Fixture, MODEL, chat_body};
use system_tests::raw::{Connection, Request, bearer};

use crate::refused;

/// Every route there is, with a request that would be served with a key.
fn routes(fixture: &Fixture) -> Vec<(&'static str, String, Request)> {
    let bare = |method: &'static str, target: &str| {
        let request = Request::bare(method, target).header("host", fixture.gateway.address());
        (method, target.to_owned(), request)
    };
    let with_body = |target: &str, body: &serde_json::Value| {
        let (method, target, request) = bare("POST", target);
        (method, target, request.json(body))
    };
    let chat = chat_body(json!({}));
    let embed = json!({"model": EMBEDDER, "input": "x"});
    vec![
        with_body("/v1/chat/completions", &chat),
        with_body("/chat/completions", &chat),
        with_body("/v1/chat/completions/chat/completions", &chat),
        with_body("/v1/embeddings", &embed),
        with_body("/embeddings", &embed),
        bare("GET", "/v1/models"),
        bare("GET", "/models"),
        bare("HEAD", "/v1/models"),
        bare("GET", &format!("/v1/models/{MODEL}")),
        bare("GET", &format!("/models/{MODEL}")),
        bare("GET", "/v1/models/no-such-model"),
    ]
}

#[tokio::test]
async fn no_route_but_the_probes_works_without_a_key() {
    let fixture = Fixture::start().await;
    for (method, target, request) in routes(&fixture) {
        let mut connection = Connection::open(&fixture.gateway).await;
        connection.send(request.bytes()).await;
        let response = if method == "HEAD" { connection.head().await } else { connection.response().await };
        assert_eq!(response.status, 401, "{method} {target}");
        if method != "HEAD" {
            response.error();
            connection.assert_usable_or_closed(&fixture.gateway).await;
        }
        // The same with the key is served: it is the key that was missing.
        let request = request.header("authorization", bearer(&fixture.gateway));
        let mut connection = Connection::open(&fixture.gateway).await;
        connection.send(request.bytes()).await;
        let served = if method == "HEAD" { connection.head().await } else { connection.response().await };
        let expected = if target.ends_with("no-such-model") { 404 } else { 200 };
        assert_eq!(served.status, expected, "{method} {target} with a key");
    }
    for target in ["/healthz", "/ready"] {
        let request = Request::bare("GET", target).header("host", fixture.gateway.address());
        assert_eq!(Connection::open(&fixture.gateway).await.request(&request).await.status, 200, "{target}");
    }
    fixture.assert_serving().await;
}

#[tokio::test]
async fn keys_of_any_form_are_401() {
    let fixture = Fixture::start().await;
    let key = fixture.gateway.api_key.clone();
    let right = bearer(&fixture.gateway);
    let cases = [
        ("no scheme", key.clone().into_bytes()),
        ("another scheme", format!("Basic {key}").into_bytes()),
        ("no key", b"Bearer ".to_vec()),
        ("the scheme alone", b"Bearer".to_vec()),
        ("empty", b"".to_vec()),
        ("two keys", format!("{right}, {right}").into_bytes()),
        ("a prefix of the key", right.as_bytes()[..right.len() - 1].to_vec()),
        ("the key and more", format!("{right}x").into_bytes()),
        ("quoted", format!("Bearer \"{key}\"").into_bytes()),
        ("upper case", format!("Bearer {}", key.to_uppercase()).into_bytes()),
        ("Latin-1", b"Bearer dgw_\xe9\xe8\xea".to_vec()),
        ("UTF-8", "Bearer dgw_🦀🦀🦀🦀🦀🦀🦀🦀".as_bytes().to_vec()),
        ("a tab", b"Bearer dgw_\tabc".to_vec()),
        ("8 KB", format!("Bearer {}", "A".repeat(8_192)).into_bytes()),
        ("percent", b"Bearer %00%0d%0a".to_vec()),
        ("SQL", b"Bearer ' OR 1=1 --".to_vec()),
    ];
    for (what, value) in cases {
        let head =
            format!("GET /v1/models HTTP/1.1\r\nhost: {}\r\nauthorization: ", fixture.gateway.address());
        let bytes = [head.as_bytes(), &value, b"\r\n\r\n"].concat();
        refused(&fixture, what, bytes, 401).await;
    }
    // Control characters cannot be in a header at all.
    for control in [0_u8, 1, 8, 11, 27, 127] {
        let head = format!(
            "GET /v1/models HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer dgw_",
            fixture.gateway.address()
        );
        let mut connection = Connection::open(&fixture.gateway).await;
        connection.send([head.as_bytes(), &[control], b"x\r\n\r\n"].concat()).await;
        let statuses = connection.statuses_until_closed_or_idle().await;
        assert!(statuses.iter().all(|status| [400, 401].contains(status)), "{control}: {statuses:?}");
        fixture.assert_serving().await;
    }
    let two = Request::new(&fixture.gateway, "GET", "/v1/models").header("authorization", "Bearer other");
    refused(&fixture, "two headers", two.bytes(), 401).await;
}

#[tokio::test]
async fn schemes_are_compared_without_case() {
    let fixture = Fixture::start().await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = Request::bare("GET", "/v1/models")
            .header("host", fixture.gateway.address())
            .header("authorization", format!("{scheme} {}", fixture.gateway.api_key));
        assert_eq!(Connection::open(&fixture.gateway).await.request(&request).await.status, 200, "{scheme}");
    }
}

#[tokio::test]
async fn a_refusal_does_not_wait_for_the_body() {
    let fixture = Fixture::start().await;
    let head = Request::bare("POST", "/v1/chat/completions")
        .header("host", fixture.gateway.address())
        .header("content-type", "application/json")
        .header("content-length", 10_000_000);
    let mut connection = Connection::open(&fixture.gateway).await;
    connection.send(head.head_bytes()).await;
    let response = connection.response().await;
    assert_eq!(response.status, 401);
    response.error();
    fixture.assert_serving().await;
}
