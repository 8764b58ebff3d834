//! Whatever anybody sends, to whichever route: it is answered, as documented, and never with a 5xx; and the log has
//! nothing of it.

use std::io::Write;
use std::sync::{Arc, Mutex};

use http::{Method, Request};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{TestApp, request, with_header};
use crate::RunnerInfo;

/// Names that mean something somewhere, so that what is made up gets further than the first check.
const NAMES: [&str; 38] = [
    "label",
    "owner",
    "expiresAt",
    "allowedModels",
    "limits",
    "requestsPerMinute",
    "tokensPerDay",
    "graceSeconds",
    "slug",
    "name",
    "type",
    "description",
    "enabled",
    "rank",
    "models",
    "dyadModelId",
    "adapterModelId",
    "maxTokens",
    "capabilities",
    "chat",
    "adapterConfig",
    "baseUrl",
    "discoverModels",
    "forwardHeaders",
    "timeouts",
    "connectMs",
    "cli",
    "parameters",
    "credentials",
    "apiKey",
    "overlapSeconds",
    "test",
    "model",
    "stream",
    "request",
    "keyId",
    "__proto__",
    "x/y~z",
];

const TEXTS: [&str; 22] = [
    "proxy",
    "local",
    "spawn-cli",
    "http-sdk",
    "https://api.example.com/v1",
    "http://127.0.0.1:1",
    "http://0x7f.1/",
    "http://[::ffff:10.0.0.1]/",
    "https://user:pw@h/?q#f",
    "../../etc/passwd",
    "%2e%2e",
    "env:NAME",
    "file:/etc/passwd",
    "env:DYAD_X",
    "a\r\nb: c",
    "\u{0}",
    "аdmin",
    "2027-01-15T08:00:00Z",
    "9999-12-31T23:59:59.999Z",
    "4fGh8kLm2pQr",
    "one",
    "",
];

fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        3 => proptest::sample::select(TEXTS.as_slice()).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u64..10_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let name = prop_oneof![
            9 => proptest::sample::select(NAMES.as_slice()).prop_map(str::to_owned),
            1 => any::<String>(),
        ];
        let members = proptest::collection::vec((name, inner.clone()), 0..8);
        prop_oneof![
            3 => members.prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
            1 => proptest::collection::vec(inner, 0..4).prop_map(Value::Array),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => value().prop_map(|value| value.to_string().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..64),
        1 => Just("[".repeat(100_000).into_bytes()),
    ]
}

fn query() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => proptest::sample::select(
            ["limit", "cursor", "state", "type", "owner", "dryRun", "from", "until", "groupBy", "actor"].as_slice()
        ).prop_map(str::to_owned),
        1 => "[a-z%=&]{0,8}",
    ];
    let value =
        prop_oneof![Just("true".to_owned()), Just("2026-01-01".to_owned()), "[0-9]{0,20}", "[ -~]{0,12}"];
    proptest::collection::vec((name, value), 0..4)
        .prop_map(|pairs| url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
}

fn header() -> impl Strategy<Value = (&'static str, String)> {
    let name = proptest::sample::select(
        ["if-match", "idempotency-key", "content-type", "x-request-id", "accept"].as_slice(),
    );
    (
        name,
        prop_oneof![
            Just("\"1\"".to_owned()),
            Just("*".to_owned()),
            Just("text/csv".to_owned()),
            "[ -~]{0,40}"
        ],
    )
}

/// Every route, with an id that is there and one that is not.
async fn targets(app: &TestApp) -> Vec<(Method, String)> {
    let key = app.post("/admin/keys", json!({"label": "x"})).await.body["id"].as_str().unwrap().to_owned();
    let provider = json!({"name": "One", "slug": "one", "type": "proxy", "models": [{"dyadModelId": "m"}],
        "adapterConfig": {"baseUrl": "https://api.example.com/v1"}, "credentials": {"apiKey": "sk-canary"}});
    assert_eq!(app.post("/admin/providers", provider).await.status, 201);
    app.engine.set(|answers| answers.runners = Ok(vec![runner()]));
    let document = app.get("/openapi.json").await.body;
    let mut targets = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|_| path.starts_with("/admin")) {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            for id in [key.as_str(), "one", "node-1", "%00", "..%2f", "%ff"] {
                targets.push((method.clone(), path.replace("{id}", id)));
            }
        }
    }
    targets
}

fn runner() -> RunnerInfo {
    RunnerInfo {
        id: "node-1".to_owned(),
        url: "https://node-1:7443".to_owned(),
        version: "0.1.0".to_owned(),
        slots: 4,
        running: 1,
        queued: 0,
        parked: 2,
        draining: false,
        up: true,
        clis: vec!["gemini".to_owned()],
    }
}

#[test]
fn nothing_that_is_sent_is_a_fault_of_ours() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let app = TestApp::new();
    let targets = runtime.block_on(targets(&app));
    let request =
        (proptest::sample::select(targets), body(), query(), proptest::collection::vec(header(), 0..3));
    let config = ProptestConfig { cases: 2_000, ..ProptestConfig::default() };
    proptest!(config, |(((method, path), body, query, headers) in request)| {
        let mut request = Request::builder().method(&method).uri(format!("{path}?{query}"));
        if headers.iter().all(|(name, _)| *name != "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in &headers {
            request = request.header(*name, value.as_str());
        }
        let reply = runtime.block_on(app.send(request.body(body.clone().into()).unwrap()));
        let shown = String::from_utf8_lossy(&body);
        prop_assert!(reply.status.as_u16() < 500, "{method} {path}?{query} {headers:?} {shown}: {reply:?}");
        if reply.status.is_client_error() {
            prop_assert!(!reply.code().is_empty() && reply.body["error"]["message"].is_string(), "{reply:?}");
        }
        prop_assert!(!reply.header("x-request-id").is_empty());
    });
}

/// What was written to the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_has_one_line_for_each_request_and_nothing_of_it() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let app = TestApp::new();
    let with_canary = json!({"label": "x", "owner": "canary", "canary": "canary"});
    let made = app.post("/admin/keys", json!({"label": "canary"})).await;
    assert_eq!(made.status, 201);
    for reply in [
        app.post("/admin/keys", with_canary.clone()).await,
        app.get("/admin/keys?cursor=canary&canary=canary").await,
        app.get("/admin/keys/canary").await,
        app.get("/admin/canary").await,
        app.send(with_header(
            request(Method::GET, "/admin/whoami", Value::Null),
            "authorization",
            "Bearer canary",
        ))
        .await,
        app.send(with_header(request(Method::POST, "/admin/keys", with_canary), "idempotency-key", "canary"))
            .await,
    ] {
        assert!(reply.status.is_client_error(), "{reply:?}");
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("canary"), "{text}");
    assert!(!text.contains(made.body["key"].as_str().unwrap()));
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("request_id")).collect();
    assert_eq!(lines.len(), 7, "{text}");
    assert!(lines[0].contains("actor=\"ada\"") && lines[0].contains("route=\"/admin/keys\""), "{}", lines[0]);
}
