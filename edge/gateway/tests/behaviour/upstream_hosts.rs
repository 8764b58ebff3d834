//! Where providers may lead, by where they are written.

use catalog::Provider;
use gateway::{CallError, HostList, Reach};
use serde_json::json;

use crate::support::{Log, Reply, TestGateway, completion, provider, setup};

fn answers(test: &TestGateway) -> Option<Reach> {
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    assert_eq!(test.chat(&json!({})).status, 200);
    test.host.last_call().reach
}

#[test]
fn a_stored_proxy_in_a_private_network_is_left_out_unless_its_host_is_allowed() {
    for base_url in
        ["http://127.0.0.1:1/v1", "https://0x7f.1/v1", "https://[::ffff:10.0.0.1]/v1", "https://vllm/v1"]
    {
        let log = Log::start();
        let test = setup()
            .provider("alpha", &json!({}))
            .provider("beta", &json!({"base_url": base_url, "models": [{"id": "b"}]}))
            .build();
        assert_eq!(test.listed(), ["m"], "{base_url}");
        let told = log.all();
        assert!(
            told.iter().any(|line| line.contains("beta") && line.contains("private_upstream_hosts")),
            "{told:?}"
        );
        let test = setup()
            .provider("beta", &json!({"base_url": base_url, "models": [{"id": "b"}]}))
            .settings(|settings| settings.upstream_hosts.private = HostList::parse("*").unwrap())
            .build();
        assert_eq!(test.listed(), ["b"], "{base_url}");
    }
}

/// A name says nothing, so the host is told how far it may lead.
#[test]
fn the_host_is_told_how_far_a_name_may_lead() {
    let stored = |kind: &str, private: &str| {
        let private = HostList::parse(private).unwrap();
        let test = setup()
            .provider("alpha", &json!({"type": kind}))
            .settings(|settings| settings.upstream_hosts.private = private)
            .build();
        answers(&test)
    };
    assert_eq!(stored("proxy", ""), Some(Reach::Public));
    assert_eq!(stored("proxy", "alpha.example"), Some(Reach::Private));
    assert_eq!(stored("local", ""), Some(Reach::Private));
    let given = setup().build();
    given.gateway.set_providers(vec![provider("alpha", &json!({}))]);
    assert_eq!(answers(&given), Some(Reach::Anywhere));
}

#[test]
fn an_address_that_is_refused_is_no_passing_failure() {
    let test = setup().provider("alpha", &json!({})).provider("beta", &json!({"rank": 200})).build();
    test.host.reply("alpha", Reply::Fail(CallError::Refused));
    test.host.reply("beta", Reply::json(200, &completion("ok")));
    assert_eq!(test.chat(&json!({})).status, 200);
    assert_eq!(test.host.calls().len(), 2, "it is called once, and then the next target");

    let alone = setup().provider("alpha", &json!({})).build();
    alone.host.reply("alpha", Reply::Fail(CallError::Refused));
    assert_eq!(alone.chat(&json!({})).error_line(), "403 upstream_error upstream_unusable");
}

/// Following one would lead past everything that was checked.
#[test]
fn a_redirect_is_a_failure() {
    let test = setup().provider("alpha", &json!({})).build();
    for status in [301, 302, 303, 307, 308] {
        let redirect =
            Reply::text(status, "text/html", "").with_header("location", "http://169.254.169.254/");
        test.host.reply("alpha", redirect);
        assert_eq!(test.chat(&json!({})).error_line(), "502 server_error upstream_unavailable", "{status}");
    }
    assert_eq!(test.host.calls().len(), 5);
}

/// One that was put together without being checked has not been normalised either.
#[test]
fn an_unchecked_url_is_held_to_the_same() {
    let mut beta: Provider = provider("beta", &json!({"type": "local", "models": [{"id": "b"}]}));
    let catalog::Adapter::Local(config) = &mut beta.adapter else { panic!("it is local") };
    config.base_url = "http://0xa9fea9fe/v1".to_owned();
    let test = setup().build();
    let gateway = test.gateway.clone();
    let check = crate::support::Task::new(async move { gateway.check(&beta).await }).finish();
    assert_eq!(check.outcome.unwrap_err().class, "unusable");
    assert!(test.host.calls().is_empty());
}
