//! Chat requests as CLIs are asked them, and those that no CLI can be asked.

use runner_api::{FinishReason, Refusal, RefusalCode, RunEvent};
use serde_json::{Value, json};

use crate::support::{Reply, TestGateway, completion, node, setup};

const PNG: &str = "data:image/png;base64,iVBORw0KGgo=";

fn one() -> TestGateway {
    let test = setup().cli("alpha", &json!({})).build();
    test.announce(&node("n1", |node| node.clis[0].images = true));
    let text = RunEvent::Text { text: "a".into() };
    test.host.reply("n1", Reply::run(&[text, RunEvent::Finished { reason: FinishReason::Stop }]));
    test
}

/// `system` and `messages` of the run request for these members of a chat request.
fn asked(changes: &Value) -> (Value, Value) {
    let test = one();
    let answer = test.chat(changes);
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut sent = test.host.last_call().json();
    (sent["system"].take(), sent["messages"].take())
}

fn messages(messages: &Value) -> (Value, Value) {
    asked(&json!({"messages": messages}))
}

fn user(parts: &Value) -> Value {
    json!([{"role": "user", "content": parts}])
}

/// The `error.code` and `error.param` of the refusal; the message names the parameter.
fn refused(changes: &Value) -> (String, String) {
    let test = one();
    let answer = test.chat(changes);
    assert_eq!(answer.status, 400, "{answer:?}");
    let error = answer.json()["error"].clone();
    assert!(test.host.calls().is_empty(), "it was sent all the same");
    let [code, param, message] =
        ["code", "param", "message"].map(|name| error[name].as_str().unwrap().to_owned());
    assert!(message.contains(&param), "{message}");
    (code, param)
}

#[test]
fn a_conversation_is_taken_over_whole() {
    let (system, sent) = messages(&json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "name": "Ann", "content": "What is the weather?"},
        {"role": "assistant", "content": "Let me look.", "reasoning_content": "hm", "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Ulm\"}"}},
            {"id": "call_2", "type": "function", "function": {"name": "clock", "arguments": {"zone": 1}}},
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Sun \u{2600}"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "12"}, {"type": "text", "text": "30"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Sun."}, {"type": "refusal", "refusal": "No time."}]},
        {"role": "developer", "content": [{"type": "text", "text": "In Latin."}]},
        {"role": "user", "content": [
            {"type": "text", "text": "And this?"}, {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        ]},
    ]));
    assert_eq!(system, "Be brief.\n\nIn Latin.");
    let expected = json!([
        {"role": "user", "parts": [{"type": "text", "text": "What is the weather?"}]},
        {"role": "assistant", "parts": [
            {"type": "text", "text": "Let me look."},
            {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": "{\"city\":\"Ulm\"}"},
            {"type": "tool_call", "id": "call_2", "name": "clock", "arguments": "{\"zone\":1}"},
        ]},
        {"role": "tool", "parts": [{"type": "tool_result", "id": "call_1", "text": "Sun \u{2600}"}]},
        {"role": "tool", "parts": [{"type": "tool_result", "id": "call_2", "text": "12\n30"}]},
        {"role": "assistant", "parts": [{"type": "text", "text": "Sun."}, {"type": "text", "text": "No time."}]},
        {"role": "user", "parts": [
            {"type": "text", "text": "And this?"},
            {"type": "image", "media_type": "image/png", "data": "iVBORw0KGgo="},
        ]},
    ]);
    assert_eq!(sent, expected);
}

#[test]
fn what_clients_of_all_ages_send_is_understood() {
    let (system, sent) = messages(&json!([
        {"role": "system", "content": ""},
        {"role": "user", "content": null},
        {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "done"},
        {"role": "assistant", "content": "", "tool_calls": null},
        {"role": "assistant", "content": null, "refusal": "I will not."},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": PNG}]},
        {"role": "user", "content": []},
    ]));
    assert_eq!(system, Value::Null);
    let expected = json!([
        {"role": "user", "parts": [{"type": "text", "text": ""}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "f", "name": "f", "arguments": "{}"}]},
        {"role": "tool", "parts": [{"type": "tool_result", "id": "f", "text": "done"}]},
        {"role": "assistant", "parts": [{"type": "text", "text": "I will not."}]},
        {"role": "user", "parts": [
            {"type": "text", "text": "a"}, {"type": "image", "media_type": "image/png", "data": "iVBORw0KGgo="},
        ]},
        {"role": "user", "parts": [{"type": "text", "text": ""}]},
    ]);
    assert_eq!(sent, expected);
    // A turn of the assistant with nothing in it is no turn to go on with.
    let (_, sent) =
        messages(&json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]));
    assert_eq!(sent, json!([{"role": "user", "parts": [{"type": "text", "text": "a"}]}]));
}

#[test]
fn images_are_data_uris_of_four_types() {
    for (url, media_type) in [
        (PNG, "image/png"),
        ("data:image/jpeg;base64,AAAA", "image/jpeg"),
        ("DATA:IMAGE/JPG;charset=x;BASE64,AAA=", "image/jpeg"),
        ("data:image/gif;base64,AA==", "image/gif"),
        ("data:image/webp; base64,+/+/", "image/webp"),
    ] {
        let (_, sent) = messages(&user(&json!([{"type": "image_url", "image_url": {"url": url}}])));
        assert_eq!(sent[0]["parts"][0]["media_type"], media_type, "{url}");
    }
    for url in [
        "https://example.com/a.png",
        "",
        "data:image/png;base64",
        "data:image/png,AAAA",
        "data:image/png;base64,",
        "data:image/png;base64,====",
        "data:image/png;base64,A===",
        "data:image/png;base64,AAAAA",
        "data:image/png;base64,AA-_",
        "data:image/png;base64,AA\nA",
        "data:image/svg+xml;base64,AAAA",
        "data:text/plain;base64,AAAA",
        "data:;base64,AAAA",
        "ünterm",
    ] {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": url}}]);
        let (code, param) = refused(&json!({"messages": user(&parts)}));
        assert_eq!(
            (code.as_str(), param.as_str()),
            ("unsupported_content", "messages[0].content[1]"),
            "{url}"
        );
    }
}

#[test]
fn a_cli_without_images_is_shown_none() {
    let test = setup().cli("alpha", &json!({})).build();
    test.announce(&node("n1", |_| ()));
    let parts = json!([{"type": "image_url", "image_url": {"url": PNG}}]);
    let answer = test.chat(&json!({"messages": user(&parts)}));
    assert_eq!(answer.status, 400);
    let error = answer.json()["error"].clone();
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("unsupported_content"), &json!("messages[0].content[0]"))
    );
    assert!(test.host.calls().is_empty());
}

#[test]
fn what_no_cli_can_do_is_refused_by_name() {
    let function = json!({"type": "function", "function": {"name": "f"}});
    for (changes, param) in [
        (json!({"n": 2}), "n"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"response_format": {"type": "json_schema", "json_schema": {}}}), "response_format"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"tools": [function], "tool_choice": "required"}), "tool_choice"),
        (json!({"tools": [function], "tool_choice": function}), "tool_choice"),
        (json!({"functions": [{"name": "f"}], "function_call": {"name": "f"}}), "function_call"),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
    ] {
        assert_eq!(refused(&changes), ("unsupported_parameter".to_owned(), param.to_owned()));
    }
    for (part, path) in [
        (json!({"type": "file", "file": {"file_id": "f"}}), "messages[0].content[0]"),
        (json!({"type": "input_audio", "input_audio": {}}), "messages[0].content[0]"),
        (json!({"type": "image"}), "messages[0].content[0]"),
        (json!({"type": "hologram"}), "messages[0].content[0]"),
    ] {
        let refusal = refused(&json!({"messages": user(&json!([part]))}));
        assert_eq!(refusal, ("unsupported_content".to_owned(), path.to_owned()));
    }
    for role in ["system", "assistant", "tool"] {
        let image = json!([{"type": "image_url", "image_url": {"url": PNG}}]);
        let messages = json!([{"role": role, "content": image}, {"role": "user", "content": "a"}]);
        assert_eq!(refused(&json!({"messages": messages})).1, "messages[0].content[0]", "{role}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let call =
        |call: Value| json!([{"role": "assistant", "tool_calls": [call]}, {"role": "user", "content": "a"}]);
    let older_call =
        |call: Value| json!([{"role": "assistant", "function_call": call}, {"role": "user", "content": "a"}]);
    for (messages, code, param) in [
        (user(&json!([{"type": "text"}])), "invalid_type", "messages[0].content[0].text"),
        (user(&json!([{"type": "text", "text": 5}])), "invalid_type", "messages[0].content[0].text"),
        (json!([{"role": "wizard", "content": "a"}]), "invalid_value", "messages[0].role"),
        (json!([{"role": "system", "content": "a"}]), "invalid_value", "messages"),
        (
            json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
            "invalid_value",
            "messages[1]",
        ),
        // What came last may have been left out, being empty.
        (
            json!([
                {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                {"role": "system", "content": "c"}, {"role": "assistant", "content": ""},
            ]),
            "invalid_value",
            "messages[1]",
        ),
        (call(json!({"id": "1", "function": "boo"})), "invalid_type", "messages[0].tool_calls[0].function"),
        (call(json!({"id": "1", "function": [1]})), "invalid_type", "messages[0].tool_calls[0].function"),
        (older_call(json!("boo")), "invalid_type", "messages[0].function_call"),
        (older_call(json!(5)), "invalid_type", "messages[0].function_call"),
        (older_call(json!({})), "missing_required_parameter", "messages[0].function_call.name"),
        (call(json!({"id": "1"})), "missing_required_parameter", "messages[0].tool_calls[0].function.name"),
        (
            call(json!({"id": "1", "function": {"arguments": "{}"}})),
            "missing_required_parameter",
            "messages[0].tool_calls[0].function.name",
        ),
    ] {
        assert_eq!(
            refused(&json!({"messages": messages})),
            (code.to_owned(), param.to_owned()),
            "{messages}"
        );
    }
}

#[test]
fn what_has_no_effect_on_a_cli_is_accepted_and_stays_here() {
    let test = one();
    let answer = test.chat(&json!({
        "tools": [{"type": "function", "function": {"name": "launch"}}], "tool_choice": "auto",
        "functions": [{"name": "launch"}], "function_call": "none", "parallel_tool_calls": false,
        "temperature": 0.5, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "seed": 1, "stop": ["x"],
        "max_tokens": 5, "max_completion_tokens": 5, "logit_bias": {}, "user": "u", "metadata": {}, "store": false,
        "response_format": {"type": "text"}, "logprobs": false, "top_logprobs": 0, "n": 1, "modalities": ["text"],
        "unheard_of": {"deep": [1]},
    }));
    assert_eq!(answer.status, 200, "{answer:?}");
    let sent = test.host.last_call().json();
    let names: Vec<_> = sent.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["caller", "cli", "id", "messages", "parameters", "timeout_ms"]);
    assert_eq!(sent["parameters"], json!({"model": "opus"}));
}

/// A request that a CLI cannot take is for the model's other providers.
#[test]
fn another_target_does_what_a_cli_cannot() {
    for cli_rank in [1, 3] {
        let test =
            setup().cli("alpha", &json!({"rank": cli_rank})).provider("beta", &json!({"rank": 2})).build();
        test.announce(&node("n1", |_| ()));
        test.host.reply("beta", Reply::json(200, &completion("from beta")));
        let body = test.chat(&json!({"response_format": {"type": "json_object"}})).text();
        assert!(body.contains("from beta"), "{body}");
        // If that fails, the CLI is no way out.
        test.host.reply("beta", Reply::json(503, &json!({"error": {"message": "m"}})));
        assert_eq!(test.chat(&json!({"n": 2})).error_line(), "503 server_error upstream_overloaded");
    }
}

/// What only this CLI or its node cannot do: the proxy behind it is asked, and the refusal is told where nobody can.
#[test]
fn another_target_does_what_one_cli_or_node_cannot() {
    let image = user(&json!([{"type": "image_url", "image_url": {"url": PNG}}]));
    let too_large = Refusal::new(RefusalCode::TooLarge, "no");
    let at_part = Refusal::new(RefusalCode::InvalidRequest, "no").at("messages[0].parts[0]");
    for (refusal, messages, code) in [
        (None, image, "unsupported_content"),
        (Some(too_large), user(&json!("a")), "request_too_large"),
        (Some(at_part), user(&json!("a")), "invalid_value"),
    ] {
        let setup = |cli_rank: u32, other: &str| {
            let setup = setup().cli("alpha", &json!({"rank": cli_rank}));
            let beta = json!({"rank": 2});
            let test =
                if other == "cli" { setup.cli("beta", &beta) } else { setup.provider("beta", &beta) }.build();
            test.announce(&node("n1", |_| ()));
            for refusal in refusal.iter().cycle().take(2) {
                test.host.reply("n1", Reply::refusal(refusal));
            }
            test
        };
        let chat = |test: &TestGateway| test.chat(&json!({"messages": messages}));

        let test = setup(1, "proxy");
        test.host.reply("beta", Reply::json(200, &completion("from beta")));
        let body = chat(&test).text();
        assert!(body.contains("from beta"), "{code}: {body}");
        for cli_rank in [1, 3] {
            let test = setup(cli_rank, "proxy");
            test.host.reply("beta", Reply::json(503, &json!({"error": {"message": "m"}})));
            // Who could have done it says more than who could not.
            assert_eq!(chat(&test).error_line(), "503 server_error upstream_overloaded", "{code}");
        }
        assert_eq!(chat(&setup(1, "cli")).error_line(), format!("400 invalid_request_error {code}"));
    }
}

/// What a CLI is asked is read without a tree, so that it may be as deep as what goes to others.
#[test]
fn bodies_may_be_as_deep_as_for_other_upstreams() {
    for (depth, status) in [(126, 200), (127, 400)] {
        let test = one();
        let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"a"}}],"metadata":{{"a":{deep}}}}}"#
        );
        let answer = test.send(test.request(http::Method::POST, "/v1/chat/completions", body));
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

/// Half a surrogate pair is no character, but no reason to refuse the rest of a long chat.
#[test]
fn half_a_surrogate_pair_is_replaced() {
    let test = one();
    let body = r#"{"model":"m","messages":[{"role":"user","content":"a\ud83db"}]}"#.to_owned();
    assert_eq!(test.send(test.request(http::Method::POST, "/v1/chat/completions", body)).status, 200);
    assert_eq!(test.host.last_call().json()["messages"][0]["parts"][0]["text"], "a\u{fffd}b");
}
