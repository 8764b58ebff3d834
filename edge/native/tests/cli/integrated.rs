//! The example of a host application.

use std::net::TcpStream;

use super::support::{Place, Upstream, exchange};
use dyad_gateway::NewApiKey;

#[expect(dead_code, reason = "the example's main is for a shell")]
#[path = "../../examples/integrated.rs"]
mod example;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_host_application_serves_its_own_route_and_the_gateways() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(None);
    let gateway = example::open_gateway(directory.path(), &upstream.base_url).await.unwrap();
    assert!(!gateway.has_keys().await.unwrap());
    let key = gateway.create_key(NewApiKey::default()).await;
    assert!(key.is_err(), "a key has a label");
    let key = gateway.create_key(NewApiKey { label: "a".to_owned(), ..NewApiKey::default() }).await.unwrap();
    assert!(gateway.has_keys().await.unwrap());
    gateway.gateway().discover().await;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(axum::serve(listener, example::application(&gateway).unwrap()).into_future());
    let get = |path: &str, key: &str| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
        );
        tokio::task::block_in_place(|| exchange(TcpStream::connect(address).unwrap(), head.as_bytes()))
    };
    let own = get("/about", "");
    assert!(own.starts_with("HTTP/1.1 200 ") && own.ends_with("a host application"), "{own}");
    let models = get("/v1/models", key.expose());
    assert!(models.starts_with("HTTP/1.1 200 ") && models.contains("\"tiny\""), "{models}");
    let refused = get("/v1/models", "dgw_wrong");
    assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains("\"error\""), "{refused}");
    let unknown = get("/nothing", key.expose());
    assert!(unknown.starts_with("HTTP/1.1 404 ") && unknown.contains("\"error\""), "{unknown}");
    let token = tokio::task::spawn_blocking({
        let place = directory.path().to_str().unwrap().to_owned();
        move || Place::new().run(&["admin", "token", "--data-dir", &place]).expect(0).stdout
    });
    let who = get("/admin/whoami", token.await.unwrap().trim());
    assert!(who.starts_with("HTTP/1.1 200 ") && who.contains("\"admin\""), "{who}");
    let refused = get("/admin/keys", key.expose());
    assert!(refused.starts_with("HTTP/1.1 401 "), "an API key is no token: {refused}");
    assert!(get("/openapi.json", "").starts_with("HTTP/1.1 200 "));
    serving.abort();
}
