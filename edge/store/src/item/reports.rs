//! Usage, when keys were used last, and how providers stand, as items. They are written attribute by attribute; see
//! `usage.rs` and `status.rs`.

use catalog::{
    ApiKeyId, Day, Health, ProviderId, ProviderSlug, ProviderStatus, StoreError, TestReport, UsageCounts,
    UsageKey, UsageRow,
};

use super::{Item, ItemError, Key, PK, SK, check_schema, get_number, get_string};

/// The partition of when keys were used last.
pub(crate) const USED: &str = "USED";
/// The partition of how providers stand.
pub(crate) const STATUS: &str = "STATUS";
const USAGE: &str = "USAGE#";
/// How long a status is kept that nobody writes any more.
const STATUS_KEPT_MS: u64 = 90 * 86_400_000;

pub(crate) fn usage_partition(day: Day) -> String {
    format!("{USAGE}{}", day.0)
}

/// Seconds since the Unix epoch, as [`TTL`](super::TTL) has them.
pub(crate) fn forget_usage_after(day: Day) -> u64 {
    Day(day.0.saturating_add(Day::KEPT + 1)).start_ms() / 1_000
}

pub(crate) fn forget_status_after(now_ms: u64) -> u64 {
    now_ms.saturating_add(STATUS_KEPT_MS) / 1_000
}

/// The attributes of counts, which are added to.
pub(crate) fn usage_counts(counts: UsageCounts) -> [(&'static str, u64); 5] {
    let UsageCounts { requests, failed, prompt_tokens, completion_tokens, estimated } = counts;
    [
        ("requests", requests),
        ("failed", failed),
        ("prompt_tokens", prompt_tokens),
        ("completion_tokens", completion_tokens),
        ("estimated", estimated),
    ]
}

pub(crate) fn to_usage(item: &Item) -> Result<UsageRow, ItemError> {
    check_schema(item)?;
    let (pk, sk) = (get_string(item, PK)?, get_string(item, SK)?);
    let day = pk.strip_prefix(USAGE).and_then(|day| day.parse().ok()).ok_or(ItemError::Place)?;
    let mut names = sk.split('#');
    let key = names.next().and_then(|key| ApiKeyId::parse(key).ok()).ok_or(ItemError::Place)?;
    let provider =
        names.next().and_then(|provider| ProviderSlug::parse(provider).ok()).ok_or(ItemError::Place)?;
    let of = UsageKey { day: Day(day), key, provider, model: get_string(item, "model")?.to_owned() };
    if Key::usage(&of).sk != sk {
        return Err(ItemError::Place);
    }
    Ok(UsageRow {
        of,
        counts: UsageCounts {
            requests: get_number(item, "requests")?,
            failed: get_number(item, "failed")?,
            prompt_tokens: get_number(item, "prompt_tokens")?,
            completion_tokens: get_number(item, "completion_tokens")?,
            estimated: get_number(item, "estimated")?,
        },
        last_at_ms: get_number(item, "last_at_ms")?,
    })
}

/// When a key was used last.
pub(crate) fn to_used_key(item: &Item) -> Result<(ApiKeyId, u64), ItemError> {
    check_schema(item)?;
    let id = ApiKeyId::parse(get_string(item, SK)?).map_err(|_| ItemError::Place)?;
    Ok((id, get_number(item, "at_ms")?))
}

/// The attributes of a status that are there, and their texts.
pub(crate) fn status_parts(status: &ProviderStatus) -> Result<Vec<(&'static str, String)>, StoreError> {
    let (last_test, health) = status.to_stored()?;
    let parts = [("last_test", last_test), ("health", health)];
    Ok(parts.into_iter().filter_map(|(name, text)| Some((name, text?))).collect())
}

pub(crate) fn to_status(item: &Item) -> Result<(ProviderId, ProviderStatus), ItemError> {
    check_schema(item)?;
    let id = ProviderId::parse(get_string(item, SK)?).map_err(|_| ItemError::Place)?;
    let last_test: Option<TestReport> = part(item, "last_test")?;
    let health: Option<Health> = part(item, "health")?;
    Ok((id, ProviderStatus { last_test, health }))
}

fn part<T: serde::de::DeserializeOwned>(item: &Item, name: &'static str) -> Result<Option<T>, ItemError> {
    match item.get(name) {
        None => Ok(None),
        Some(_) => {
            serde_json::from_str(get_string(item, name)?).map(Some).map_err(|_| ItemError::Attribute(name))
        }
    }
}
