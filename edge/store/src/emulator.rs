//! DynamoDB's API over the embedded engine, for development and tests: any credentials are taken, no signature is
//! checked, and nothing is ever throttled.
//!
//! **Browsers are kept out**, as whoever reaches it may do everything: a page that its user looks at could otherwise
//! send requests to a port of their machine, by CORS or by a name of its own that leads there (DNS rebinding). So a
//! request with an `Origin` is refused, and one for a host that is not this machine.

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dynoxide::{Database, DynoxideError};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::DynamoStore;
use crate::embedded::{OpenError, open_database, perform};

/// Connections open at once; further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 256;
/// DynamoDB's own limit.
const MAX_BODY_BYTES: usize = 16 << 20;
/// For a request's head, counted from the answer before it: so it is also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after accepting failed, as it does while file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("no memory for a store")]
    Memory(#[from] Box<DynoxideError>),
}

/// An engine that is ready to be served.
pub struct Emulator {
    database: Database,
    /// Cares for the file while it is served.
    _store: Option<DynamoStore>,
    takes_any_host: bool,
}

impl Emulator {
    /// On the file of an embedded store, whose table [`EMBEDDED_TABLE`](crate::EMBEDDED_TABLE) is there from the start
    /// and may be in use by other processes.
    pub async fn open(path: PathBuf) -> Result<Self, EmulatorError> {
        // Makes the table.
        let store = DynamoStore::open_embedded(&path).await?;
        let database = spawn_blocking(move || open_database(&path)).await.map_err(OpenError::from)??;
        Ok(Self { database, _store: Some(store), takes_any_host: false })
    }

    /// Without a table, and forgotten at the end.
    pub fn in_memory() -> Result<Self, EmulatorError> {
        let database = Database::memory().map_err(Box::new)?;
        Ok(Self { database, _store: None, takes_any_host: false })
    }

    /// Takes requests for hosts other than this machine too, as a listener in a network of containers must. A web page
    /// still gets nothing.
    #[must_use]
    pub fn with_any_host(self) -> Self {
        Self { takes_any_host: true, ..self }
    }

    /// Serves until `shutdown` resolves and the requests under way have ended; dropping the future leaves those behind.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let emulator = Arc::new(self);
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = async {
                let permit = connections.clone().acquire_owned().await.expect("it is never closed");
                (permit, listener.accept().await)
            };
            let (permit, stream) = tokio::select! {
                () = &mut shutdown => break,
                (permit, accepted) = accepted => match accepted {
                    Ok((stream, _)) => (permit, stream),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let emulator = emulator.clone();
            let service = service_fn(move |request| {
                let emulator = emulator.clone();
                async move { Ok::<_, Infallible>(emulator.answer(request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended early");
                }
            });
        }
        drop(listener);
        graceful.shutdown().await;
    }
}

impl Emulator {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.perform(request).await {
            Ok((status, body)) => json(status, body),
            Err((status, reason)) => refusal(status, reason),
        }
    }

    /// The engine's status and JSON, or why it was not asked.
    async fn perform(&self, request: Request<Incoming>) -> Result<(StatusCode, String), Refusal> {
        self.check_sender(&request)?;
        if request.method() != Method::POST {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "requests of DynamoDB's API are POST"));
        }
        let (head, body) = request.into_parts();
        let too_long = (StatusCode::PAYLOAD_TOO_LARGE, "the body has more than 16 MiB");
        // What is announced is not waited for.
        if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
            return Err(too_long);
        }
        let body = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
        let body = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_long),
            Ok(Err(_)) => return Err((StatusCode::BAD_REQUEST, "the body was cut off")),
            Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the body took too long")),
        };
        let database = self.database.clone();
        // As many at once as there are connections.
        let work = move || {
            let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
            perform(&database, target.unwrap_or_default(), &body)
        };
        let failed = (StatusCode::INTERNAL_SERVER_ERROR, "the engine failed");
        let (status, answer) = spawn_blocking(work).await.map_err(|_| failed)?;
        Ok((StatusCode::from_u16(status).map_err(|_| failed)?, answer))
    }

    fn check_sender<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let headers = request.headers();
        if headers.contains_key(ORIGIN) {
            return Err((
                StatusCode::FORBIDDEN,
                "web pages may not use the store: there is an Origin header",
            ));
        }
        if self.takes_any_host {
            return Ok(());
        }
        // Both that there can be: which of them counts is nothing to rely on.
        let named = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
        let mut hosts = named.chain(request.uri().authority().map(Authority::as_str)).peekable();
        if hosts.peek().is_some() && hosts.all(is_this_machine) {
            return Ok(());
        }
        Err((
            StatusCode::FORBIDDEN,
            "the Host header must be localhost or a loopback address; --allow-remote takes others",
        ))
    }
}

type Refusal = (StatusCode, &'static str);

/// Whether a host, with or without a port, is one that no name server decides about.
fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// In the form of DynamoDB's errors.
fn refusal(status: StatusCode, reason: &str) -> Response<Full<Bytes>> {
    let kind = match status {
        StatusCode::FORBIDDEN => "AccessDeniedException",
        status if status.is_server_error() => "InternalServerError",
        _ => "SerializationException",
    };
    let kind = format!("com.amazonaws.dynamodb.v20120810#{kind}");
    json(status, serde_json::json!({"__type": kind, "message": reason}).to_string())
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/x-amz-json-1.0");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests;
