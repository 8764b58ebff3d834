//! Keys as they are printed.

use serde_json::{Value, json};

use crate::cli::values::{plain, shown_time, unix_ms};

/// For programs. Times are milliseconds since the Unix epoch.
pub(super) fn object(key: &Value) -> Value {
    let ms = |name: &str| json!(key[name].as_str().and_then(unix_ms));
    let limits = &key["limits"];
    json!({
        "id": key["id"], "label": key["label"], "owner": key["owner"], "state": key["state"],
        "created_at_ms": ms("createdAt"), "expires_at_ms": ms("expiresAt"), "revoked_at_ms": ms("revokedAt"),
        "last_used_at_ms": ms("lastUsedAt"), "previous_secret_until_ms": ms("previousSecretUntil"),
        "models": key["allowedModels"],
        "requests_per_minute": limits["requestsPerMinute"], "concurrent_requests": limits["concurrentRequests"],
        "tokens_per_minute": limits["tokensPerMinute"], "tokens_per_day": limits["tokensPerDay"],
        "tokens_per_month": limits["tokensPerMonth"], "version": key["version"],
    })
}

pub(super) fn table(keys: &[Value]) -> Vec<Vec<String>> {
    let names = ["ID", "LABEL", "OWNER", "STATE", "EXPIRES", "LAST USED", "MODELS", "LIMITS"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    rows.extend(keys.iter().map(|key| {
        vec![
            text(&key["id"]),
            text(&key["label"]),
            text(&key["owner"]),
            text(&key["state"]),
            time(&key["expiresAt"]),
            time(&key["lastUsedAt"]),
            models(key),
            limits(key),
        ]
    }));
    rows
}

/// One key: a row for each of its members.
pub(super) fn fields(key: &Value) -> Vec<Vec<String>> {
    [
        ("id", text(&key["id"])),
        ("label", text(&key["label"])),
        ("owner", text(&key["owner"])),
        ("state", text(&key["state"])),
        ("created", time(&key["createdAt"])),
        ("expires", time(&key["expiresAt"])),
        ("revoked", time(&key["revokedAt"])),
        ("last used", time(&key["lastUsedAt"])),
        ("former secret until", time(&key["previousSecretUntil"])),
        ("models", models(key)),
        ("limits", limits(key)),
    ]
    .map(|(name, value)| vec![name.to_owned(), value])
    .to_vec()
}

fn text(value: &Value) -> String {
    value.as_str().filter(|text| !text.is_empty()).map_or_else(|| "-".to_owned(), plain)
}

fn time(value: &Value) -> String {
    value.as_str().map_or_else(|| "never".to_owned(), shown_time)
}

fn models(key: &Value) -> String {
    let Some(models) = key["allowedModels"].as_array() else { return "all".to_owned() };
    let models: Vec<_> = models.iter().filter_map(Value::as_str).map(plain).collect();
    if models.is_empty() { "none".to_owned() } else { models.join(",") }
}

fn limits(key: &Value) -> String {
    let limit = |(name, unit): (&str, &str)| Some(format!("{} {unit}", key["limits"][name].as_u64()?));
    let limits: Vec<_> = [
        ("requestsPerMinute", "requests/min"),
        ("concurrentRequests", "at once"),
        ("tokensPerMinute", "tokens/min"),
        ("tokensPerDay", "tokens/day"),
        ("tokensPerMonth", "tokens/month"),
    ]
    .into_iter()
    .filter_map(limit)
    .collect();
    if limits.is_empty() { "none".to_owned() } else { limits.join(", ") }
}
