//! Changes of the configuration, and a store that is away.

use catalog::ApiKey;
use http::StatusCode;
use serde_json::json;

use crate::support::{Log, Mood, Reply, TestGateway, completion, provider, secs, setup};

fn readiness(test: &TestGateway) -> String {
    let answer = test.get("/ready");
    let status = answer.status.as_u16();
    let json = answer.json();
    format!(
        "{status} {} {} {}",
        json["status"].as_str().unwrap(),
        json["store"].as_str().unwrap(),
        json["models"]
    )
}

#[test]
fn a_change_is_seen_after_the_refresh_interval() {
    let test = setup().provider("alpha", &json!({})).build();
    assert_eq!(test.listed(), ["m"]);
    test.put_provider(&provider("beta", &json!({"models": [{"id": "new"}]})), None);
    test.advance(secs(1));
    assert_eq!(test.listed(), ["m"]);
    test.advance(secs(1));
    // The check runs beside the request that finds it due.
    assert_eq!(test.listed(), ["m"]);
    assert_eq!(test.host.run_spawned(), 0);
    assert_eq!(test.listed(), ["m", "new"]);

    test.put_provider(&provider("alpha", &json!({"enabled": false})), Some(1));
    test.advance(secs(10));
    assert_eq!(test.listed(), ["new"], "a check that is overdue comes first");
}

#[test]
fn a_revoked_key_dies_within_the_greatest_age() {
    let test = setup().build();
    let key = ApiKey::from_random(&[9; 32]);
    test.put_key(&key, |_| {});
    let ask = || test.models_with(Some(&format!("Bearer {}", key.expose()))).status;
    assert_eq!(ask(), StatusCode::OK);
    test.put_key(&key, |record| record.revoked_at_ms = Some(1));
    test.advance(secs(1));
    assert_eq!(ask(), StatusCode::OK);
    test.advance(secs(9));
    assert_eq!(ask(), StatusCode::UNAUTHORIZED);
}

#[test]
fn the_last_known_configuration_serves_while_the_store_is_away() {
    let test = setup().provider("alpha", &json!({})).build();
    assert_eq!(readiness(&test), "200 ready ok 1");
    assert_eq!(test.listed(), ["m"]);
    test.store.is(Mood::Down);
    test.advance(secs(3));
    assert_eq!(test.listed(), ["m"]);
    test.host.run_spawned();
    for _ in 0..3 {
        assert_eq!(readiness(&test), "200 degraded unavailable 1");
        test.host.reply("alpha", Reply::json(200, &completion("still here")));
        assert_eq!(test.chat(&json!({})).status, StatusCode::OK);
        test.advance(secs(600));
    }
    // A key that was never seen cannot be judged.
    let key = ApiKey::from_random(&[9; 32]);
    test.put_key(&key, |_| {});
    let unseen = test.models_with(Some(&format!("Bearer {}", key.expose())));
    assert_eq!(unseen.error_line(), "503 server_error store_unavailable");

    test.store.is(Mood::Well);
    test.put_provider(&provider("beta", &json!({"models": [{"id": "new"}]})), None);
    test.advance(secs(3));
    test.get("/ready");
    test.host.run_spawned();
    assert_eq!(readiness(&test), "200 ready ok 2");
    assert_eq!(test.models_with(Some(&format!("Bearer {}", key.expose()))).status, StatusCode::OK);
}

#[test]
fn the_last_known_record_of_a_key_serves_when_it_cannot_be_read_again() {
    let test = setup().provider("alpha", &json!({})).build();
    assert_eq!(test.listed(), ["m"]);
    // The configuration moves on and is read, so that the key's record is due to be read again; it cannot be.
    test.put_provider(&provider("beta", &json!({"models": [{"id": "new"}]})), None);
    test.advance(secs(10));
    assert_eq!(readiness(&test), "200 ready ok 2");
    test.store.is(Mood::Down);
    assert_eq!(test.listed(), ["m", "new"]);
    assert_eq!(test.store.key_look_ups(), 2);
}

#[test]
fn a_store_that_hangs_holds_a_request_up_for_a_second_at_most() {
    let test = setup().provider("alpha", &json!({})).build();
    assert_eq!(test.listed(), ["m"]);
    test.store.is(Mood::Hangs);
    test.advance(secs(10));
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    let mut chat = test.start_chat(&json!({}));
    chat.must_wait();
    test.advance(secs(1));
    assert_eq!(chat.finish().status, StatusCode::OK);
    // The next need not wait again.
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    assert_eq!(test.chat(&json!({})).status, StatusCode::OK);
    assert_eq!(readiness(&test), "200 degraded unavailable 1");
}

#[test]
fn a_start_without_a_store_is_told_and_overcome() {
    let test = setup().provider("alpha", &json!({})).store(Mood::Down).build();
    assert_eq!(readiness(&test), "503 unavailable unavailable 0");
    assert_eq!(test.chat(&json!({})).error_line(), "503 server_error store_unavailable");
    assert_eq!(test.get("/healthz").status, StatusCode::OK);
    test.store.is(Mood::Well);
    assert_eq!(readiness(&test), "200 ready ok 1");
    assert_eq!(test.listed(), ["m"]);
}

#[test]
fn an_unknown_key_is_looked_up_once_per_version_of_the_configuration() {
    let test = setup().build();
    let key = ApiKey::from_random(&[9; 32]);
    let ask = || test.models_with(Some(&format!("Bearer {}", key.expose()))).status;
    for _ in 0..3 {
        assert_eq!(ask(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(test.store.key_look_ups(), 1);
    test.put_key(&key, |_| {});
    assert_eq!(ask(), StatusCode::UNAUTHORIZED);
    assert_eq!(test.store.key_look_ups(), 1);
    test.advance(secs(10));
    assert_eq!(ask(), StatusCode::OK);
    assert_eq!(test.store.key_look_ups(), 2);
}

#[test]
fn a_provider_that_cannot_be_used_leaves_the_others_alone() {
    let broken = json!({"credential": "env:NOT_SET", "models": [{"id": "m"}, {"id": "lost"}]});
    let test = setup().provider("a-broken", &broken).provider("beta", &json!({})).build();
    assert_eq!(test.listed(), ["m"]);
    test.host.reply("beta", Reply::json(200, &completion("ok")));
    assert_eq!(test.chat(&json!({})).status, StatusCode::OK);
}

#[test]
fn a_provider_at_a_host_that_is_not_listed_is_left_out() {
    let hosts = gateway::HostList::parse("alpha.example").unwrap();
    let test = setup()
        .provider("alpha", &json!({}))
        .provider("beta", &json!({"rank": 1, "models": [{"id": "m"}, {"id": "b"}]}))
        .settings(|settings| settings.upstream_hosts.only = Some(hosts))
        .build();
    let log = Log::start();
    assert_eq!(test.listed(), ["m"]);
    assert!(log.all().iter().any(|line| line.contains("beta") && line.contains("DYAD_UPSTREAM_HOSTS")));
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    assert_eq!(test.chat(&json!({})).status, 200);
}
