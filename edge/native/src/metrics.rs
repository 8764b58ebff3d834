//! `/metrics` for Prometheus, on a listener of its own: the numbers tell who uses what, and are not for clients.

#[cfg(target_os = "linux")]
mod process;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use gateway::{Body, Gateway, full};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::Service;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::server::{Server, ServerOptions, ServerTimeouts};

const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// Scrapers are few.
const MAX_CONNECTIONS: usize = 16;

/// Begins to serve. Must be called in a tokio runtime.
pub(crate) fn serve(listener: TcpListener, gateway: &Gateway) -> io::Result<Server> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(gateway.metrics()));
    #[cfg(target_os = "linux")]
    registry.register_collector(Box::new(process::ProcessMetrics));
    let options = ServerOptions {
        tls: None,
        workers: 1,
        max_connections: MAX_CONNECTIONS,
        timeouts: ServerTimeouts::default(),
    };
    Server::start(listener, &MetricsService(Arc::new(registry)), &options)
}

#[derive(Clone)]
struct MetricsService(Arc<Registry>);

impl Service<Request<Incoming>> for MetricsService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut response = Response::new(full(""));
        if request.uri().path() != "/metrics" {
            *response.status_mut() = StatusCode::NOT_FOUND;
        } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        } else {
            let mut page = String::new();
            match text::encode(&mut page, &self.0) {
                Ok(()) => {
                    *response.body_mut() = full(page);
                    response.headers_mut().insert(header::CONTENT_TYPE, OPENMETRICS);
                }
                Err(error) => {
                    tracing::error!(%error, "the metrics could not be written");
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
            }
        }
        ready(Ok(response))
    }
}
