//! What a client is told whose request is over a limit: which one, what it asked for, and when to come back.

use std::time::Duration;

use catalog::{Period, Quantity};

use super::headers::span;
use super::{Estimate, Kind, Limit, Refused};
use crate::error::ApiError;

pub(super) fn error(refused: Refused, now_ms: u64) -> ApiError {
    match refused {
        Refused::Busy { limit } => {
            let message = format!("This API key may have {limit} requests under way at once, and has.");
            ApiError::rate_limited(message, Duration::from_secs(1)).over(Limit::ConcurrentRequests)
        }
        Refused::StoreFails => ApiError::limits_unavailable(),
        Refused::Spent { kind, limit, need, window } => {
            let reset = Duration::from_millis(window.end_ms.saturating_sub(now_ms));
            let period = period(kind);
            let spent = match kind.quantity() {
                Quantity::Requests => format!("may make {limit} requests per {period}, and has."),
                Quantity::Tokens => format!(
                    "may use {limit} tokens per {period}, and too few are left, counting what running requests may \
                     need.{}",
                    need.map_or_else(String::new, |need| format!(
                        " This one may need {need}; a smaller max_completion_tokens makes that less."
                    ))
                ),
            };
            let message = format!("This API key {spent} The next {period} begins in {}.", span(reset));
            let error = match kind.period() {
                Period::Minute => ApiError::rate_limited(message, reset),
                // Nobody waits for that: no client is to try again by itself.
                Period::Day | Period::Month => ApiError::quota_exhausted(message, reset),
            };
            error.over(Limit::OfWindow(kind))
        }
    }
}

/// It would not fit into an empty window either.
pub(super) fn too_large(kind: Kind, limit: u64, estimate: Estimate) -> ApiError {
    let Estimate { prompt, completion, .. } = estimate;
    ApiError::invalid_request(
        "request_exceeds_limit",
        format!(
            "This request may need about {} tokens ({prompt} for the prompt, {completion} for the answer), and this \
             API key may use {limit} per {}. Shorten the prompt, or ask for a shorter answer with \
             max_completion_tokens.",
            prompt.saturating_add(completion),
            period(kind)
        ),
    )
}

fn period(kind: Kind) -> &'static str {
    match kind.period() {
        Period::Minute => "minute",
        Period::Day => "day (UTC)",
        Period::Month => "month (UTC)",
    }
}
