//! Administration of a running gateway: from the first provider to the audit log, without a restart.

mod bad_input;
mod canary;
mod journey;
mod rotation;
mod schemathesis;

use serde_json::{Value, json};
use system_tests::admin::Admin;
use system_tests::config::Config;
use system_tests::gateway::Gateway;
use system_tests::raw::{Connection, Request, Response};

/// A gateway without providers.
async fn gateway() -> Gateway {
    Gateway::start(&Config::new([])).await
}

/// A chat with this key; the whole answer.
async fn chat(gateway: &Gateway, key: &str, model: &str) -> Response {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "Hello!"}]});
    Connection::open(gateway).await.request(&chat_request(gateway, key, &body)).await
}

fn chat_request(gateway: &Gateway, key: &str, body: &Value) -> Request {
    Request::bare("POST", "/v1/chat/completions")
        .header("host", gateway.address())
        .header("authorization", format!("Bearer {key}"))
        .json(body)
}

/// Asks until the answer is as `wanted`: changes are effective within the bound that the README states.
async fn until(what: &str, ask: impl AsyncFn() -> Response, wanted: impl Fn(&Response) -> bool) -> Response {
    system_tests::within(system_tests::SOON * 2, what, async {
        let mut interval = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            interval.tick().await;
            let response = ask().await;
            if wanted(&response) {
                return response;
            }
        }
    })
    .await
}

/// Entries of the audit log, the latest first, as `action object`.
async fn audited(admin: &Admin<'_>) -> Vec<String> {
    let page = admin.get("/admin/audit?limit=100").await;
    let entries = page["data"].as_array().expect("a list has data");
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    entries.iter().map(|entry| format!("{} {}", text(entry, "action"), text(entry, "object"))).collect()
}
