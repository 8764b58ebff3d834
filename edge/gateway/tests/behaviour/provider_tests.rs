//! Tests and checks of single providers, which need not be stored.

use catalog::{CheckReport, CredentialRef, Provider, Secret, TestReport, TestRequest, TestTiming};
use gateway::{CallError, HostList, Reach};
use runner_api::{ErrorClass, FinishReason, RunEvent, RunUsage};
use serde_json::{Value, json};

use crate::support::{
    Feed, Gate, Log, Reply, Task, TestGateway, cli_provider, completion, ending, millis, node, provider,
    secs, setup, text_chunk,
};

const SECRET: &str = "sk-given-for-this-test-alone";

fn given(changes: &Value) -> Provider {
    Provider { credential: CredentialRef::Inline(Secret::new(SECRET)), ..provider("alpha", changes) }
}

fn begin(test: &TestGateway, provider: &Provider, model: Option<&str>, stream: bool) -> Task<TestReport> {
    let request = TestRequest { provider: provider.clone(), model: model.map(str::to_owned), stream };
    let gateway = test.gateway.clone();
    Task::new(async move { gateway.test(request).await })
}

fn run(test: &TestGateway, provider: &Provider, stream: bool) -> TestReport {
    begin(test, provider, None, stream).finish()
}

fn check(test: &TestGateway, provider: &Provider) -> CheckReport {
    let (gateway, provider) = (test.gateway.clone(), provider.clone());
    Task::new(async move { gateway.check(&provider).await }).finish()
}

#[test]
fn a_test_is_a_real_chat_of_few_tokens() {
    let test = setup().build();
    let log = Log::start();
    let gate = Gate::default();
    test.host.reply("alpha", Reply::Later(gate.clone()));
    let mut task = begin(&test, &given(&json!({})), None, false);
    task.must_wait();
    test.advance(millis(70));
    gate.open(Reply::json(200, &completion("OK")));
    let report = task.finish();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.model.as_str(), report.stream, report.failure), ("m", false, None));
    assert_eq!(report.answer.as_deref(), Some("OK"));
    let usage = report.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.estimated), (5, 2, false));
    let timing = TestTiming {
        resolved_ms: Some(0),
        connected_ms: Some(0),
        first_byte_ms: Some(70),
        first_token_ms: None,
        end_ms: 70,
    };
    assert_eq!(report.timing, timing);

    let call = test.host.last_call();
    assert_eq!(call.url, "https://alpha.example/v1/chat/completions");
    assert_eq!(call.headers["authorization"], format!("Bearer {SECRET}"));
    let body = call.json();
    assert_eq!((&body["model"], &body["max_tokens"]), (&json!("up-m"), &json!(16)));
    let logged = log.all();
    assert!(logged.iter().any(|line| line.contains("a provider was tested")), "{logged:?}");
    assert!(!logged.iter().any(|line| line.contains(SECRET) || line.contains("Say OK")), "{logged:?}");
}

#[test]
fn a_streamed_test_tells_its_first_token_from_its_end() {
    let test = setup().build();
    let feed = Feed::default();
    test.host.reply("alpha", Reply::feed(&feed));
    let mut task = begin(&test, &given(&json!({"models": [{"id": "a"}, {"id": "b"}]})), Some("b"), true);
    task.must_wait();
    test.advance(millis(30));
    feed.push(text_chunk("O"));
    task.must_wait();
    test.advance(millis(20));
    feed.push(text_chunk("K"));
    feed.push(ending());
    feed.end();
    let report = task.finish();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.model.as_str(), report.answer.as_deref()), ("b", Some("OK")));
    let timing = report.timing;
    assert_eq!((timing.first_byte_ms, timing.first_token_ms, timing.end_ms), (Some(0), Some(30), 50));
    assert_eq!(report.usage.unwrap().completion_tokens, 2);
    assert_eq!(test.host.last_call().json()["stream"], json!(true));
}

#[test]
fn a_long_answer_is_cut() {
    let test = setup().build();
    test.host.reply("alpha", Reply::json(200, &completion(&"ä".repeat(300))));
    assert_eq!(run(&test, &given(&json!({})), false).answer, Some("ä".repeat(200)));
    // Pieces of an answer that has no end for a long time.
    let long = text_chunk(&"x".repeat(9_000));
    let pieces = std::iter::repeat_n(long, 20).chain([ending()]);
    test.host.reply("alpha", Reply::sse(pieces));
    assert_eq!(run(&test, &given(&json!({})), true).answer, Some("x".repeat(200)));
}

#[test]
fn failures_are_classified_with_advice() {
    let error = |message: &str| json!({"error": {"message": message, "type": "invalid_request_error"}});
    let long_wait = || Reply::json(429, &json!({})).with_header("retry-after", "3600");
    let replies: [(Reply, &str, Option<u16>, &str); 11] = [
        (Reply::json(401, &error("bad key")), "auth", Some(401), "credential"),
        (Reply::json(429, &error("slow down")), "rate_limited", Some(429), "Wait"),
        (long_wait(), "quota_exhausted", Some(429), "account"),
        (Reply::json(503, &error("busy")), "overloaded", Some(503), "Wait"),
        (Reply::json(404, &error("no such model")), "not_found", Some(404), "adapterModelId"),
        (Reply::json(400, &error("model is odd")), "invalid_request", Some(400), "model"),
        (Reply::json(500, &error("oops")), "internal", Some(500), "log"),
        (Reply::text(404, "text/html", "<h1>"), "unavailable", Some(404), "base URL"),
        (Reply::Fail(CallError::Connect), "unavailable", None, "base URL"),
        (Reply::Fail(CallError::ConnectTimeout), "timeout", None, "reached"),
        (Reply::Fail(CallError::Refused), "unusable", None, "private_upstream_hosts"),
    ];
    let test = setup().build();
    for (reply, class, status, advice) in replies {
        test.host.reply("alpha", reply);
        let report = run(&test, &given(&json!({})), false);
        let failure = report.failure.unwrap();
        assert!(!report.ok);
        assert_eq!((failure.class.as_str(), failure.status), (class, status), "{failure:?}");
        assert!(failure.advice.contains(advice), "{failure:?}");
        assert!(!failure.message.is_empty() && !failure.message.contains("bad key"), "{failure:?}");
    }
}

#[test]
fn no_failure_shows_the_credential() {
    let test = setup().build();
    let message = format!("the model is odd, and so is {SECRET}");
    test.host.reply("alpha", Reply::json(400, &json!({"error": {"message": message}})));
    let failure = run(&test, &given(&json!({})), true).failure.unwrap();
    assert_eq!(failure.message, "the model is odd, and so is ***");
}

#[test]
fn a_test_ends_after_a_minute_and_with_whoever_wanted_it() {
    for stream in [true, false] {
        let test = setup().build();
        let gate = Gate::default();
        test.host.reply("alpha", Reply::Later(gate.clone()));
        let mut task = begin(&test, &given(&json!({})), None, stream);
        task.must_wait();
        test.advance(secs(59));
        task.must_wait();
        test.advance(secs(1));
        let report = task.finish();
        assert_eq!(report.failure.unwrap().class, "timeout");
        assert_eq!((report.timing.first_byte_ms, report.timing.end_ms), (None, 60_000));
        assert!(gate.is_given_up());

        let gate = Gate::default();
        test.host.reply("alpha", Reply::Later(gate.clone()));
        let mut task = begin(&test, &given(&json!({})), None, stream);
        task.must_wait();
        drop(task);
        assert!(gate.is_given_up());
    }
}

#[test]
fn what_the_upstream_refuses_is_put_right_and_sent_again() {
    let test = setup().build();
    let message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.";
    let refusal =
        json!({"error": {"message": message, "param": "max_tokens", "code": "unsupported_parameter"}});
    test.host.reply("alpha", Reply::json(400, &refusal));
    test.host.reply("alpha", Reply::json(200, &completion("OK")));
    assert!(run(&test, &given(&json!({})), false).ok);
    assert_eq!(test.host.last_call().json()["max_completion_tokens"], json!(16));
}

#[test]
fn the_model_is_one_that_chats() {
    let test = setup().build();
    let two = json!({"models": [
        {"id": "e", "capabilities": {"chat": false}}, {"id": "text-embed-3"}, {"id": "c", "upstream_id": "up-c"},
    ]});
    test.host.reply("alpha", Reply::json(200, &completion("OK")));
    assert_eq!(run(&test, &given(&two), false).model, "c");
    // A name that is not there is not asked for.
    let report = begin(&test, &given(&two), Some("up-c"), false).finish();
    assert_eq!((report.model.as_str(), report.failure.unwrap().class.as_str()), ("up-c", "not_found"));
    assert_eq!(test.host.calls().len(), 1);
    // One that is not listed is looked for at the upstream.
    let listed = json!({"object": "list", "data": [{"id": "nomic-embed-text"}, {"id": "llama"}]});
    test.host.reply("alpha", Reply::json(200, &listed));
    test.host.reply("alpha", Reply::json(200, &completion("OK")));
    assert_eq!(run(&test, &given(&json!({"models": []})), false).model, "llama");
    assert_eq!(test.host.last_call().json()["model"], "llama");
}

#[test]
fn a_provider_is_held_to_what_is_stored_unless_it_is_one_of_those_given() {
    let test = setup().build();
    let inside = given(&json!({"base_url": "https://10.0.0.1/v1"}));
    let failure = run(&test, &inside, false).failure.unwrap();
    assert_eq!(failure.class, "unusable");
    assert!(failure.message.contains("private_upstream_hosts"), "{failure:?}");
    assert!(test.host.calls().is_empty());
    let alpha = given(&json!({}));
    test.gateway.set_providers(vec![alpha.clone()]);
    let changed = Provider { name: "changed".to_owned(), ..alpha.clone() };
    for (provider, reach) in [(alpha, Reach::Anywhere), (changed, Reach::Public)] {
        test.host.reply("alpha", Reply::json(200, &completion("OK")));
        assert!(run(&test, &provider, false).ok);
        assert_eq!(test.host.last_call().reach, Some(reach));
    }
    let allowed = setup()
        .settings(|settings| settings.upstream_hosts.only = Some(HostList::parse("*.other").unwrap()))
        .build();
    assert_eq!(run(&allowed, &given(&json!({})), false).failure.unwrap().class, "unusable");
}

#[test]
fn a_credential_that_is_not_there_is_named() {
    let test = setup().build();
    let missing = provider("alpha", &json!({"credential": "env:NOT_THERE"}));
    let failure = run(&test, &missing, false).failure.unwrap();
    assert_eq!((failure.class.as_str(), failure.status), ("unusable", None));
    assert!(failure.message.contains("NOT_THERE is not set"), "{failure:?}");
}

#[test]
fn a_cli_is_tested_where_it_runs() {
    let test = setup().build();
    let claude = cli_provider("claude", &json!({}));
    let failure = run(&test, &claude, true).failure.unwrap();
    assert_eq!(failure.class, "unavailable");
    assert!(failure.advice.contains("runner"), "{failure:?}");
    test.announce(&node("n1", |_| {}));
    test.advance(secs(10));
    let usage = RunUsage { input_tokens: Some(9), output_tokens: Some(1), ..RunUsage::default() };
    let events = [
        RunEvent::Started { waited_ms: 0, warm: true },
        RunEvent::Text { text: "OK".to_owned() },
        RunEvent::Usage(usage),
        RunEvent::Finished { reason: FinishReason::Stop },
    ];
    for stream in [true, false] {
        test.host.reply("n1", Reply::run(&events));
        let report = run(&test, &claude, stream);
        assert!(report.ok, "{report:?}");
        assert_eq!((report.answer.as_deref(), report.usage.unwrap().prompt_tokens), (Some("OK"), 9));
        assert_eq!(report.timing.first_byte_ms, Some(0));
    }
    let refused = RunEvent::error(ErrorClass::Auth, "no");
    test.host.reply("n1", Reply::run(&[refused]));
    let failure = run(&test, &claude, false).failure.unwrap();
    assert_eq!(failure.class, "auth");
    assert!(failure.advice.contains("runner's operator"), "{failure:?}");
}

#[test]
fn a_check_costs_no_tokens() {
    let test = setup().build();
    let alpha = given(&json!({"models": [{"id": "a"}, {"id": "b"}]}));
    let listed = || json!({"object": "list", "data": [{"id": "x"}]});
    let error = json!({"error": {"message": "there is no such thing"}});
    for (reply, outcome) in [
        (Reply::json(200, &listed()), Ok(2)),
        // Some that serve chats list no models.
        (Reply::json(404, &error), Ok(2)),
        (Reply::json(401, &error), Err("auth")),
        (Reply::text(404, "text/html", "<h1>"), Err("unavailable")),
        (Reply::Fail(CallError::Tls), Err("unavailable")),
    ] {
        test.host.reply("alpha", reply);
        let report = check(&test, &alpha);
        let outcome_class =
            report.outcome.as_ref().map(|count| *count).map_err(|failure| failure.class.as_str());
        assert_eq!(outcome_class, outcome, "{report:?}");
    }
    assert!(test.host.calls().iter().all(|call| call.url == "https://alpha.example/v1/models"));
    test.host.reply("alpha", Reply::json(200, &listed()));
    assert_eq!(check(&test, &given(&json!({"models": []}))).outcome, Ok(1));
}

#[test]
fn a_check_gives_up() {
    let test = setup().build();
    test.host.reply("alpha", Reply::Later(Gate::default()));
    let gateway = test.gateway.clone();
    let mut task = Task::new(async move { gateway.check(&given(&json!({}))).await });
    task.must_wait();
    test.advance(secs(10));
    let report = task.finish();
    assert_eq!((report.outcome.unwrap_err().class.as_str(), report.duration_ms), ("timeout", 10_000));
}
