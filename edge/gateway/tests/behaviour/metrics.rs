//! What is counted, and how it is told.

use std::collections::{BTreeMap, BTreeSet};

use catalog::{ApiKeyLimits, LeftOut};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::support::{
    Feed, Mood, Reply, TestGateway, chunk, completion, ending, node, provider, secs, setup, text_chunk,
};

fn two() -> TestGateway {
    setup().provider("alpha", &json!({"rank": 1})).provider("beta", &json!({"rank": 2})).build()
}

/// Asks for a completion and takes it.
fn complete(test: &TestGateway, changes: &Value) {
    let answer = test.chat(changes);
    assert_eq!(answer.status, 200);
    answer.text();
}

/// Samples by `name{label="value",…}`. On a clock that stands still all of them are whole numbers.
pub(crate) struct Scrape(BTreeMap<String, u64>);

impl Scrape {
    pub(crate) fn of(test: &TestGateway) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(test.gateway.metrics()));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        assert!(page.ends_with("# EOF\n"), "{page}");
        let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
        let mut family = "";
        for line in page.lines().take_while(|line| *line != "# EOF") {
            if let Some(described) = line.strip_prefix("# TYPE ") {
                family = described.split(' ').next().unwrap();
                assert!(families.insert(family), "told twice: {line}");
            } else if !line.starts_with("# ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(
                    name.starts_with("dyad_gateway_") && name.starts_with(family),
                    "out of place: {line}"
                );
                let value = value.strip_suffix(".0").unwrap_or(value).parse().unwrap();
                assert_eq!(samples.insert(name.to_owned(), value), None, "told twice: {line}");
            }
        }
        Self(samples)
    }

    /// 0 for what is not there.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(&format!("dyad_gateway_{name}")).copied().unwrap_or_default()
    }

    /// Those of one family that are not 0, without its name.
    fn family(&self, name: &str) -> Vec<(&str, u64)> {
        let prefix = format!("dyad_gateway_{name}{{");
        let samples = self.0.iter().filter(|(_, value)| **value != 0);
        samples
            .filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?.strip_suffix('}')?, *value)))
            .collect()
    }
}

#[test]
fn requests_are_counted_by_what_came_of_them() {
    let test = two();
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    complete(&test, &json!({}));
    test.host.reply("alpha", Reply::sse([text_chunk("a"), ending()]));
    test.stream().text();
    assert_eq!(
        Scrape::of(&test).family("tokens_total"),
        [
            (r#"provider="alpha",model="m",direction="completion""#, 4),
            (r#"provider="alpha",model="m",direction="prompt""#, 10),
        ]
    );
    let left = Feed::default();
    left.push(text_chunk("a"));
    test.host.reply("alpha", Reply::feed(&left));
    let mut answer = test.stream();
    answer.body.available();
    assert_eq!(Scrape::of(&test).get("requests_in_flight"), 1);
    drop(answer);
    let cut = Feed::default();
    cut.push(text_chunk("a"));
    cut.cut();
    test.host.reply("alpha", Reply::feed(&cut));
    test.stream().text();
    for slug in ["alpha", "beta"] {
        test.host.reply(slug, Reply::json(401, &json!({})));
    }
    assert_eq!(test.chat(&json!({})).status, 403);
    assert_eq!(test.chat(&json!({"model": "none"})).status, 404);
    assert_eq!(test.models_with(None).status, 401);
    assert_eq!(test.get("/v1/nothing").status, 404);

    let scrape = Scrape::of(&test);
    assert_eq!(
        scrape.family("requests_total"),
        [
            (r#"provider="",model="",operation="chat_completion",streamed="false",outcome="refused""#, 1),
            (r#"provider="alpha",model="m",operation="chat_completion",streamed="false",outcome="auth""#, 1),
            (r#"provider="alpha",model="m",operation="chat_completion",streamed="false",outcome="ok""#, 1),
            (
                r#"provider="alpha",model="m",operation="chat_completion",streamed="true",outcome="client_gone""#,
                1
            ),
            (r#"provider="alpha",model="m",operation="chat_completion",streamed="true",outcome="ok""#, 1),
            (
                r#"provider="alpha",model="m",operation="chat_completion",streamed="true",outcome="unavailable""#,
                1
            ),
        ]
    );
    assert_eq!(
        scrape.family("errors_total"),
        [
            (r#"code="missing_api_key""#, 1),
            (r#"code="model_not_found""#, 1),
            (r#"code="unknown_url""#, 1),
            (r#"code="upstream_auth_failed""#, 1),
        ]
    );
    assert_eq!(scrape.get("requests_in_flight"), 0);
    assert_eq!(scrape.get("ready"), 1);
    assert_eq!(scrape.get("models"), 1);
}

#[test]
fn embeddings_have_an_operation_of_their_own() {
    let test = two();
    let answer = json!({
        "object": "list", "model": "up-m", "usage": {"prompt_tokens": 3, "total_tokens": 3},
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
    });
    test.host.reply("alpha", Reply::json(200, &answer));
    let body = json!({"model": "m", "input": "x"}).to_string();
    test.send(test.request(http::Method::POST, "/v1/embeddings", body)).text();
    let labels = r#"provider="alpha",model="m",operation="embeddings",streamed="false",outcome="ok""#;
    assert_eq!(Scrape::of(&test).family("requests_total"), [(labels, 1)]);
}

#[test]
fn times_fall_into_their_buckets() {
    let test = two();
    let feed = Feed::default();
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.start_chat(&json!({"stream": true}));
    answer.must_wait();
    test.advance(secs(1));
    feed.push(text_chunk("a"));
    let mut answer = answer.finish();
    answer.body.available();
    test.advance(secs(2));
    feed.push(ending());
    answer.body.rest();
    drop(answer);

    let scrape = Scrape::of(&test);
    let labels = r#"provider="alpha",model="m",operation="chat_completion",streamed="true""#;
    for (name, at_1_s, at_2_5_s, at_5_s, sum) in
        [("first_output_seconds", 1, 1, 1, 1), ("request_duration_seconds", 0, 0, 1, 3)]
    {
        let bucket = |le: &str| scrape.get(&format!("{name}_bucket{{le=\"{le}\",{labels}}}"));
        // A duration that is a bucket's bound belongs into it.
        assert_eq!(
            [bucket("0.5"), bucket("1.0"), bucket("2.5"), bucket("5.0")],
            [0, at_1_s, at_2_5_s, at_5_s]
        );
        assert_eq!(bucket("+Inf"), 1);
        assert_eq!(scrape.get(&format!("{name}_count{{{labels}}}")), 1);
        assert_eq!(scrape.get(&format!("{name}_sum{{{labels}}}")), sum);
    }
}

#[test]
fn calls_retries_and_fallbacks_are_counted_for_their_upstream() {
    let test = two();
    test.host.reply("alpha", Reply::Fail(gateway::CallError::Closed));
    test.host.reply("alpha", Reply::json(503, &json!({})));
    test.host
        .reply("beta", Reply::json(400, &json!({"error": {"message": "m", "param": "reasoning_effort"}})));
    test.host.reply("beta", Reply::json(200, &completion("ok")));
    complete(&test, &json!({"reasoning_effort": "low"}));

    let scrape = Scrape::of(&test);
    assert_eq!(
        scrape.family("upstream_calls_total"),
        [
            (r#"provider="alpha",model="m",outcome="overloaded""#, 1),
            (r#"provider="alpha",model="m",outcome="unavailable""#, 1),
            (r#"provider="beta",model="m",outcome="invalid_request""#, 1),
            (r#"provider="beta",model="m",outcome="ok""#, 1),
        ]
    );
    assert_eq!(
        scrape.family("upstream_retries_total"),
        [
            (r#"provider="alpha",model="m",reason="connection_closed""#, 1),
            (r#"provider="beta",model="m",reason="corrected""#, 1),
        ]
    );
    assert_eq!(scrape.family("upstream_fallbacks_total"), [(r#"provider="beta",model="m""#, 1)]);
    let labels = r#"provider="beta",model="m",operation="chat_completion",streamed="false",outcome="ok""#;
    assert_eq!(scrape.family("requests_total"), [(labels, 1)]);
}

#[test]
fn a_node_that_fails_is_counted() {
    let test = setup().cli("alpha", &json!({})).build();
    test.announce(&node("n1", |_| ()));
    test.host.reply("n1", Reply::Fail(gateway::CallError::Connect));
    assert_ne!(test.chat(&json!({})).status, 200);
    let scrape = Scrape::of(&test);
    assert_eq!(scrape.get("runner_node_failures_total"), 1);
    assert_eq!(scrape.family("runner_nodes"), [(r#"state="avoided""#, 1)]);
    assert_eq!(scrape.get(r#"store_calls_total{call="nodes",outcome="ok"}"#), 1);
}

#[test]
fn what_an_upstream_calls_an_error_is_no_label() {
    let test = setup().provider("alpha", &json!({})).build();
    let error = json!({"error": {"message": "m", "code": "a-code-of-its-own"}});
    test.host.reply("alpha", Reply::json(400, &error));
    assert_eq!(test.chat(&json!({})).error_line(), "400 invalid_request_error a-code-of-its-own");
    assert_eq!(Scrape::of(&test).family("errors_total"), [(r#"code="invalid_request_error""#, 1)]);
}

#[test]
fn models_beyond_the_bound_count_as_other() {
    let models: Vec<_> = (0..205).map(|i| json!({"id": format!("m{i:03}")})).collect();
    let test = setup().provider("alpha", &json!({"models": models})).build();
    for i in 0..205 {
        test.host.reply("alpha", Reply::json(200, &completion("ok")));
        complete(&test, &json!({"model": format!("m{i:03}")}));
    }
    let scrape = Scrape::of(&test);
    let requests = scrape.family("requests_total");
    assert_eq!(requests.len(), 201);
    let other = r#"provider="other",model="other",operation="chat_completion",streamed="false",outcome="ok""#;
    assert!(requests.contains(&(other, 5)), "{requests:?}");
}

#[test]
fn counts_outlive_a_change_of_the_configuration() {
    let test = setup().provider("alpha", &json!({})).build();
    let ask = || {
        test.host.reply("alpha", Reply::json(200, &completion("ok")));
        complete(&test, &json!({}));
    };
    ask();
    test.put_provider(&provider("alpha", &json!({"rank": 7})), Some(1));
    test.advance(secs(11));
    ask();
    let labels = r#"provider="alpha",model="m",operation="chat_completion",streamed="false",outcome="ok""#;
    assert_eq!(Scrape::of(&test).family("requests_total"), [(labels, 2)]);
}

#[test]
fn the_stores_answers_are_counted() {
    let test = setup().provider("alpha", &json!({})).limits(ApiKeyLimits::default()).build();
    test.get("/v1/models");
    assert_eq!(Scrape::of(&test).get("store_up"), 1);
    let calls = |outcome: &str, call: &str| {
        Scrape::of(&test).get(&format!("store_calls_total{{call=\"{call}\",outcome=\"{outcome}\"}}"))
    };
    assert_eq!([calls("ok", "version"), calls("ok", "config"), calls("ok", "key")], [0, 1, 1]);
    test.store.is(Mood::Down);
    test.advance(secs(11));
    test.get("/v1/models");
    assert_eq!(calls("unavailable", "version"), 1);
    assert_eq!(Scrape::of(&test).get("store_up"), 0);
    assert_eq!(Scrape::of(&test).get(r#"store_call_duration_seconds_count{call="version"}"#), 1);
}

#[test]
fn what_cannot_be_read_is_named() {
    let test = setup().provider("alpha", &json!({})).build();
    let item = |name: &str| LeftOut::new(name, "it is damaged");
    test.store.leaves_out(&[item("CONFIG/PROVIDER#beta"), item("CONFIG/PROVIDER#\"gamma\"")]);
    test.get("/v1/models");
    let scrape = Scrape::of(&test);
    assert_eq!(scrape.get("left_out_items"), 2);
    let named = [(r#"item="CONFIG/PROVIDER#\"gamma\"""#, 1), (r#"item="CONFIG/PROVIDER#beta""#, 1)];
    assert_eq!(scrape.family("left_out"), named);
    test.store.leaves_out(&(0..150).map(|i| item(&format!("CONFIG/PROVIDER#{i}"))).collect::<Vec<_>>());
    test.advance(secs(11));
    test.put_provider(&provider("delta", &json!({})), None);
    test.get("/v1/models");
    let scrape = Scrape::of(&test);
    assert_eq!((scrape.get("left_out_items"), scrape.family("left_out").len()), (150, 100));
}

#[test]
fn what_is_taken_from_a_limit_is_counted() {
    let limits = ApiKeyLimits { requests_per_minute: Some(3), ..ApiKeyLimits::default() };
    let test = setup().provider("alpha", &json!({})).limits(limits).build();
    for _ in 0..3 {
        test.host.reply("alpha", Reply::json(200, &completion("ok")));
        complete(&test, &json!({}));
    }
    assert_eq!(test.chat(&json!({})).error_line(), "429 rate_limit_error rate_limit_exceeded");
    let scrape = Scrape::of(&test);
    assert_eq!(scrape.family("limit_granted_total"), [(r#"quantity="requests",period="minute""#, 3)]);
    let calls = scrape.get(r#"store_calls_total{call="limit_take",outcome="ok"}"#);
    assert!((1..=4).contains(&calls), "{calls}");
    assert_eq!(scrape.family("errors_total"), [(r#"code="rate_limit_exceeded""#, 1)]);
    assert_eq!(scrape.family("limit_refusals_total"), [(r#"limit="requests_per_minute""#, 1)]);
}

#[test]
fn an_answer_that_is_empty_is_no_output() {
    let test = setup().provider("alpha", &json!({})).build();
    test.host.reply("alpha", Reply::sse([chunk(&json!({}), Some("stop")), "data: [DONE]\n\n".to_owned()]));
    test.stream().text();
    assert_eq!(Scrape::of(&test).family("first_output_seconds_count"), []);
}

#[test]
fn the_health_of_providers_is_told_state_by_state() {
    let test = two();
    assert_eq!(Scrape::of(&test).family("provider_health"), []);
    test.host.reply("alpha", Reply::json(200, &json!({"object": "list", "data": []})));
    test.host.reply("beta", Reply::Fail(gateway::CallError::Connect));
    let gateway = test.gateway.clone();
    crate::support::Task::new(async move { gateway.check_health().await }).finish();
    let scrape = Scrape::of(&test);
    let expected = [("provider=\"alpha\",state=\"healthy\"", 1), ("provider=\"beta\",state=\"degraded\"", 1)];
    assert_eq!(scrape.family("provider_health"), expected);
    assert_eq!(scrape.0.keys().filter(|name| name.contains("provider_health")).count(), 8);
    // Nobody asked for these.
    assert_eq!((scrape.family("requests_total"), scrape.family("upstream_calls_total")), (vec![], vec![]));
}
