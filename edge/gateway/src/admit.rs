//! Limits of an API key: concurrent requests and requests per minute.
//!
//! A window's requests are spent from a lease: a slice of it that the store has granted to this instance.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use catalog::{Ask, Counter, LimitStore, Period, Quantity};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::CachedKey;
use crate::error::ApiError;
use crate::host::Host;

const WINDOW_MS: u64 = 60_000;

/// What a key has in use on this instance.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    concurrent: AtomicU32,
    window: Mutex<Window>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    start_ms: u64,
    leased: u32,
    spent: u32,
    /// The source had no more for this window.
    dry: bool,
}

/// Held as long as the request lives, its streamed body included.
#[derive(Debug)]
pub(crate) struct Permit {
    counted: Option<Arc<Usage>>,
    /// For the `x-ratelimit-*` headers: limit, remaining, time to the next window.
    requests: Option<(u32, u32, Duration)>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(usage) = &self.counted {
            usage.concurrent.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Permit {
    /// OpenAI's names and formats (`x-ratelimit-reset-requests: 1m0s` style durations).
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        let Some((limit, remaining, reset)) = self.requests else { return };
        headers.insert(HeaderName::from_static("x-ratelimit-limit-requests"), HeaderValue::from(limit));
        headers
            .insert(HeaderName::from_static("x-ratelimit-remaining-requests"), HeaderValue::from(remaining));
        if let Ok(value) = HeaderValue::from_str(&format!("{}s", reset.as_millis().div_ceil(1000))) {
            headers.insert(HeaderName::from_static("x-ratelimit-reset-requests"), value);
        }
    }
}

pub(crate) async fn admit(
    key: &CachedKey,
    limits: &dyn LimitStore,
    host: &dyn Host,
) -> Result<Permit, ApiError> {
    let max = key.record.limits;
    let mut permit = Permit { counted: None, requests: None };
    if let Some(max) = max.concurrent_requests {
        let taken = key
            .usage
            .concurrent
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < max).then_some(now + 1));
        if taken.is_err() {
            return Err(ApiError::rate_limited(
                format!("This API key may have {max} requests under way at once, and has."),
                Duration::from_secs(1),
            ));
        }
        permit.counted = Some(key.usage.clone());
    }
    if let Some(limit) = max.requests_per_minute {
        permit.requests = Some(spend(key, limit, limits, host.unix_ms()).await?);
    }
    Ok(permit)
}

/// Takes one request out of the current window.
async fn spend(
    key: &CachedKey,
    limit: u32,
    limits: &dyn LimitStore,
    now_ms: u64,
) -> Result<(u32, u32, Duration), ApiError> {
    let now_start_ms = now_ms - now_ms % WINDOW_MS;
    loop {
        let start_ms;
        {
            let mut window = key.usage.window.lock().unwrap_or_else(PoisonError::into_inner);
            // A window never goes back, though a clock may.
            if now_start_ms > window.start_ms {
                *window = Window { start_ms: now_start_ms, ..Window::default() };
            }
            start_ms = window.start_ms;
            let reset = Duration::from_millis((start_ms + WINDOW_MS).saturating_sub(now_ms));
            // The limit may have been lowered since the lease was taken.
            if window.spent < window.leased.min(limit) {
                window.spent += 1;
                return Ok((limit, limit - window.spent, reset));
            }
            if window.dry || window.spent >= limit {
                return Err(ApiError::rate_limited(
                    format!(
                        "This API key may make {limit} requests per minute, and has. Its next minute begins in {} s.",
                        reset.as_secs() + 1
                    ),
                    reset,
                ));
            }
        }
        let counter = Counter {
            key: key.record.id.clone(),
            quantity: Quantity::Requests,
            period: Period::Minute,
            start_ms,
        };
        let ask = Ask { need: 1, extra: u64::from(limit) / 8 };
        let taken = limits.take(&counter, ask, limit.into()).await.map_err(|error| {
            tracing::warn!(%error, "a limit could not be looked up");
            ApiError::store_unavailable(error.code())
        })?;
        let granted = u32::try_from(taken.granted).unwrap_or(u32::MAX);
        let mut window = key.usage.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.start_ms == start_ms {
            window.leased = window.leased.saturating_add(granted);
            window.dry = granted == 0;
        }
    }
}
