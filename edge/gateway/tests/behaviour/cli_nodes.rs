//! Which node a run goes to, and what happens when it does not begin or breaks off there.

use std::collections::BTreeMap;

use gateway::{CallError, HostList};
use runner_api::{ErrorClass, FinishReason, Refusal, RefusalCode, RunEvent};
use serde_json::{Value, json};

use crate::support::{Feed, Log, Reply, TestGateway, completion, node, run_lines, secs, setup};

fn with_nodes(ids: &[&str]) -> TestGateway {
    let test = setup().cli("alpha", &json!({})).build();
    for id in ids {
        test.announce(&node(id, |_| ()));
    }
    test
}

fn answer() -> Reply {
    Reply::run(&[
        RunEvent::Started { waited_ms: 0, warm: true },
        RunEvent::Text { text: "hello".into() },
        RunEvent::Finished { reason: FinishReason::Stop },
    ])
}

fn refusal(code: RefusalCode) -> Reply {
    Reply::refusal(&Refusal::new(code, "no"))
}

fn saturated(retry_after_ms: u64) -> Reply {
    Reply::refusal(&Refusal::new(RefusalCode::Saturated, "the queue is full").retry_after_ms(retry_after_ms))
}

/// The hosts that were called, in order, without `.example`.
fn asked(test: &TestGateway) -> Vec<String> {
    let host = |url: String| url.split(['/', '.']).nth(2).unwrap().to_owned();
    test.host.calls().into_iter().map(|call| host(call.url)).collect()
}

#[test]
fn a_run_request_is_as_the_runner_wants_it() {
    let test = with_nodes(&["n1"]);
    test.host.reply("n1", answer());
    let mut request = test.request(
        http::Method::POST,
        "/v1/chat/completions",
        json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).to_string(),
    );
    request.headers_mut().insert("x-request-id", "from-the-client".parse().unwrap());
    assert_eq!(test.send(request).status, 200);
    let call = test.host.last_call();
    assert!(call.by_runner);
    assert_eq!(call.url, "https://n1.example:4200/v1/runs");
    assert_eq!(call.headers["dyad-runner-version"], runner_api::VERSION);
    assert_eq!(call.headers["x-request-id"], "from-the-client");
    assert!(!call.headers.contains_key("authorization"), "the API key stays here");
    let mut sent = call.json();
    let id = sent["id"].take();
    assert!(runner_api::request::is_run_id(id.as_str().unwrap()), "{id}");
    let caller = sent["caller"].take();
    assert!(
        test.key.contains(caller.as_str().unwrap()) && caller != test.key.as_str(),
        "the key's public id"
    );
    let expected = json!({
        "id": null, "caller": null, "cli": "claude", "parameters": {"model": "opus"}, "timeout_ms": 3_600_000,
        "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}],
    });
    assert_eq!(sent, expected);
}

#[test]
fn a_node_that_refuses_is_passed_over() {
    let bad: [fn() -> Reply; 13] = [
        || saturated(1_000),
        || refusal(RefusalCode::Draining),
        || refusal(RefusalCode::Unavailable),
        || refusal(RefusalCode::Forbidden),
        || refusal(RefusalCode::NotFound),
        || refusal(RefusalCode::Version),
        || refusal(RefusalCode::Replayed),
        || refusal(RefusalCode::Internal),
        || Reply::text(502, "text/html", "<html>").with_header("dyad-runner-version", "1.0"),
        || answer().with_header("dyad-runner-version", "2.0"),
        || Reply::Fail(CallError::Connect),
        || Reply::Fail(CallError::Tls),
        || Reply::Fail(CallError::Closed),
    ];
    for bad in bad {
        for stream in [true, false] {
            let test = with_nodes(&["n1", "n2"]);
            // Whichever is asked first refuses.
            test.announce(&node("n2", |node| node.capacity.running = 8));
            test.host.reply("n1", bad());
            test.host.reply("n2", answer());
            let body = test.chat(&json!({"stream": stream})).text();
            assert!(body.contains("hello"), "{body}");
            assert_eq!(asked(&test), ["n1", "n2"]);
        }
    }
}

#[test]
fn a_run_that_breaks_before_anything_was_delivered_is_begun_elsewhere() {
    let started = run_lines(&[RunEvent::Started { waited_ms: 0, warm: true }]);
    for ends in ["cut", "end", "nonsense", "unavailable"] {
        for stream in [true, false] {
            let test = with_nodes(&["n1", "n2"]);
            test.announce(&node("n2", |node| node.capacity.running = 8));
            let feed = Feed::default();
            feed.push(started.clone());
            match ends {
                "cut" => feed.cut(),
                "nonsense" => feed.push("nonsense\n"),
                "unavailable" => feed.push(run_lines(&[RunEvent::error(ErrorClass::Unavailable, "m")])),
                _ => {}
            }
            feed.end();
            test.host.reply("n1", Reply::run_feed(&feed));
            test.host.reply("n2", answer());
            let body = test.chat(&json!({"stream": stream})).text();
            assert!(body.contains("hello"), "{ends}: {body}");
            let calls = test.host.calls();
            assert_ne!(calls[0].json()["id"], calls[1].json()["id"], "a run id is used once");
        }
    }
}

#[test]
fn after_the_first_content_nobody_takes_over() {
    let test = with_nodes(&["n1", "n2"]);
    test.announce(&node("n2", |node| node.capacity.running = 8));
    let text = RunEvent::Text { text: "a".into() };
    test.host.reply("n1", Reply::run(&[text, RunEvent::error(ErrorClass::Unavailable, "m")]));
    let stream = test.stream().text();
    assert!(stream.contains("\"error\"") && !stream.contains("[DONE]"), "{stream}");
    assert_eq!(asked(&test), ["n1"]);
}

/// An operator who ends a run does not want to see it begin on the next node.
#[test]
fn a_run_that_was_cancelled_is_not_begun_again() {
    for stream in [true, false] {
        let test = setup().cli("alpha", &json!({"rank": 1})).provider("beta", &json!({"rank": 2})).build();
        test.announce(&node("n1", |_| ()));
        test.announce(&node("n2", |node| node.capacity.running = 8));
        test.host.reply("n1", Reply::run(&[RunEvent::error(ErrorClass::Cancelled, "m")]));
        let answer = test.chat(&json!({"stream": stream}));
        assert_eq!(answer.error_line(), "502 server_error upstream_unavailable");
        assert_eq!(asked(&test), ["n1"]);
    }
}

/// A status is the vendor's word, and the same on every node.
#[test]
fn a_vendor_that_is_down_is_not_its_node_s_fault() {
    let vendor_is_down = || {
        Reply::run(&[RunEvent::Error {
            class: ErrorClass::Unavailable,
            message: "m".into(),
            status: Some(500),
            retry_after_ms: None,
        }])
    };
    for stream in [true, false] {
        let test = with_nodes(&["n1"]);
        test.announce(&node("n2", |node| node.capacity.running = 8));
        for _ in 0..2 {
            test.host.reply("n1", vendor_is_down());
            let answer = test.chat(&json!({"stream": stream}));
            assert_eq!(answer.error_line(), "502 server_error upstream_unavailable");
        }
        assert_eq!(asked(&test), ["n1", "n1"], "another node was asked, or the node avoided");
    }
    let test = setup().cli("alpha", &json!({"rank": 1})).provider("beta", &json!({"rank": 2})).build();
    test.announce(&node("n1", |_| ()));
    test.announce(&node("n2", |node| node.capacity.running = 8));
    test.host.reply("n1", vendor_is_down());
    test.host.reply("beta", Reply::json(200, &completion("from beta")));
    assert!(test.chat(&json!({})).text().contains("from beta"));
    assert_eq!(asked(&test), ["n1", "beta"]);
}

/// What the vendor or the CLI said is no matter of the node: the next target is asked.
#[test]
fn a_vendors_word_is_final_for_the_target_but_not_for_the_model() {
    for class in [
        ErrorClass::Auth,
        ErrorClass::RateLimited,
        ErrorClass::QuotaExhausted,
        ErrorClass::Overloaded,
        ErrorClass::NotFound,
        ErrorClass::Internal,
    ] {
        let test = setup().cli("alpha", &json!({"rank": 1})).provider("beta", &json!({"rank": 2})).build();
        test.announce(&node("n1", |_| ()));
        test.announce(&node("n2", |node| node.capacity.running = 8));
        test.host.reply("n1", Reply::run(&[RunEvent::error(class, "m")]));
        test.host.reply("beta", Reply::json(200, &completion("from beta")));
        let body = test.chat(&json!({})).text();
        assert!(body.contains("from beta"), "{class:?}: {body}");
        assert_eq!(asked(&test), ["n1", "beta"], "{class:?}");
    }
    for class in [ErrorClass::InvalidRequest, ErrorClass::ContentFilter] {
        let test = setup().cli("alpha", &json!({"rank": 1})).provider("beta", &json!({"rank": 2})).build();
        test.announce(&node("n1", |_| ()));
        // The words are those that teach something of other upstreams.
        test.host.reply("n1", Reply::run(&[RunEvent::error(class, "reasoning_effort is not supported")]));
        assert_eq!(test.chat(&json!({"reasoning_effort": "low"})).status, 400);
        assert_eq!(asked(&test), ["n1"], "{class:?}");
    }
}

#[test]
fn when_all_are_full_the_client_is_told_when_the_first_has_room() {
    let test = with_nodes(&["n1", "n2", "n3"]);
    test.host.reply("n1", saturated(9_000));
    test.host.reply("n2", saturated(2_500));
    test.host.reply("n3", Reply::Fail(CallError::Connect));
    let answer = test.stream();
    assert_eq!(answer.header("retry-after"), Some("3"));
    assert_eq!(answer.error_line(), "503 server_error upstream_overloaded");
    assert_eq!(asked(&test).len(), 3);

    for (first, second) in [(9_000, 2_500), (2_500, 9_000)] {
        let test = with_nodes(&["n1"]);
        test.announce(&node("n2", |node| node.capacity.running = 8));
        test.host.reply("n1", saturated(first));
        test.host.reply("n2", saturated(second));
        assert_eq!(test.stream().header("retry-after"), Some("3"), "{first} {second}");
    }

    // Another target may have room.
    let test = setup().cli("alpha", &json!({"rank": 1})).provider("beta", &json!({"rank": 2})).build();
    test.announce(&node("n1", |_| ()));
    test.host.reply("n1", saturated(2_500));
    test.host.reply("beta", Reply::json(200, &completion("from beta")));
    assert!(test.chat(&json!({})).text().contains("from beta"));
}

#[test]
fn refusals_say_whose_fault_it_is() {
    let at = |param: &str| {
        let refusal = Refusal::new(RefusalCode::InvalidRequest, "is not taken").at(param);
        Reply::refusal(&refusal)
    };
    let messages = json!([
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]);
    for (reply, line, param) in [
        (
            at("messages[0].parts[1]"),
            "400 invalid_request_error invalid_value",
            json!("messages[1].content[1]"),
        ),
        (at("messages[0]"), "400 invalid_request_error invalid_value", json!("messages[1]")),
        (at("messages"), "400 invalid_request_error invalid_value", json!("messages")),
        (at("system"), "400 invalid_request_error invalid_value", json!("messages")),
        (at("parameters.model"), "404 invalid_request_error model_not_found", Value::Null),
        (at("parameters.effort"), "502 server_error upstream_unavailable", Value::Null),
        (at("caller"), "502 server_error upstream_unavailable", Value::Null),
        (refusal(RefusalCode::TooLarge), "400 invalid_request_error request_too_large", Value::Null),
        (refusal(RefusalCode::SlowRequest), "502 server_error upstream_unavailable", Value::Null),
        (refusal(RefusalCode::Timeout), "504 server_error upstream_timeout", Value::Null),
        (refusal(RefusalCode::Forbidden), "403 upstream_error upstream_auth_failed", Value::Null),
        (refusal(RefusalCode::NotFound), "404 invalid_request_error model_not_found", Value::Null),
        (refusal(RefusalCode::Draining), "503 server_error upstream_overloaded", Value::Null),
        (refusal(RefusalCode::Unavailable), "502 server_error upstream_unavailable", Value::Null),
        (refusal(RefusalCode::Internal), "502 server_error upstream_unavailable", Value::Null),
        (Reply::Fail(CallError::NoIdentity), "502 server_error upstream_unavailable", Value::Null),
        (Reply::Fail(CallError::ConnectTimeout), "504 server_error upstream_timeout", Value::Null),
        (Reply::text(200, "text/html", "<html>"), "502 server_error upstream_unavailable", Value::Null),
    ] {
        let test = with_nodes(&["n1"]);
        test.host.reply("n1", reply);
        let answer = test.chat(&json!({"messages": messages}));
        let status = answer.status.as_u16();
        let error = answer.json()["error"].clone();
        let told =
            format!("{status} {} {}", error["type"].as_str().unwrap(), error["code"].as_str().unwrap());
        assert_eq!((told.as_str(), &error["param"]), (line, &param), "{error}");
    }
}

#[test]
fn only_nodes_that_are_up_and_fit_are_asked() {
    let lives_until = |ms: u64| move |node: &mut runner_api::NodeRecord| node.expires_unix_ms = ms;
    let test = with_nodes(&[]);
    test.announce(&node("expired", lives_until(crate::support::START_MS)));
    test.announce(&node("draining", |node| node.capacity.draining = true));
    test.announce(&node("other", |node| node.clis[0].name = "gemini".into()));
    assert_eq!(test.stream().error_line(), "502 server_error upstream_unavailable");
    assert!(test.host.calls().is_empty());

    // Somebody has the CLI, but not the model.
    test.announce(&node("haiku", |node| {
        node.clis[0].parameters.get_mut("model").unwrap().values = vec!["haiku".into()];
    }));
    test.advance(secs(2));
    assert_eq!(test.stream().error_line(), "502 server_error upstream_unavailable", "from the background on");
    test.host.run_spawned();
    assert_eq!(test.stream().error_line(), "404 invalid_request_error model_not_found");

    test.announce(&node("n1", |_| ()));
    test.advance(secs(10));
    test.host.reply("n1", answer());
    assert_eq!(test.stream().status, 200, "what is too old is looked up before");
}

#[test]
fn parameters_are_those_that_the_cli_declares() {
    let with = |config: Value, request: Value| {
        let test = setup().cli("alpha", &config).build();
        test.announce(&node("n1", |node| {
            let effort = json!({"values": ["low", "high"]});
            let info = &mut node.clis[0].parameters;
            info.insert("reasoning_effort".into(), serde_json::from_value(effort).unwrap());
            info.insert("budget".into(), runner_api::node::ParameterInfo::default());
        }));
        test.host.reply("n1", answer());
        let answer = test.chat(&request);
        if answer.status == 200 {
            Ok(test.host.last_call().json()["parameters"].clone())
        } else {
            Err(answer.error_line())
        }
    };
    let low = json!({"reasoning_effort": "low"});
    assert_eq!(with(json!({}), json!({})), Ok(json!({"model": "opus"})));
    assert_eq!(with(json!({}), low.clone()), Ok(json!({"model": "opus", "reasoning_effort": "low"})));
    let fixed = json!({"parameters": {"reasoning_effort": "high", "budget": "12"}, "model_parameter": ""});
    assert_eq!(with(fixed, low.clone()), Ok(json!({"reasoning_effort": "high", "budget": "12"})));
    let no_reasoning = json!({
        "models": [{"id": "m", "upstream_id": "opus", "capabilities": {"reasoning": false}}],
    });
    assert_eq!(with(no_reasoning, low.clone()), Ok(json!({"model": "opus"})));
    for wrong in
        [json!({"parameters": {"unheard": "of"}}), json!({"parameters": {"reasoning_effort": "xhigh"}})]
    {
        assert_eq!(with(wrong, json!({})), Err("502 server_error upstream_unavailable".to_owned()));
    }
    // A CLI without the parameter does what it does.
    let test = with_nodes(&["n1"]);
    test.host.reply("n1", answer());
    assert_eq!(test.chat(&low).status, 200);
    assert_eq!(test.host.last_call().json()["parameters"], json!({"model": "opus"}));
}

/// Whatever a client sends is mapped, clamped or dropped, and never refused.
#[test]
fn every_reasoning_effort_is_one_that_the_cli_takes() {
    let sent = |declared: Value, effort: &str| {
        let test = with_nodes(&[]);
        test.announce(&node("n1", |node| {
            let effort = serde_json::from_value(json!({"values": declared})).unwrap();
            node.clis[0].parameters.insert("reasoning_effort".into(), effort);
        }));
        test.host.reply("n1", answer());
        assert_eq!(test.chat(&json!({"reasoning_effort": effort})).status, 200, "{effort}");
        test.host.last_call().json()["parameters"]["reasoning_effort"].take()
    };
    let [three, ends, odd] =
        [json!(["low", "medium", "high"]), json!(["max", "minimal"]), json!(["turbo", "high"])];
    for (declared, effort, expected) in [
        (&three, "none", json!("low")),
        (&three, "minimal", json!("low")),
        (&three, "medium", json!("medium")),
        (&three, "xhigh", json!("high")),
        (&three, "max", json!("high")),
        (&three, "turbo", Value::Null),
        (&three, "", Value::Null),
        (&ends, "none", json!("minimal")),
        (&ends, "low", json!("minimal")),
        // Of two that are equally near the cheaper one.
        (&ends, "medium", json!("minimal")),
        (&ends, "high", json!("max")),
        (&ends, "xhigh", json!("max")),
        (&odd, "turbo", json!("turbo")),
        (&odd, "low", json!("high")),
        (&json!(["turbo"]), "low", Value::Null),
        // A CLI that declares no values is given those that mean something.
        (&json!([]), "xhigh", json!("xhigh")),
        (&json!([]), "--help\n", Value::Null),
    ] {
        assert_eq!(sent(declared.clone(), effort), expected, "{effort} of {declared}");
    }

    // A node whose record is out of date is asked again without.
    let test = with_nodes(&[]);
    test.announce(&node("n1", |node| {
        node.clis[0].parameters.insert("reasoning_effort".into(), runner_api::node::ParameterInfo::default());
    }));
    let refusal = || {
        let refusal = Refusal::new(RefusalCode::InvalidRequest, "is not allowed");
        Reply::refusal(&refusal.at("parameters.reasoning_effort"))
    };
    test.host.reply("n1", refusal());
    test.host.reply("n1", answer());
    assert_eq!(test.chat(&json!({"reasoning_effort": "low"})).status, 200);
    assert_eq!(test.host.last_call().json()["parameters"], json!({"model": "opus"}));
    // Once: a node that goes on about it is broken.
    test.host.reply("n1", refusal());
    test.host.reply("n1", refusal());
    let answer = test.chat(&json!({"reasoning_effort": "low"}));
    assert_eq!(answer.error_line(), "502 server_error upstream_unavailable");
}

/// Of two picked at random the less loaded: the most loaded of three is never the first, the others share.
#[test]
fn runs_are_spread_by_load() {
    let test = with_nodes(&["idle"]);
    test.announce(&node("half", |node| node.capacity.running = 4));
    test.announce(&node("full", |node| {
        node.capacity.running = 8;
        node.capacity.queued = 3;
    }));
    let mut first: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..100 {
        for id in ["idle", "half", "full"] {
            test.host.reply(id, answer());
        }
        test.stream().text();
        *first.entry(asked(&test).pop().unwrap()).or_default() += 1;
    }
    assert_eq!(first.keys().collect::<Vec<_>>(), ["half", "idle"], "{first:?}");
    assert!(first["idle"] > first["half"] && first["half"] >= 10, "{first:?}");

    // Nodes that are alike all get some.
    let test = with_nodes(&["n1", "n2", "n3", "n4"]);
    for _ in 0..100 {
        for id in ["n1", "n2", "n3", "n4"] {
            test.host.reply(id, answer());
        }
        test.stream().text();
    }
    for id in ["n1", "n2", "n3", "n4"] {
        let share = asked(&test).iter().filter(|host| *host == id).count();
        assert!((10..=50).contains(&share), "{id}: {share} of 100");
    }
}

#[test]
fn a_node_that_failed_is_avoided_for_a_while() {
    let test = with_nodes(&["n1"]);
    test.announce(&node("n2", |node| node.capacity.running = 8));
    test.host.reply("n1", Reply::Fail(CallError::Connect));
    for _ in 0..3 {
        test.host.reply("n2", answer());
    }
    for _ in 0..3 {
        assert_eq!(test.stream().status, 200);
    }
    assert_eq!(asked(&test), ["n1", "n2", "n2", "n2"]);
    test.advance(secs(5));
    test.host.reply("n1", answer());
    assert_eq!(test.stream().status, 200);
    assert_eq!(asked(&test).last().unwrap(), "n1");
    // With nobody else there, it is tried all the same.
    let test = with_nodes(&["n1"]);
    test.host.reply("n1", Reply::Fail(CallError::Connect));
    test.host.reply("n1", answer());
    assert_eq!(test.stream().status, 502);
    assert_eq!(test.stream().status, 200);
}

#[test]
fn no_request_visits_more_than_four_nodes() {
    let ids = ["n1", "n2", "n3", "n4", "n5", "n6"];
    let test = with_nodes(&ids);
    for id in ids {
        test.host.reply(id, Reply::Fail(CallError::Connect));
    }
    assert_eq!(test.stream().error_line(), "502 server_error upstream_unavailable");
    assert_eq!(asked(&test).len(), 4);
}

#[test]
fn nodes_are_looked_up_off_the_request_and_remembered_while_the_registry_is_away() {
    let log = Log::start();
    let test = with_nodes(&["n1"]);
    for _ in 0..6 {
        test.host.reply("n1", answer());
    }
    for _ in 0..3 {
        assert_eq!(test.stream().status, 200);
    }
    assert_eq!(test.runners.look_ups(), 1);
    test.advance(secs(2));
    assert_eq!(test.stream().status, 200);
    assert_eq!(test.runners.look_ups(), 1, "not before the answer");
    test.host.run_spawned();
    assert_eq!(test.runners.look_ups(), 2);

    test.runners.is_down(true);
    test.advance(secs(60));
    assert_eq!(test.stream().status, 200);
    assert!(log.all().iter().any(|line| line.contains("the registry does not answer")), "{:?}", log.all());
    test.advance(secs(3_600));
    assert_eq!(
        test.stream().error_line(),
        "502 server_error upstream_unavailable",
        "a record says until when it holds"
    );
    test.runners.is_down(false);
    test.announce(&node("n1", |node| node.expires_unix_ms += 7_200_000));
    test.advance(secs(5));
    assert_eq!(test.stream().status, 200);
}

#[test]
fn a_pause_in_traffic_loses_no_node() {
    // Announced every three seconds for ten.
    let announced_at =
        |ms: u64| node("n1", |node| node.expires_unix_ms = crate::support::START_MS + ms + 10_000);
    let test = with_nodes(&[]);
    test.announce(&announced_at(0));
    test.host.reply("n1", answer());
    test.host.reply("n1", answer());
    test.advance(secs(2));
    assert_eq!(test.stream().status, 200);
    test.advance(secs(9));
    test.announce(&announced_at(9_000));
    assert_eq!(test.stream().status, 200);
}

#[test]
fn requests_for_other_models_do_not_look_for_nodes() {
    let test = setup().provider("beta", &json!({})).build();
    test.host.reply("beta", Reply::json(200, &completion("a")));
    assert_eq!(test.chat(&json!({})).status, 200);
    assert_eq!(test.runners.look_ups(), 0);
}

#[test]
fn a_cli_is_checked_by_looking_for_its_nodes() {
    let test = with_nodes(&[]);
    test.stream();
    let check = |test: &TestGateway| {
        let gateway = test.gateway.clone();
        let mut checks = crate::support::Task::new(async move { gateway.check_providers().await }).finish();
        checks.remove(0).models
    };
    assert_eq!(check(&test), Err("No runner that is up has the CLI 'claude'.".to_owned()));
    test.announce(&node("n1", |_| ()));
    test.advance(secs(1));
    assert_eq!(check(&test), Ok(1));
    test.runners.is_down(true);
    test.advance(secs(1));
    assert!(check(&test).unwrap_err().contains("it is down"));
}

/// Where nodes are verified by public authorities, a record alone could lead prompts anywhere.
#[test]
fn a_node_at_a_host_that_is_not_listed_gets_no_runs() {
    let hosts = HostList::parse("n1.example").unwrap();
    let test =
        setup().cli("claude", &json!({})).settings(|settings| settings.runner_hosts = Some(hosts)).build();
    let log = Log::start();
    test.announce(&node("evil", |_| {}));
    for _ in 0..2 {
        assert_eq!(test.stream().error_line(), "502 server_error upstream_unavailable");
        test.advance(secs(5));
    }
    test.announce(&node("n1", |_| {}));
    test.advance(secs(5));
    test.host.reply("n1", answer());
    assert_eq!(test.stream().status, 200);
    let told = log.all().iter().filter(|line| line.contains("DYAD_RUNNER_HOSTS")).count();
    assert_eq!(told, 1, "once");
    assert!(test.gateway.status().left_out.iter().any(|item| item.name == "evil"));
}
