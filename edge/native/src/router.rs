//! The gateway as an axum router, to serve alone or to mount in a host application.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use gateway::Gateway;
use http_body_util::BodyExt as _;

/// Every route of the API, to be merged or nested into a host application's own router. It brings its own
/// authentication, so it needs no layer of the host's; layers that buffer or compress bodies break streaming.
///
/// A host application must not consume the request's body before. Requests to routes that the gateway does not know
/// get a 404 in OpenAI's shape, so a host application puts its own routes first and this router's as its fallback.
pub fn gateway_router(gateway: Gateway) -> Router {
    Router::new().fallback_service(tower::service_fn(move |request: Request| {
        let gateway = gateway.clone();
        async move {
            let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            Ok::<_, Infallible>(gateway.handle(request).await.map(Body::new))
        }
    }))
}
