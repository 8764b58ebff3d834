//! The gateway as a service: for our own server, and as an axum router to mount in a host application.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;

use axum::Router;
use axum::extract::Request;
use bytes::Bytes;
use gateway::{BoxError, Gateway};
use http_body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// Every route of the API, to be merged or nested into a host application's own router. It brings its own
/// authentication, so it needs no layer of the host's; layers that buffer or compress bodies break streaming.
///
/// A host application must not consume the request's body before. Requests to routes that the gateway does not know
/// get a 404 in OpenAI's shape, so a host application puts its own routes first and this router's as its fallback.
pub fn gateway_router(gateway: Gateway) -> Router {
    Router::new().fallback_service(tower::service_fn(move |request: Request| {
        let answer = handle(gateway.clone(), request);
        async move { Ok::<_, Infallible>(answer.await.map(axum::body::Body::new)) }
    }))
}

/// The same for hyper, without a router in between: the gateway routes by itself.
#[derive(Clone)]
pub(crate) struct GatewayService(pub(crate) Gateway);

impl hyper::service::Service<http::Request<Incoming>> for GatewayService {
    type Response = http::Response<gateway::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let answer = handle(self.0.clone(), request);
        Box::pin(async move { Ok(answer.await) })
    }
}

async fn handle<B>(gateway: Gateway, request: http::Request<B>) -> http::Response<gateway::Body>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    gateway.handle(request.map(|body| body.map_err(Into::into).boxed_unsync())).await
}
