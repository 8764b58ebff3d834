//! Lines 6 to 14: what is in requests. (12 concerns upstreams that insist on an order; it comes with
//! the translating adapters.)

use serde_json::{Value, json};
use system_tests::clients::{Client, Job};
use system_tests::dyad;
use system_tests::fixture::{Fixture, MODEL, UPSTREAM_MODEL, chat_body};
use system_tests::turn::Turn;
use system_tests::upstream::{Reply, Script};

/// What the upstream received last, without the members the gateway may add or change.
fn received(fixture: &Fixture) -> Value {
    let mut body = fixture.upstream.last_request().json();
    assert_eq!(body["model"], UPSTREAM_MODEL);
    body["model"] = MODEL.into();
    body.as_object_mut().expect("a request is an object").remove("stream_options");
    body
}

fn says(text: &str) -> Script {
    Reply::turn(Turn::says(text)).into()
}

#[tokio::test]
async fn contract_06_any_reasoning_effort_is_accepted() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(says("ok"));
    for effort in ["none", "minimal", "low", "medium", "high", "xhigh", "max", "banana"] {
        for (client, answer) in fixture.stream(json!({ "reasoning_effort": effort })).await {
            assert_eq!(answer.ok().text, "ok", "{client:?}: {effort}");
        }
    }
    // An upstream that refuses the field is asked again without it, and from then on without it.
    fixture.upstream_answers(says("ok").refusing("reasoning_effort"));
    for (client, answer) in fixture.stream(json!({"reasoning_effort": "medium"})).await {
        assert_eq!(answer.ok().text, "ok", "{client:?}");
    }
    for (client, answer) in fixture.complete(json!({"reasoning_effort": "medium"})).await {
        assert_eq!(answer.ok().text, "ok", "{client:?}");
    }
    fixture.upstream.forget();
    assert_eq!(fixture.raw_chat(json!({"reasoning_effort": "medium"})).await.status, 200);
    assert_eq!(fixture.upstream.requests().len(), 1, "the refusal is remembered");
    assert_eq!(fixture.upstream.last_request().json().get("reasoning_effort"), None);
}

#[tokio::test]
async fn contract_06_an_upstream_that_refuses_stream_options_is_asked_without() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(says("ok").refusing("stream_options"));
    for (client, answer) in fixture.stream(json!({})).await {
        assert_eq!(answer.ok().text, "ok", "{client:?}");
        assert!(answer.usage.is_some(), "{client:?}: usage is estimated then");
    }
    for (client, answer) in fixture.stream(json!({"stream_options": {"include_usage": true}})).await {
        assert!(answer.ok().usage.is_some(), "{client:?}");
    }
}

#[tokio::test]
async fn contract_07_max_tokens_becomes_max_completion_tokens() {
    token_limit_goes_as("max_completion_tokens", "max_tokens").await;
}

#[tokio::test]
async fn contract_07_max_completion_tokens_becomes_max_tokens() {
    token_limit_goes_as("max_tokens", "max_completion_tokens").await;
}

async fn token_limit_goes_as(accepted: &str, refused: &'static str) {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(says("ok").refusing(refused));
    for sent in [accepted, refused] {
        for (client, answer) in fixture.stream(json!({ sent: 123 })).await {
            assert_eq!(answer.ok().text, "ok", "{client:?}: {sent} to an upstream that wants {accepted}");
        }
        assert_eq!(received(&fixture)[accepted], 123, "{sent}");
        assert_eq!(fixture.upstream.last_request().json().get(refused), None, "{sent}");
    }
}

/// What was learned of an upstream may be outdated: another server can stand at its address by now.
#[tokio::test]
async fn contract_07_an_upstream_may_change_its_mind() {
    let fixture = Fixture::start().await;
    for (refused, accepted) in
        [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")]
    {
        fixture.upstream_answers(says("ok").refusing(refused));
        for _ in 0..2 {
            let response = fixture.raw_chat(json!({"max_tokens": 123})).await;
            assert_eq!(response.status, 200, "now it wants {accepted}: {}", response.text());
            assert_eq!(received(&fixture)[accepted], 123);
        }
    }
}

#[tokio::test]
async fn contract_08_all_keywords_of_tool_schemas_arrive() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(says("ok"));
    let body = dyad::agent_turn(MODEL, 200_000);
    let response = fixture.raw_chat(body.clone()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(received(&fixture), body, "the body arrives as it was sent");
    for client in Client::ALL {
        let answer = fixture.clients.run(client, &Job::chat_stream(&fixture.gateway, body.clone())).await;
        assert_eq!(answer.ok().text, "ok", "{client:?}");
        let tools = received(&fixture)["tools"].clone();
        assert_eq!(tools.as_array().unwrap().len(), dyad::TOOL_COUNT, "{client:?}");
        for (sent, arrived) in body["tools"].as_array().unwrap().iter().zip(tools.as_array().unwrap()) {
            assert_eq!(sent["function"]["parameters"], arrived["function"]["parameters"], "{client:?}");
        }
    }
}

#[tokio::test]
async fn contract_09_tool_choice_arrives() {
    let fixture = Fixture::start().await;
    let named = json!({"type": "function", "function": {"name": "tool_03"}});
    for choice in [json!("auto"), json!("none"), json!("required"), named] {
        let called = Turn::new().tool_call("call_1", "tool_03", "{\"path\":\"a\"}");
        let obliged = choice.is_object() || choice == "required";
        fixture.upstream_answers(if obliged { called } else { Turn::says("ok") });
        let body = json!({"tools": dyad::tools(), "tool_choice": choice});
        for client in Client::ALL {
            let job = Job::chat_stream(&fixture.gateway, chat_body(body.clone()));
            fixture.clients.run(client, &job).await.ok();
            assert_eq!(received(&fixture)["tool_choice"], choice, "{client:?}");
        }
    }
}

fn history(assistant: &Value) -> Value {
    json!({"messages": [
        {"role": "user", "content": "Look."},
        assistant,
        {"role": "tool", "tool_call_id": "call_1", "content": "seen"},
        {"role": "user", "content": "And now?"}
    ]})
}

#[tokio::test]
async fn contract_10_history_without_content_and_with_reasoning_is_accepted() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(says("ok"));
    let call = json!([{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}}]);
    for assistant in [
        json!({"role": "assistant", "content": "", "tool_calls": call}),
        json!({"role": "assistant", "content": null, "tool_calls": call}),
        json!({"role": "assistant", "tool_calls": call}),
        json!({"role": "assistant", "content": "", "reasoning_content": "Let me look.", "tool_calls": call}),
    ] {
        let body = history(&assistant);
        for (client, answer) in fixture.stream(body.clone()).await {
            assert_eq!(answer.ok().text, "ok", "{client:?}: {assistant}");
        }
        assert_eq!(fixture.raw_chat(body.clone()).await.status, 200);
        assert_eq!(received(&fixture)["messages"], body["messages"], "history arrives as it was sent");
    }
}

#[tokio::test]
async fn contract_11_doubly_encoded_arguments_are_decoded() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(says("ok"));
    let arguments = r#"{"path":"a \"b\"","text":"Grüße\n🦀"}"#;
    let doubly = Value::from(arguments).to_string();
    let assistant = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": doubly}}]});
    let job = Job::chat_stream(&fixture.gateway, chat_body(history(&assistant)));
    // The AI SDK parses arguments itself and sends objects.
    for client in Client::OPENAI {
        fixture.clients.run(client, &job).await.ok();
        let message = &received(&fixture)["messages"][1];
        assert_eq!(message["tool_calls"][0]["function"]["arguments"], arguments, "{client:?}");
    }
}

#[tokio::test]
async fn contract_13_images_and_files_arrive() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(says("ok"));
    let pdf = "data:application/pdf;base64,JVBERi0xLjQKJSVFT0YK";
    let content = json!([
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": dyad::PIXEL}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": pdf}}
    ]);
    for client in Client::ALL {
        let body = chat_body(json!({"messages": [{"role": "user", "content": content}]}));
        let answer = fixture.clients.run(client, &Job::chat_stream(&fixture.gateway, body)).await;
        assert_eq!(answer.ok().text, "ok", "{client:?}");
        let parts = received(&fixture)["messages"][0]["content"].clone();
        assert_eq!(parts[1]["image_url"]["url"], dyad::PIXEL, "{client:?}");
        assert_eq!(parts[2]["file"]["file_data"], pdf, "{client:?}");
    }
}

#[tokio::test]
async fn contract_14_nothing_is_injected() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(says("ok"));
    // With members the gateway has never heard of, numbers as they were written, and its own order.
    let body = format!(
        r#"{{"vendor_extension":{{"a":[1,2.50,-0.0,1e400]}},"messages":[{{"role":"user","content":"h\u00ef"}}],"seed":7,"model":"{MODEL}","stop":["x"]}}"#
    );
    let request = system_tests::raw::Request::new(&fixture.gateway, "POST", "/v1/chat/completions")
        .body("application/json", body.clone());
    let response = system_tests::raw::Connection::open(&fixture.gateway).await.request(&request).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let expected = body.replace(MODEL, UPSTREAM_MODEL);
    assert_eq!(
        fixture.upstream.last_request().body,
        expected,
        "but for the model's name it is the same text"
    );
    for client in Client::ALL {
        fixture.clients.run(client, &Job::chat_stream(&fixture.gateway, chat_body(json!({})))).await.ok();
        let received = received(&fixture);
        let members: Vec<_> = received.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["messages", "model", "stream"], "{client:?}");
    }
}
