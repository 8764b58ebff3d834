//! What goes wrong, split by whose fault it is, and the one place where it becomes an answer.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use openai_wire::ErrorBody;

use crate::admit::Limit;
use crate::admit::RETRY_AFTER_MS;
use crate::host::{Body, full};

/// How an upstream failed. The class decides what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureClass {
    /// Our credential was refused.
    Auth,
    RateLimited,
    /// A quota is used up for hours or until somebody pays.
    QuotaExhausted,
    Overloaded,
    Timeout,
    /// The request itself was refused.
    InvalidRequest,
    NotFound,
    ContentFilter,
    /// This deployment does not let it be called.
    Unusable,
    /// Unreachable, cut off, or answering something that is no answer.
    Unavailable,
    Internal,
}

impl FailureClass {
    /// In the order of their discriminants.
    pub(crate) const ALL: [Self; 11] = [
        Self::Auth,
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::Overloaded,
        Self::Timeout,
        Self::InvalidRequest,
        Self::NotFound,
        Self::ContentFilter,
        Self::Unusable,
        Self::Unavailable,
        Self::Internal,
    ];

    /// Whether it is told in the words of who refused the request.
    pub(crate) fn is_callers_fault(self) -> bool {
        matches!(self, Self::InvalidRequest | Self::ContentFilter)
    }

    /// Where it is, as long as nothing more is known.
    fn scope(self) -> Scope {
        match self {
            Self::InvalidRequest | Self::ContentFilter => Scope::Request,
            Self::Unavailable => Scope::Upstream,
            Self::Auth
            | Self::RateLimited
            | Self::QuotaExhausted
            | Self::Overloaded
            | Self::Timeout
            | Self::NotFound
            | Self::Unusable
            | Self::Internal => Scope::Target,
        }
    }

    /// For metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::RateLimited => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::InvalidRequest => "invalid_request",
            Self::NotFound => "not_found",
            Self::ContentFilter => "content_filter",
            Self::Unusable => "unusable",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

/// How far a failure goes, and so who may do better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What was called: another node of the same target may.
    Upstream,
    /// Another target may.
    Target,
    /// Nobody.
    Request,
}

/// One failed call to an upstream.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamFailure {
    pub class: FailureClass,
    pub scope: Scope,
    /// What the client may read: our own words, or the upstream's where the fault is the caller's.
    pub message: Cow<'static, str>,
    pub param: Option<String>,
    pub code: Option<String>,
    pub retry_after: Option<Duration>,
    /// Of the upstream's answer, if it had one.
    pub status: Option<StatusCode>,
    /// The connection ended before anything was answered: perhaps only because it had been kept for too long.
    pub stale_connection: bool,
    /// The upstream had the prompt and may have worked on it for nothing.
    pub may_have_worked: bool,
}

impl UpstreamFailure {
    pub(crate) fn new(class: FailureClass, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            scope: class.scope(),
            message: message.into(),
            param: None,
            code: None,
            retry_after: None,
            status: None,
            stale_connection: false,
            may_have_worked: false,
        }
    }

    pub(crate) fn after_work(self) -> Self {
        Self { may_have_worked: true, ..self }
    }

    pub(crate) fn unavailable(message: &'static str) -> Self {
        Self::new(FailureClass::Unavailable, message)
    }

    pub(crate) fn of_scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    pub(crate) fn closed() -> Self {
        Self {
            stale_connection: true,
            ..Self::unavailable("The upstream closed the connection before it answered.")
        }
    }
}

/// An error as the client gets it: OpenAI's shape, always.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub kind: &'static str,
    pub code: Cow<'static, str>,
    pub message: Cow<'static, str>,
    pub param: Option<String>,
    pub retry_after: Option<Duration>,
    pub allow: Option<Box<Method>>,
    /// The limit that the request is over, for metrics.
    pub limit: Option<Limit>,
}

impl ApiError {
    fn new(
        status: StatusCode,
        kind: &'static str,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            kind,
            code: code.into(),
            message: message.into(),
            param: None,
            retry_after: None,
            allow: None,
            limit: None,
        }
    }

    pub(crate) fn invalid_request(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message)
    }

    pub(crate) fn missing_key() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_request_error",
            "missing_api_key",
            "No API key was sent. Send one as 'Authorization: Bearer dgw_…'; 'dyad-gateway keys create' makes one.",
        )
    }

    pub(crate) fn invalid_key(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", "invalid_api_key", message)
    }

    pub(crate) fn unknown_route(path: &str) -> Self {
        // The path is the caller's own; it is cut, because an error is no place for a megabyte.
        let shown: String = path.chars().take(200).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            "unknown_url",
            format!(
                "There is nothing at {shown}. The base URL of this API ends in /v1; a client adds \
                 /chat/completions, /embeddings or /models to it."
            ),
        )
    }

    pub(crate) fn wrong_method(method: &Method, right: Method) -> Self {
        let message = format!("{method} is not supported here; use {right}.");
        let mut error =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed", message);
        error.allow = Some(Box::new(right));
        error
    }

    pub(crate) fn model_not_found(model: &str) -> Self {
        let mut error = Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            "model_not_found",
            format!(
                "The model '{model}' does not exist or your API key may not use it. GET /v1/models lists what it may use."
            ),
        );
        error.param = Some("model".to_owned());
        error
    }

    pub(crate) fn cannot_embed(model: &str) -> Self {
        let mut error = Self::invalid_request(
            "model_cannot_embed",
            format!("The model '{model}' does not make embeddings."),
        );
        error.param = Some("model".to_owned());
        error
    }

    pub(crate) fn cannot_chat(model: &str) -> Self {
        let mut error =
            Self::invalid_request("model_cannot_chat", format!("The model '{model}' does not answer chats."));
        error.param = Some("model".to_owned());
        error
    }

    /// `part` is the path of an image, such as `messages[3].content[1]`.
    pub(crate) fn cannot_see(model: &str, part: &str) -> Self {
        let mut error = Self::invalid_request(
            "unsupported_content",
            format!("The model '{model}' does not take images, and {part} is one."),
        );
        error.param = Some(part.to_owned());
        error
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            "request_too_large",
            format!("The request body is longer than the limit of {limit} bytes."),
        )
    }

    /// Long bodies of other requests are held; it is over when some of them are done.
    pub(crate) fn no_room() -> Self {
        let mut error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            "gateway_overloaded",
            "This instance of the gateway has no memory left for another body of this size. Try again shortly.",
        );
        error.retry_after = Some(Duration::from_secs(2));
        error
    }

    pub(crate) fn body_too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            "request_timeout",
            "The request body did not arrive in time.",
        )
    }

    pub(crate) fn rate_limited(message: String, retry_after: Duration) -> Self {
        let mut error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded", message);
        // From a minute on, clients take it for no answer at all and come back at once.
        error.retry_after = Some(retry_after.min(Duration::from_secs(59)));
        error
    }

    /// Used up for hours or longer.
    pub(crate) fn quota_exhausted(message: String, retry_after: Duration) -> Self {
        let mut error = Self::new(StatusCode::FORBIDDEN, "insufficient_quota", "insufficient_quota", message);
        error.retry_after = Some(retry_after);
        error
    }

    pub(crate) fn limits_unavailable() -> Self {
        let mut error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            "limits_unavailable",
            "The gateway cannot check the limits of this API key right now, because its store does not answer. Try again shortly.",
        );
        error.retry_after = Some(Duration::from_secs(3));
        error
    }

    /// Nothing can be judged without the store. `class` is [`StoreError::code`](catalog::StoreError::code).
    pub(crate) fn store_unavailable(class: &str) -> Self {
        let why = match class {
            "not_set_up" => {
                "its store is not set up: the table that its operator named (DYAD_TABLE) does not exist there. \
                 They have to make it, or to name the right one."
            }
            "denied" => "its store refuses the gateway's own credentials. Its operator has to renew them.",
            "broken" | "unreadable" => "its store is not usable. Its operator has to look after it.",
            _ => "its store does not answer. Try again shortly.",
        };
        let message = format!("The gateway cannot look up API keys right now, because {why}");
        let mut error =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "store_unavailable", message);
        error.retry_after = Some(Duration::from_secs(2));
        error
    }

    pub(crate) fn over(self, limit: Limit) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// The code, for metrics and logs. Where it is an upstream's, of which there may be any number, the type.
    pub(crate) fn label(&self) -> &'static str {
        match self.code {
            Cow::Borrowed(code) => code,
            Cow::Owned(_) => self.kind,
        }
    }

    pub(crate) fn body(&self) -> ErrorBody<'_> {
        ErrorBody {
            message: &self.message,
            kind: self.kind,
            code: Some(&self.code),
            param: self.param.as_deref(),
        }
    }

    pub(crate) fn to_json(&self) -> Bytes {
        self.body().to_json()
    }

    pub(crate) fn into_response(self) -> http::Response<Body> {
        let mut response = http::Response::new(full(self.to_json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after {
            // Rounded up, and never 0: a client that comes back too early is only refused again.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
            let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(ms.max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.allow {
            headers
                .insert(header::ALLOW, HeaderValue::from_str(allow.as_str()).expect("a method is a token"));
        }
        response
    }
}

impl From<openai_wire::request::RequestError> for ApiError {
    fn from(error: openai_wire::request::RequestError) -> Self {
        let mut api = Self::invalid_request(error.code.unwrap_or("invalid_request"), error.message);
        api.param = error.param;
        api
    }
}

/// The words of permanent failures avoid what clients take for a passing one ("rate limit", "overloaded",
/// `server_error`, "bad gateway", "service unavailable"), and their statuses are none that clients repeat.
impl From<UpstreamFailure> for ApiError {
    fn from(failure: UpstreamFailure) -> Self {
        let UpstreamFailure {
            class,
            scope: _,
            message,
            param,
            code,
            retry_after,
            status: _,
            stale_connection: _,
            may_have_worked: _,
        } = failure;
        let (status, kind, default_code) = match class {
            FailureClass::Auth => (StatusCode::FORBIDDEN, "upstream_error", "upstream_auth_failed"),
            FailureClass::RateLimited => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded")
            }
            FailureClass::QuotaExhausted => {
                (StatusCode::FORBIDDEN, "insufficient_quota", "insufficient_quota")
            }
            FailureClass::Overloaded => {
                (StatusCode::SERVICE_UNAVAILABLE, "server_error", "upstream_overloaded")
            }
            FailureClass::Timeout => (StatusCode::GATEWAY_TIMEOUT, "server_error", "upstream_timeout"),
            FailureClass::InvalidRequest => {
                (StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_request")
            }
            FailureClass::NotFound => (StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found"),
            FailureClass::ContentFilter => {
                (StatusCode::BAD_REQUEST, "invalid_request_error", "content_filter")
            }
            FailureClass::Unusable => (StatusCode::FORBIDDEN, "upstream_error", "upstream_unusable"),
            FailureClass::Unavailable => (StatusCode::BAD_GATEWAY, "server_error", "upstream_unavailable"),
            FailureClass::Internal => (StatusCode::BAD_GATEWAY, "server_error", "upstream_error"),
        };
        let mut error =
            Self::new(status, kind, code.map_or(Cow::Borrowed(default_code), Cow::Owned), message);
        error.param = param;
        error.retry_after = retry_after.or(match class {
            FailureClass::RateLimited => Some(Duration::from_secs(5)),
            FailureClass::Overloaded => Some(Duration::from_secs(2)),
            _ => None,
        });
        error
    }
}
