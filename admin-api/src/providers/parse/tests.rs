use catalog::Adapter;
use serde_json::json;

use super::*;
use crate::providers::wire::ProviderInput;

fn proxy() -> Value {
    json!({
        "name": "Vendor (EU)", "slug": "vendor", "type": "proxy", "description": "the one we pay", "enabled": false,
        "rank": 7,
        "models": [
            { "dyadModelId": "a/b:c", "adapterModelId": "d", "maxTokens": 5, "contextWindow": 6, "created": 8,
              "ownedBy": "us",
              "capabilities": { "chat": true, "embeddings": false, "reasoning": true, "images": false } },
            { "dyadModelId": "e" },
        ],
        "adapterConfig": {
            "baseUrl": "https://api.example.com/v1", "discoverModels": true, "forwardHeaders": ["x-title"],
            "timeouts": { "connectMs": 1, "firstByteMs": 2, "idleMs": 3, "totalMs": 4 },
        },
        "credentials": { "apiKey": "sk-canary" },
    })
}

fn cli() -> Value {
    json!({
        "name": "Claude", "type": "spawn-cli", "models": [{ "dyadModelId": "claude" }],
        "adapterConfig": {
            "cli": "claude", "modelParameter": "", "parameters": { "effort": "low" }, "timeouts": { "totalMs": 9 },
        },
    })
}

/// The value at a pointer becomes another.
fn with(mut body: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match body.pointer_mut(parent).unwrap() {
        Value::Object(members) => drop(members.insert(name.to_owned(), value)),
        Value::Array(list) => list[name.parse::<usize>().unwrap()] = value,
        other => panic!("{parent} is {other}"),
    }
    body
}

fn details(body: Value) -> Vec<Detail> {
    match provider(body).unwrap_err() {
        AdminError::Invalid(details) => details,
        other => panic!("{other:?}"),
    }
}

fn pointers(body: Value) -> Vec<String> {
    details(body).into_iter().map(|detail| detail.pointer).collect()
}

/// The one mistake, which is there.
fn message(body: Value, pointer: &str) -> String {
    let [detail] = <[Detail; 1]>::try_from(details(body)).unwrap();
    assert_eq!(detail.pointer, pointer);
    detail.message
}

/// Defaults are shown, so an answer has more than was written, and nothing else.
fn covers(shown: &Value, written: &Value, at: &str) {
    match (shown, written) {
        (Value::Object(shown), Value::Object(written)) => {
            for (name, value) in written.iter().filter(|(name, _)| *name != "credentials") {
                covers(shown.get(name).unwrap_or(&Value::Null), value, &format!("{at}/{name}"));
            }
        }
        (Value::Array(shown), Value::Array(written)) => {
            assert_eq!(shown.len(), written.len(), "{at}");
            for (shown, written) in shown.iter().zip(written) {
                covers(shown, written, at);
            }
        }
        _ => assert_eq!(shown, written, "{at}"),
    }
}

#[test]
fn what_is_written_is_shown_again() {
    for body in [proxy(), cli(), with(proxy(), "/type", json!("local"))] {
        let written = provider(body.clone()).unwrap();
        let shown = serde_json::to_value(ProviderInput::of(&written.provider)).unwrap();
        let again = provider(shown.clone()).unwrap();
        assert_eq!(again.provider, written.provider);
        assert_eq!(again.credential, WrittenCredential::Unsaid);
        covers(&shown, &body, "");
        assert!(!shown.to_string().contains("canary"));
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_words_of_the_request() {
    let body = json!({
        "name": 5, "type": "proxy", "slug": "Ä", "description": ["a"], "enabled": "yes", "rank": -1,
        "adapterConfig": {
            "baseUrl": "ftp://example.com", "discoverModels": 0, "forwardHeaders": ["X-Title", "cookie", 4],
            "timeouts": { "idleMs": 0, "firstByteMs": 9, "totalMs": 8, "idle_ms": 1 }, "base_url": "https://x.example",
        },
        "credentials": { "apiKey": 5, "token": "t" },
        "models": [
            { "dyadModelId": "a" }, { "dyadModelId": "a", "maxTokens": 0 }, "b",
            { "adapterModelId": "c ", "capabilities": { "chat": 1, "vision": true } },
        ],
        "base_url": "https://y.example", "limits": {}, "fallbacks": [], "version": 3, "__proto__": {}, "constructor": 1,
    });
    let mut found = pointers(body);
    found.sort();
    assert_eq!(
        found,
        [
            "/__proto__",
            "/adapterConfig/baseUrl",
            "/adapterConfig/base_url",
            "/adapterConfig/discoverModels",
            "/adapterConfig/forwardHeaders/0",
            "/adapterConfig/forwardHeaders/1",
            "/adapterConfig/forwardHeaders/2",
            "/adapterConfig/timeouts/idleMs",
            "/adapterConfig/timeouts/idle_ms",
            "/adapterConfig/timeouts/totalMs",
            "/base_url",
            "/constructor",
            "/credentials/apiKey",
            "/credentials/token",
            "/description",
            "/enabled",
            "/fallbacks",
            "/limits",
            "/models/1/dyadModelId",
            "/models/1/maxTokens",
            "/models/2",
            "/models/3/adapterModelId",
            "/models/3/capabilities/chat",
            "/models/3/capabilities/vision",
            "/models/3/dyadModelId",
            "/name",
            "/rank",
            "/slug",
            "/version",
        ]
    );
}

#[test]
fn messages_name_the_members_of_the_request() {
    let timeouts = json!({ "firstByteMs": 9, "totalMs": 8 });
    let body = with(proxy(), "/adapterConfig/timeouts", timeouts);
    assert_eq!(message(body, "/adapterConfig/timeouts/totalMs"), "must not be less than firstByteMs (9)");

    let body = with(with(proxy(), "/models", json!([])), "/adapterConfig/discoverModels", json!(false));
    assert_eq!(message(body, "/models"), "list at least one model, or set discoverModels to true");

    let body = with(
        with(cli(), "/adapterConfig/modelParameter", json!("model")),
        "/adapterConfig/parameters",
        json!({"model": "x"}),
    );
    assert_eq!(
        message(body, "/adapterConfig/parameters/model"),
        "is the modelParameter: each model's adapterModelId is its value"
    );
    assert_eq!(
        message(with(proxy(), "/limits", json!({})), "/limits"),
        "providers have no limits: give limits to API keys (PATCH /admin/keys/{id})"
    );
    assert_eq!(message(with(proxy(), "/id", json!("prv_0")), "/id"), "cannot be written: leave it out");
}

/// The catalog's own words for members never reach whoever wrote a request.
#[test]
fn no_message_has_a_name_of_the_stored_form() {
    for (_, own) in [PROVIDER, HTTP, SPAWN_CLI, TIMEOUTS, MODEL, CAPABILITIES].into_iter().flatten() {
        let shown = in_wire_names(&format!("set {own} ({own}): {own}"));
        assert!(!shown.contains('_'), "{shown}");
    }
}

#[test]
fn of_a_type_that_is_not_served_nothing_else_is_said() {
    let wrong = |kind: Value| {
        pointers(with(with(proxy(), "/adapterConfig", json!({ "region": "eu" })), "/type", kind))
    };
    for kind in
        [json!("http-sdk"), json!("Proxy"), json!("proxy\u{200b}"), json!(null), json!(7), json!(["proxy"])]
    {
        assert_eq!(wrong(kind), ["/type"]);
    }
    let told = message(with(proxy(), "/type", json!("http-sdk")), "/type");
    assert!(told.contains("does not serve this type yet"), "{told}");
    let mut untyped = proxy();
    untyped.as_object_mut().unwrap().remove("type");
    assert_eq!(message(untyped, "/type"), "is required");
}

#[test]
fn what_is_wrong_as_a_whole_is_told_once() {
    assert_eq!(pointers(json!([proxy()])), [""]);
    assert_eq!(message(json!("proxy"), ""), "must be an object, not a string");
    for (pointer, value) in [
        ("/adapterConfig", json!("https://x.example")),
        ("/adapterConfig/timeouts", json!(5)),
        ("/adapterConfig/forwardHeaders", json!("x-title")),
        ("/adapterConfig/baseUrl", json!({ "host": "x" })),
        ("/credentials", json!("sk-canary")),
        ("/credentials", json!(null)),
        ("/models", json!({ "a": "b" })),
        ("/models/0", json!(["a"])),
        ("/models/0/capabilities", json!("chat")),
    ] {
        let told = message(with(proxy(), pointer, value), pointer);
        assert!(!told.contains("canary"), "{told}");
    }
    let mut without = proxy();
    without.as_object_mut().unwrap().remove("adapterConfig");
    assert_eq!(pointers(without), ["/adapterConfig"]);
}

#[test]
fn null_counts_as_absent_but_for_the_credential() {
    for pointer in [
        "/description",
        "/enabled",
        "/rank",
        "/models/0/maxTokens",
        "/models/0/capabilities",
        "/models/0/capabilities/chat",
        "/adapterConfig/timeouts",
        "/adapterConfig/timeouts/idleMs",
        "/adapterConfig/forwardHeaders",
        "/adapterConfig/discoverModels",
    ] {
        let without = {
            let mut body = proxy();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
            provider(body).unwrap().provider
        };
        assert_eq!(provider(with(proxy(), pointer, Value::Null)).unwrap().provider, without, "{pointer}");
    }
    for pointer in ["/name", "/type", "/adapterConfig", "/adapterConfig/baseUrl", "/models/0/dyadModelId"] {
        assert_eq!(message(with(proxy(), pointer, Value::Null), pointer), "is required");
    }
    let parameters = with(cli(), "/adapterConfig/parameters", json!({ "effort": null }));
    let Adapter::SpawnCli(config) = provider(parameters).unwrap().provider.adapter else {
        panic!("it is a CLI")
    };
    assert!(config.parameters.is_empty());
    assert_eq!(pointers(with(proxy(), "/__proto__", Value::Null)), ["/__proto__"]);

    let body = with(proxy(), "/credentials/apiKey", Value::Null);
    assert_eq!(provider(body).unwrap().credential, WrittenCredential::Removed);
    let body = with(proxy(), "/credentials", json!({}));
    assert_eq!(provider(body).unwrap().credential, WrittenCredential::Unsaid);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for slug in [
        "../keys",
        "a/b",
        "%2e%2e",
        "a.b",
        "Vendor",
        "vend\u{f6}r",
        "v\u{435}ndor",
        "a\u{200d}b",
        "",
        "-a",
        "a\r\nb",
        "a\0",
    ] {
        assert_eq!(pointers(with(proxy(), "/slug", json!(slug))), ["/slug"], "{slug:?}");
    }
    assert_eq!(pointers(with(proxy(), "/slug", json!("a".repeat(64)))), ["/slug"]);
    for cli_name in ["../claude", "claude code", "claude\n", "-c", "cl\u{430}ude"] {
        let pointer = "/adapterConfig/cli";
        assert_eq!(pointers(with(cli(), pointer, json!(cli_name))), [pointer]);
    }
    for header in ["x-title\r\nx-admin: 1", "x title", "", "authorization", "x-t\u{ef}tle", "host"] {
        let pointer = "/adapterConfig/forwardHeaders/0";
        assert_eq!(pointers(with(proxy(), pointer, json!(header))), [pointer]);
    }
}

#[test]
fn a_megabyte_gets_a_short_answer() {
    let long = "x".repeat(1 << 20);
    for pointer in [
        "/name",
        "/slug",
        "/description",
        "/type",
        "/adapterConfig/baseUrl",
        "/models/0/dyadModelId",
        "/adapterConfig/forwardHeaders/0",
        "/credentials/apiKey",
    ] {
        let told = message(with(proxy(), pointer, json!(long)), pointer);
        assert!(told.len() < 300, "{pointer}: {} bytes", told.len());
    }
    let unknown = with(proxy(), &format!("/{long}"), json!(1));
    assert_eq!(pointers(unknown), [format!("/{}", &long[..64])]);

    let many: Map<String, Value> = (0..50_000).map(|number| (format!("k{number}"), json!(1))).collect();
    let told = details(Value::Object(many));
    assert_eq!(told.len(), 101);
    // The 49,900 keys that are not listed, and the name and the type that are not there.
    assert_eq!(told[100].message, "49902 more mistakes are not listed");
}

#[test]
fn names_of_parameters_stay_one_part_of_their_pointer() {
    for (name, part) in
        [("a.b", "a.b"), ("a/b~c", "a~1b~0c"), ("__proto__", "__proto__"), ("x[0]", "x[0]"), ("", "")]
    {
        let pointer = format!("/adapterConfig/parameters/{part}");
        assert_eq!(pointers(with(cli(), "/adapterConfig/parameters", json!({ name: "v" }))), [pointer]);
    }
    for value in
        [json!(""), json!("--yolo"), json!("a\r\nb"), json!(1), json!([null]), json!("x".repeat(257))]
    {
        let pointer = "/adapterConfig/parameters/effort";
        assert_eq!(pointers(with(cli(), pointer, value)), [pointer]);
    }
}

#[test]
fn a_credential_is_itself_or_where_it_is() {
    let read = |text: &str| provider(with(proxy(), "/credentials/apiKey", json!(text))).unwrap().credential;
    assert_eq!(read("sk-canary"), WrittenCredential::Given(Secret::new("sk-canary")));
    assert_eq!(
        read("env:VENDOR_KEY"),
        WrittenCredential::Reference(CredentialRef::Env("VENDOR_KEY".to_owned()))
    );
    assert_eq!(read("file:/run/k"), WrittenCredential::Reference(CredentialRef::File("/run/k".to_owned())));
    assert!(matches!(read(&"k".repeat(8192)), WrittenCredential::Given(_)));
}

#[test]
fn a_credential_that_is_none_is_refused_and_never_repeated() {
    for text in [
        "",
        " sk-canary",
        "sk-canary\n",
        "sk-canary\r\nx-admin: 1",
        "sk-canary\0",
        "sk-c\u{e4}nary-canary",
        "env:DYAD_canary",
        "env:AWS_canary",
        "env:canary canary",
        "file:",
        "sealed:1:k:canary:canary",
    ] {
        let told = message(with(proxy(), "/credentials/apiKey", json!(text)), "/credentials/apiKey");
        assert!(!told.contains("canary"), "{told}");
    }
    let told = message(with(cli(), "/credentials", json!({ "apiKey": "sk-canary" })), "/credentials");
    assert!(told.contains("runners' operator") && !told.contains("canary"), "{told}");
}

#[test]
fn nothing_secret_is_printed() {
    let written = provider(proxy()).unwrap();
    assert!(!format!("{written:?}").contains("canary"));
}

#[test]
fn numbers_are_whole_however_they_are_written() {
    assert_eq!(provider(with(proxy(), "/rank", json!(2.0))).unwrap().provider.rank, 2);
    for number in [json!(2.5), json!(-1), json!(-0.5), json!(1e300), json!(4_294_967_296_u64), json!("2")] {
        assert_eq!(pointers(with(proxy(), "/rank", number)), ["/rank"]);
    }
}
