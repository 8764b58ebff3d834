//! Who may ask what, and under which names.

use catalog::{ApiKey, PreviousHash};
use gateway::Cors;
use http::{Method, StatusCode};
use serde_json::json;

use crate::support::{Mood, Reply, START_MS, completion, millis, secs, setup};

#[test]
fn nothing_but_health_is_answered_without_a_key() {
    let test = setup().provider("alpha", &json!({})).build();
    for (method, path) in [
        (Method::POST, "/v1/chat/completions"),
        (Method::POST, "/chat/completions"),
        (Method::POST, "/v1/chat/completions/chat/completions"),
        (Method::POST, "/v1/embeddings"),
        (Method::GET, "/v1/models"),
        (Method::HEAD, "/v1/models"),
        (Method::GET, "/v1/models/m"),
        (Method::GET, "/v1/models/alpha%2Fm"),
    ] {
        let mut request = test.request(method.clone(), path, "{}");
        request.headers_mut().remove("authorization");
        let answer = test.send(request);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert_eq!(answer.error_line(), "401 invalid_request_error missing_api_key", "{method} {path}");
    }
    for path in ["/healthz", "/ready"] {
        let mut request = test.request(Method::GET, path, "");
        request.headers_mut().remove("authorization");
        assert_eq!(test.send(request).status, StatusCode::OK, "{path}");
    }
    assert!(test.host.calls().is_empty());
}

#[test]
fn unknown_paths_and_methods_are_told_what_is_right() {
    let test = setup().build();
    for path in ["/", "/v1", "/v1/chat", "/admin", "/v1/completions", "/v1/healthz"] {
        let answer = test.send(test.request(Method::POST, path, "{}"));
        assert_eq!(answer.error_line(), "404 invalid_request_error unknown_url", "{path}");
    }
    let long = test.get(&format!("/{}", "x".repeat(60_000)));
    let message = long.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.len() < 500 && message.contains("/v1"), "{message}");
    for (method, path, allow) in [
        (Method::GET, "/v1/chat/completions", "POST"),
        (Method::DELETE, "/v1/chat/completions", "POST"),
        (Method::PUT, "/v1/embeddings", "POST"),
        (Method::POST, "/v1/models", "GET"),
        (Method::PATCH, "/v1/models/m", "GET"),
        (Method::POST, "/healthz", "GET"),
        (Method::POST, "/ready", "GET"),
        (Method::OPTIONS, "/v1/models", "GET"),
    ] {
        let answer = test.send(test.request(method.clone(), path, ""));
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        assert_eq!(answer.error_line(), "405 invalid_request_error method_not_allowed", "{method} {path}");
    }
}

#[test]
fn a_key_is_refused_for_what_is_wrong_with_it() {
    let test = setup().build();
    let unknown = ApiKey::from_random(&[2; 32]);
    let revoked = ApiKey::from_random(&[3; 32]);
    test.put_key(&revoked, |record| record.revoked_at_ms = Some(START_MS));
    let expiring = ApiKey::from_random(&[4; 32]);
    test.put_key(&expiring, |record| record.expires_at_ms = Some(START_MS + 5_000));
    let mut mistyped = test.key.clone();
    mistyped.replace_range(20..21, if mistyped.as_bytes()[20] == b'x' { "y" } else { "x" });
    for (header, says) in [
        ("Bearer sk-something-else".to_owned(), "begin with dgw_"),
        (format!("Bearer {mistyped}"), "mistyped"),
        (format!("Bearer {}", &test.key[..40]), "mistyped"),
        (format!("Bearer {}x", test.key), "mistyped"),
        (format!("Basic {}", test.key), "not 'Bearer"),
        (test.key.clone(), "not 'Bearer"),
        ("Bearer ".to_owned(), "not 'Bearer"),
        (format!("Bearer {}", unknown.expose()), "not valid"),
        (format!("Bearer {}", revoked.expose()), "revoked"),
    ] {
        let answer = test.models_with(Some(&header));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let json = answer.json();
        let message = json["error"]["message"].as_str().unwrap();
        assert_eq!(json["error"]["code"], "invalid_api_key", "{header}");
        assert!(message.contains(says), "{header}: {message}");
        assert!(!message.contains(&test.key[4..]), "a message quotes no key");
    }

    for header in [format!("bearer {}", test.key), format!("BEARER   {} ", test.key)] {
        assert_eq!(test.models_with(Some(&header)).status, StatusCode::OK, "{header:?}");
    }
    let header = format!("Bearer {}", expiring.expose());
    assert_eq!(test.models_with(Some(&header)).status, StatusCode::OK);
    test.advance(secs(5));
    assert!(test.models_with(Some(&header)).text().contains("expired"));
}

#[test]
fn a_wrong_secret_for_a_known_id_is_refused_as_an_unknown_key_is() {
    let test = setup().build();
    let stolen = ApiKey::from_random(&[5; 32]);
    // The record holds the hash of another secret.
    test.put_key(&stolen, |record| record.hash[0] ^= 1);
    let refused = test.models_with(Some(&format!("Bearer {}", stolen.expose()))).text();
    let unknown = ApiKey::from_random(&[6; 32]);
    assert_eq!(refused, test.models_with(Some(&format!("Bearer {}", unknown.expose()))).text());
}

#[test]
fn the_secret_before_a_rotation_is_accepted_until_its_grace_is_over() {
    let test = setup().build();
    let before = ApiKey::from_random(&[5; 32]);
    let after = ApiKey::with_id(before.id().clone(), &[6; 32]);
    let previous = PreviousHash { hash: test.hasher.hash(&before), until_ms: START_MS + 60_000 };
    test.put_key(&after, |record| record.previous = Some(previous));
    let other = ApiKey::with_id(before.id().clone(), &[7; 32]);
    let status = |key: &ApiKey| test.models_with(Some(&format!("Bearer {}", key.expose()))).status;
    for (ahead_ms, grace) in [(0, true), (59_999, true), (60_000, false)] {
        // By the store's clock, and without another look at the store.
        test.store.is_ahead_by_ms(ahead_ms);
        assert_eq!(status(&after), StatusCode::OK);
        assert_eq!(status(&before) == StatusCode::OK, grace, "{ahead_ms}");
        assert_eq!(status(&other), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(test.store.key_look_ups(), 1);

    // What is over for the key is over for both.
    test.put_key(&after, |record| {
        record.previous = Some(previous);
        record.revoked_at_ms = Some(START_MS);
    });
    test.store.is_ahead_by_ms(0);
    test.advance(secs(10));
    assert_eq!((status(&before), status(&after)), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED));
}

#[test]
fn two_authorizations_are_one_too_many() {
    let test = setup().build();
    let mut request = test.request(Method::GET, "/v1/models", "");
    request.headers_mut().append("authorization", "Bearer other".parse().unwrap());
    assert_eq!(test.send(request).error_line(), "401 invalid_request_error invalid_api_key");
}

#[test]
fn a_mistyped_key_costs_no_look_up() {
    let test = setup().build();
    test.models_with(Some("Bearer dgw_nonsense"));
    assert_eq!(test.store.key_look_ups(), 0);
    test.get("/v1/models");
    test.get("/v1/models");
    assert_eq!(test.store.key_look_ups(), 1);
}

#[test]
fn an_unreachable_store_is_no_verdict_on_a_key() {
    let test = setup().store(Mood::Down).build();
    let answer = test.get("/v1/models");
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(answer.error_line(), "503 server_error store_unavailable");
}

#[test]
fn a_model_answers_to_its_id_and_to_its_provider_and_id() {
    let test = setup()
        .provider("alpha", &json!({"rank": 2}))
        .provider("beta", &json!({"rank": 1, "models": [
            {"id": "m", "upstream_id": "beta-m", "context_window": 8192, "owned_by": "somebody", "created": 12},
            {"id": "google/gemini:free"},
            {"id": "alpha/m", "upstream_id": "real"},
        ]}))
        .provider("off", &json!({"enabled": false, "models": [{"id": "hidden"}]}))
        .build();
    assert_eq!(test.listed(), ["m", "google/gemini:free", "alpha/m"]);
    for (name, url, upstream_id) in [
        ("m", "https://beta.example/v1/chat/completions", "beta-m"),
        ("beta/m", "https://beta.example/v1/chat/completions", "beta-m"),
        ("google/gemini:free", "https://beta.example/v1/chat/completions", "google/gemini:free"),
        // A real id wins over a provider's name and its model's.
        ("alpha/m", "https://beta.example/v1/chat/completions", "real"),
    ] {
        test.host.reply("beta", Reply::json(200, &completion("ok")));
        let answer = test.chat(&json!({"model": name})).json();
        assert_eq!(answer["model"], name, "the answer bears the name that was asked for");
        let call = test.host.last_call();
        assert_eq!((call.url.as_str(), call.json()["model"].as_str()), (url, Some(upstream_id)), "{name}");
    }
    let shown = test.get("/v1/models/m").json();
    assert_eq!(
        shown,
        json!({"id": "m", "object": "model", "created": 12, "owned_by": "somebody", "context_window": 8192})
    );
    assert_eq!(test.get("/v1/models/google%2Fgemini:free").json()["id"], "google/gemini:free");
    assert_eq!(test.get("/v1/models/beta/m").json()["id"], "beta/m");
    for path in ["/v1/models/hidden", "/v1/models/nothing", "/v1/models/M"] {
        assert_eq!(test.get(path).error_line(), "404 invalid_request_error model_not_found", "{path}");
    }
    let unknown = test.chat(&json!({"model": "hidden"}));
    assert_eq!(unknown.error_line(), "404 invalid_request_error model_not_found");
}

#[test]
fn a_key_sees_and_uses_only_its_models() {
    let models = json!({"models": [{"id": "m"}, {"id": "secret"}, {"id": "third"}]});
    let test = setup()
        .provider("alpha", &models)
        .provider("beta", &json!({}))
        .allowed(&["m", "alpha/third"])
        .build();
    assert_eq!(test.listed(), ["m", "alpha/third"]);
    for name in ["m", "alpha/m", "alpha/third"] {
        test.host.reply("alpha", Reply::json(200, &completion("ok")));
        assert_eq!(test.chat(&json!({"model": name})).status, StatusCode::OK, "{name}");
    }
    for name in ["secret", "alpha/secret", "third"] {
        let answer = test.chat(&json!({"model": name}));
        assert_eq!(answer.error_line(), "404 invalid_request_error model_not_found", "{name}");
        assert_eq!(test.get(&format!("/v1/models/{name}")).status, StatusCode::NOT_FOUND, "{name}");
    }
    assert_eq!(test.host.calls().len(), 3);
}

#[test]
fn a_request_keeps_its_sane_id_and_gets_one_otherwise() {
    let test = setup().provider("alpha", &json!({})).build();
    let long = "x".repeat(129);
    for (given, kept) in [("mine-1", true), (long.as_str(), false), ("two words", false), ("", false)] {
        test.host.reply("alpha", Reply::json(200, &completion("ok")));
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
        let mut request = test.request(Method::POST, "/v1/chat/completions", body.to_string());
        request.headers_mut().insert("x-request-id", given.parse().unwrap());
        let answer = test.send(request);
        let id = answer.header("x-request-id").unwrap();
        assert_eq!(id == given, kept, "{id}");
        assert!(kept || id.starts_with("req_"), "{id}");
        assert_eq!(test.host.last_call().headers["x-client-request-id"], id, "the upstream is told the same");
    }
    let ids = [0, 1].map(|_| test.get("/healthz").header("x-request-id").unwrap().to_owned());
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn only_harmless_headers_go_on_and_the_key_never_does() {
    let test = setup().provider("alpha", &json!({"forward_headers": ["x-tenant"]})).build();
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let mut request = test.request(Method::POST, "/v1/chat/completions", body.to_string());
    for name in [
        "x-tenant",
        "traceparent",
        "openai-beta",
        "cookie",
        "x-api-key",
        "x-forwarded-for",
        "x-stainless-lang",
        "x-dyad-internal-request-id",
        "te",
    ] {
        request.headers_mut().insert(name, "v".parse().unwrap());
    }
    test.send(request);
    let call = test.host.last_call();
    let mut names: Vec<_> = call.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "accept-encoding",
            "authorization",
            "content-length",
            "content-type",
            "openai-beta",
            "traceparent",
            "x-client-request-id",
            "x-tenant",
        ]
    );
    assert!(!format!("{:?}{}", call.headers, call.body).contains(&test.key));
    assert_eq!(call.headers["authorization"], format!("Bearer {}", crate::support::credential_of("alpha")));
    assert_eq!(call.headers["content-length"], call.body.len().to_string());
}

#[test]
fn browsers_are_answered_as_the_settings_say() {
    let ask = |cors: Cors, method: Method| {
        let test = setup().settings(|settings| settings.cors = cors).build();
        let mut request = test.request(method.clone(), "/v1/models", "");
        request.headers_mut().insert("origin", "https://app.example".parse().unwrap());
        if method == Method::OPTIONS {
            request.headers_mut().remove("authorization");
            request.headers_mut().insert("access-control-request-method", "POST".parse().unwrap());
            request.headers_mut().insert("access-control-request-headers", "x-a, x-b".parse().unwrap());
        }
        let answer = test.send(request);
        let allowed = answer.header("access-control-allow-origin").map(str::to_owned);
        let headers = answer.header("access-control-allow-headers").map(str::to_owned);
        (answer.status.as_u16(), allowed, headers)
    };
    let here = || Cors::Origins(vec!["https://app.example".parse().unwrap()]);
    let elsewhere = || Cors::Origins(vec!["https://other.example".parse().unwrap()]);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(ask(Cors::Any, Method::OPTIONS), (204, some("*"), some("x-a, x-b")));
    assert_eq!(ask(Cors::Any, Method::GET), (200, some("*"), None));
    assert_eq!(ask(here(), Method::GET), (200, some("https://app.example"), None));
    assert_eq!(ask(here(), Method::OPTIONS), (204, some("https://app.example"), some("x-a, x-b")));
    assert_eq!(ask(elsewhere(), Method::GET), (200, None, None));
    assert_eq!(ask(Cors::Off, Method::GET), (200, None, None));
    assert_eq!(ask(Cors::Off, Method::OPTIONS), (405, None, None));
}

/// What is written with one machine's clock is read with another's.
#[test]
fn a_key_is_revoked_and_expires_on_instances_whose_clocks_are_wrong() {
    let test = setup().provider("alpha", &json!({})).build();
    let (revoked, expired) = (ApiKey::from_random(&[3; 32]), ApiKey::from_random(&[4; 32]));
    test.put_key(&revoked, |record| record.revoked_at_ms = Some(START_MS));
    test.put_key(&expired, |record| record.expires_at_ms = Some(START_MS + 1));
    test.host.advance(millis(1));
    for behind_ms in [300_000, -300_000] {
        let late = test.another(1, -behind_ms, None);
        test.store.is_ahead_by_ms(behind_ms);
        for key in [&revoked, &expired] {
            let answer = late.models_with(Some(&format!("Bearer {}", key.expose())));
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{behind_ms}");
        }
        let good = ApiKey::from_random(&[5; 32]);
        test.put_key(&good, |record| record.expires_at_ms = Some(START_MS + 2));
        assert_eq!(late.models_with(Some(&format!("Bearer {}", good.expose()))).status, StatusCode::OK);
    }
}
