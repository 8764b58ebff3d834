//! Lines 36 to 39: models, embeddings, response formats.

use serde_json::{Value, json};
use system_tests::clients::{Client, Job};
use system_tests::fixture::{
    CHAT_ONLY_MODEL, EMBEDDER, Fixture, MODEL, ODD_MODEL, ODD_UPSTREAM_MODEL, UPSTREAM_EMBEDDER, chat_body,
};
use system_tests::raw::{Connection, Request};
use system_tests::turn::Turn;
use system_tests::upstream::embedding;

#[tokio::test]
async fn contract_36_models_are_listed() {
    let fixture = Fixture::start().await;
    let mut connection = Connection::open(&fixture.gateway).await;
    for path in ["/v1/models", "/models"] {
        let response = connection.request(&Request::new(&fixture.gateway, "GET", path)).await;
        assert_eq!(response.status, 200, "{path}");
        let body = response.json();
        assert_eq!(body["object"], "list", "{path}");
        for model in body["data"].as_array().unwrap() {
            assert!(
                model["id"].is_string() && model["created"].is_u64() && model["owned_by"].is_string(),
                "{model}"
            );
            assert_eq!(model["object"], "model", "{model}");
        }
    }
    for (client, answer) in fixture.clients.each(&Client::OPENAI, &Job::models(&fixture.gateway)).await {
        let ids: Vec<_> =
            answer.ok().data.as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
        for id in [MODEL, ODD_MODEL, EMBEDDER, CHAT_ONLY_MODEL] {
            assert!(ids.contains(&Value::from(id)), "{client:?}: {ids:?}");
        }
    }
}

#[tokio::test]
async fn contract_37_a_model_id_is_decoded() {
    let fixture = Fixture::start().await;
    let mut connection = Connection::open(&fixture.gateway).await;
    for target in
        ["google%2Fgemini:free", "google/gemini:free", "google%2fgemini%3Afree", "fake/google%2Fgemini:free"]
    {
        let request = Request::new(&fixture.gateway, "GET", &format!("/v1/models/{target}"));
        let response = connection.request(&request).await;
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        assert!(response.json()["id"].as_str().unwrap().ends_with(ODD_MODEL), "{target}");
    }
    for target in ["no-such-model", "google%2Fgemini", "google", "%F0%9F%A6%80"] {
        let request = Request::new(&fixture.gateway, "GET", &format!("/v1/models/{target}"));
        let response = connection.request(&request).await;
        assert_eq!(response.status, 404, "{target}");
        assert_eq!(response.error()["code"], "model_not_found", "{target}");
    }
    for (client, answer) in
        fixture.clients.each(&Client::OPENAI, &Job::model(&fixture.gateway, ODD_MODEL)).await
    {
        assert_eq!(answer.ok().data["id"], ODD_MODEL, "{client:?}");
    }
    for (client, answer) in
        fixture.clients.each(&Client::OPENAI, &Job::model(&fixture.gateway, "a/b:c")).await
    {
        assert_eq!(answer.error().class, "NotFoundError", "{client:?}");
    }
    // The same model by chat, by its own name and by its provider's.
    for model in [ODD_MODEL.to_owned(), format!("fake/{ODD_MODEL}")] {
        fixture.upstream.on(ODD_UPSTREAM_MODEL, Turn::says("odd"));
        for (client, answer) in fixture.stream(json!({ "model": model })).await {
            assert_eq!(answer.ok().text, "odd", "{client:?}");
            assert_eq!(answer.chunks[0]["model"], model, "{client:?}: the name that was asked for");
        }
    }
}

#[tokio::test]
async fn contract_38_embeddings_in_both_encodings() {
    let fixture = Fixture::start().await;
    for (input, count) in [
        (json!("one text"), 1),
        (json!(["one", "two", "three"]), 3),
        (json!([1, 2, 3]), 1),
        (json!([[1, 2], [3]]), 2),
    ] {
        let expected: Vec<_> = (0..count).map(|index| embedding(index).to_vec()).collect();
        for encoding in [None, Some("float"), Some("base64")] {
            let mut params = json!({"model": EMBEDDER, "input": input});
            if let Some(encoding) = encoding {
                params["encoding_format"] = encoding.into();
            }
            let job = Job::embeddings(&fixture.gateway, params.clone());
            for client in Client::OPENAI {
                let answer = fixture.clients.run(client, &job).await;
                let received = fixture.upstream.last_request().json();
                assert_eq!(received["model"], UPSTREAM_EMBEDDER, "{client:?}");
                assert_eq!(received["input"], input, "{client:?}");
                if encoding == Some("base64") {
                    // Asked for it by name, the libraries hand the text through.
                    assert!(answer.ok().data[0].is_string() || answer.vectors() == expected, "{client:?}");
                } else {
                    assert_eq!(answer.vectors(), expected, "{client:?}: {params}");
                    assert!(answer.usage.is_some_and(|usage| usage.prompt_tokens > 0), "{client:?}");
                }
            }
        }
        let request = Request::new(&fixture.gateway, "POST", "/v1/embeddings")
            .json(&json!({"model": EMBEDDER, "input": input}));
        let response = Connection::open(&fixture.gateway).await.request(&request).await.json();
        assert_eq!(response["model"], EMBEDDER, "the model is the one that was asked for");
        assert_eq!(response["data"].as_array().unwrap().len(), count);
    }
    let job = Job::embeddings(&fixture.gateway, json!({"model": EMBEDDER, "input": ["one", "two"]}));
    for (client, answer) in fixture.clients.each(&Client::AI_SDK, &job).await {
        assert_eq!(answer.vectors(), [embedding(0), embedding(1)], "{client:?}");
    }
}

#[tokio::test]
async fn contract_38_a_model_that_cannot_embed_is_a_clear_400() {
    let fixture = Fixture::start().await;
    let job = Job::embeddings(&fixture.gateway, json!({"model": CHAT_ONLY_MODEL, "input": "text"}));
    for (client, answer) in fixture.clients.all(&job).await {
        let error = answer.error();
        assert_eq!(error.status, Some(400), "{client:?}");
        assert!(
            error.message.as_deref().is_some_and(|text| text.contains(CHAT_ONLY_MODEL)),
            "{client:?}: {error:?}"
        );
    }
    assert!(fixture.upstream.requests().is_empty());
}

#[tokio::test]
async fn contract_39_a_json_schema_arrives_and_bare_json_comes_back() {
    let fixture = Fixture::start().await;
    let json_text = r#"{"answer":"forty two"}"#;
    fixture.upstream.on(system_tests::fixture::UPSTREAM_MODEL, Turn::says(json_text));
    let format = json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true,
        "schema": {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"], "additionalProperties": false}}});
    let body = chat_body(json!({ "response_format": format }));
    for job in [Job::chat(&fixture.gateway, body.clone()), Job::chat_stream(&fixture.gateway, body)] {
        for client in Client::ALL {
            let answer = fixture.clients.run(client, &job).await;
            assert_eq!(answer.ok().text, json_text, "{client:?}");
            assert_eq!(fixture.upstream.last_request().json()["response_format"], format, "{client:?}");
        }
    }
}
