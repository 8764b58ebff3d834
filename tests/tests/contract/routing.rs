//! Lines 1 to 5: routing and authentication.

use std::collections::HashMap;

use serde_json::{Value, json};
use system_tests::clients::{Client, Job};
use system_tests::config::{Timeouts, UPSTREAM_CREDENTIAL};
use system_tests::dyad;
use system_tests::fixture::{Fixture, MODEL, UPSTREAM_MODEL, chat_body};
use system_tests::raw::{Connection, Request};
use system_tests::turn::Turn;

#[tokio::test]
async fn contract_01_every_spelling_of_the_url_is_served() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("served"));
    for path in ["/v1/chat/completions", "/chat/completions"] {
        let mut connection = Connection::open(&fixture.gateway).await;
        let request = Request::new(&fixture.gateway, "POST", path).json(&chat_body(json!({})));
        let response = connection.request(&request).await;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        assert_eq!(response.json()["choices"][0]["message"]["content"], "served", "{path}");
    }
    let origin = fixture.gateway.origin().to_owned();
    for base_url in [origin.clone(), format!("{origin}/v1"), format!("{origin}/v1/")] {
        let job = Job { base_url: base_url.clone(), ..Job::chat(&fixture.gateway, chat_body(json!({}))) };
        for (client, answer) in fixture.clients.all(&job).await {
            assert_eq!(answer.ok().text, "served", "{client:?} at {base_url}");
        }
    }
    // People paste the whole URL of the operation as the base URL.
    let base_url = format!("{origin}/v1/chat/completions");
    let job = Job { base_url, ..Job::chat(&fixture.gateway, chat_body(json!({}))) };
    for (client, answer) in fixture.clients.all(&job).await {
        match &answer.error {
            None => assert_eq!(answer.text, "served", "{client:?}"),
            Some(error) => {
                assert_eq!(error.status, Some(404), "{client:?}");
                assert!(
                    error.message.as_deref().is_some_and(|text| text.contains("/v1")),
                    "{client:?}: {error:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn contract_02_a_bad_or_missing_key_is_401_json() {
    let fixture = Fixture::start().await;
    let mut mistyped = fixture.gateway.api_key.clone();
    mistyped.replace_range(mistyped.len() - 1.., if mistyped.ends_with('A') { "B" } else { "A" });
    let printable: String = ('!'..='~').collect();
    for key in [mistyped.as_str(), "sk-something-else", "x", &printable] {
        for stream in [false, true] {
            let request = Request::bare("POST", "/v1/chat/completions")
                .header("host", fixture.gateway.address())
                .header("authorization", format!("Bearer {key}"))
                .json(&chat_body(json!({ "stream": stream })));
            let response = Connection::open(&fixture.gateway).await.request(&request).await;
            assert_eq!(response.status, 401, "{key}");
            assert_eq!(response.error()["code"], "invalid_api_key", "{key}");
        }
    }
    let request = Request::bare("POST", "/v1/chat/completions")
        .header("host", fixture.gateway.address())
        .json(&chat_body(json!({"stream": true})));
    let response = Connection::open(&fixture.gateway).await.request(&request).await;
    assert_eq!(response.status, 401);
    response.error();
    for job in [
        Job { api_key: mistyped.clone(), ..Job::chat(&fixture.gateway, chat_body(json!({}))) },
        Job { api_key: mistyped, ..Job::chat_stream(&fixture.gateway, chat_body(json!({}))) },
    ] {
        for (client, answer) in fixture.clients.all(&job).await {
            let error = answer.error();
            assert_eq!(error.status, Some(401), "{client:?}");
            if Client::OPENAI.contains(&client) {
                assert_eq!(error.class, "AuthenticationError", "{client:?}");
            }
        }
    }
    assert!(fixture.upstream.requests().is_empty(), "no upstream is called without a valid key");
}

#[tokio::test]
async fn contract_03_headers_of_the_client_are_not_forwarded() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::says("ok"));
    let headers = [
        ("x-dyad-internal-request-id", "dyad-123"),
        ("x-stainless-os", "Plan9"),
        ("cookie", "session=1"),
        ("x-forwarded-for", "203.0.113.7"),
        ("openai-organization", "org-of-the-client"),
    ];
    let headers: HashMap<_, _> = headers.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let job = Job { headers: headers.clone(), ..Job::chat(&fixture.gateway, chat_body(json!({}))) };
    for (client, answer) in fixture.clients.all(&job).await {
        assert_eq!(answer.ok().text, "ok", "{client:?}");
    }
    let requests = fixture.upstream.requests();
    assert_eq!(requests.len(), Client::ALL.len());
    for request in requests {
        for (name, value) in &request.headers.0 {
            assert!(!name.starts_with("x-stainless"), "{name}: {value} was forwarded");
            assert!(!headers.contains_key(&name.to_lowercase()), "{name}: {value} was forwarded");
        }
        let credentials: Vec<_> = request.headers.all("authorization").collect();
        assert_eq!(credentials, [format!("Bearer {UPSTREAM_CREDENTIAL}")], "the provider's credential, once");
        assert_eq!(request.headers.get("host"), Some(fixture.upstream.address().to_string().as_str()));
        assert_eq!(request.json()["model"], UPSTREAM_MODEL);
    }
}

#[tokio::test]
async fn contract_04_twenty_megabytes_are_accepted() {
    // A busy machine takes its time for so much.
    let patient = Timeouts { first_byte_ms: 20_000, ..Timeouts::default() };
    let fixture = Fixture::start_with(|config| config.provider[0].timeouts = patient).await;
    fixture.upstream_answers(Turn::says("that was long"));
    let body = chat_body(json!({"messages": [{"role": "user", "content": dyad::codebase(18_000_000)}]}));
    let bytes = body.to_string();
    assert!((18_000_000..21_000_000).contains(&bytes.len()), "escaped: {}", bytes.len());
    let response = fixture.raw_chat(body.clone()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let received = fixture.upstream.last_request().json();
    assert_eq!(received["messages"], body["messages"], "nothing of it is lost");
}

#[tokio::test]
async fn contract_04_more_than_the_limit_is_413() {
    let fixture = Fixture::start().await;
    let too_long = chat_body(json!({"messages": [{"role": "user", "content": "x".repeat(25_000_000)}]}));
    let job = Job::chat(&fixture.gateway, too_long);
    for (client, answer) in
        fixture.clients.each(&[Client::Python3, Client::Node6, Client::AiSdk2], &job).await
    {
        assert_eq!(answer.error().status, Some(413), "{client:?}");
        assert_eq!(answer.error().code, "request_too_large", "{client:?}");
    }
    assert!(fixture.upstream.requests().is_empty());
}

#[tokio::test]
async fn contract_05_an_unknown_model_is_404_model_not_found() {
    let fixture = Fixture::start().await;
    for model in
        ["no-such-model", "fake/no-such-model", "nobody/test-model", &format!("{MODEL} "), "TEST-MODEL"]
    {
        for job in [
            Job::chat(&fixture.gateway, chat_body(json!({ "model": model }))),
            Job::chat_stream(&fixture.gateway, chat_body(json!({ "model": model }))),
        ] {
            for (client, answer) in fixture.clients.all(&job).await {
                assert_eq!(answer.error().status, Some(404), "{client:?}: {model}");
                assert_eq!(answer.error().code, "model_not_found", "{client:?}: {model}");
                if Client::OPENAI.contains(&client) {
                    assert_eq!(answer.error().class, "NotFoundError", "{client:?}");
                    assert_eq!(answer.error().param, Value::from("model"), "{client:?}");
                }
            }
        }
    }
    assert!(fixture.upstream.requests().is_empty());
}
