//! What a failure means, from what a CLI says of it and what was seen of the vendor.

use std::sync::LazyLock;

use regex::Regex;
use runner_api::{ErrorClass, RunEvent};
use serde_json::Value;

use crate::Observed;
use crate::plain::plain;
use crate::stderr::redact;

/// The longest message of an error or notice, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 10;

/// What a CLI told of a failure. The vendor's own words and status, as seen on the wire, come before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    message: String,
    status: Option<u16>,
    /// Where the CLI knows more than a status says.
    class: Option<ErrorClass>,
    retry_after_ms: Option<u64>,
    /// Where neither a status nor the message says more.
    otherwise: ErrorClass,
    by_limit: bool,
}

impl Failure {
    /// The CLI broke down, or broke its protocol.
    pub(crate) fn of_cli(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            message,
            status: None,
            class: None,
            retry_after_ms: None,
            otherwise: ErrorClass::Internal,
            by_limit: false,
        }
    }

    /// The vendor failed, or could not be reached. `message` may be a JSON error as vendors send it.
    pub(crate) fn of_vendor(message: impl Into<String>, status: Option<u16>) -> Self {
        Self { status, otherwise: ErrorClass::Unavailable, ..Self::of_cli(message) }
    }

    pub(crate) fn of_class(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class: Some(class), ..Self::of_cli(message) }
    }

    /// What the CLI knows better than a status.
    #[must_use]
    pub(crate) fn with_class(self, class: Option<ErrorClass>) -> Self {
        Self { class, ..self }
    }

    #[must_use]
    pub(crate) fn with_retry_after_ms(self, retry_after_ms: Option<u64>) -> Self {
        Self { retry_after_ms, ..self }
    }

    pub(crate) fn class(&self) -> Option<ErrorClass> {
        self.class
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// A limit of the sandbox ended the CLI: nothing that was seen of the vendor matters.
    pub(crate) fn of_limit(message: impl Into<String>) -> Self {
        Self { by_limit: true, ..Self::of_class(ErrorClass::Internal, message) }
    }

    /// Whether it is the vendor's failure, as far as the CLI knows.
    pub(crate) fn is_vendors(&self) -> bool {
        self.class.is_none() && self.otherwise == ErrorClass::Unavailable
    }

    /// The last event of a run that failed so.
    pub(crate) fn into_event(self, observed: &Observed) -> RunEvent {
        if self.by_limit {
            return RunEvent::error(self.otherwise, self.message);
        }
        let seen = refusal(observed);
        let status = seen.or(self.status).or_else(|| status_in(&self.message));
        let message = observed.message.as_ref().unwrap_or(&self.message);
        let words = meaning(message).or_else(|| meaning(&self.message));
        let broken = observed.broken.then_some(ErrorClass::Unavailable);
        let by_status = status.map(|status| class_of(status, words));
        let class = match seen {
            Some(_) => by_status,
            None => self.class.or(by_status).or(words).or(broken),
        };
        RunEvent::Error {
            class: class.unwrap_or(self.otherwise),
            message: shown(&vendor_message(message)),
            status,
            retry_after_ms: observed.retry_after_ms.or(self.retry_after_ms),
        }
    }
}

/// The status with which the vendor refused the last call.
pub(crate) fn refusal(observed: &Observed) -> Option<u16> {
    observed.status.filter(|&status| status >= 400)
}

/// A message fit for logs and clients: plain, without secrets, short.
pub(crate) fn shown(message: &str) -> String {
    let mut message = redact(plain(message).trim());
    if message.len() > MAX_MESSAGE_BYTES {
        let end = (0..=MAX_MESSAGE_BYTES).rev().find(|&at| message.is_char_boundary(at));
        message.truncate(end.unwrap_or_default());
        message.push('…');
    }
    message
}

/// The message in a vendor's JSON error, which some CLIs print as it came.
fn vendor_message(text: &str) -> String {
    let json = text.find('{').map(|at| &text[at..]).unwrap_or_default();
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<Value>();
    let parsed = values.next().and_then(Result::ok).unwrap_or(Value::Null);
    let message = ["/error/message", "/message"].into_iter().find_map(|path| parsed.pointer(path)?.as_str());
    message.unwrap_or(text).to_owned()
}

/// The HTTP status that a message tells, in the words of the CLIs and of their vendors' libraries.
fn status_in(text: &str) -> Option<u16> {
    static STATUS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?i)(?:api error:|error code:|status:?|"code":|rejected \()\s*([45]\d\d)\b"#)
            .expect("a valid pattern, which a test compiles")
    });
    STATUS.captures(text)?[1].parse().ok()
}

/// A status says most; some say less than the words beside them.
fn class_of(status: u16, words: Option<ErrorClass>) -> ErrorClass {
    use ErrorClass::{Auth, ContentFilter, NotFound, Overloaded, QuotaExhausted, RateLimited};
    match (status, words) {
        (400 | 402 | 403 | 429, Some(QuotaExhausted)) => QuotaExhausted,
        // Gemini refuses a wrong key so.
        (400, Some(class @ (Auth | ContentFilter | NotFound | RateLimited)))
        | (403, Some(class @ ContentFilter)) => class,
        (500, Some(Overloaded)) => Overloaded,
        _ => ErrorClass::of_status(status),
    }
}

/// What the words of a message mean, where nothing else tells. The first that occur count.
fn meaning(message: &str) -> Option<ErrorClass> {
    const WORDS: [(ErrorClass, &[&str]); 9] = [
        (
            ErrorClass::QuotaExhausted,
            &["insufficient_quota", "credit balance", "perday", "per day", "usage limit", "billing_error"],
        ),
        (ErrorClass::RateLimited, &["rate limit", "rate_limit", "too many requests", "resource_exhausted"]),
        (ErrorClass::Overloaded, &["overloaded", "high demand"]),
        (
            ErrorClass::Auth,
            &[
                "api key",
                "api_key",
                "authenticat",
                "unauthorized",
                "log in",
                "/login",
                "environment variable",
            ],
        ),
        (
            ErrorClass::NotFound,
            &["model not found", "model_not_found", "selected model", "model does not exist"],
        ),
        (ErrorClass::ContentFilter, &["content filter", "content_filter", "usage policy"]),
        (
            ErrorClass::InvalidRequest,
            &["bad request", "maximum length", "too long", "context length", "context window"],
        ),
        (ErrorClass::Timeout, &["timed out", "timeout"]),
        (
            ErrorClass::Unavailable,
            &["connect", "network", "econn", "terminated", "fetch failed", "socket", "server error"],
        ),
    ];
    let message = message.to_lowercase();
    WORDS.iter().find(|(_, words)| words.iter().any(|word| message.contains(word))).map(|(class, _)| *class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(failure: Failure, observed: &Observed) -> (ErrorClass, String, Option<u16>) {
        match failure.into_event(observed) {
            RunEvent::Error { class, message, status, .. } => (class, message, status),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_of_clis_are_understood() {
        use ErrorClass::*;
        for (message, class, status) in [
            ("[API Error: 401 Invalid API key (mock)]", Auth, Some(401)),
            ("unexpected status 503 Service Unavailable: x, url: http://127.0.0.1/", Overloaded, Some(503)),
            ("exceeded retry limit, last status: 429 Too Many Requests", RateLimited, Some(429)),
            ("API Error: Request rejected (429) · Rate limit exceeded", RateLimited, Some(429)),
            ("Error code: 404 - model not found: mock", NotFound, Some(404)),
            ("API Error: 400 {\"message\":\"Your credit balance is too low\"}", QuotaExhausted, Some(400)),
            ("{\"error\":{\"code\":400,\"message\":\"API key not valid.\"}}", Auth, Some(400)),
            ("We’re currently experiencing high demand, which may cause errors.", Overloaded, None),
            ("Not logged in · Please run /login", Auth, None),
            ("Missing environment variable: `KEY`.", Auth, None),
            ("Input exceeds the maximum length of 1048576 characters.", InvalidRequest, None),
            ("stream disconnected before completion", Unavailable, None),
            ("something else entirely, in 404 words", Unavailable, None),
        ] {
            let (said, _, told) = event(Failure::of_vendor(message, None), &Observed::default());
            assert_eq!((said, told), (class, status), "{message}");
        }
        assert_eq!(event(Failure::of_cli("something else"), &Observed::default()).0, Internal);
    }

    #[test]
    fn what_was_seen_of_the_vendor_wins() {
        let observed = Observed {
            calls: 1,
            status: Some(429),
            message: Some("slow down".to_owned()),
            retry_after_ms: Some(7),
            ..Observed::default()
        };
        let failure = Failure::of_class(ErrorClass::Auth, "401");
        assert_eq!(
            failure.clone().into_event(&observed),
            RunEvent::Error {
                class: ErrorClass::RateLimited,
                message: "slow down".to_owned(),
                status: Some(429),
                retry_after_ms: Some(7)
            }
        );
        let answered = Observed { calls: 1, status: Some(200), ..Observed::default() };
        assert_eq!(event(failure, &answered), (ErrorClass::Auth, "401".to_owned(), None));
    }

    #[test]
    fn messages_are_plain_short_and_without_secrets() {
        let wrapped = "[API Error: {\"error\":{\"message\":\"\\u001b[31mno key sk-abcdefgh1234\"}}]";
        assert_eq!(event(Failure::of_vendor(wrapped, None), &Observed::default()).1, "no key [redacted]");
        let long = shown(&"é".repeat(1000));
        assert!(long.len() <= MAX_MESSAGE_BYTES + '…'.len_utf8() && long.ends_with("é…"));
    }
}
