//! What upstreams refuse or fail at: what clients are told, who is asked next, and what is learned from it.

use gateway::CallError;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Feed, Log, Reply, TestGateway, completion, credential_of, ending, provider, secs, setup, text_chunk,
};

fn two() -> TestGateway {
    setup()
        .provider("alpha", &json!({"rank": 1, "models": [{"id": "m", "upstream_id": "alpha-m"}]}))
        .provider("beta", &json!({"rank": 2, "models": [{"id": "m", "upstream_id": "beta-m"}]}))
        .build()
}

/// Which providers were asked, in order.
fn asked(test: &TestGateway) -> Vec<String> {
    let host = |url: String| url.split(['/', '.']).nth(2).unwrap().to_owned();
    test.host.calls().into_iter().map(|call| host(call.url)).collect()
}

fn error(message: &str) -> Value {
    json!({"error": {"message": message, "type": null, "param": null, "code": null}})
}

fn refused(param: Option<&str>, message: &str) -> Reply {
    let error = json!({"message": message, "type": "invalid_request_error", "param": param, "code": null});
    Reply::json(400, &json!({"error": error}))
}

#[test]
fn statuses_of_upstreams_become_statuses_for_clients() {
    let quota =
        json!({"error": {"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}});
    let filter = json!({"error": {"message": "m", "code": "content_filter"}});
    let coded = json!({"error": {"message": "m", "code": "context_length_exceeded"}});
    for (reply, line, retry_after) in [
        (Reply::json(400, &error("m")), "400 invalid_request_error invalid_request", None),
        (Reply::json(400, &coded), "400 invalid_request_error context_length_exceeded", None),
        (Reply::json(422, &json!({"detail": "m"})), "400 invalid_request_error invalid_request", None),
        (Reply::json(413, &error("m")), "400 invalid_request_error invalid_request", None),
        (Reply::json(400, &filter), "400 invalid_request_error content_filter", None),
        (Reply::json(401, &error("m")), "403 upstream_error upstream_auth_failed", None),
        (Reply::json(403, &error("m")), "403 upstream_error upstream_auth_failed", None),
        (Reply::json(402, &error("m")), "403 insufficient_quota insufficient_quota", None),
        (Reply::json(429, &quota), "403 insufficient_quota insufficient_quota", None),
        (Reply::json(404, &error("m")), "404 invalid_request_error model_not_found", None),
        (Reply::text(404, "text/html", "<html>"), "502 server_error upstream_unavailable", None),
        (Reply::json(405, &json!({})), "502 server_error upstream_unavailable", None),
        (Reply::json(408, &error("m")), "504 server_error upstream_timeout", None),
        (Reply::json(429, &error("m")), "429 rate_limit_error rate_limit_exceeded", Some("5")),
        (Reply::text(429, "text/plain", "slow down"), "429 rate_limit_error rate_limit_exceeded", Some("5")),
        (Reply::json(500, &error("m")), "502 server_error upstream_error", None),
        (Reply::text(502, "text/html", "<html>"), "502 server_error upstream_error", None),
        (Reply::json(503, &error("m")), "503 server_error upstream_overloaded", Some("2")),
        (Reply::json(529, &error("m")), "503 server_error upstream_overloaded", Some("2")),
        (Reply::json(504, &error("m")), "504 server_error upstream_timeout", None),
        (Reply::text(302, "text/html", ""), "502 server_error upstream_unavailable", None),
        (Reply::text(204, "text/html", ""), "502 server_error upstream_unavailable", None),
        (Reply::Fail(CallError::Connect), "502 server_error upstream_unavailable", None),
        (Reply::Fail(CallError::Tls), "502 server_error upstream_unavailable", None),
        (Reply::Fail(CallError::Protocol), "502 server_error upstream_unavailable", None),
        (Reply::Fail(CallError::ConnectTimeout), "504 server_error upstream_timeout", None),
        (
            Reply::json(429, &error("m")).with_header("retry-after", "7"),
            "429 rate_limit_error rate_limit_exceeded",
            Some("7"),
        ),
        (
            Reply::json(429, &error("m"))
                .with_header("retry-after", "7")
                .with_header("retry-after-ms", "1200"),
            "429 rate_limit_error rate_limit_exceeded",
            Some("2"),
        ),
        (
            Reply::json(429, &error("m")).with_header("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"),
            "429 rate_limit_error rate_limit_exceeded",
            Some("5"),
        ),
        (
            Reply::json(429, &error("m")).with_header("retry-after", "-1"),
            "429 rate_limit_error rate_limit_exceeded",
            Some("5"),
        ),
        // Nobody repeats a request an hour later.
        (
            Reply::json(429, &error("m")).with_header("retry-after", "3600"),
            "403 insufficient_quota insufficient_quota",
            None,
        ),
        (
            Reply::json(503, &error("m")).with_header("retry-after", "9"),
            "503 server_error upstream_overloaded",
            Some("9"),
        ),
    ] {
        let test = setup().provider("alpha", &json!({})).build();
        test.host.reply("alpha", reply);
        let answer = test.stream();
        assert_eq!(answer.header("retry-after"), retry_after, "{line}");
        assert_eq!(answer.error_line(), line);
    }
}

#[test]
fn an_upstreams_words_are_passed_on_only_where_the_caller_is_at_fault() {
    for (status, passed) in
        [(400, true), (401, false), (404, false), (429, false), (500, false), (503, false)]
    {
        let test = setup().provider("alpha", &json!({})).build();
        test.host.reply("alpha", Reply::json(status, &error("in /srv/secret/engine.py")));
        let text = test.chat(&json!({})).text();
        assert_eq!(text.contains("engine.py"), passed, "{status}: {text}");
    }
}

#[test]
fn another_target_is_asked_in_order_of_rank() {
    let test = two();
    test.host.reply("alpha", Reply::json(500, &error("m")));
    test.host.reply("beta", Reply::json(200, &completion("from beta")));
    let answer = test.chat(&json!({})).json();
    assert_eq!(answer["choices"][0]["message"]["content"], "from beta");
    assert_eq!(asked(&test), ["alpha", "beta"]);
    assert_eq!(test.host.last_call().json()["model"], "beta-m");
    // By its provider's name, it is that provider's alone.
    test.host.reply("alpha", Reply::json(500, &error("m")));
    assert_eq!(test.chat(&json!({"model": "alpha/m"})).status, StatusCode::BAD_GATEWAY);
    assert_eq!(asked(&test).len(), 3);
}

#[test]
fn equal_ranks_go_by_slug() {
    let test = setup().provider("zeta", &json!({})).provider("eta", &json!({})).build();
    test.host.reply("eta", Reply::json(500, &error("m")));
    test.host.reply("zeta", Reply::json(503, &error("m")));
    // All have failed: the last failure is told.
    assert_eq!(test.chat(&json!({})).error_line(), "503 server_error upstream_overloaded");
    assert_eq!(asked(&test), ["eta", "zeta"]);
}

#[test]
fn whatever_is_not_the_callers_fault_falls_back() {
    for (what, reply) in [
        ("auth", Reply::json(401, &error("m"))),
        ("quota", Reply::json(402, &error("m"))),
        ("not found", Reply::json(404, &error("m"))),
        ("rate limit", Reply::json(429, &error("m"))),
        ("overload", Reply::json(529, &error("m"))),
        ("timeout", Reply::Fail(CallError::ConnectTimeout)),
        ("no connection", Reply::Fail(CallError::Connect)),
        ("a page", Reply::text(200, "text/html", "<html>")),
        ("garbage", Reply::text(200, "application/json", "{")),
        ("an error in a 200", Reply::json(200, &json!({"error": {"message": "m", "code": 503}}))),
        ("nothing", Reply::sse([""])),
        ("an end without a finish", Reply::sse([crate::support::chunk(&json!({"role": "assistant"}), None)])),
        ("an error event", Reply::sse(["data: {\"error\":{\"message\":\"m\",\"code\":500}}\n\n"])),
        ("compression", Reply::sse([ending()]).with_header("content-encoding", "gzip")),
    ] {
        let test = two();
        test.host.reply("alpha", reply);
        test.host.reply("beta", Reply::sse([text_chunk("from beta"), ending()]));
        let text = test.stream().text();
        assert!(text.contains("from beta") && text.ends_with("data: [DONE]\n\n"), "{what}: {text}");
        assert!(!text.contains("\"error\""), "{what}");
        assert_eq!(asked(&test), ["alpha", "beta"], "{what}");
    }
}

#[test]
fn the_callers_fault_is_told_at_once() {
    for reply in [
        Reply::json(400, &error("m")),
        Reply::json(422, &error("m")),
        Reply::json(400, &json!({"error": {"message": "m", "code": "content_filter"}})),
        Reply::json(200, &json!({"error": {"message": "m", "type": "invalid_request_error"}})),
    ] {
        let test = two();
        test.host.reply("alpha", reply);
        assert_eq!(test.stream().status, StatusCode::BAD_REQUEST);
        assert_eq!(asked(&test), ["alpha"]);
    }
}

#[test]
fn after_the_first_text_nobody_takes_over() {
    let test = two();
    let feed = Feed::default();
    feed.push(text_chunk("from alpha"));
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.stream();
    feed.cut();
    assert!(answer.body.rest().contains("\"error\""));
    assert_eq!(asked(&test), ["alpha"]);
}

#[test]
fn a_stale_connection_is_tried_anew_once() {
    let test = two();
    test.host.reply("alpha", Reply::Fail(CallError::Closed));
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    assert_eq!(test.chat(&json!({})).status, StatusCode::OK);
    assert_eq!(asked(&test), ["alpha", "alpha"]);

    let test = two();
    test.host.reply("alpha", Reply::Fail(CallError::Closed));
    test.host.reply("alpha", Reply::Fail(CallError::Closed));
    test.host.reply("beta", Reply::Fail(CallError::Closed));
    test.host.reply("beta", Reply::Fail(CallError::Closed));
    assert_eq!(test.chat(&json!({})).error_line(), "502 server_error upstream_unavailable");
    assert_eq!(asked(&test), ["alpha", "alpha", "beta", "beta"]);
}

#[test]
fn what_an_upstream_does_not_accept_is_corrected_and_remembered() {
    let limit = json!({"max_tokens": 9});
    let newer_limit = json!({"max_completion_tokens": 9});
    let openai = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
    let effort = json!({"reasoning_effort": "medium"});
    let streamed = json!({"stream": true});
    for (request, param, message, before, after) in [
        (&limit, Some("max_tokens"), openai, "max_tokens", Some("max_completion_tokens")),
        // Gateways in between drop the param.
        (&limit, None, openai, "max_tokens", Some("max_completion_tokens")),
        (
            &newer_limit,
            None,
            "Unrecognized request argument supplied: max_completion_tokens",
            "max_completion_tokens",
            Some("max_tokens"),
        ),
        (
            &newer_limit,
            Some("max_completion_tokens"),
            "Extra inputs are not permitted",
            "max_completion_tokens",
            Some("max_tokens"),
        ),
        (
            &effort,
            Some("reasoning_effort"),
            "Unknown parameter: 'reasoning_effort'.",
            "reasoning_effort",
            None,
        ),
        (&effort, None, "unexpected keyword argument 'reasoning_effort'", "reasoning_effort", None),
        (&streamed, None, "stream_options: Extra inputs are not permitted", "stream_options", None),
        (&streamed, Some("stream_options.include_usage"), "unknown", "stream_options", None),
    ] {
        let answers = || match request["stream"].as_bool() {
            Some(true) => Reply::sse([text_chunk("x"), ending()]),
            _ => Reply::json(200, &completion("x")),
        };
        let test = two();
        test.host.reply("alpha", refused(param, message));
        test.host.reply("alpha", answers());
        assert_eq!(test.chat(request).status, StatusCode::OK, "{message}");
        // The next request is right at once.
        test.host.reply("alpha", answers());
        assert_eq!(test.chat(request).status, StatusCode::OK, "{message}");
        let calls: Vec<Value> = test.host.calls().iter().map(crate::support::Recorded::json).collect();
        assert_eq!(calls.len(), 3, "{message}");
        assert!(!calls[0][before].is_null(), "{message}");
        for call in &calls[1..] {
            assert!(call.get(before).is_none(), "{message}: {call}");
            if let Some(after) = after {
                assert_eq!(call[after], 9, "{message}: {call}");
            }
        }
    }
}

#[test]
fn several_things_may_have_to_be_learned() {
    let test = two();
    test.host.reply("alpha", refused(Some("max_tokens"), "use max_completion_tokens instead"));
    test.host.reply("alpha", refused(Some("reasoning_effort"), "unknown"));
    test.host.reply("alpha", refused(None, "stream_options is not supported"));
    test.host.reply("alpha", Reply::sse([text_chunk("x"), ending()]));
    let request = json!({"stream": true, "max_tokens": 9, "reasoning_effort": "low"});
    assert_eq!(test.chat(&request).status, StatusCode::OK);
    let mut names: Vec<_> = test.host.last_call().json().as_object().unwrap().keys().cloned().collect();
    names.sort_unstable();
    assert_eq!(names, ["max_completion_tokens", "messages", "model", "stream"]);
}

#[test]
fn a_lesson_never_loops() {
    let request = json!({
        "stream": true, "max_tokens": 9, "max_completion_tokens": 9, "reasoning_effort": "low"
    });
    for refusals in [
        vec![(Some("max_tokens"), "use max_completion_tokens"), (Some("max_completion_tokens"), "no")],
        vec![(Some("reasoning_effort"), "no")],
        vec![(Some("stream_options"), "no")],
        vec![
            (Some("max_tokens"), "use max_completion_tokens"),
            (Some("max_completion_tokens"), "no"),
            (Some("reasoning_effort"), "no"),
            (Some("stream_options"), "no"),
        ],
    ] {
        let test = two();
        // An upstream that is never content.
        for (param, message) in refusals.iter().cycle().take(40) {
            test.host.reply("alpha", refused(*param, message));
        }
        for _ in 0..3 {
            let calls = test.host.calls().len();
            assert_eq!(test.chat(&request).status, StatusCode::BAD_REQUEST);
            // Each correction once.
            assert!(test.host.calls().len() - calls <= refusals.len().min(3) + 1, "{refusals:?}");
        }
        assert!(asked(&test).iter().all(|slug| slug == "alpha"));
    }
}

#[test]
fn what_the_request_does_not_have_teaches_nothing() {
    let test = two();
    test.host.reply("alpha", refused(Some("reasoning_effort"), "no"));
    assert_eq!(test.chat(&json!({})).status, StatusCode::BAD_REQUEST);
    assert_eq!(asked(&test), ["alpha"]);
}

#[test]
fn lessons_are_about_one_target_and_outlive_changes_elsewhere() {
    let request = json!({"reasoning_effort": "low"});
    let test = two();
    test.host.reply("alpha", Reply::json(500, &error("m")));
    test.host.reply("beta", refused(Some("reasoning_effort"), "no"));
    test.host.reply("beta", Reply::json(200, &completion("x")));
    assert_eq!(test.chat(&request).status, StatusCode::OK);
    // Somebody else is configured.
    test.put_provider(&provider("gamma", &json!({"models": [{"id": "other"}]})), None);
    test.advance(secs(10));
    test.host.reply("alpha", Reply::json(200, &completion("x")));
    assert_eq!(test.chat(&request).status, StatusCode::OK);
    assert_eq!(test.host.last_call().json()["reasoning_effort"], "low", "alpha has not refused it");
    test.host.reply("beta", Reply::json(200, &completion("x")));
    assert_eq!(test.chat(&json!({"model": "beta/m", "reasoning_effort": "low"})).status, StatusCode::OK);
    assert!(test.host.last_call().json().get("reasoning_effort").is_none(), "beta still knows");
    // Another model behind the name is another target, and so is one at another URL.
    let mut models = json!([{"id": "m", "upstream_id": "new"}]);
    for (version, url) in [(1, "https://beta.example/v1"), (2, "https://beta.example/new/v1")] {
        test.put_provider(&provider("beta", &json!({"base_url": url, "models": models})), Some(version));
        test.advance(secs(10));
        test.host.reply("beta", refused(Some("reasoning_effort"), "no"));
        test.host.reply("beta", Reply::json(200, &completion("x")));
        let calls = test.host.calls().len();
        assert_eq!(test.chat(&json!({"model": "beta/m", "reasoning_effort": "low"})).status, StatusCode::OK);
        assert_eq!(test.host.calls()[calls].json()["reasoning_effort"], "low", "{url}");
        models[0]["context_window"] = 9.into();
    }
}

#[test]
fn a_model_that_cannot_reason_is_not_asked_to() {
    let models = json!([{"id": "m", "capabilities": {"reasoning": false}}]);
    let test = setup().provider("alpha", &json!({"models": models})).build();
    test.host.reply("alpha", Reply::json(200, &completion("x")));
    assert_eq!(test.chat(&json!({"reasoning_effort": "high"})).status, StatusCode::OK);
    assert!(test.host.last_call().json().get("reasoning_effort").is_none());
}

#[test]
fn embeddings_fall_back_and_are_refused_where_no_model_makes_them() {
    let test = setup()
        .provider("alpha", &json!({"rank": 1}))
        .provider("beta", &json!({"rank": 2}))
        .provider("gamma", &json!({"models": [{"id": "chat-only", "capabilities": {"embeddings": false}}]}))
        .build();
    let embed = |model: &str| {
        let body = json!({"model": model, "input": "Hi"}).to_string();
        test.send(test.request(http::Method::POST, "/v1/embeddings", body))
    };
    test.host.reply("alpha", Reply::json(500, &json!({})));
    test.host.reply("beta", Reply::json(200, &json!({"data": [{"embedding": [1.0]}]})));
    let answer = embed("m");
    assert_eq!(answer.header("x-usage-estimated"), Some("true"));
    let answer = answer.json();
    assert_eq!((&answer["model"], &answer["data"][0]["embedding"]), (&json!("m"), &json!([1.0])));
    assert_eq!(test.host.last_call().url, "https://beta.example/v1/embeddings");
    assert_eq!(embed("chat-only").error_line(), "400 invalid_request_error model_cannot_embed");
}

/// Everything that a client or a log gets of a refusal.
fn told(body: &Value) -> (String, Vec<String>) {
    let test = setup().provider("alpha", &json!({})).build();
    let log = Log::start();
    test.host.reply("alpha", Reply::json(400, body));
    (test.chat(&json!({})).text(), log.all())
}

#[test]
fn our_credential_never_passes() {
    let secret = credential_of("alpha");
    let (first, second) = secret.split_at(9);
    for body in [
        json!({"error": {"message": format!("bad key {secret}, sent as Bearer {secret}")}}),
        json!({"error": {"message": "m", "param": secret, "code": format!("x-{secret}")}}),
        json!({"error": format!("{secret}")}),
        json!({"detail": [{"msg": format!("header authorization: {secret}")}]}),
        // Taken apart.
        json!({"error": {"message": format!("{first}\u{0}{second} and {first}\u{7f}{second}")}}),
        json!({"error": {"message": format!("bad key {first}\n{second}")}}),
        json!({"error": {"message": format!("bad key {first} \t {second}")}}),
        // Where a long text is cut.
        json!({"error": {"message": format!("{}{secret}", "x".repeat(2_000 - 15))}}),
        json!({"error": {"message": "content", "code": "content_filter", "param": secret}}),
    ] {
        let (text, log) = told(&body);
        for said in std::iter::once(&text).chain(&log) {
            let squeezed: String = said.replace("\\n", "").split_whitespace().collect();
            assert!(!squeezed.contains(&secret), "{body}\n{said}");
            assert!(!squeezed.contains(&secret[..15]), "{body}\n{said}");
        }
        assert!(text.contains("\"error\""));
    }
    // What is around it stays.
    let (text, _) = told(&json!({"error": {"message": format!("bad key {secret} at line 3")}}));
    assert!(text.contains("bad key *** at line 3"), "{text}");
}

#[test]
fn texts_of_upstreams_are_made_harmless() {
    let body = json!({"error": {
        "message": format!("a\u{1b}[31mb\r\u{8}c\n{}", "ü".repeat(5_000)),
        "param": "p\u{0}".repeat(3_000), "code": "c\u{202e}\u{7}",
    }});
    let (text, _) = told(&body);
    let error: Value = serde_json::from_str(&text).unwrap();
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("a[31mbc\nüü"), "{message}");
    assert!(message.chars().count() <= 2_000);
    let param = error["error"]["param"].as_str().unwrap();
    assert!(param.starts_with("pppp") && param.len() <= 2_000);
    assert!(!error["error"]["code"].as_str().unwrap().contains(char::is_control));
}

#[test]
fn what_an_upstream_says_of_the_request_is_not_logged() {
    for code in ["invalid_prompt", "content_filter"] {
        let body = json!({"error": {"message": "your prompt 'my diary' is refused", "code": code}});
        let (text, log) = told(&body);
        assert!(text.contains("my diary"), "the caller may read it");
        assert!(!log.is_empty());
        assert!(log.iter().all(|line| !line.contains("my diary")), "{log:?}");
    }
}
