//! One request of a sandbox, from its head to the end of its answer.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::api::{self, ApiCall};
use super::connect::{self, ConnectError, Tunnel};
use super::endpoint::Route;
use super::observe::Call;
use super::outgoing::{Body, BoxError};
use super::request::{Target, key_in_query};
use super::separators::EscapeSeparators;
use super::{credential, headers};
use crate::config::model::{Upstream, Vendor};

/// Characters of a refused request's path that are logged.
const MAX_LOGGED_TARGET: usize = 200;

/// An answer of the runner's own.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// Every vendor's client finds its error in it.
    fn into_response(self) -> Response<Body> {
        let status = self.status;
        let body = serde_json::json!({
            "type": "error",
            "error": {"type": "egress_error", "code": status.as_u16(), "message": self.message},
        });
        let body = Full::from(body.to_string()).map_err(|never| match never {}).boxed_unsync();
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status == StatusCode::UPGRADE_REQUIRED {
            // RFC 9110, section 15.5.22.
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("HTTP/1.1"));
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        response
    }
}

/// Answers a request; a CONNECT that is granted leaves its tunnel in `tunnel`.
pub(super) async fn handle(
    route: &Route,
    tunnel: &Mutex<Option<Tunnel>>,
    request: Request<Incoming>,
) -> Response<Body> {
    if request.method() == Method::HEAD {
        // Claude Code warms its connection up so, without a key. The vendor need not know.
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    }
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let answered = match authenticate(route, &request) {
        Err(refusal) => Err(refusal),
        Ok(()) if method == Method::CONNECT => open_tunnel(route, tunnel, request).await,
        Ok(()) => call_vendor(route, request).await,
    };
    answered.unwrap_or_else(|refusal| {
        if route.count_refusal() {
            // Without the query: the token may be in it.
            let asked = uri.authority().map_or(uri.path(), |authority| authority.as_str());
            let asked: String = asked.chars().take(MAX_LOGGED_TARGET).collect();
            let status = refusal.status.as_u16();
            tracing::warn!(cli = route.cli, %method, asked, status, reason = refusal.message, "egress was refused");
        }
        refusal.into_response()
    })
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Whether the sandbox's token is where a vendor's client puts its key, or a proxy's client its password.
fn authenticate(route: &Route, request: &Request<Incoming>) -> Result<(), Refusal> {
    let is_token = |key: &[u8]| route.token.is(key);
    let is_authentic = if request.method() == Method::CONNECT {
        headers::proxy_passwords(request.headers()).any(|password| is_token(&password))
    } else {
        headers::presented_keys(request.headers()).chain(key_in_query(request.uri())).any(is_token)
    };
    if is_authentic {
        return Ok(());
    }
    Err(match *request.method() {
        Method::CONNECT => Refusal::new(
            StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            "the sandbox's egress token is missing or wrong",
        ),
        _ => Refusal::new(StatusCode::UNAUTHORIZED, "the sandbox's egress token is missing or wrong"),
    })
}

async fn open_tunnel(
    route: &Route,
    tunnel: &Mutex<Option<Tunnel>>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let shared = &route.shared;
    let list = &route.egress.connect;
    let host = connect::connect(request.uri().authority(), list, &*shared.lookup, shared.timeouts.connect)
        .await
        .map_err(|error| {
            let status = match error {
                ConnectError::Malformed => StatusCode::BAD_REQUEST,
                ConnectError::NotListed | ConnectError::NotPublic => StatusCode::FORBIDDEN,
                ConnectError::Unreachable(_) => StatusCode::BAD_GATEWAY,
                ConnectError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            };
            Refusal::new(status, error.to_string())
        })?;
    let sandbox = hyper::upgrade::on(&mut request);
    *tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tunnel { sandbox, host });
    Ok(Response::new(empty()))
}

async fn call_vendor(route: &Route, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    if request.headers().contains_key(header::UPGRADE) {
        // Codex takes this status, and no other, for a reason to go on without a WebSocket.
        return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "plain HTTP/1.1 is spoken here"));
    }
    let (mut head, body) = request.into_parts();
    let target =
        Target::parse(&head.uri).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let (upstream, client) = route
        .egress
        .upstreams
        .iter()
        .zip(&route.clients)
        .find(|(upstream, _)| upstream.name == target.upstream)
        .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "the path begins with no upstream's name"))?;
    let kind = api::allowed(upstream.vendor, &head.method, target.path).ok_or_else(|| {
        Refusal::new(StatusCode::FORBIDDEN, "a sandbox may run models, count tokens and list models only")
    })?;
    let uri = vendor_uri(upstream, &target)?;

    let credential = upstream.credential.as_ref().map(credential::read).transpose();
    let mut call = match kind {
        ApiCall::Model(format) => {
            let known = credential.as_ref().ok().cloned().flatten();
            Some(route.observation.begin(format, known))
        }
        ApiCall::Other => None,
    };
    let credential = credential.map_err(|reason| {
        tracing::error!(
            cli = route.cli,
            upstream = upstream.name,
            reason,
            "there is no credential for a vendor"
        );
        // As the vendor would answer a call without one.
        let message = "the runner has no credential for this upstream";
        if let Some(call) = call.take() {
            call.failed(Some(401), message);
        }
        Refusal::new(StatusCode::UNAUTHORIZED, message)
    })?;

    headers::to_vendor(&mut head.headers, upstream.vendor, credential.as_ref());
    head.uri = uri;
    head.version = Version::HTTP_11;
    head.extensions = http::Extensions::default();
    let timeouts = route.shared.timeouts;
    let body = Relayed::new(body, timeouts.idle, None).boxed_unsync();
    let (response, call) = match timeout(timeouts.first_byte, client.request(Request::from_parts(head, body)))
        .await
    {
        Ok(Ok(response)) => (response, call),
        failed => {
            let (status, message) = match failed {
                Ok(Err(error)) => {
                    let cause = error.source().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(cli = route.cli, upstream = upstream.name, %error, cause, "a vendor could not be called");
                    (StatusCode::BAD_GATEWAY, "the vendor could not be reached, or broke off")
                }
                _ => (StatusCode::GATEWAY_TIMEOUT, "the vendor took too long to answer"),
            };
            if let Some(call) = call {
                call.failed(None, message);
            }
            return Err(Refusal::new(status, message));
        }
    };
    let (mut head, body) = response.into_parts();
    let call = call.map(|mut call| {
        call.answered(head.status.as_u16(), &head.headers);
        call
    });
    let separators = breaks_at_separators(upstream.vendor, &head.headers).then(EscapeSeparators::default);
    headers::to_sandbox(&mut head.headers);
    head.version = Version::HTTP_11;
    head.extensions = http::Extensions::default();
    let body = Relayed { separators, ..Relayed::new(body, timeouts.idle, call) };
    Ok(Response::from_parts(head, body.boxed_unsync()))
}

/// Whether the answer is one that its CLI cannot read as it comes, and may grow.
fn breaks_at_separators(vendor: Vendor, headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    vendor == Vendor::Gemini
        && content_type.is_some_and(|value| value.starts_with("text/event-stream"))
        && !headers.contains_key(header::CONTENT_LENGTH)
}

/// The upstream's URL, followed by the path that the sandbox asks for.
fn vendor_uri(upstream: &Upstream, target: &Target<'_>) -> Result<Uri, Refusal> {
    let base = upstream.url.path().trim_end_matches('/');
    let path = match &target.query {
        Some(query) => format!("{base}{}?{query}", target.path),
        None => format!("{base}{}", target.path),
    };
    let authority = &upstream.url[url::Position::BeforeHost..url::Position::AfterPort];
    Uri::builder()
        .scheme(upstream.url.scheme())
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the path or query is malformed"))
}

/// A body on its way, without trailers. It fails if its sender says nothing for too long.
struct Relayed {
    body: Incoming,
    idle: Duration,
    silence: Pin<Box<Sleep>>,
    /// The sender is being waited for; while nobody reads the body, it is not the sender who is silent.
    waiting: bool,
    /// Whose answer this is.
    call: Option<Call>,
    separators: Option<EscapeSeparators>,
}

impl Relayed {
    fn new(body: Incoming, idle: Duration, call: Option<Call>) -> Self {
        let mut relayed =
            Self { body, idle, silence: Box::pin(sleep(idle)), waiting: false, call, separators: None };
        relayed.note_end();
        relayed
    }

    /// hyper does not ask again once it knows that nothing follows.
    fn note_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(mut call) = self.call.take()
        {
            call.end();
        }
    }
}

impl http_body::Body for Relayed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            let failed: BoxError = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    this.waiting = false;
                    let Ok(data) = frame.into_data() else { continue };
                    if let Some(call) = &mut this.call {
                        call.push(&data);
                    }
                    this.note_end();
                    let data = match &mut this.separators {
                        Some(separators) => separators.push(data),
                        None => data,
                    };
                    if data.is_empty() {
                        continue;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(None) => {
                    if let Some(mut call) = this.call.take() {
                        call.end();
                    }
                    let kept = this.separators.as_mut().and_then(EscapeSeparators::finish);
                    return Poll::Ready(kept.map(|data| Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(error))) => error.into(),
                Poll::Pending => {
                    if !this.waiting {
                        this.waiting = true;
                        this.silence.as_mut().reset(Instant::now() + this.idle);
                    }
                    if this.silence.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    "nothing came for too long".into()
                }
            };
            if let Some(mut call) = this.call.take() {
                call.break_off();
            }
            return Poll::Ready(Some(Err(failed)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.separators.as_ref().is_none_or(EscapeSeparators::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        if self.separators.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}
