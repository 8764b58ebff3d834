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
use tower::ServiceExt as _;

use crate::admin::is_administration;

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

/// What one listener serves, for hyper and without a router in between: the gateway routes by itself.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) gateway: Gateway,
    /// The administration's routes; where there are none, everything is the gateway's.
    pub(crate) administration: Option<Router>,
    pub(crate) gateway_serves: GatewayServes,
}

/// What of a listener is the gateway's, where it has the administration's routes too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GatewayServes {
    /// All that is not the administration's.
    Everything,
    /// How it stands, which asks for no key: `/healthz` and `/ready`.
    Health,
}

impl Site {
    fn administration(&self, path: &str) -> Option<&Router> {
        let routes = self.administration.as_ref()?;
        let is_gateways = match self.gateway_serves {
            GatewayServes::Everything => !is_administration(path),
            GatewayServes::Health => matches!(path, "/healthz" | "/ready"),
        };
        (!is_gateways).then_some(routes)
    }
}

impl hyper::service::Service<http::Request<Incoming>> for Site {
    type Response = http::Response<gateway::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        if let Some(routes) = self.administration(request.uri().path()) {
            let answer = routes.clone().oneshot(request.map(axum::body::Body::new));
            return Box::pin(
                async move { Ok(answer.await?.map(|body| body.map_err(Into::into).boxed_unsync())) },
            );
        }
        let answer = handle(self.gateway.clone(), request);
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
