//! The document of both APIs.

use axum::body::{Body, to_bytes};
use dyad_gateway::{EmbeddedGateway, gateway};
use serde_json::Value;
use tower::ServiceExt as _;

#[tokio::test]
async fn the_document_has_the_gateways_routes_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let gateway =
        EmbeddedGateway::open(directory.path(), gateway::Settings::default(), Vec::new()).await.unwrap();
    let authenticator = gateway.token_authenticator().unwrap().unwrap();
    let request = http::Request::get("/openapi.json").body(Body::empty()).unwrap();
    let answer = gateway.admin_router(authenticator).oneshot(request).await.unwrap();
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let document: Value = serde_json::from_slice(&body).unwrap();

    let mut described: Vec<(String, String)> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.starts_with("/admin") && path != "/openapi.json" {
            described
                .extend(item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
        }
    }
    described.sort();
    let mut served = gateway::ROUTES.map(|(method, path)| (method.to_owned(), path.to_owned()));
    served.sort();
    assert_eq!(described, served);
}
