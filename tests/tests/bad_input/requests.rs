//! Request lines, headers, framing.

use serde_json::json;
use system_tests::fixture::{Fixture, ODD_MODEL, chat_body};
use system_tests::raw::{Connection, Request, bearer};
use system_tests::turn::Turn;

use crate::refused;

#[tokio::test]
async fn unknown_routes_are_404_and_name_the_base_url() {
    let fixture = Fixture::start().await;
    for target in [
        "/",
        "/v1",
        "/v1/",
        "/v2/chat/completions",
        "/v1/chat",
        "/v1/completions/x",
        "/v1/images/generations",
        "/.env",
        "/v1/../admin",
        "/v1/models/../../etc/passwd/x/..",
        "//v1//models",
        "/V1/MODELS",
        "/v1/chat%2Fcompletions",
        "/%2e%2e/healthz",
        "/v1/%00",
        "/v1/models%00",
        "/healthz/x",
        "/v1/healthz",
    ] {
        let request = Request::new(&fixture.gateway, "GET", target);
        let error = refused(&fixture, target, request.bytes(), 404).await;
        assert!(
            error["message"].as_str().is_some_and(|text| text.contains("/v1") || text.contains("model")),
            "{target}: {error}"
        );
    }
    for target in [format!("/{}", "a".repeat(8_000)), format!("/v1/models?{}", "a=b&".repeat(2_000))] {
        let mut connection = Connection::open(&fixture.gateway).await;
        let response = connection.request(&Request::new(&fixture.gateway, "GET", &target)).await;
        assert!([200, 404, 414].contains(&response.status), "{}", response.status);
        assert!(response.body.len() < 4_000, "an error does not repeat what was sent at length");
    }
}

#[tokio::test]
async fn wrong_methods_are_405_and_name_the_right_one() {
    let fixture = Fixture::start().await;
    for (method, target, allowed) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/chat/completions", "POST"),
        ("DELETE", "/chat/completions", "POST"),
        ("PATCH", "/v1/embeddings", "POST"),
        ("GET", "/v1/embeddings", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/test-model", "GET"),
        ("POST", "/healthz", "GET"),
        ("PUT", "/ready", "GET"),
        ("TRACE", "/v1/models", "GET"),
    ] {
        assert_wrong_method(&fixture, method, target, allowed).await;
    }
    fixture.assert_serving().await;
}

#[tokio::test]
async fn methods_that_nobody_knows_are_405_too() {
    let fixture = Fixture::start().await;
    assert_wrong_method(&fixture, "BREW", "/v1/models", "GET").await;
    fixture.assert_serving().await;
}

async fn assert_wrong_method(fixture: &Fixture, method: &str, target: &str, allowed: &str) {
    let mut connection = Connection::open(&fixture.gateway).await;
    let response = connection.request(&Request::new(&fixture.gateway, method, target)).await;
    assert_eq!(response.status, 405, "{method} {target}");
    response.error();
    let allow = response.headers.get("allow").unwrap_or_default();
    assert!(allow.split(',').any(|method| method.trim() == allowed), "{method} {target}: Allow: {allow}");
    connection.assert_usable_or_closed(&fixture.gateway).await;
}

#[tokio::test]
async fn model_ids_may_be_odd_and_are_no_paths() {
    let fixture = Fixture::start().await;
    for target in [
        "/v1/models/..%2f..",
        "/v1/models/..%2F..%2Fadmin",
        "/v1/models/%2e%2e",
        "/v1/models/..",
        "/v1/models/a:b:c",
        "/v1/models/100%25",
        "/v1/models/%",
        "/v1/models/%zz",
        "/v1/models/%ff%fe",
        "/v1/models/%00",
        "/v1/models/a%0d%0ab",
        "/v1/models/%E2%80%AE",
        "/v1/models/a//b",
        "/v1/models/%252e%252e",
        "/v1/models/?x",
        "/v1/models/google%252Fgemini:free",
    ] {
        if target == "/v1/models/?x" {
            // With nothing after the slash it is the list.
            continue;
        }
        refused(&fixture, target, Request::new(&fixture.gateway, "GET", target).bytes(), 404).await;
    }
    for model in
        ["../../etc/passwd", "a/b/c", "100%", "%2e%2e", "a:b", "\u{202e}abc", "a\"b\\c", "🦀", "a b", "null"]
    {
        for request in [
            Request::chat(&fixture.gateway, &chat_body(json!({ "model": model }))),
            Request::new(&fixture.gateway, "POST", "/v1/embeddings")
                .json(&json!({"model": model, "input": "x"})),
        ] {
            let error = refused(&fixture, model, request.bytes(), 404).await;
            assert_eq!(error["code"], "model_not_found", "{model}");
            assert_eq!(error["param"], "model", "{model}");
        }
    }
    for model in ["a\nb", "a\u{0}b", "\u{7f}"] {
        let request = Request::chat(&fixture.gateway, &chat_body(json!({ "model": model })));
        let error = refused(&fixture, model, request.bytes(), 400).await;
        assert_eq!(error["param"], "model", "{model:?}");
    }
    assert!(fixture.upstream.requests().is_empty());
    let response = Connection::open(&fixture.gateway)
        .await
        .request(&Request::new(&fixture.gateway, "GET", &format!("/v1/models/{ODD_MODEL}")))
        .await;
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn two_lengths_smuggle_nothing() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("once"));
    let body = chat_body(json!({})).to_string();
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (what, headers, payload) in [
        (
            "CL.TE",
            vec![
                ("content-length", (chunked.len() + smuggled.len()).to_string()),
                ("transfer-encoding", "chunked".into()),
            ],
            format!("{chunked}{smuggled}"),
        ),
        (
            "TE.CL",
            vec![("transfer-encoding", "chunked".into()), ("content-length", "4".into())],
            chunked.clone(),
        ),
        (
            "two lengths",
            vec![("content-length", body.len().to_string()), ("content-length", "4".into())],
            body.clone(),
        ),
        ("a list of lengths", vec![("content-length", format!("{}, 4", body.len()))], body.clone()),
        ("a signed length", vec![("content-length", format!("+{}", body.len()))], body.clone()),
        ("a negative length", vec![("content-length", "-1".into())], body.clone()),
        ("a length of words", vec![("content-length", "many".into())], body.clone()),
        ("an unknown encoding", vec![("transfer-encoding", "gzip, identity".into())], body.clone()),
        (
            "chunked twice",
            vec![("transfer-encoding", "chunked".into()), ("transfer-encoding", "chunked".into())],
            chunked.clone(),
        ),
        ("chunked, not last", vec![("transfer-encoding", "chunked, gzip".into())], chunked.clone()),
    ] {
        fixture.upstream.forget();
        let mut request = Request::new(&fixture.gateway, "POST", "/v1/chat/completions");
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let mut connection = Connection::open(&fixture.gateway).await;
        connection.send([&request.head_bytes()[..], payload.as_bytes()].concat()).await;
        let statuses = connection.statuses_until_closed_or_idle().await;
        // Refused, or read by Transfer-Encoding alone. What follows on the connection may be the work
        // of somebody else than the client that a proxy in front of us thinks it is: it gets no answer
        // (RFC 9112, section 6.3).
        assert!(statuses == [400] || statuses == [200] || statuses == [501], "{what}: {statuses:?}");
        assert!(fixture.upstream.requests().len() <= 1, "{what}");
        fixture.assert_serving().await;
    }
}

#[tokio::test]
async fn malformed_http_is_refused_or_closed() {
    let fixture = Fixture::start().await;
    let host = fixture.gateway.address().to_owned();
    let key = bearer(&fixture.gateway);
    for (what, bytes) in [
        ("no HTTP", "hello\r\n\r\n".to_owned()),
        ("TLS in clear", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".to_owned()),
        ("HTTP/9", format!("GET /v1/models HTTP/9.9\r\nhost: {host}\r\n\r\n")),
        ("a space in the target", format!("GET /v1 /models HTTP/1.1\r\nhost: {host}\r\n\r\n")),
        ("a space before the colon", format!("GET /v1/models HTTP/1.1\r\nhost : {host}\r\n\r\n")),
        ("a NUL in a header", format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\nx: a\0b\r\n\r\n")),
        ("a folded header", format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\nx: a\r\n b\r\n\r\n")),
        (
            "a header of 1 MB",
            format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\nx: {}\r\n\r\n", "a".repeat(1 << 20)),
        ),
        ("a target of 1 MB", format!("GET /{} HTTP/1.1\r\nhost: {host}\r\n\r\n", "a".repeat(1 << 20))),
        (
            "10,000 headers",
            format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\n{}\r\n", "x: y\r\n".repeat(10_000)),
        ),
        (
            "a chunk size beyond bounds",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: {key}\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n"
            ),
        ),
        (
            "a chunk size of words",
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: {key}\r\ntransfer-encoding: chunked\r\n\r\nmany\r\n"
            ),
        ),
    ] {
        let mut connection = Connection::open(&fixture.gateway).await;
        // What is refused early is not read to its end.
        let _ = connection.try_send(&bytes).await;
        let statuses = connection.statuses_until_closed_or_idle().await;
        assert!(
            statuses.iter().all(|status| (400..500).contains(status) || *status == 505),
            "{what}: {statuses:?}"
        );
        fixture.assert_serving().await;
    }
}

#[tokio::test]
async fn two_hundred_headers_are_answered() {
    let fixture = Fixture::start().await;
    let mut request = Request::new(&fixture.gateway, "GET", "/v1/models");
    for number in 0..200 {
        request = request.header(&format!("x-header-{number}"), "value");
    }
    let mut connection = Connection::open(&fixture.gateway).await;
    let response = connection.request(&request).await;
    assert!([200, 431].contains(&response.status), "{}", response.status);
    if response.status == 431 {
        response.error();
    }
    connection.assert_usable_or_closed(&fixture.gateway).await;
    fixture.assert_serving().await;
}

#[tokio::test]
async fn odd_hosts_are_refused_or_of_no_consequence() {
    let fixture = Fixture::start().await;
    let host = fixture.gateway.address().to_owned();
    let key = bearer(&fixture.gateway);
    for (what, hosts) in [
        ("two hosts", vec![host.as_str(), "evil.example"]),
        ("no host", vec![]),
        ("another host", vec!["evil.example"]),
        ("an empty host", vec![""]),
        ("a host that is none", vec!["a b/c"]),
    ] {
        for target in ["/v1/models".to_owned(), format!("http://{host}/v1/models")] {
            let mut request = Request::bare("GET", &target).header("authorization", &key);
            for host in &hosts {
                request = request.header("host", host);
            }
            let mut connection = Connection::open(&fixture.gateway).await;
            let response = connection.request(&request).await;
            match response.status {
                // Where a host makes a URL of them, nothing may be found there.
                400 | 404 => drop(response.error()),
                200 => assert!(!response.text().contains("evil"), "{what}"),
                status => panic!("{what}: {status} {}", response.text()),
            }
            connection.assert_usable_or_closed(&fixture.gateway).await;
        }
    }
    fixture.assert_serving().await;
}

#[tokio::test]
async fn request_ids_are_ours_or_sane() {
    let fixture = Fixture::start().await;
    let id_for = |given: String| {
        let request = Request::new(&fixture.gateway, "GET", "/v1/models").header("x-request-id", given);
        let gateway = &fixture.gateway;
        async move {
            let response = Connection::open(gateway).await.request(&request).await;
            response.headers.get("x-request-id").unwrap_or_default().to_owned()
        }
    };
    assert_eq!(id_for("client-1234".into()).await, "client-1234");
    for bad in ["a".repeat(5_000), "a b".into(), String::new(), "é".into()] {
        let id = id_for(bad.clone()).await;
        assert!(!id.is_empty() && id != bad && id.is_ascii(), "{bad:.20}: {id}");
    }
}
