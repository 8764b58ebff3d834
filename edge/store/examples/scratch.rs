#![allow(clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::print_stdout)]
use std::{sync::Arc, time::Duration};
use aws_smithy_async::{rt::sleep::TokioSleep, time::SystemTimeSource};
use catalog::*;
use store::{*, sdk::*};
#[path = "../tests/suite/http_client.rs"]
mod http_client;
#[tokio::main]
async fn main() {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    let upstream = std::env::args().nth(2).unwrap();
    let engine = dynoxide::Database::memory().unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(dynoxide::server::serve_on(listener, engine.clone()));
    let store = DynamoStore::new(
        HostPorts { http_client: SharedHttpClient::new(http_client::PlainHttp::new()), sleep: SharedAsyncSleep::new(TokioSleep::new()), time: SharedTimeSource::new(SystemTimeSource::new()) },
        DynamoOptions { table: "dyad".into(), region: "eu-central-1".into(), endpoint_url: Some(format!("http://{address}")), credentials: SharedCredentialsProvider::new(Credentials::from_keys("AKIAEXAMPLE", "hunter2", None)), timing: Timing::default() },
    );
    store.create_table().await.unwrap();
    let provider = Provider::check(&serde_json::json!({"name":"fake","slug":"fake","type":"proxy","base_url":upstream,"credential":"env:FAKE_UPSTREAM_KEY","models":[{"id":"m","upstream_id":"up"}]}).into()).unwrap();
    store.put_provider(&provider, None).await.unwrap();
    let key = ApiKey::from_random(&[7; 32]);
    let hasher = ApiKeyHasher::new(&Secret::new("0123456789abcdef0123456789abcdef"));
    let record = ApiKeyRecord { id: key.id().clone(), hash: hasher.hash(&key), label: "x".into(), created_at_ms: 1, expires_at_ms: None, revoked_at_ms: None, allowed_models: None, limits: ApiKeyLimits::default() };
    store.put_key(&record, None).await.unwrap();
    println!("{}", key.expose());
    std::future::pending::<()>().await;
}
