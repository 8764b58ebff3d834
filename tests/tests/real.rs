//! Servers that nobody here wrote, through the gateway: llama.cpp's with a random model, and
//! LiteLLM's proxy in front of the fake upstream.

use serde_json::{Value, json};
use system_tests::ABORT_BOUND;
use system_tests::clients::{Client, Clients, Job};
use system_tests::config::{Config, Provider, Timeouts};
use system_tests::dyad;
use system_tests::gateway::Gateway;
use system_tests::real::RealServer;
use system_tests::sse::assert_conformant;
use system_tests::turn::Turn;
use system_tests::upstream::{EMBEDDING_DIMENSIONS, FakeUpstream, Reply, Step, embedding};

/// Real servers load their models at the first request.
const PATIENT: Timeouts =
    Timeouts { connect_ms: 5_000, first_byte_ms: 60_000, idle_ms: 60_000, total_ms: 120_000 };

fn chat(model: &str, members: Value) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "Tell me a story."}]});
    let Value::Object(members) = members else { panic!("members of a request are an object") };
    body.as_object_mut().expect("it was just made").extend(members);
    body
}

#[tokio::test]
async fn llama_cpp_serves_through_the_gateway() {
    let server = RealServer::llama_cpp().await;
    let provider = Provider::local("llama", &server.base_url()).timeouts(PATIENT);
    let config = Config::new([provider.model("story", "tiny-chat").model("vectors", "tiny-embed")]);
    let gateway = Gateway::start(&config).await;
    let clients = Clients::default();
    // Without chance, so that all are told the same story.
    let story = || chat("story", json!({"max_tokens": 24, "temperature": 0, "reasoning_effort": "medium"}));
    let vectors = Job::embeddings(&gateway, json!({"model": "vectors", "input": ["sun", "sea and sand"]}));
    let mut told: Option<String> = None;
    // One after the other: the server has one context.
    for client in Client::ALL {
        let streamed = clients.run(client, &Job::chat_stream(&gateway, story())).await;
        assert!(streamed.ok().text.split_whitespace().count() > 3, "{client:?}: {:?}", streamed.text);
        assert_conformant(&streamed.chunks, "story");
        assert!(streamed.chunks.len() > 10, "{client:?}: it is streamed word by word");
        assert_eq!(streamed.finish_reason.as_deref(), Some("length"), "{client:?}");
        // This server reports no usage in streams; it is estimated.
        let usage = streamed.usage.expect("usage always comes");
        assert!(usage.prompt_tokens > 3 && usage.completion_tokens > Some(5), "{client:?}: {usage:?}");

        let whole = clients.run(client, &Job::chat(&gateway, story())).await;
        assert_eq!(whole.ok().text, streamed.text, "{client:?}");
        assert_eq!(told.get_or_insert(whole.text), &streamed.text, "{client:?}");
        assert_eq!(whole.usage.and_then(|usage| usage.completion_tokens), Some(24), "{client:?}");

        let vectors = clients.run(client, &vectors).await.vectors();
        assert_eq!(vectors.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64], "{client:?}");
        assert_ne!(vectors[0], vectors[1], "{client:?}");
        assert!(vectors.concat().iter().all(|number| number.is_finite()), "{client:?}");
    }
    assert_eq!(listed(&clients, &gateway).await, ["story", "vectors"]);
    gateway.stop().await;

    // Without a list of models the server is asked for its own.
    let config = Config::new([Provider::local("llama", &server.base_url()).timeouts(PATIENT)]);
    let gateway = Gateway::start(&config).await;
    assert_eq!(listed(&clients, &gateway).await, ["tiny-chat", "tiny-embed"]);
    let job = Job::chat(&gateway, chat("tiny-chat", json!({"max_tokens": 3})));
    assert!(!clients.run(Client::Python3, &job).await.ok().text.is_empty());
    gateway.stop().await;
}

/// The ids of the models that the gateway lists, in order.
async fn listed(clients: &Clients, gateway: &Gateway) -> Vec<String> {
    let answer = clients.run(Client::Python3, &Job::models(gateway)).await;
    let models = answer.ok().data.as_array().cloned().unwrap_or_default();
    let mut ids: Vec<String> =
        models.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn litellm_is_an_upstream_like_others() {
    let upstream = FakeUpstream::start().await;
    let server = RealServer::litellm(&upstream.base_url()).await;
    let provider = Provider::proxy("litellm", &server.base_url()).timeouts(PATIENT);
    let mut config = Config::new([provider.model("chat", "litellm-chat").model("embed", "litellm-embed")]);
    config.keepalive_ms = 15_000; // until then an error has its status; LiteLLM takes its time
    let gateway = Gateway::start(&config).await;
    let clients = Clients::default();
    let turn = Turn::new().reasoning("reasoning_content", "Let me see.").text("Grüße 🦀 ");
    upstream.on("upstream-model", turn.tool_call("call_1", "tool_00", r#"{"path":"a"}"#));
    let tools = dyad::tools();
    for job in [
        Job::chat_stream(&gateway, chat("chat", json!({ "tools": tools }))),
        Job::chat(&gateway, chat("chat", json!({ "tools": tools }))),
    ] {
        for (client, answer) in clients.all(&job).await {
            assert_eq!(answer.ok().text, "Grüße 🦀 ", "{client:?}");
            assert_eq!(answer.reasoning, "Let me see.", "{client:?}");
            let [call] = &answer.tool_calls[..] else { panic!("{client:?}: {:?}", answer.tool_calls) };
            assert_eq!(
                (call.name.as_str(), call.arguments.as_str()),
                ("tool_00", r#"{"path":"a"}"#),
                "{client:?}"
            );
            assert_eq!(answer.finish_reason.as_deref(), Some("tool_calls"), "{client:?}");
            assert!(answer.usage.is_some(), "{client:?}");
            if job.op == "chat_stream" {
                assert_conformant(&answer.chunks, "chat");
            }
        }
    }
    let vectors = Job::embeddings(&gateway, json!({"model": "embed", "input": ["a", "b"]}));
    for (client, answer) in clients.all(&vectors).await {
        assert_eq!(
            answer.vectors(),
            [embedding(0), embedding(1)],
            "{client:?}: {EMBEDDING_DIMENSIONS} numbers each"
        );
    }
    for (status, seen) in [(400, 400), (429, 429), (500, 502)] {
        upstream.on(
            "upstream-model",
            Reply::error(status, "said the server behind", "some_error", Some("some_code"), None),
        );
        for (client, answer) in clients.all(&Job::chat_stream(&gateway, chat("chat", json!({})))).await {
            assert_eq!(answer.error().status, Some(seen), "{client:?}: {status}: {:?}", answer.error);
        }
    }
    upstream.on("upstream-model", Reply::turn(Turn::says("one two three")).first_frames(3).then(Step::Stall));
    upstream.forget();
    let job = Job { abort_after_chunks: Some(2), ..Job::chat_stream(&gateway, chat("chat", json!({}))) };
    assert!(clients.run(Client::AiSdk2, &job).await.aborted);
    // Through two hops, of which one is not ours.
    upstream.request(1).await.peer_left(ABORT_BOUND * 5).await;
    gateway.stop().await;
}
