//! What would become of a request, as far as this instance knows. Takes nothing and asks nobody.

use catalog::{ApiKeyLimits, ExplainedLimit};

use super::{Kind, Limit, Limits, Refused, Usage, refusal};
use crate::error::ApiError;

/// The limits with what is left of each, and the refusal that a request would get before its body is read. `usage`:
/// what the key has in use here, if it was seen here.
pub(crate) fn foresee(
    max: &ApiKeyLimits,
    usage: Option<&Usage>,
    limits: &Limits,
) -> (Vec<ExplainedLimit>, Result<(), ApiError>) {
    let mut explained = Vec::new();
    let mut refused = None;
    // In the order in which they are looked at.
    for (kind, limit) in Kind::of_tokens(max) {
        explained.push(of_window(kind, limit, usage, limits));
        if let Some(usage) = usage {
            refused = refused.or(limits.check(usage, kind, limit).err());
        }
    }
    if let Some(limit) = max.concurrent_requests {
        let free = usage.map(|usage| usage.state().slots.free(limit));
        explained.push(ExplainedLimit {
            name: Limit::ConcurrentRequests.as_str().to_owned(),
            limit: limit.into(),
            remaining: free.map(u64::from),
        });
        refused = refused.or((free == Some(0)).then_some(Refused::Busy { limit }));
    }
    let kind = Kind::RequestsPerMinute;
    if let Some(limit) = kind.limit(max) {
        explained.push(of_window(kind, limit, usage, limits));
        if let Some(usage) = usage {
            refused = refused.or(limits.check(usage, kind, limit).err());
        }
    }
    let refused = refused.map(|refused| refusal::error(refused, limits.fleet_ms()));
    (explained, refused.map_or(Ok(()), Err))
}

fn of_window(kind: Kind, limit: u64, usage: Option<&Usage>, limits: &Limits) -> ExplainedLimit {
    let window = limits.now(kind).window;
    let remaining = usage.map(|usage| usage.state().lease(kind).remaining(limit, window));
    ExplainedLimit { name: Limit::OfWindow(kind).as_str().to_owned(), limit, remaining }
}
