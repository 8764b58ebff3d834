//! Web pages as clients.

use serde_json::json;
use system_tests::fixture::{Fixture, chat_body};
use system_tests::raw::{Connection, Request, Response};
use system_tests::turn::Turn;

async fn preflight(fixture: &Fixture, origin: &str) -> Response {
    let request = Request::bare("OPTIONS", "/v1/chat/completions")
        .header("host", fixture.gateway.address())
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,x-stainless-os");
    Connection::open(&fixture.gateway).await.request(&request).await
}

async fn ask(fixture: &Fixture, origin: &str) -> Response {
    let request = Request::new(&fixture.gateway, "POST", "/v1/chat/completions").header("origin", origin);
    Connection::open(&fixture.gateway).await.request(&request.json(&chat_body(json!({})))).await
}

#[tokio::test]
async fn a_web_page_may_ask() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("hello"));
    let response = preflight(&fixture, "https://app.example").await;
    assert!((200..300).contains(&response.status), "a preflight carries no key: {}", response.status);
    let header =
        |response: &Response, name: &str| response.headers.get(name).unwrap_or_default().to_lowercase();
    assert!(
        ["*", "https://app.example"].contains(&header(&response, "access-control-allow-origin").as_str())
    );
    assert!(header(&response, "access-control-allow-methods").contains("post"));
    for name in ["authorization", "content-type", "x-stainless-os"] {
        assert!(
            header(&response, "access-control-allow-headers").contains(name),
            "{name}: {:?}",
            response.headers
        );
    }
    assert!(response.headers.get("access-control-allow-credentials").is_none(), "no cookies are used");
    let response = ask(&fixture, "https://app.example").await;
    assert_eq!(response.status, 200);
    assert!(
        ["*", "https://app.example"].contains(&header(&response, "access-control-allow-origin").as_str())
    );
    assert!(header(&response, "access-control-expose-headers").contains("x-request-id"));
}

#[tokio::test]
async fn only_the_configured_origins_may() {
    let fixture =
        Fixture::start_with(|config| config.cors_origins = Some(vec!["https://app.example".into()])).await;
    fixture.upstream_answers(Turn::says("hello"));
    let allowed = preflight(&fixture, "https://app.example").await;
    assert_eq!(allowed.headers.get("access-control-allow-origin"), Some("https://app.example"));
    for origin in ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null"] {
        for response in [preflight(&fixture, origin).await, ask(&fixture, origin).await] {
            let allowed = response.headers.get("access-control-allow-origin");
            assert!(allowed.is_none_or(|allowed| allowed == "https://app.example"), "{origin}: {allowed:?}");
        }
    }
}
