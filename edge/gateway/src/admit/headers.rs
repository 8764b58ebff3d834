//! `x-ratelimit-*` on answers: OpenAI's names and formats (OpenAI's guide "Rate limits").

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Kind, Limits};
use crate::config::CachedKey;

/// What OpenAI's libraries and the Vercel AI SDK go by before `Retry-After`: milliseconds.
pub(crate) const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Tells what is left of the key's requests, and of its tokens in that window which has the least left: as far as this
/// instance knows, which hears of others with each slice that it takes.
pub(crate) fn write_headers(key: &CachedKey, limits: &Limits, headers: &mut HeaderMap) {
    let max = &key.record.limits;
    let requests = Kind::RequestsPerMinute;
    let now_ms = limits.fleet_ms();
    let mut state = key.usage.state();
    let mut left = |kind: Kind, limit: u64| {
        let window = kind.period().window(now_ms);
        let remaining = state.lease(kind).remaining(limit, window);
        (remaining, limit, Duration::from_millis(window.end_ms.saturating_sub(now_ms)))
    };
    if let Some(limit) = requests.limit(max) {
        write(&REQUESTS, left(requests, limit), headers);
    }
    if let Some(least) = Kind::of_tokens(max).map(|(kind, limit)| left(kind, limit)).min() {
        write(&TOKENS, least, headers);
    }
}

fn write(
    [limit_name, remaining_name, reset_name]: &[HeaderName; 3],
    (remaining, limit, reset): (u64, u64, Duration),
    headers: &mut HeaderMap,
) {
    headers.insert(limit_name, HeaderValue::from(limit));
    headers.insert(remaining_name, HeaderValue::from(remaining));
    let reset = HeaderValue::from_str(&span(reset)).expect("letters and digits are fit for a header");
    headers.insert(reset_name, reset);
}

/// A span of time as OpenAI writes it: `20ms`, `1s`, `6m0s`, `23h59m0s`.
pub(super) fn span(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        return format!("{}ms", span.as_millis());
    }
    let seconds = span.as_millis().div_ceil(1_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    // Writing to a string does not fail.
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    let _ = write!(text, "{seconds}s");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_openai_does() {
        for (ms, text) in [
            (0, "0ms"),
            (20, "20ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (1_001, "2s"),
            (59_001, "1m0s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (86_399_999, "24h0m0s"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text, "{ms} ms");
        }
    }
}
