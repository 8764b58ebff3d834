//! What an administrator is told that would become of a request is what becomes of it.

use catalog::{ApiKey, ApiKeyLimits, ApiKeyRecord, ExplainedTarget, Explanation};
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Reply, START_MS, TestGateway, completion, node, ready, secs, setup};

fn request(changes: &Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn record(test: &TestGateway) -> ApiKeyRecord {
    test.key_record(&ApiKey::parse(&test.key).unwrap()).value
}

/// Of the valid key.
fn explain(test: &TestGateway, changes: &Value) -> Explanation {
    explain_to(test, &request(changes).to_string(), &record(test))
}

/// Calls nobody, and keeps nothing.
fn explain_to(test: &TestGateway, body: &str, key: &ApiKeyRecord) -> Explanation {
    let calls = test.host.calls().len();
    let told = ready(test.gateway.explain(body.as_bytes(), key));
    assert_eq!(test.host.calls().len(), calls);
    assert!(test.store.limit_calls().is_empty());
    told
}

/// `200`, or status and code.
fn refusal(told: &Explanation) -> String {
    told.refused.as_ref().map_or("200".to_owned(), |error| format!("{} {}", error.status, error.code))
}

fn line(target: &ExplainedTarget) -> String {
    let ExplainedTarget { provider, kind, upstream_model, address, .. } = target;
    format!("{provider} {kind} {upstream_model} {address}")
}

#[test]
fn targets_come_in_their_order_with_what_they_would_be_sent() {
    let models = json!([{"id": "m", "upstream_id": "up-m", "capabilities": {"reasoning": false}}]);
    let test = setup()
        .provider("alpha", &json!({"rank": 2, "models": models}))
        .provider("beta", &json!({"rank": 1, "type": "local", "models": [{"id": "m"}]}))
        .build();
    let changes = json!({"stream": true, "reasoning_effort": "high", "max_tokens": 9, "temperature": 1});
    let told = explain(&test, &changes);
    assert_eq!((told.model.as_deref(), told.stream, refusal(&told)), (Some("m"), true, "200".to_owned()));
    assert_eq!(
        told.targets.iter().map(line).collect::<Vec<_>>(),
        [
            "beta local m https://beta.example/v1/chat/completions",
            "alpha proxy up-m https://alpha.example/v1/chat/completions",
        ]
    );
    assert_eq!(told.targets[0].rewritten, ["stream_options: added: {\"include_usage\":true}"]);
    assert_eq!(
        told.targets[1].rewritten,
        ["model: m → up-m", "reasoning_effort: dropped", "stream_options: added: {\"include_usage\":true}"]
    );
    assert!(told.targets.iter().all(|target| target.passed_over.is_none()));
    assert_eq!(told.estimated_completion_tokens, 9);

    // So it is.
    test.host.reply("beta", Reply::json(503, &json!({"error": {"message": "later"}})));
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    test.chat(&changes).text();
    let calls = test.host.calls();
    assert_eq!(
        calls.iter().map(|call| call.url.as_str()).collect::<Vec<_>>(),
        [&told.targets[0].address, &told.targets[1].address]
    );
    assert_eq!(calls[1].json()["model"], "up-m");
    assert_eq!(calls[1].json().get("reasoning_effort"), None);
}

/// What an upstream refused once is known from then on.
#[test]
fn what_was_learned_is_told() {
    let test = setup().provider("alpha", &json!({})).build();
    let refused = json!({"error": {
        "message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
        "type": "invalid_request_error", "param": "max_tokens", "code": "unsupported_parameter",
    }});
    let changes = json!({"max_tokens": 9});
    assert_eq!(explain(&test, &changes).targets[0].rewritten, ["model: m → up-m"]);
    test.host.reply("alpha", Reply::json(400, &refused));
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    assert_eq!(test.chat(&changes).status, StatusCode::OK);
    assert_eq!(
        explain(&test, &changes).targets[0].rewritten,
        ["max_tokens: dropped", "model: m → up-m", "max_completion_tokens: added: 9"]
    );
}

#[test]
fn refusals_are_those_that_the_client_would_get() {
    let test = setup()
        .provider("alpha", &json!({"models": [{"id": "m", "capabilities": {"images": false}}, {"id": "n"}]}))
        .provider("beta", &json!({"models": [{"id": "vectors", "capabilities": {"chat": false}}]}))
        .limits(ApiKeyLimits { tokens_per_minute: Some(500), ..ApiKeyLimits::default() })
        .allowed(&["m", "vectors"])
        .build();
    let image = json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]});
    for changes in [
        json!({"model": null}),
        json!({"n": 1000}),
        json!({"model": "nowhere"}),
        json!({"model": "n"}),
        json!({"model": "vectors"}),
        image,
        json!({"max_tokens": 10_000}),
        json!({"messages": []}),
    ] {
        let told = explain(&test, &changes);
        let refused = told.refused.unwrap();
        let answer = test.chat(&changes);
        assert_eq!(answer.status.as_u16(), refused.status, "{changes}");
        let error = answer.json();
        assert_eq!(error["error"]["code"], refused.code.as_str(), "{changes}");
        assert_eq!(error["error"]["message"], refused.message.as_str(), "{changes}");
        test.store.limit_calls();
    }
    assert_eq!(test.host.calls().len(), 0);
    let told = explain_to(&test, "not JSON", &record(&test));
    assert_eq!((refusal(&told), told.model), ("400 invalid_type".to_owned(), None));

    // A model that the key may not use is told from one that nobody has.
    let told = explain(&test, &json!({"model": "n"}));
    assert_eq!(refusal(&told), "404 model_not_found");
    assert!(told.targets[0].passed_over.as_ref().unwrap().contains("may not use"));
    assert!(explain(&test, &json!({"model": "nowhere"})).targets.is_empty());
}

#[test]
fn a_key_is_judged_with_what_is_left_of_its_limits() {
    let limits = ApiKeyLimits {
        requests_per_minute: Some(2),
        concurrent_requests: Some(3),
        tokens_per_day: Some(1_000),
        ..ApiKeyLimits::default()
    };
    let test = setup().provider("alpha", &json!({})).limits(limits).build();
    let left = |told: &Explanation| -> Vec<_> {
        told.limits.iter().map(|l| (l.name.clone(), l.limit, l.remaining)).collect()
    };
    let names = ["tokens_per_day", "concurrent_requests", "requests_per_minute"].map(str::to_owned);
    let [day, concurrent, minute] = names.clone();
    let told = explain(&test, &json!({}));
    assert_eq!(
        left(&told),
        [(day, 1_000, None), (concurrent, 3, None), (minute, 2, None)],
        "not seen here yet"
    );

    let asked = |test: &TestGateway| {
        test.host.reply("alpha", Reply::json(200, &completion("ok")));
        let answer = test.chat(&json!({"max_tokens": 5}));
        let status = answer.status;
        answer.text();
        test.host.forget_replies();
        test.store.limit_calls();
        status
    };
    assert_eq!(asked(&test), StatusCode::OK);
    let [day, concurrent, minute] = names;
    assert_eq!(
        left(&explain(&test, &json!({}))),
        [(day, 1_000, Some(993)), (concurrent, 3, Some(3)), (minute, 2, Some(1))]
    );
    assert_eq!(asked(&test), StatusCode::OK);
    assert_eq!(asked(&test), StatusCode::TOO_MANY_REQUESTS);
    let told = explain(&test, &json!({}));
    assert_eq!(refusal(&told), "429 rate_limit_exceeded");
    assert_eq!(told.targets.len(), 1, "where it would go is told all the same");

    let mut key = record(&test);
    key.revoked_at_ms = Some(1);
    let told = explain_to(&test, &request(&json!({})).to_string(), &key);
    assert_eq!(refusal(&told), "401 invalid_api_key");
    key.revoked_at_ms = None;
    key.expires_at_ms = Some(START_MS);
    key.limits = ApiKeyLimits::default();
    let told = explain_to(&test, &request(&json!({})).to_string(), &key);
    assert!(told.refused.unwrap().message.contains("expired") && told.limits.is_empty());
}

/// One that nobody has stored: without limits, for every model.
#[test]
fn a_key_that_is_not_there_is_judged_as_it_is_given() {
    let test = setup().provider("alpha", &json!({})).build();
    let mut key = record(&test);
    key.id = ApiKey::from_random(&[9; 32]).id().clone();
    let told = explain_to(&test, &request(&json!({})).to_string(), &key);
    assert_eq!((refusal(&told), told.targets.len()), ("200".to_owned(), 1));
}

#[test]
fn who_is_passed_over_is_told_with_the_reason() {
    let test = setup()
        .provider("alpha", &json!({}))
        .provider("beta", &json!({"enabled": false}))
        .provider("gamma", &json!({"credential": "env:NOT_THERE"}))
        .cli("claude", &json!({"rank": 1}))
        .build();
    let passed_over = |changes: &Value| -> Vec<_> {
        let told = explain(&test, changes);
        told.targets
            .iter()
            .map(|t| format!("{}: {}", t.provider, t.passed_over.as_deref().unwrap_or("asked")))
            .collect()
    };
    let aside = ["beta: it is not enabled", "gamma: NOT_THERE is not set"];
    let found = passed_over(&json!({}));
    assert_eq!(found[..2], ["claude: No runner that is up has the CLI of this model.", "alpha: asked"]);
    assert_eq!(found[2..], aside);
    test.announce(&node("one", |_| ()));
    test.advance(secs(10));
    assert_eq!(passed_over(&json!({}))[..2], ["claude: asked", "alpha: asked"]);
    // Nobody asks a CLI for several answers.
    let several = passed_over(&json!({"n": 2}));
    assert!(several[0].starts_with("claude: ") && several[0].contains("one answer"), "{several:?}");
    assert_eq!(several[1], "alpha: asked");
    // By the name that one provider alone has.
    assert_eq!(passed_over(&json!({"model": "beta/m"})), ["beta: it is not enabled"]);
}

#[test]
fn a_cli_is_told_with_its_parameters() {
    let test = setup().cli("claude", &json!({})).build();
    test.announce(&node("one", |_| ()));
    let told = explain(&test, &json!({"temperature": 1, "max_tokens": 7, "stream": true}));
    assert_eq!(told.targets.iter().map(line).collect::<Vec<_>>(), ["claude spawn-cli opus cli:claude"]);
    assert_eq!(told.targets[0].rewritten, ["max_tokens: dropped", "model: m → opus", "temperature: dropped"]);
    assert_eq!((refusal(&told), told.estimated_completion_tokens), ("200".to_owned(), 7));
}
