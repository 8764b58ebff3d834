//! What a scrape tells of traffic that is known.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};
use system_tests::fixture::{EMBEDDER, Fixture, MODEL, chat_body, standard_config};
use system_tests::gateway::{Gateway, gateway_binary};
use system_tests::raw::{Connection, Request};
use system_tests::turn::Turn;
use system_tests::upstream::{FakeUpstream, Reply, Step};
use system_tests::{SOON, within};
use tokio::net::TcpStream;
use tokio::process::Command;

async fn start() -> Fixture {
    let upstream = FakeUpstream::start().await;
    let config = standard_config(&upstream.base_url());
    let gateway = Gateway::start_with_arguments(&config, &["--metrics", "127.0.0.1:0"]).await;
    Fixture { gateway, upstream, clients: system_tests::clients::Clients::default() }
}

/// The samples that are whole numbers, by `name{label="value",…}`.
async fn scrape(gateway: &Gateway) -> BTreeMap<String, u64> {
    let url = gateway.metrics_url.as_ref().expect("there is a listener for metrics");
    let address = url.strip_prefix("http://").and_then(|url| url.strip_suffix("/metrics"));
    let address = address.expect("the ready event has a URL");
    let stream = TcpStream::connect(address).await.expect("the listener takes connections");
    let request = Request::bare("GET", "/metrics").header("host", address);
    let answer = Connection::over(stream).request(&request).await;
    assert_eq!(answer.status, 200);
    let samples = answer.text().lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a sample is a name and a value");
        Some((name.to_owned(), value.parse().ok()?))
    });
    samples.collect()
}

/// A key that may make one request a minute, made by the product's own command.
async fn limited_key(gateway: &Gateway) -> String {
    let arguments = ["keys", "create", "--label", "limited", "--requests-per-minute", "1"];
    let created = if let Some(table) = &gateway.table {
        table.run(&arguments).await
    } else {
        let mut command = Command::new(gateway_binary());
        command.args(arguments).args(["--json", "--data-dir"]).arg(gateway.data_dir());
        let output = within(SOON, "a key is made", command.output()).await.expect("the command runs");
        serde_json::from_slice(&output.stdout).expect("the command prints JSON")
    };
    created["api_key"].as_str().expect("the key is shown once").to_owned()
}

#[tokio::test]
async fn the_numbers_are_those_of_the_traffic() {
    let fixture = start().await;
    let gateway = &fixture.gateway;
    let limited = limited_key(gateway).await;
    let ask = async |body: Value| fixture.raw_chat(body).await.status;

    fixture.upstream_answers(Turn::says("hello"));
    assert_eq!(ask(json!({})).await, 200);
    assert_eq!(ask(json!({})).await, 200);
    fixture.raw_stream(json!({"stream": true})).await;
    let embed =
        Request::new(gateway, "POST", "/v1/embeddings").json(&json!({"model": EMBEDDER, "input": "x"}));
    assert_eq!(Connection::open(gateway).await.request(&embed).await.status, 200);
    assert_eq!(ask(json!({"model": "nope"})).await, 404);
    // A key is limited to one request, and makes two.
    for status in [200, 429] {
        let request = Request::bare("POST", "/v1/chat/completions")
            .header("host", gateway.address())
            .header("authorization", format!("Bearer {limited}"))
            .json(&chat_body(json!({})));
        assert_eq!(Connection::open(gateway).await.request(&request).await.status, status);
    }
    fixture.upstream_answers(Reply::error(401, "no", "invalid_request_error", None, None));
    assert_eq!(ask(json!({})).await, 403);
    let labels = format!("provider=\"fake\",model=\"{MODEL}\"");
    let usage = &Turn::says("hello").completion("m")["usage"];
    let tokens =
        scrape(gateway).await[&format!("dyad_gateway_tokens_total{{{labels},direction=\"completion\"}}")];
    assert_eq!(tokens, 4 * usage["completion_tokens"].as_u64().unwrap());
    // A client leaves in the middle of its stream.
    fixture.upstream.forget();
    fixture.upstream_answers(Reply::turn(Turn::says("one two three")).first_frames(3).then(Step::Stall));
    let mut connection = fixture.open_stream(json!({})).await;
    connection.until("one").await;
    assert_eq!(scrape(gateway).await["dyad_gateway_requests_in_flight"], 1);
    drop(connection);
    fixture.upstream.request(1).await.peer_left(SOON).await;
    // An upstream breaks off in the middle of one.
    fixture.upstream_answers(Reply::turn(Turn::says("one two three")).first_frames(3).then(Step::Close));
    fixture.raw_stream(json!({})).await;

    let samples = within(SOON, "the last request is settled", async {
        loop {
            let samples = scrape(gateway).await;
            if samples["dyad_gateway_requests_in_flight"] == 0 {
                break samples;
            }
        }
    })
    .await;
    let requests = |model: &str, operation: &str, streamed: bool, outcome: &str| {
        let provider = if model.is_empty() { "" } else { "fake" };
        let labels = format!(
            "provider=\"{provider}\",model=\"{model}\",operation=\"{operation}\",streamed=\"{streamed}\",outcome=\"{outcome}\""
        );
        samples.get(&format!("dyad_gateway_requests_total{{{labels}}}")).copied().unwrap_or_default()
    };
    assert_eq!(requests(MODEL, "chat_completion", false, "ok"), 3);
    assert_eq!(requests(MODEL, "chat_completion", true, "ok"), 1);
    assert_eq!(requests(EMBEDDER, "embeddings", false, "ok"), 1);
    assert_eq!(requests("", "chat_completion", false, "refused"), 1);
    assert_eq!(requests(MODEL, "chat_completion", false, "auth"), 1);
    assert_eq!(requests(MODEL, "chat_completion", true, "client_gone"), 1);
    assert_eq!(requests(MODEL, "chat_completion", true, "unavailable"), 1);
    for (code, count) in [("model_not_found", 1), ("rate_limit_exceeded", 1), ("upstream_auth_failed", 1)] {
        assert_eq!(samples[&format!("dyad_gateway_errors_total{{code=\"{code}\"}}")], count, "{code}");
    }
    let kind = "operation=\"chat_completion\",streamed=\"false\"";
    assert_eq!(samples[&format!("dyad_gateway_request_duration_seconds_count{{{labels},{kind}}}")], 3);
}

#[tokio::test]
async fn requests_cost_no_calls_to_the_store() {
    const CONNECTIONS: usize = 8;
    const REQUESTS: usize = 125;
    let fixture = start().await;
    fixture.upstream_answers(Turn::says("hello"));
    assert_eq!(fixture.raw_chat(json!({})).await.status, 200);
    let counted = async || -> u64 {
        let samples = scrape(&fixture.gateway).await;
        samples
            .iter()
            .filter(|(name, _)| name.starts_with("dyad_gateway_store_calls_total"))
            .map(|(_, n)| n)
            .sum()
    };
    let relayed = || fixture.gateway.table.as_ref().map(|table| table.calls().values().sum::<u64>());

    let (began, counted_before, relayed_before) = (Instant::now(), counted().await, relayed());
    let connections = (0..CONNECTIONS).map(async |_| {
        let mut connection = Connection::open(&fixture.gateway).await;
        let request = Request::chat(&fixture.gateway, &chat_body(json!({})));
        for _ in 0..REQUESTS {
            assert_eq!(connection.request(&request).await.status, 200);
        }
    });
    futures_util::future::join_all(connections).await;
    let counted = counted().await - counted_before;
    // The configuration's version, every two seconds at most; and what was new at the start, once more.
    let due = began.elapsed().as_secs() / 2 + 4;
    assert!(
        counted <= due,
        "{counted} calls for {} requests in {:?}",
        CONNECTIONS * REQUESTS,
        began.elapsed()
    );
    if let (Some(before), Some(now)) = (relayed_before, relayed()) {
        let calls = now - before;
        assert!(calls <= due, "{calls} calls came to the store in {:?}", began.elapsed());
    }
}
