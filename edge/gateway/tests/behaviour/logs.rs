//! What is logged of a request, and what never is.

use gateway::CallError;
use serde_json::{Value, json};

use crate::support::{Feed, Log, Reply, TestGateway, completion, credential_of, ending, setup, text_chunk};

fn one() -> TestGateway {
    setup().provider("alpha", &json!({})).build()
}

/// The line of a request that ended in this way.
fn settled(test: &TestGateway, end: impl FnOnce(&TestGateway)) -> String {
    let log = Log::start();
    end(test);
    let mut lines = log.settled();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

fn chat(test: &TestGateway, reply: Reply, changes: &Value) {
    test.host.reply("alpha", reply);
    test.chat(changes).text();
}

#[test]
fn the_line_of_a_request_has_its_status_and_its_outcome() {
    let test = one();
    let cut = Feed::default();
    cut.push(text_chunk("a"));
    cut.cut();
    let stream = json!({"stream": true});
    for (reply, changes, status, outcome) in [
        (Reply::json(200, &completion("ok")), json!({}), 200, "ok"),
        (Reply::sse([text_chunk("a"), ending()]), stream.clone(), 200, "ok"),
        (Reply::json(401, &json!({})), json!({}), 403, "auth"),
        (Reply::json(401, &json!({})), stream.clone(), 403, "auth"),
        (Reply::feed(&cut), stream.clone(), 200, "unavailable"),
    ] {
        let line = settled(&test, |test| chat(test, reply, &changes));
        let (status, outcome) = (format!(" status={status} "), format!(" outcome=\"{outcome}\" "));
        assert!(line.contains(&status) && line.contains(&outcome), "{line}");
        assert!(line.contains("provider=\"alpha\" ") && line.contains("model=\"m\" "), "{line}");
    }
    let line = settled(&test, |test| drop(test.chat(&json!({"model": "none"}))));
    assert!(line.contains(" status=404 ") && line.contains(" outcome=\"model_not_found\" "), "{line}");
}

#[test]
fn who_leaves_before_the_answer_has_no_status() {
    let test = one();
    let feed = Feed::default();
    let line = settled(&test, |test| {
        test.host.reply("alpha", Reply::feed(&feed));
        let mut waiting = test.start_chat(&json!({"stream": true}));
        waiting.must_wait();
        drop(waiting);
    });
    assert!(!line.contains(" status=") && line.contains(" outcome=\"client_gone\" "), "{line}");
    assert!(line.contains(" provider=\"alpha\" "), "whoever was asked is named: {line}");
}

#[test]
fn a_refusal_before_admission_has_its_line_too() {
    let test = one();
    let log = Log::start();
    test.models_with(None);
    let lines = log.all();
    let line = lines.iter().find(|line| line.contains("message=refused")).unwrap();
    assert!(line.contains(" status=401 ") && line.ends_with(" outcome=\"missing_api_key\""), "{line}");
}

#[test]
fn a_failure_of_an_upstream_names_the_request() {
    let test = setup().provider("alpha", &json!({"rank": 1})).provider("beta", &json!({"rank": 2})).build();
    test.host.reply("alpha", Reply::Fail(CallError::Connect));
    test.host.reply("beta", Reply::json(200, &completion("ok")));
    let mut request = test.request(
        http::Method::POST,
        "/v1/chat/completions",
        json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).to_string(),
    );
    request.headers_mut().insert("x-request-id", "from-the-client".parse().unwrap());
    let log = Log::start();
    test.send(request).text();
    let lines = log.all();
    for message in ["an upstream is asked", "an upstream failed", "the upstream answers"] {
        let line = lines.iter().find(|line| line.contains(message)).unwrap_or_else(|| panic!("{lines:?}"));
        assert!(line.contains("request_id=\"from-the-client\""), "{line}");
    }
    assert!(log.settled()[0].contains("request_id=\"from-the-client\""));
}

#[test]
fn what_is_said_and_who_may_say_it_is_never_logged() {
    let test = one();
    let prompt = "canary of the prompt";
    let said = json!({"messages": [{"role": "user", "content": prompt}], "stream": true});
    let quoting = json!({"error": {"message": format!("you said '{prompt}'"), "code": "invalid_prompt"}});
    let log = Log::start();
    chat(&test, Reply::sse([text_chunk("canary of the answer"), ending()]), &said);
    chat(&test, Reply::sse([format!("data: {quoting}\n\n")]), &said);
    for status in [400, 401, 429, 500] {
        chat(&test, Reply::json(status, &quoting), &said);
    }
    test.models_with(Some("Bearer canary of a wrong key"));
    let lines = log.all();
    assert!(lines.len() > 10, "there is a log at all: {lines:?}");
    for line in &lines {
        for secret in ["canary", test.key.as_str(), &credential_of("alpha")] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}
