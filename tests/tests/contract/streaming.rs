//! Lines 15 to 25: streams.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::{Value, json};
use system_tests::clients::{Client, Job};
use system_tests::config::KEEPALIVE_MS;
use system_tests::fixture::{Fixture, MODEL, chat_body};
use system_tests::sse::{EventStream, assert_conformant, assert_usage};
use system_tests::turn::{Turn, UsageAt};
use system_tests::upstream::{Gate, Reply, Step};

const TEXT: &str = "Grüße, 世界 🦀 and all!";

/// Every client streams, and each sees `text` in a conformant stream.
async fn assert_streams(fixture: &Fixture, text: &str, what: &str) {
    for (client, answer) in fixture.stream(json!({})).await {
        assert_eq!(answer.ok().text, text, "{what}: {client:?}");
        assert!(answer.finish_reason.is_some(), "{what}: {client:?}");
        assert_conformant(&answer.chunks, MODEL);
    }
    let stream = fixture.raw_stream(json!({})).await.ok(MODEL);
    assert_eq!(stream.text(), text, "{what}");
}

#[tokio::test]
async fn contract_15_the_answer_has_the_form_that_was_asked_for() {
    let fixture = Fixture::start().await;
    for (what, reply) in [
        ("as asked", Reply::turn(Turn::says(TEXT))),
        ("always SSE", Reply::always_sse(Turn::says(TEXT))),
        ("always JSON", Reply::always_json(Turn::says(TEXT))),
        ("SSE called text/plain", Reply::turn(Turn::says(TEXT)).content_type("text/plain")),
        ("SSE called JSON", Reply::always_sse(Turn::says(TEXT)).content_type("application/json")),
    ] {
        fixture.upstream_answers(reply);
        assert_streams(&fixture, TEXT, what).await;
        for (client, answer) in fixture.complete(json!({})).await {
            assert_eq!(answer.ok().text, TEXT, "{what}: {client:?}");
            assert_eq!(answer.finish_reason.as_deref(), Some("stop"), "{what}: {client:?}");
        }
        let response = fixture.raw_chat(json!({})).await;
        assert_eq!(response.headers.get("content-type"), Some("application/json"), "{what}");
        let body = response.json();
        assert_eq!(body["object"], "chat.completion", "{what}");
        assert_eq!(body["model"], MODEL, "{what}");
        assert!(body["id"].is_string() && body["created"].is_u64(), "{what}: {body}");
        assert_eq!(body["choices"][0]["message"]["role"], "assistant", "{what}");
        assert_usage(&body["usage"]);
    }
}

#[tokio::test]
async fn contract_16_every_chunk_is_whole_whatever_the_upstream_leaves_out() {
    let fixture = Fixture::start().await;
    for member in ["id", "object", "created", "model"] {
        fixture.upstream_answers(Turn::says(TEXT).without_member(member));
        assert_streams(&fixture, TEXT, &format!("without {member}")).await;
        fixture.upstream_answers(Turn::says(TEXT).distort_each(move |chunk| chunk[member] = Value::Null));
        assert_streams(&fixture, TEXT, &format!("{member} null")).await;
    }
    fixture.upstream_answers(Turn::says(TEXT).distort_each(|chunk| {
        chunk["created"] = json!("1760000000");
        chunk["id"] = json!(17);
        chunk["object"] = json!("chat.completion");
    }));
    assert_streams(&fixture, TEXT, "wrong types").await;
    fixture.upstream_answers(Turn::says(TEXT).distort_each(|chunk| {
        for choice in chunk["choices"].as_array_mut().unwrap() {
            choice.as_object_mut().unwrap().retain(|member, value| member == "delta" || value.is_string());
        }
    }));
    assert_streams(&fixture, TEXT, "choices without index and null finish_reason").await;
    fixture.upstream_answers(Turn::says(TEXT).distort_each(|chunk| {
        for choice in chunk["choices"].as_array_mut().unwrap() {
            choice
                .as_object_mut()
                .unwrap()
                .retain(|member, value| member != "finish_reason" || value.is_string());
        }
    }));
    assert_streams(&fixture, TEXT, "no null finish_reason").await;
    fixture.upstream_answers(Turn::says(TEXT).distort_each(|chunk| chunk["id"] = json!("")));
    assert_streams(&fixture, TEXT, "empty id").await;
}

#[tokio::test]
async fn contract_17_the_first_delta_has_the_role() {
    let fixture = Fixture::start().await;
    for role in [None, Some(Value::Null), Some(json!("")), Some(json!("model")), Some(json!("assistant"))] {
        for everywhere in [false, true] {
            let wanted = role.clone();
            fixture.upstream_answers(Turn::says(TEXT).distort(move |chunks| {
                let count = if everywhere { chunks.len() } else { 1 };
                for choice in chunks[..count].iter_mut().filter_map(|chunk| chunk["choices"].get_mut(0)) {
                    let delta = choice["delta"].as_object_mut().unwrap();
                    match &wanted {
                        Some(role) => delta.insert("role".into(), role.clone()),
                        None => delta.remove("role"),
                    };
                }
            }));
            assert_streams(&fixture, TEXT, &format!("role {role:?}, everywhere: {everywhere}")).await;
        }
    }
}

#[tokio::test]
async fn contract_18_usage_comes_asked_or_not() {
    let fixture = Fixture::start().await;
    for place in [UsageAt::OwnChunkIfAsked, UsageAt::FinishChunk, UsageAt::Nowhere] {
        fixture.upstream_answers(Turn::says(TEXT).usage_at(place));
        let unasked = fixture.raw_stream(json!({})).await.ok(MODEL);
        let last = unasked.chunks.last().unwrap();
        assert!(last["choices"][0]["finish_reason"].is_string(), "{place:?}: no further chunk: {last}");
        assert_usage(&last["usage"]);
        let asked = fixture.raw_stream(json!({"stream_options": {"include_usage": true}})).await.ok(MODEL);
        let last = asked.chunks.last().unwrap();
        assert_eq!(last["choices"], json!([]), "{place:?}");
        assert_usage(&last["usage"]);
        let told =
            asked.chunks.iter().filter(|chunk| chunk.get("usage").is_some_and(|usage| !usage.is_null()));
        assert_eq!(told.count(), 1, "{place:?}: usage is told once");
        for body in [
            json!({}),
            json!({"stream_options": {"include_usage": true}}),
            json!({"stream_options": {"include_usage": false}}),
        ] {
            for (client, answer) in fixture.stream(body).await {
                let usage = answer.ok().usage.unwrap_or_else(|| panic!("{place:?}: {client:?} has no usage"));
                if place != UsageAt::Nowhere {
                    assert_eq!(
                        (usage.prompt_tokens, usage.completion_tokens),
                        (12, Some(5)),
                        "{place:?}: {client:?}"
                    );
                }
                assert!(
                    usage.prompt_tokens > 0 && usage.completion_tokens > Some(0),
                    "{place:?}: {client:?}"
                );
            }
        }
    }
    fixture.upstream_answers(Turn::says(TEXT).usage_at(UsageAt::Nowhere));
    let response = fixture.raw_chat(json!({})).await;
    assert_eq!(response.headers.get("x-usage-estimated"), Some("true"));
    assert_usage(&response.json()["usage"]);
}

#[tokio::test]
async fn contract_18_choices_are_never_null_or_absent() {
    let fixture = Fixture::start().await;
    let empty = |choices: Option<Value>| {
        Turn::says(TEXT).distort(move |chunks| {
            let mut extra = chunks[0].clone();
            match &choices {
                Some(choices) => extra["choices"] = choices.clone(),
                None => drop(extra.as_object_mut().unwrap().remove("choices")),
            }
            chunks.insert(0, extra.clone());
            chunks.insert(3, extra);
        })
    };
    for choices in [Some(Value::Null), None, Some(json!([]))] {
        fixture.upstream_answers(empty(choices.clone()));
        assert_streams(&fixture, TEXT, &format!("choices {choices:?}")).await;
    }
}

#[tokio::test]
async fn contract_19_usage_fields_are_numbers() {
    let fixture = Fixture::start().await;
    for usage in [
        json!({"prompt_tokens": "12", "completion_tokens": "5", "total_tokens": "17"}),
        json!({"prompt_tokens": 12.0, "completion_tokens": 5.0, "total_tokens": 17.0}),
        json!({"prompt_tokens": 12, "completion_tokens": 5}),
        json!({"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": null}),
    ] {
        let told = usage.clone();
        fixture.upstream_answers(Turn::says(TEXT).usage_at(UsageAt::Nowhere).distort(move |chunks| {
            chunks.last_mut().unwrap()["usage"] = told.clone();
        }));
        for (client, answer) in fixture.stream(json!({})).await {
            let seen = answer.ok().usage.unwrap_or_else(|| panic!("{client:?}: {usage}"));
            assert_eq!(
                (seen.prompt_tokens, seen.completion_tokens, seen.total_tokens),
                (12, Some(5), 17),
                "{client:?}: {usage}"
            );
        }
        fixture.raw_stream(json!({})).await.ok(MODEL);
    }
}

#[tokio::test]
async fn contract_20_the_stream_ends_with_done_and_a_blank_line() {
    let fixture = Fixture::start().await;
    let whole: String = Turn::says(TEXT).frames("m", true).concat();
    for (what, reply) in [
        ("as OpenAI", Reply::turn(Turn::says(TEXT))),
        ("no [DONE]", Reply::turn(Turn::says(TEXT).without_done())),
        ("no last blank line", Reply::sse(whole.trim_end().to_owned())),
        ("CRLF", Reply::sse(whole.replace('\n', "\r\n"))),
        ("CR", Reply::sse(whole.replace('\n', "\r"))),
        ("no space", Reply::sse(whole.replace("data: ", "data:"))),
        (
            "BOM, event names and pings",
            Reply::sse(format!("\u{feff}event: message\n{}", whole.replace("\n\n", "\n\nevent: ping\n\n"))),
        ),
        ("after the end", Reply::sse(format!("{whole}data: {{\"late\":1}}\n\ndata: [DONE]\n\n"))),
        ("[DONE] twice", Reply::sse(format!("{whole}data: [DONE]\n\n"))),
    ] {
        fixture.upstream_answers(reply);
        // Reading it checks framing and end.
        let mut connection = fixture.open_stream(json!({})).await;
        let body = connection.rest().await;
        assert!(body.ends_with(b"}\n\ndata: [DONE]\n\n"), "{what}: {:?}", String::from_utf8_lossy(&body));
        assert_streams(&fixture, TEXT, what).await;
    }
}

#[tokio::test]
async fn contract_21_an_idle_upstream_is_bridged_by_comments_alone() {
    let fixture = Fixture::start().await;
    // Silence before the first content and within it.
    let silences = |silence: Step| {
        let turn = || Reply::turn(Turn::says(TEXT));
        [
            ("before the head", turn().before_head(silence.clone())),
            ("before the first frame", Reply::sse("").then(silence.clone()).then(whole())),
            ("within", turn().first_frames(2).then(silence).then(rest_after(2))),
        ]
    };
    for index in 0..3 {
        let gate = Gate::default();
        let (what, reply) = silences(Step::Hold(gate.clone()))[index].clone();
        fixture.upstream_answers(reply);
        let started = Instant::now();
        let mut connection = fixture.open_stream(json!({})).await;
        let mut body = BytesMut::new();
        while String::from_utf8_lossy(&body).lines().filter(|line| line.starts_with(':')).count() < 2 {
            body.extend_from_slice(&connection.piece().await.expect("the stream goes on"));
        }
        gate.open();
        body.extend_from_slice(&connection.rest().await);
        let stream = EventStream::parse(&body).ok(MODEL);
        assert_eq!(stream.text(), TEXT, "{what}");
        let (comments, elapsed) = (stream.comments, started.elapsed());
        let due = elapsed.as_millis() / u128::from(KEEPALIVE_MS);
        assert!(comments as u128 <= due + 1, "{what}: {comments} comments in {elapsed:?}");
    }
    // Of three keep-alive intervals.
    for (what, reply) in silences(Step::Pause(Duration::from_millis(3 * KEEPALIVE_MS + 50))) {
        fixture.upstream_answers(reply);
        for (client, answer) in fixture.stream(json!({})).await {
            assert_eq!(answer.ok().text, TEXT, "{what}: {client:?}");
            assert_conformant(&answer.chunks, MODEL);
        }
    }
}

fn whole() -> Step {
    Step::Send(Turn::says(TEXT).frames("m", true).concat().into())
}

fn rest_after(count: usize) -> Step {
    Step::Send(Turn::says(TEXT).frames("m", true)[count..].concat().into())
}

#[tokio::test]
async fn contract_21_content_is_not_held_back() {
    let fixture = Fixture::start().await;
    let gate = Gate::default();
    let turn = Reply::turn(Turn::says("one two three"));
    fixture.upstream_answers(
        turn.first_frames(2)
            .then(Step::Hold(gate.clone()))
            .then(Step::Send(Turn::says("one two three").frames("m", true)[2..].concat().into())),
    );
    // The first word comes while the upstream has said no more than that.
    let mut connection = fixture.open_stream(json!({})).await;
    connection.until("one").await;
    gate.open();
    connection.until("[DONE]").await;
}

#[tokio::test]
async fn contract_22_bytes_may_be_split_anywhere() {
    let fixture = Fixture::start().await;
    for bytes in [1, 2, 3, 5, 7, 64, 1_000] {
        fixture.upstream_answers(Reply::turn(Turn::says(TEXT)).in_pieces_of(bytes));
        let stream = fixture.raw_stream(json!({})).await.ok(MODEL);
        assert_eq!(stream.text(), TEXT, "pieces of {bytes}");
        let response = fixture.raw_chat(json!({})).await;
        assert_eq!(response.json()["choices"][0]["message"]["content"], TEXT, "pieces of {bytes}");
    }
    fixture.upstream_answers(Reply::turn(Turn::says(TEXT)).in_pieces_of(1));
    assert_streams(&fixture, TEXT, "byte by byte").await;
}

#[tokio::test]
async fn contract_23_reasoning_is_reasoning_content_first_and_once() {
    let fixture = Fixture::start().await;
    let both = |chunk: &mut Value| {
        let delta = chunk["choices"].get_mut(0).map(|choice| &mut choice["delta"]);
        if let Some(delta) = delta.filter(|delta| delta["reasoning_content"].is_string()) {
            delta["reasoning"] = delta["reasoning_content"].clone();
        }
    };
    for (what, turn) in [
        ("reasoning_content", Turn::new().reasoning("reasoning_content", "Let me think.")),
        ("reasoning", Turn::new().reasoning("reasoning", "Let me think.")),
        ("both", Turn::new().reasoning("reasoning_content", "Let me think.").distort_each(both)),
    ] {
        let turn = turn.text(TEXT);
        fixture.upstream_answers(turn.clone());
        for (client, answer) in fixture.stream(json!({})).await {
            assert_eq!(answer.ok().reasoning, "Let me think.", "{what}: {client:?}");
            assert_eq!(answer.text, TEXT, "{what}: {client:?}");
        }
        let stream = fixture.raw_stream(json!({})).await.ok(MODEL);
        assert_eq!(stream.reasoning(), "Let me think.", "{what}");
        let deltas: Vec<_> = stream.deltas().collect();
        assert!(deltas.iter().all(|delta| !delta["reasoning"].is_string()), "{what}: under one name");
        let carry = |member: &'static str| {
            let full = move |delta: &&Value| delta[member].as_str().is_some_and(|text| !text.is_empty());
            (deltas.iter().position(&full), deltas.iter().rposition(full))
        };
        let ((_, last_reasoning), (first_content, _)) = (carry("reasoning_content"), carry("content"));
        assert!(last_reasoning < first_content, "{what}: reasoning comes first");
        for (client, answer) in fixture.complete(json!({})).await {
            assert_eq!(answer.ok().reasoning, "Let me think.", "{what}: {client:?}");
            assert_eq!(answer.text, TEXT, "{what}: {client:?}");
        }
    }
}

#[tokio::test]
async fn contract_24_a_refusal_is_content_with_content_filter() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(Turn::new().refusal("I cannot help with that."));
    let answers =
        [("streamed", fixture.stream(json!({})).await), ("whole", fixture.complete(json!({})).await)];
    for (what, answers) in answers {
        for (client, answer) in answers {
            assert_eq!(answer.ok().text, "I cannot help with that.", "{what}: {client:?}");
            assert_eq!(answer.finish_reason.as_deref(), Some("content_filter"), "{what}: {client:?}");
        }
    }
}

#[tokio::test]
async fn contract_25_no_further_choice_unless_asked_for() {
    let fixture = Fixture::start().await;
    let second = |chunks: &mut Vec<Value>| {
        let others: Vec<Value> = chunks
            .iter()
            .filter(|chunk| chunk["choices"].get(0).is_some())
            .map(|chunk| {
                let mut chunk = chunk.clone();
                chunk["choices"][0]["index"] = json!(1);
                chunk
            })
            .collect();
        let at = chunks.iter().position(|chunk| chunk["choices"][0]["finish_reason"].is_string()).unwrap();
        chunks.splice(at..at, others);
    };
    fixture.upstream_answers(Turn::says(TEXT).distort(second));
    for (client, answer) in fixture.stream(json!({})).await {
        assert_eq!(answer.ok().text, TEXT, "{client:?}");
        assert_conformant(&answer.chunks, MODEL);
        for chunk in &answer.chunks {
            for choice in chunk["choices"].as_array().unwrap() {
                assert_eq!(choice["index"], 0, "{client:?}");
            }
        }
    }
    let stream = fixture.raw_stream(json!({"n": 2})).await.ok(MODEL);
    let indexes: Vec<_> =
        stream.chunks.iter().filter_map(|chunk| chunk["choices"][0]["index"].as_u64()).collect();
    assert!(indexes.contains(&0) && indexes.contains(&1), "both were asked for: {indexes:?}");
    let job = Job::chat_stream(&fixture.gateway, chat_body(json!({"n": 2})));
    for (client, answer) in fixture.clients.each(&Client::OPENAI, &job).await {
        answer.ok();
        assert!(answer.chunks.iter().any(|chunk| chunk["choices"][0]["index"] == 1), "{client:?}");
    }
}
