//! Request bodies.

use bytes::Bytes;
use serde_json::json;
use system_tests::fixture::{EMBEDDER, Fixture, MODEL, UPSTREAM_MODEL, chat_body};
use system_tests::raw::{Connection, Request};
use system_tests::turn::Turn;

use crate::refused;

fn post(fixture: &Fixture, body: impl Into<Bytes>) -> Vec<u8> {
    Request::new(&fixture.gateway, "POST", "/v1/chat/completions").body("application/json", body).bytes()
}

#[tokio::test]
async fn not_json_is_400() {
    let fixture = Fixture::start().await;
    let nested = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let with = |member: &str| {
        format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"x"}}],{member}}}"#).into_bytes()
    };
    let invalid_utf8 = [&with("\"user\":\"")[..], b"\xff\xfe\"}"].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("white space", b" \n".to_vec()),
        ("text", b"hello".to_vec()),
        ("half of it", chat_body(json!({})).to_string().into_bytes()[..40].to_vec()),
        ("trailing comma", with("\"seed\":1,")),
        ("single quotes", b"{'model':'x'}".to_vec()),
        ("two documents", [chat_body(json!({})).to_string(), "{}".into()].concat().into_bytes()),
        ("a form", b"model=x&messages=y".to_vec()),
        ("NaN", with("\"temperature\":NaN")),
        ("Infinity", with("\"temperature\":-Infinity")),
        ("a number with a leading zero", with("\"seed\":01")),
        ("a comment", with("/* hello */\"seed\":1")),
        ("a bare control character", with("\"user\":\"a\nb\"")),
        ("half a surrogate escape", with("\"user\":\"\\u12\"")),
        ("invalid UTF-8", invalid_utf8),
        ("UTF-16", "{\0}\0".into()),
        ("deep arrays", with(&format!("\"x\":{}", nested("[", "]")))),
        ("deep objects", with(&format!("\"x\":{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)))),
        ("deep and unclosed", with(&format!("\"x\":{}", "[".repeat(10_000)))),
        ("an array", b"[]".to_vec()),
        ("a text", b"\"hello\"".to_vec()),
        ("null", b"null".to_vec()),
        ("a byte order mark alone", b"\xef\xbb\xbf".to_vec()),
    ];
    for (what, body) in cases {
        let error = refused(&fixture, what, post(&fixture, body), 400).await;
        assert_eq!(error["type"], "invalid_request_error", "{what}");
    }
    assert!(fixture.upstream.requests().is_empty(), "none of it goes on");
}

#[tokio::test]
async fn the_wrong_type_of_a_field_is_400_and_named() {
    let fixture = Fixture::start().await;
    for (field, value) in [
        ("model", json!(17)),
        ("model", json!("")),
        ("model", json!(["a"])),
        ("model", json!("m".repeat(100_000))),
        ("messages", json!("hello")),
        ("messages", json!({})),
        ("messages", json!([])),
        ("messages", json!(["hello"])),
        ("messages", json!([null])),
        ("messages", json!([{"content": "no role"}])),
        ("messages", json!([{"role": 1, "content": "x"}])),
        ("messages", json!([{"role": "user", "content": 17}])),
        ("messages", json!([{"role": "user", "content": {"type": "text"}}])),
        ("messages", json!([{"role": "user", "content": ["text"]}])),
        ("messages", json!([{"role": "user", "content": [{"text": "no type"}]}])),
        ("messages", json!([{"role": "assistant", "tool_calls": "call"}])),
        ("stream", json!("true")),
        ("stream", json!(1)),
        ("stream_options", json!(true)),
        ("stream_options", json!({"include_usage": "yes"})),
        ("max_tokens", json!("100")),
        ("max_tokens", json!(1.5)),
        ("max_completion_tokens", json!([1])),
        ("temperature", json!("hot")),
        ("top_p", json!({})),
        ("n", json!("2")),
        ("n", json!(0)),
        ("n", json!(1_000_000)),
        ("n", json!(-1)),
        ("stop", json!(17)),
        ("seed", json!("x")),
        ("tools", json!({})),
        ("tools", json!("all")),
        ("tool_choice", json!(1)),
        ("response_format", json!("json")),
        ("reasoning_effort", json!(3)),
        ("presence_penalty", json!("a")),
        ("frequency_penalty", json!(true)),
        ("logprobs", json!("yes")),
        ("logit_bias", json!([])),
        ("parallel_tool_calls", json!("no")),
        ("user", json!(5)),
    ] {
        let body = chat_body(json!({ field: value }));
        let short: String = body.to_string().chars().take(200).collect();
        let error = refused(&fixture, &short, post(&fixture, body.to_string()), 400).await;
        let named = error["param"].as_str().unwrap_or_default();
        assert!(named.starts_with(field), "{short}: param {named:?} does not name {field}");
        assert!(error["message"].as_str().is_some_and(|text| text.len() < 1_000), "{short}: a short message");
    }
    for missing in ["model", "messages"] {
        let mut body = chat_body(json!({}));
        body.as_object_mut().unwrap().remove(missing);
        let error = refused(&fixture, missing, post(&fixture, body.to_string()), 400).await;
        assert_eq!(error["param"], missing);
        let body = chat_body(json!({ missing: null }));
        assert_eq!(refused(&fixture, missing, post(&fixture, body.to_string()), 400).await["param"], missing);
    }
    assert!(fixture.upstream.requests().is_empty());
}

#[tokio::test]
async fn null_is_absent() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("fine"));
    let body = json!({"stream": null, "stream_options": null, "max_tokens": null, "temperature": null, "n": null,
        "stop": null, "tools": null, "tool_choice": null, "response_format": null, "reasoning_effort": null, "user": null});
    assert_eq!(fixture.raw_chat(body).await.status, 200);
}

#[tokio::test]
async fn duplicate_keys_are_400() {
    let fixture = Fixture::start().await;
    // Two readers of one body must not take different models from it.
    let messages = r#""messages":[{"role":"user","content":"x"}]"#;
    for (what, body, field) in [
        ("model twice", format!(r#"{{"model":"{MODEL}",{messages},"model":"other"}}"#), "model"),
        ("an escaped spelling", format!(r#"{{"model":"{MODEL}",{messages},"mod\u0065l":"other"}}"#), "model"),
        ("messages twice", format!(r#"{{{messages},"model":"{MODEL}",{messages}}}"#), "messages"),
        (
            "stream twice",
            format!(r#"{{"stream":true,"model":"{MODEL}",{messages},"stream":false}}"#),
            "stream",
        ),
    ] {
        let error = refused(&fixture, what, post(&fixture, body), 400).await;
        assert_eq!(error["param"], field, "{what}");
    }
    assert!(fixture.upstream.requests().is_empty());
}

#[tokio::test]
async fn odd_but_valid_json_is_served() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("fine"));
    let messages = r#"[{"role":"user","content":"x"}]"#;
    for (what, body) in [
        ("an escaped key", format!(r#"{{"mod\u0065l":"{MODEL}","messages":{messages}}}"#)),
        ("an escaped model", format!(r#"{{"model":"test\u002dmodel","messages":{messages}}}"#)),
        ("white space", format!("\r\n\t {{ \"model\" :\t\"{MODEL}\" , \"messages\" : {messages} }} \n")),
        (
            "depth 100",
            format!(
                r#"{{"x":{}{},"model":"{MODEL}","messages":{messages}}}"#,
                "[".repeat(100),
                "]".repeat(100)
            ),
        ),
        (
            "large numbers",
            format!(r#"{{"seed":9007199254740993,"x":1e300,"model":"{MODEL}","messages":{messages}}}"#),
        ),
        ("a lone surrogate", format!(r#"{{"user":"\ud800","model":"{MODEL}","messages":{messages}}}"#)),
        ("unknown fields", format!(r#"{{"":0,"__proto__":1,"model":"{MODEL}","messages":{messages}}}"#)),
        ("no content type", format!(r#"{{"model":"{MODEL}","messages":{messages}}}"#)),
    ] {
        let mut request = Request::new(&fixture.gateway, "POST", "/v1/chat/completions");
        request = if what == "no content type" {
            let head = request.header("content-length", body.len()).head_bytes();
            let mut connection = Connection::open(&fixture.gateway).await;
            connection.send([&head[..], body.as_bytes()].concat()).await;
            assert_eq!(connection.response().await.status, 200, "{what}");
            continue;
        } else {
            request.body("application/json", body)
        };
        let response = Connection::open(&fixture.gateway).await.request(&request).await;
        assert_eq!(response.status, 200, "{what}: {}", response.text());
        // The upstream gets its own name of the model whatever the spelling was, once.
        let received = fixture.upstream.last_request();
        let received = std::str::from_utf8(&received.body).unwrap();
        assert_eq!(received.matches(UPSTREAM_MODEL).count(), 1, "{what}: {received}");
        assert!(!received.contains(MODEL), "{what}: {received}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_413() {
    let fixture = Fixture::start().await;
    let body = vec![b' '; 25_000_000];
    for (what, announced) in [("with its length", true), ("chunked", false)] {
        let request = Request::new(&fixture.gateway, "POST", "/v1/chat/completions");
        let head = if announced {
            request.header("content-length", body.len()).head_bytes()
        } else {
            request.header("transfer-encoding", "chunked").head_bytes()
        };
        let mut connection = Connection::open(&fixture.gateway).await;
        connection.send(head).await;
        // It may be refused before it was sent, and the connection closed: the answer counts.
        if announced {
            let _ = connection.try_send(&body).await;
        } else {
            let chunk = [b"100000\r\n", &body[..0x10_0000], b"\r\n"].concat();
            for _ in 0..24 {
                if connection.try_send(&chunk).await.is_err() {
                    break;
                }
            }
            let _ = connection.try_send("0\r\n\r\n").await;
        }
        let response = connection.response().await;
        assert_eq!(response.status, 413, "{what}");
        assert_eq!(response.error()["type"], "invalid_request_error", "{what}");
        connection.assert_usable_or_closed(&fixture.gateway).await;
        fixture.assert_serving().await;
    }
    assert!(fixture.upstream.requests().is_empty());
}

#[tokio::test]
async fn the_limit_can_be_configured() {
    let fixture = Fixture::start_with(|config| config.max_body_bytes = Some(2_000)).await;
    fixture.upstream_answers(Turn::says("fine"));
    let with =
        |length: usize| chat_body(json!({"messages": [{"role": "user", "content": "x".repeat(length)}]}));
    assert_eq!(fixture.raw_chat(with(1_000)).await.status, 200);
    let error = refused(&fixture, "2,000 bytes", post(&fixture, with(2_000).to_string()), 413).await;
    assert!(
        error["message"].as_str().is_some_and(|text| text.contains("2000")),
        "the limit is named: {error}"
    );
}

#[tokio::test]
async fn bad_embedding_requests_are_400() {
    let fixture = Fixture::start().await;
    for (field, value) in [
        ("input", json!([])),
        ("input", json!(17)),
        ("input", json!({"text": "x"})),
        ("input", json!([null])),
        ("input", json!(["a", 1])),
        ("input", json!([["a"]])),
        ("encoding_format", json!("hex")),
        ("encoding_format", json!(1)),
        ("dimensions", json!("many")),
        ("model", json!(null)),
    ] {
        let mut body = json!({"model": EMBEDDER, "input": "x"});
        body[field] = value.clone();
        let request = Request::new(&fixture.gateway, "POST", "/v1/embeddings").json(&body);
        let error = refused(&fixture, &body.to_string(), request.bytes(), 400).await;
        let named = error["param"].as_str().unwrap_or_default();
        assert!(named.starts_with(field), "{body}: param {named:?}");
    }
    assert!(fixture.upstream.requests().is_empty());
}
