//! The control experiment: the client libraries and the fake upstream understand each other with
//! no gateway between them. What fails here is not the gateway's fault.

use serde_json::{Value, json};
use system_tests::ABORT_BOUND;
use system_tests::clients::{Client, Clients, Job, ToolCall};
use system_tests::fixture::chat_body;
use system_tests::gateway::Gateway;
use system_tests::turn::Turn;
use system_tests::upstream::{FakeUpstream, Reply, Script, Step, embedding};

async fn direct() -> (FakeUpstream, Gateway, Clients) {
    let upstream = FakeUpstream::start().await;
    let server = Gateway::at(upstream.base_url(), "sk-harness-0001".into());
    (upstream, server, Clients::default())
}

#[tokio::test]
async fn every_client_reads_a_turn() {
    let (upstream, server, clients) = direct().await;
    let turn = Turn::new().reasoning("reasoning_content", "First I think.").text("Grüße, 世界 🦀!");
    upstream.on("test-model", turn.tool_call("call_1", "look", r#"{"path":"a b"}"#));
    let tools = json!([{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]);
    for job in [
        Job::chat(&server, chat_body(json!({ "tools": tools }))),
        Job::chat_stream(&server, chat_body(json!({ "tools": tools }))),
    ] {
        for (client, answer) in clients.all(&job).await {
            let answer = answer.ok();
            assert_eq!(answer.text, "Grüße, 世界 🦀!", "{client:?}");
            assert_eq!(answer.reasoning, "First I think.", "{client:?}");
            let call = ToolCall {
                id: Some("call_1".into()),
                name: "look".into(),
                arguments: r#"{"path":"a b"}"#.into(),
            };
            assert_eq!(answer.tool_calls, [call], "{client:?}");
            assert_eq!(answer.finish_reason.as_deref(), Some("tool_calls"), "{client:?}");
            assert_eq!(answer.chunks.is_empty(), job.op == "chat", "{client:?}");
        }
    }
    for request in upstream.requests() {
        assert_eq!(request.json()["model"], "test-model");
        assert_eq!(request.json()["tools"][0]["function"]["name"], "look");
    }
}

#[tokio::test]
async fn every_client_tells_errors() {
    let (upstream, server, clients) = direct().await;
    upstream.on("test-model", Reply::error(429, "slow down", "requests", Some("rate_limit_exceeded"), None));
    for (client, answer) in clients.all(&Job::chat_stream(&server, chat_body(json!({})))).await {
        let error = answer.error();
        assert_eq!(error.status, Some(429), "{client:?}");
        assert_eq!(error.code, "rate_limit_exceeded", "{client:?}");
        assert!(error.message.as_deref().is_some_and(|message| message.contains("slow down")), "{client:?}");
    }
    let event = "data: {\"error\":{\"message\":\"it broke\",\"type\":\"server_error\",\"code\":null,\"param\":null}}\n\n";
    upstream.on("test-model", Reply::sse(event));
    for (client, answer) in clients.all(&Job::chat_stream(&server, chat_body(json!({})))).await {
        let message = answer.error().message.as_deref().unwrap_or_default().to_owned();
        assert!(message.contains("it broke"), "{client:?}: {message}");
    }
}

#[tokio::test]
async fn every_client_aborts() {
    let (upstream, server, clients) = direct().await;
    upstream.on("test-model", Reply::turn(Turn::says("one two three")).first_frames(3).then(Step::Stall));
    for client in Client::ALL {
        upstream.forget();
        let mut job = Job::chat_stream(&server, chat_body(json!({})));
        job.abort_after_chunks = Some(2);
        assert!(clients.run(client, &job).await.aborted, "{client:?}");
        upstream.request(1).await.peer_left(ABORT_BOUND).await;
    }
}

#[tokio::test]
async fn every_client_embeds_and_openais_list_models() {
    let (upstream, server, clients) = direct().await;
    upstream.on("listed", Script::from(Turn::new()));
    let job = Job::embeddings(&server, json!({"model": "m", "input": ["a", "b"]}));
    for (client, answer) in clients.all(&job).await {
        assert_eq!(answer.vectors(), [embedding(0), embedding(1)], "{client:?}");
    }
    for (client, answer) in clients.each(&Client::OPENAI, &Job::models(&server)).await {
        assert_eq!(answer.ok().data[0]["id"], Value::from("listed"), "{client:?}");
    }
    for (client, answer) in clients.each(&Client::OPENAI, &Job::model(&server, "listed")).await {
        assert_eq!(answer.ok().data["id"], Value::from("listed"), "{client:?}");
    }
}

#[tokio::test]
async fn the_upstream_misbehaves_as_told() {
    let (upstream, server, clients) = direct().await;
    let turn = Turn::says("one two three");
    for (name, reply, fails) in [
        ("pieces", Reply::turn(turn.clone()).in_pieces_of(1), false),
        ("reset", Reply::turn(turn.clone()).first_frames(2).then(Step::Reset), true),
        ("close", Reply::turn(turn.clone()).first_frames(2).then(Step::Close), true),
    ] {
        upstream.on("test-model", reply);
        let answer = clients.run(Client::Python3, &Job::chat_stream(&server, chat_body(json!({})))).await;
        assert_eq!(answer.error.is_some(), fails, "{name}: {answer:?}");
    }
    upstream.on("test-model", Script::from(turn).refusing("reasoning_effort"));
    let job = Job::chat(&server, chat_body(json!({"reasoning_effort": "medium"})));
    assert_eq!(clients.run(Client::Python3, &job).await.error().param, "reasoning_effort");
}
