//! A host application with a route of its own, and the gateway beside it:
//!
//! ```text
//! cargo run -p dyad-gateway --example integrated -- ./data http://127.0.0.1:11434/v1
//! ```

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use dyad_gateway::catalog::{Provider, RawProvider};
use dyad_gateway::gateway::Settings;
use dyad_gateway::{EmbeddedGateway, NewApiKey};
use serde_json::json;

/// The gateway, on its store in `data_dir`, in front of one OpenAI-compatible upstream.
pub(crate) async fn open_gateway(data_dir: &Path, upstream: &str) -> Result<EmbeddedGateway, Box<dyn Error>> {
    // As in the configuration file; the credential is only referred to.
    let provider = Provider::check(&RawProvider::from(json!({
        "name": "Upstream", "type": "local", "base_url": upstream,
    })))?;
    Ok(EmbeddedGateway::open(data_dir, Settings::default(), vec![provider]).await?)
}

/// The application's own routes first, then the administration's; whatever they do not know is the gateway's.
pub(crate) fn application(gateway: &EmbeddedGateway) -> Result<Router, Box<dyn Error>> {
    let mut application = Router::new().route("/about", get(|| async { "a host application" }));
    // For tokens of `dyad-gateway admin token --data-dir DATA_DIR`. An application that knows its administrators by other
    // means makes a router of `gateway.admin_parts()`.
    if let Some(authenticator) = gateway.token_authenticator()? {
        application = application.merge(gateway.admin_router(authenticator));
    }
    Ok(application.fallback_service(gateway.router()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(data_dir), Some(upstream)) = (arguments.next(), arguments.next()) else {
        return Err("usage: integrated DATA_DIR UPSTREAM_URL".into());
    };
    let gateway = open_gateway(Path::new(&data_dir), &upstream).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    if !gateway.has_keys().await? {
        let key = gateway.create_key(NewApiKey { label: "first".to_owned(), ..NewApiKey::default() }).await?;
        anstream::println!("API key   {}", key.expose());
    }
    anstream::println!("Base URL  http://{address}/v1");
    anstream::println!("Console   http://{address}/console");

    // Upstreams come and go, and their models with them.
    let discovering = gateway.gateway().clone();
    tokio::spawn(async move {
        loop {
            discovering.discover().await;
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
    });
    let checking = gateway.gateway().clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(checking.check_health().await).await;
        }
    });
    axum::serve(listener, application(&gateway)?).await?;
    Ok(())
}
