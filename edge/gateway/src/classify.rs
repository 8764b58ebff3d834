//! An upstream's refusal → its class, what the client may read of it, and what is to be learned from it.

use std::time::Duration;

use catalog::Secret;
use http::{HeaderMap, StatusCode, header};
use openai_wire::UpstreamErrorBody;
use openai_wire::request::MaxTokensField;

use crate::error::{FailureClass, UpstreamFailure};
use crate::routes::{Lesson, Upstream};

/// Longest upstream text that is passed on, in characters.
const MAX_MESSAGE_CHARS: usize = 2_000;
/// Beyond it a rate limit is no longer "wait a moment": clients must not repeat the request by themselves.
pub(crate) const LONGEST_SHORT_WAIT: Duration = Duration::from_secs(60);

/// An answer with a status other than success.
pub(crate) fn classify_response(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    upstream: &Upstream,
) -> UpstreamFailure {
    let told = UpstreamErrorBody::parse(body);
    let failure = classify(status, retry_after(headers), told.as_ref(), upstream);
    UpstreamFailure { status: Some(status), ..failure }
}

/// An error object where an answer was expected: inside a 200, or as an event of the stream.
pub(crate) fn classify_error_object(body: &[u8], upstream: &Upstream) -> UpstreamFailure {
    let told = UpstreamErrorBody::parse(body);
    let status = told.as_ref().and_then(status_told).unwrap_or(StatusCode::BAD_GATEWAY);
    classify(status, None, told.as_ref(), upstream)
}

/// The status that an error object claims for itself, by number or by OpenAI's type names.
fn status_told(told: &UpstreamErrorBody) -> Option<StatusCode> {
    if let Some(status) = told.code.as_deref().and_then(|code| code.parse().ok()) {
        return Some(status).filter(|s: &StatusCode| s.is_client_error() || s.is_server_error());
    }
    Some(match told.kind.as_deref()? {
        "invalid_request_error" => StatusCode::BAD_REQUEST,
        "authentication_error" => StatusCode::UNAUTHORIZED,
        "permission_error" => StatusCode::FORBIDDEN,
        "not_found_error" => StatusCode::NOT_FOUND,
        "rate_limit_error" | "rate_limit_exceeded" | "tokens" | "requests" | "insufficient_quota" => {
            StatusCode::TOO_MANY_REQUESTS
        }
        "overloaded_error" => StatusCode::SERVICE_UNAVAILABLE,
        _ => return None,
    })
}

fn classify(
    status: StatusCode,
    retry_after: Option<Duration>,
    told: Option<&UpstreamErrorBody>,
    upstream: &Upstream,
) -> UpstreamFailure {
    let code = told.and_then(|t| t.code.as_deref());
    let kind = told.and_then(|t| t.kind.as_deref());
    let quota = [code, kind].contains(&Some("insufficient_quota"));
    let filtered = code.is_some_and(|c| c.contains("content_filter") || c == "content_policy_violation");
    let class = match status.as_u16() {
        _ if filtered => FailureClass::ContentFilter,
        402 => FailureClass::QuotaExhausted,
        429 if quota || retry_after.is_some_and(|after| after >= LONGEST_SHORT_WAIT) => {
            FailureClass::QuotaExhausted
        }
        401 | 403 | 407 => FailureClass::Auth,
        // Without an error object this is no API answering: the base URL is wrong.
        404 if told.is_some() => FailureClass::NotFound,
        404 | 405 => FailureClass::Unavailable,
        408 | 504 => FailureClass::Timeout,
        429 => FailureClass::RateLimited,
        503 | 529 => FailureClass::Overloaded,
        400..=499 => FailureClass::InvalidRequest,
        500..=599 => FailureClass::Internal,
        _ => FailureClass::Unavailable,
    };
    let mut failure = UpstreamFailure::new(class, own_words(class, status));
    // Only what is the caller's own fault is passed on in the upstream's words.
    if matches!(class, FailureClass::InvalidRequest | FailureClass::ContentFilter)
        && let Some(told) = told
    {
        if let Some(text) = &told.message {
            failure.message = safe_text(text, upstream.secrets()).into();
        }
        failure.param = told.param.as_deref().map(|param| safe_text(param, upstream.secrets()));
        failure.code = told.code.as_deref().map(|code| safe_text(code, upstream.secrets()));
    }
    failure.retry_after =
        retry_after.filter(|_| matches!(class, FailureClass::RateLimited | FailureClass::Overloaded));
    failure
}

fn own_words(class: FailureClass, status: StatusCode) -> String {
    let status = status.as_u16();
    match class {
        FailureClass::Auth => format!("The upstream refused the gateway's credential for it (status {status}). An administrator must renew it; repeating the request does not help."),
        FailureClass::RateLimited => "The upstream's rate limit is reached. Try again shortly.".to_owned(),
        FailureClass::QuotaExhausted => "The quota of the gateway's account at the upstream is used up. Repeating the request does not help.".to_owned(),
        FailureClass::Overloaded => "The upstream is overloaded. Try again shortly.".to_owned(),
        FailureClass::Timeout => format!("The upstream did not answer in time (status {status})."),
        FailureClass::InvalidRequest => format!("The upstream refused the request as invalid (status {status}) without saying why."),
        FailureClass::NotFound => "The upstream does not have this model.".to_owned(),
        FailureClass::ContentFilter => "The upstream's content filter refused the request.".to_owned(),
        FailureClass::Unusable => "The upstream may not be called.".to_owned(),
        FailureClass::Unavailable => format!("The upstream answered with status {status}, which is no answer of an OpenAI-compatible API. Is its base URL right?"),
        FailureClass::Internal => format!("The upstream failed (status {status})."),
    }
}

/// Cut to a sane length, without control characters, and without our credentials, should the upstream quote one.
pub(crate) fn safe_text<'a>(text: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    let mut text: String = text.chars().filter(|c| !c.is_control() || *c == '\n').collect();
    for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret.expose(), "***");
        let squeezed: String = text.split_whitespace().collect();
        if squeezed.contains(secret.expose()) {
            // It was broken over lines.
            return "***".to_owned();
        }
    }
    // Cut last, so that no part of a credential is left at the end.
    text.chars().take(MAX_MESSAGE_CHARS).collect()
}

/// `retry-after-ms` (OpenAI's) before `retry-after` in seconds. The date form is rare and not worth a clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds =
        number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number(header::RETRY_AFTER.as_str()))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// What a 400 teaches about the upstream, so that the same request can be put right and sent again. `lasting`: the
/// field itself is refused, so that every further request is better sent without; otherwise only this one's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taught {
    pub lesson: Lesson,
    pub lasting: bool,
}

/// Upstreams name the field in `param`, or in the message only.
pub(crate) fn taught(failure: &UpstreamFailure) -> Option<Taught> {
    if failure.class != FailureClass::InvalidRequest {
        return None;
    }
    let names = |field: &str| match failure.param.as_deref() {
        Some(param) => param.split('.').next() == Some(field),
        None => find_word(&failure.message, field).is_some(),
    };
    let lasting = refuses_field(failure);
    let older = find_word(&failure.message, "max_tokens");
    let newer = find_word(&failure.message, "max_completion_tokens");
    let accepted = match (failure.param.as_deref(), older, newer) {
        (Some("max_tokens"), _, Some(_)) => Some(MaxTokensField::MaxCompletionTokens),
        // A limit that is too large is the client's to correct.
        _ if !lasting => None,
        // Gateways drop `param`. What is refused is named before what to use instead.
        (None, Some(older), Some(newer)) if older < newer => Some(MaxTokensField::MaxCompletionTokens),
        (Some("max_completion_tokens"), ..) | (None, _, Some(_)) => Some(MaxTokensField::MaxTokens),
        _ => None,
    };
    // Naming the other limit is as good as saying that this one is not known.
    let lasting = lasting || accepted.is_some();
    let lesson = match accepted {
        Some(field) => Lesson::MaxTokensField(field),
        None if names("reasoning_effort") => Lesson::DropReasoningEffort,
        None if names("stream_options") => Lesson::DropStreamOptions,
        None => return None,
    };
    Some(Taught { lesson, lasting })
}

/// Where `word` stands by itself, and not as part of another name, which may be the client's own invention.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let continues = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    text.match_indices(word)
        .map(|(at, _)| at)
        .find(|&at| !text[..at].ends_with(continues) && !text[at + word.len()..].starts_with(continues))
}

/// Whether the field as such is refused, rather than its value.
fn refuses_field(failure: &UpstreamFailure) -> bool {
    match failure.code.as_deref() {
        Some(
            "unsupported_parameter" | "unknown_parameter" | "unrecognized_parameter" | "extra_forbidden",
        ) => return true,
        Some("unsupported_value" | "invalid_value" | "invalid_type") => return false,
        _ => {}
    }
    let message = failure.message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    !says(&["unsupported value", "invalid value"])
        && says(&[
            "unsupported",
            "not supported",
            "does not support",
            "unrecognized",
            "unknown",
            "unexpected",
            "not permitted",
            "not allowed",
            "extra inputs",
            "extra fields",
        ])
}
