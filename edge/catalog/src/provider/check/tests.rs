use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::{HttpAdapterConfig, InlineCredentialError, Secret, SpawnCliConfig};

fn check(value: Value) -> Result<Provider, Violations> {
    Provider::check(&value.into())
}

fn paths(value: Value) -> Vec<String> {
    check(value).unwrap_err().0.into_iter().map(|violation| violation.path).collect()
}

fn minimal() -> Map<String, Value> {
    let Value::Object(raw) =
        json!({ "name": "Ollama", "type": "local", "base_url": "http://127.0.0.1:11434/v1" })
    else {
        unreachable!("the literal above is an object")
    };
    raw
}

fn with(name: &str, value: Value) -> Value {
    let mut raw = minimal();
    raw.insert(name.to_owned(), value);
    Value::Object(raw)
}

fn full() -> Value {
    json!({
        "name": "Vendor (EU)", "slug": "vendor", "type": "proxy", "description": "the one we pay", "enabled": false,
        "rank": 7, "base_url": "https://api.example.com/v1", "credential": "env:VENDOR_KEY", "discover_models": true,
        "forward_headers": ["x-title"],
        "timeouts": { "connect_ms": 1, "first_byte_ms": 2, "idle_ms": 3, "total_ms": 4 },
        "models": [
            { "id": "a/b:c", "upstream_id": "d", "max_tokens": 5, "context_window": 6, "created": 8, "owned_by": "us",
              "capabilities": { "chat": true, "embeddings": false, "reasoning": true, "images": false } },
            { "id": "e" },
        ],
    })
}

#[test]
fn what_is_absent_gets_its_default() {
    let provider = check(Value::Object(minimal())).unwrap();
    let expected = Provider {
        slug: ProviderSlug::parse("ollama").unwrap(),
        name: "Ollama".to_owned(),
        description: String::new(),
        enabled: true,
        rank: 100,
        models: Vec::new(),
        adapter: Adapter::Local(HttpAdapterConfig {
            base_url: "http://127.0.0.1:11434/v1".to_owned(),
            discover_models: true,
            forward_headers: Vec::new(),
            timeouts: TimeoutsMs::default(),
        }),
        credential: CredentialRef::None,
    };
    assert_eq!(provider, expected);
}

#[test]
fn what_is_written_is_kept_and_written_again() {
    let provider = check(full()).unwrap();
    assert_eq!(provider.to_raw().unwrap(), full());
    assert_eq!(provider.models[1].upstream_id, "e");
}

#[test]
fn all_violations_are_told_at_once() {
    let wrong = json!({
        "name": 5, "type": "proxies", "description": ["a"], "enabled": "yes", "rank": -1,
        "base_url": "ftp://example.com", "credential": "sk-secret", "discover_models": 0,
        "forward_headers": ["X-Title", "cookie", 4], "timeouts": { "idle_ms": 0, "idle": 1 },
        "models": [
            { "id": "a" }, { "id": "a", "max_tokens": 0 }, "b",
            { "upstream_id": "c ", "capabilities": { "chat": 1, "vision": true } },
        ],
        "api_key": "sk-secret",
    });
    let violations = check(wrong).unwrap_err();
    let expected = "\
name: must be a string, not 5
type: must be \"proxy\", \"local\" or \"spawn-cli\"
description: must be a string, not a list
enabled: must be true or false, not a string
rank: must be a whole number from 0 to 4294967295, not -1
base_url: must begin with https:// or http://
credential: must be \"env:NAME\" or \"file:PATH\"; a credential itself is not written here
discover_models: must be true or false, not 0
forward_headers[0]: must be a header name in lower case
forward_headers[1]: is never passed on: it carries a credential, or belongs to the connection or the body
forward_headers[2]: must be a string, not 4
timeouts.idle_ms: must be a whole number from 1 to 86400000, not 0
timeouts.idle: unknown key; known are connect_ms, first_byte_ms, idle_ms, total_ms
models[1].id: another model of this provider has this id
models[1].max_tokens: must be a whole number from 1 to 4294967295, not 0
models[2]: must be an object, not a string
models[3].id: is required
models[3].upstream_id: must not begin or end with white space
models[3].capabilities.chat: must be true or false, not 1
models[3].capabilities.vision: unknown key; known are chat, embeddings, reasoning, images
api_key: unknown key; known are name, slug, type, description, enabled, rank, base_url, credential, discover_models, \
forward_headers, timeouts, models";
    assert_eq!(violations.to_string(), expected);
    assert_eq!(violations.under("providers[1]").0[18].path, "providers[1].models[3].capabilities.chat");
}

#[test]
fn what_must_be_there_is_asked_for() {
    assert_eq!(paths(json!({})), ["name", "type", "base_url"]);
    assert_eq!(check(json!([])).unwrap_err().to_string(), "must be an object, not a list");
}

#[test]
fn types_of_later_versions_are_named_as_such() {
    let violations = check(with("type", json!("http-sdk"))).unwrap_err();
    assert_eq!(violations.0.len(), 1);
    assert!(violations.0[0].message.contains("does not serve this type yet"), "{violations}");
}

fn cli(changes: &Value) -> Value {
    let mut raw =
        json!({ "name": "Claude", "type": "spawn-cli", "cli": "claude", "models": [{ "id": "m" }] });
    for (name, value) in changes.as_object().unwrap() {
        raw[name] = value.clone();
    }
    raw
}

#[test]
fn a_cli_needs_little() {
    let provider = check(cli(&json!({}))).unwrap();
    let expected = SpawnCliConfig {
        cli: "claude".to_owned(),
        model_parameter: Some("model".to_owned()),
        parameters: [].into(),
        timeouts: TimeoutsMs::default(),
    };
    assert_eq!(provider.adapter, Adapter::SpawnCli(expected));
    assert_eq!((provider.kind(), provider.credential.clone()), (ProviderKind::SpawnCli, CredentialRef::None));
    assert_eq!(provider.adapter.address(), "cli:claude");
    assert!(!provider.adapter.discovers_models() && provider.adapter.http().is_none());
}

#[test]
fn what_is_written_of_a_cli_is_kept_and_written_again() {
    for model_parameter in ["", "version"] {
        let written = cli(&json!({
            "slug": "claude", "description": "", "enabled": true, "rank": 1, "model_parameter": model_parameter,
            "parameters": { "effort": "high", "a_1": "é" },
            "timeouts": { "connect_ms": 1, "first_byte_ms": 2, "idle_ms": 3, "total_ms": 4 },
        }));
        let provider = check(written.clone()).unwrap();
        assert_eq!(provider.to_raw().unwrap(), written);
        let Adapter::SpawnCli(config) = &provider.adapter else { panic!("{provider:?}") };
        assert_eq!(config.model_parameter.as_deref().unwrap_or_default(), model_parameter);
        assert_eq!(config.parameters["effort"], "high");
    }
}

#[test]
fn all_that_is_wrong_with_a_cli_is_told_at_once() {
    let violations = check(cli(&json!({
        "cli": "Claude Code", "model_parameter": "the-model", "timeouts": { "idle": 1 }, "models": [],
        "parameters": { "effort": 3, "Loud": "x", "a": "", "b": "x".repeat(257), "c": "--yolo", "d": "a\nb" },
        "base_url": "https://example.com/v1", "credential": "env:KEY", "image": "evil",
    })))
    .unwrap_err();
    let expected = "\
cli: must be at most 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first
model_parameter: must be at most 32 of a-z, 0-9 and '_', a letter first, or \"\" for a CLI that has none
parameters.Loud: the name must be at most 32 of a-z, 0-9 and '_', a letter first
parameters.a: must have 1 to 256 bytes
parameters.b: must have 1 to 256 bytes
parameters.c: must not begin with '-': a CLI would take it for an option
parameters.d: must not contain control characters
parameters.effort: must be a string, not 3
timeouts.idle: unknown key; known are connect_ms, first_byte_ms, idle_ms, total_ms
models: list at least one model: runners are not asked for theirs
base_url: unknown key; known are name, slug, type, description, enabled, rank, cli, model_parameter, parameters, \
timeouts, models
credential: unknown key; known are name, slug, type, description, enabled, rank, cli, model_parameter, parameters, \
timeouts, models
image: unknown key; known are name, slug, type, description, enabled, rank, cli, model_parameter, parameters, \
timeouts, models";
    assert_eq!(violations.to_string(), expected);
    assert_eq!(paths(json!({ "name": "c", "type": "spawn-cli" })), ["cli", "models"]);
    assert_eq!(paths(cli(&json!({ "parameters": { "model": "x" } }))), ["parameters.model"]);
    assert_eq!(paths(cli(&json!({ "parameters": [] }))), ["parameters"]);
    let many: Map<_, _> = (0..33).map(|index| (format!("p{index}"), json!("x"))).collect();
    assert_eq!(paths(cli(&json!({ "parameters": many }))), ["parameters"]);
    for wrong in ["", "-a", ".a", "A", "a/b", "a b"] {
        assert_eq!(paths(cli(&json!({ "cli": wrong }))), ["cli"], "{wrong:?}");
    }
    assert_eq!(paths(cli(&json!({ "cli": "a".repeat(64) }))), ["cli"]);
}

#[test]
fn base_urls_are_cut_to_what_is_joined_with_a_path() {
    for (written, kept) in [
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com/v1///", "https://api.example.com/v1"),
        ("  https://API.example.com:443/v1/chat/completions/ ", "https://api.example.com/v1"),
        ("http://localhost:1234", "http://localhost:1234"),
        ("http://[::1]:1234/", "http://[::1]:1234"),
        ("https://example.com/a%20b/", "https://example.com/a%20b"),
        ("https://example.com/chat/completions", "https://example.com"),
    ] {
        assert_eq!(check(with("base_url", json!(written))).unwrap().adapter.address(), kept);
    }
}

#[test]
fn unusable_base_urls_are_refused() {
    for wrong in [
        "",
        "/v1",
        "example.com/v1",
        "localhost:11434",
        "https://",
        "file:///etc/passwd",
        "https://me@example.com",
        "https://me:pw@example.com",
        "https://:pw@example.com",
        "https://example.com?",
        "https://example.com/v1?key=x",
        "https://example.com/#",
    ] {
        let violations = check(with("base_url", json!(wrong))).unwrap_err();
        assert_eq!(violations.0[0].path, "base_url", "{wrong}");
        assert!(!violations.to_string().contains("pw"), "a password was repeated: {violations}");
    }
    assert_eq!(
        paths(with("base_url", json!(format!("https://example.com/{}", "a".repeat(2_048))))),
        ["base_url"]
    );
}

#[test]
fn a_proxy_may_use_http_only_where_nobody_listens() {
    let proxy = |url: &str| check(json!({ "name": "p", "type": "proxy", "base_url": url }));
    for private in [
        "http://localhost/v1",
        "http://a.localhost",
        "http://127.9.9.9",
        "http://10.1.2.3:8080",
        "http://172.16.0.1",
        "http://192.168.1.1",
        "http://[::1]",
        "http://[fd00::1]",
        "http://[::ffff:10.0.0.1]",
        "https://example.com",
    ] {
        proxy(private).unwrap();
    }
    for public in [
        "http://example.com",
        "http://8.8.8.8",
        "http://172.32.0.1",
        "http://169.254.169.254",
        "http://[2001:db8::1]",
        "http://[::ffff:8.8.8.8]",
        "http://localhost.example.com",
        "http://134744072",
        "http://0.0.0.0",
    ] {
        assert!(proxy(public).unwrap_err().to_string().contains("must use https"), "{public}");
        check(with("base_url", json!(public))).expect("a local provider may");
    }
}

/// `url` would make addresses out of some: these digits are 127.0.0.1 to it.
#[test]
fn host_names_are_ascii() {
    for url in ["https://①②⑦.0.0.1/v1", "https://bücher.example/v1"] {
        let violations = check(with("base_url", json!(url))).unwrap_err();
        assert_eq!(violations.0[0].path, "base_url", "{url}");
    }
    check(with("base_url", json!("https://xn--bcher-kva.example/v1"))).expect("Punycode is ASCII");
}

#[test]
fn credentials_are_references() {
    for (written, kept) in [
        ("env:OPENAI_API_KEY", CredentialRef::Env("OPENAI_API_KEY".to_owned())),
        ("file:/run/secrets/a:b", CredentialRef::File("/run/secrets/a:b".to_owned())),
    ] {
        assert_eq!(check(with("credential", json!(written))).unwrap().credential, kept);
    }
    for wrong in
        ["", "sk-hunter2", "env:", "env:1A", "env:A B", "env:sk-hunter2", "file:", "file:a\nb", "ENV:A"]
    {
        let violations = check(with("credential", json!(wrong))).unwrap_err();
        assert_eq!(violations.0[0].path, "credential", "{wrong}");
        assert!(!violations.to_string().contains("hunter2"), "a credential was repeated: {violations}");
    }
}

#[test]
fn the_gateways_own_secrets_are_no_upstreams_credential() {
    for own in ["DYAD_KEY_SECRET", "dyad_key_secret", "AWS_SECRET_ACCESS_KEY", "aws_session_token", "DYAD_"] {
        let violations = check(with("credential", json!(format!("env:{own}")))).unwrap_err();
        assert_eq!(violations.0[0].path, "credential", "{own}");
        assert!(violations.to_string().contains("DYAD_ or AWS_"), "{violations}");
    }
    check(with("credential", json!("env:MY_AWS_KEY"))).expect("only how it begins matters");
    check(with("credential", json!("env:AW"))).expect("likewise");
}

#[test]
fn an_inline_credential_is_never_written() {
    let mut provider = check(full()).unwrap();
    provider.credential = CredentialRef::Inline(Secret::new("sk-hunter2"));
    assert_eq!(provider.to_raw(), Err(InlineCredentialError));
    assert!(!format!("{provider:?}").contains("hunter2"));
}

#[test]
fn default_timeouts_yield_to_given_ones() {
    let timeouts = |value: Value| check(with("timeouts", value)).unwrap().adapter.http().unwrap().timeouts;
    let short = timeouts(json!({ "total_ms": 1_000 }));
    assert_eq!(
        (short.connect_ms, short.first_byte_ms, short.idle_ms, short.total_ms),
        (1_000, 1_000, 1_000, 1_000)
    );
    assert_eq!(timeouts(json!({ "first_byte_ms": 7_200_000 })).total_ms, 7_200_000);
    assert_eq!(paths(with("timeouts", json!({ "first_byte_ms": 2, "total_ms": 1 }))), ["timeouts.total_ms"]);
    assert_eq!(paths(with("timeouts", json!({ "first_byte_ms": 86_400_001 }))), ["timeouts.first_byte_ms"]);
    assert_eq!(paths(with("timeouts", json!(5))), ["timeouts"]);
}

#[test]
fn models_are_listed_or_discovered() {
    assert_eq!(paths(with("discover_models", json!(false))), ["models"]);
    let listed = check(with("models", json!([{ "id": "a" }]))).unwrap();
    assert!(!listed.adapter.discovers_models());
    assert!(check(with("models", json!([]))).unwrap().adapter.discovers_models());
}

#[test]
fn model_ids_are_bounded() {
    let ids = |id: String| check(with("models", json!([{ "id": id }])));
    ids("ü".repeat(256)).unwrap();
    for wrong in
        [String::new(), "ü".repeat(257), " a".to_owned(), "a\u{a0}".to_owned(), "a\u{1b}b".to_owned()]
    {
        assert_eq!(ids(wrong.clone()).unwrap_err().0[0].path, "models[0].id", "{wrong:?}");
    }
}

#[test]
fn counts_and_sizes_are_bounded() {
    let models = |count: usize, id: fn(usize) -> String| -> Value {
        (0..count).map(|index| json!({ "id": id(index) })).collect()
    };
    check(with("models", models(5_000, |index| format!("vendor/model-{index}")))).unwrap();
    assert_eq!(paths(with("models", models(5_001, |index| index.to_string()))), ["models"]);
    assert_eq!(paths(with("models", models(5_000, |index| format!("{index:0>200}")))), [""]);
    assert_eq!(
        paths(with("forward_headers", (0..33).map(|index| format!("x-{index}")).collect())),
        ["forward_headers"]
    );
    assert_eq!(paths(with("forward_headers", json!(["x-a", "x-a"]))), ["forward_headers[1]"]);
}

#[test]
fn slugs_are_made_from_names() {
    for (name, slug) in [("LM Studio (desk)", "lm-studio-desk"), ("--a--", "a"), ("Ünï", "n"), ("A1", "a1")]
    {
        assert_eq!(ProviderSlug::from_name(name).unwrap().as_str(), slug);
    }
    assert_eq!(ProviderSlug::from_name(&"ab".repeat(50)).unwrap().as_str().len(), 63);
    assert_eq!(paths(with("name", json!("日本"))), ["slug"]);
    assert!(check(with("slug", json!("given"))).is_ok());
    for wrong in ["", "-a", "A", "a_b", "a/b", &"a".repeat(64)] {
        assert_eq!(paths(with("slug", json!(wrong))), ["slug"], "{wrong}");
        assert!(serde_json::from_value::<ProviderSlug>(json!(wrong)).is_err());
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["proxy", "local", "http://a", "https://b/v1/", "env:A", "file:b"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop::sample::select(vec![
            "name",
            "slug",
            "type",
            "description",
            "enabled",
            "rank",
            "base_url",
            "credential",
            "discover_models",
            "forward_headers",
            "timeouts",
            "models",
            "id",
            "upstream_id",
            "capabilities",
            "chat",
            "total_ms",
            "other",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..12).prop_map(|members| {
                Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    /// Any input has an answer, a refusal says why, and what was accepted is accepted again, unchanged.
    #[test]
    fn checking_is_total_and_stable(mut value in any_json(), ground in any::<bool>()) {
        if ground && let Value::Object(members) = &mut value {
            members.extend(minimal());
        }
        match check(value) {
            Err(violations) => prop_assert!(!violations.0.is_empty()),
            Ok(provider) => prop_assert_eq!(check(provider.to_raw().unwrap()).unwrap(), provider),
        }
    }
}
