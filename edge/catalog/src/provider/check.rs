//! The rules for providers.

mod http;
mod spawn_cli;

use std::collections::HashSet;

use serde_json::Value;

use super::fields::Fields;
use super::{
    Adapter, Capabilities, CredentialRef, Model, Provider, ProviderKind, ProviderSlug, RawProvider,
    TimeoutsMs,
};
use crate::Violations;

const MAX_MODELS: usize = 5_000;
const DEFAULT_RANK: u32 = 100;
/// A day: longer than any call, short enough that sums of timeouts cannot overflow.
const MAX_TIMEOUT_MS: u32 = 86_400_000;
/// `DynamoDB` takes items up to 400 KB; this leaves room for what a store adds.
const MAX_STORED_BYTES: usize = 380_000;

impl Provider {
    /// The provider, or everything that is wrong with it.
    pub fn check(raw: &RawProvider) -> Result<Self, Violations> {
        let mut violations = Violations(Vec::new());
        let provider = Fields::of(&raw.0, String::new(), &mut violations)
            .and_then(|mut fields| check_provider(&mut fields, &mut violations));
        match provider {
            Some(provider) if violations.0.is_empty() => Ok(provider),
            _ => Err(violations),
        }
    }
}

/// `None` only if a violation was noted.
fn check_provider(fields: &mut Fields<'_>, violations: &mut Violations) -> Option<Provider> {
    let name =
        required(fields, "name", violations, |fields, violations| fields.text("name", 1..=100, violations));
    let slug = check_slug(fields, name, violations);
    let kind = check_kind(fields, violations);
    let description = fields.text("description", 0..=1_000, violations).unwrap_or_default();
    let enabled = fields.boolean("enabled", violations).unwrap_or(true);
    let rank = fields.number_u32("rank", 0..=u32::MAX, violations).unwrap_or(DEFAULT_RANK);
    let (adapter, credential, models) = if kind == Some(ProviderKind::SpawnCli) {
        let config = spawn_cli::check(fields, violations);
        let models = check_models(fields, violations);
        if models.as_ref().is_some_and(Vec::is_empty) {
            violations.add("models", "list at least one model: runners are not asked for theirs");
        }
        (config.map(Adapter::SpawnCli), CredentialRef::None, models)
    } else {
        // A type that is wrong is most likely meant to be one of these.
        let (config, credential, models) = http::check(fields, kind, violations);
        let adapter = config.and_then(|config| match kind? {
            ProviderKind::Proxy => Some(Adapter::Proxy(config)),
            ProviderKind::Local => Some(Adapter::Local(config)),
            ProviderKind::SpawnCli => None,
        });
        (adapter, credential, models)
    };
    fields.refuse_unknown(violations);

    let provider = Provider {
        slug: slug?,
        name: name?.to_owned(),
        description: description.to_owned(),
        enabled,
        rank,
        adapter: adapter?,
        models: models?,
        credential,
    };
    let stored_bytes = provider.to_raw().map_or(0, |raw| raw.to_string().len());
    // One that has something too long in it is told so there.
    if stored_bytes > MAX_STORED_BYTES && violations.0.is_empty() {
        let message = format!("takes {stored_bytes} bytes; at most {MAX_STORED_BYTES} can be stored");
        violations.add("", format!("the provider {message}: list fewer models"));
    }
    Some(provider)
}

/// Notes a member that is absent; one that is there and wrong is noted by `read`.
fn required<'a, T>(
    fields: &mut Fields<'a>,
    name: &'static str,
    violations: &mut Violations,
    read: impl FnOnce(&mut Fields<'a>, &mut Violations) -> Option<T>,
) -> Option<T> {
    if fields.value(name).is_none() {
        violations.add(fields.path(name), "is required");
        return None;
    }
    read(fields, violations)
}

fn check_slug(
    fields: &mut Fields<'_>,
    name: Option<&str>,
    violations: &mut Violations,
) -> Option<ProviderSlug> {
    if fields.value("slug").is_some() {
        let slug = fields.string("slug", violations)?;
        return ProviderSlug::parse(slug).map_err(|error| violations.add("slug", error.to_string())).ok();
    }
    let slug = ProviderSlug::from_name(name?);
    if slug.is_none() {
        violations.add("slug", "is required, since none can be made from the name");
    }
    slug
}

fn check_kind(fields: &mut Fields<'_>, violations: &mut Violations) -> Option<ProviderKind> {
    let message =
        match required(fields, "type", violations, |fields, violations| fields.string("type", violations))? {
            "proxy" => return Some(ProviderKind::Proxy),
            "local" => return Some(ProviderKind::Local),
            "spawn-cli" => return Some(ProviderKind::SpawnCli),
            "http-sdk" => {
                "this version does not serve this type yet; it serves \"proxy\", \"local\" and \"spawn-cli\""
            }
            _ => "must be \"proxy\", \"local\" or \"spawn-cli\"",
        };
    violations.add("type", message);
    None
}

/// Where only one of two related timeouts is given, the default of the other yields to it.
fn check_timeouts(fields: &mut Fields<'_>, violations: &mut Violations) -> TimeoutsMs {
    let default = TimeoutsMs::default();
    let Some(mut timeouts) = fields.object("timeouts", violations) else { return default };
    let [connect, first_byte, idle, total] = ["connect_ms", "first_byte_ms", "idle_ms", "total_ms"]
        .map(|name| timeouts.number_u32(name, 1..=MAX_TIMEOUT_MS, violations));
    if let (Some(first_byte), Some(total)) = (first_byte, total)
        && total < first_byte
    {
        violations
            .add(timeouts.path("total_ms"), format!("must not be less than first_byte_ms ({first_byte})"));
    }
    timeouts.refuse_unknown(violations);
    let total_or_max = total.unwrap_or(MAX_TIMEOUT_MS);
    let first_byte = first_byte.unwrap_or(default.first_byte_ms.min(total_or_max));
    TimeoutsMs {
        connect_ms: connect.unwrap_or(default.connect_ms.min(total_or_max)),
        first_byte_ms: first_byte,
        idle_ms: idle.unwrap_or(default.idle_ms.min(total_or_max)),
        total_ms: total.unwrap_or(default.total_ms.max(first_byte)),
    }
}

/// `None` only if a violation was noted.
fn check_models(fields: &mut Fields<'_>, violations: &mut Violations) -> Option<Vec<Model>> {
    if fields.value("models").is_none() {
        return Some(Vec::new());
    }
    let listed = fields.list("models", MAX_MODELS, violations)?;
    let mut ids = HashSet::new();
    let mut models = Vec::with_capacity(listed.len());
    for (index, value) in listed.iter().enumerate() {
        models.push(check_model(value, format!("models[{index}]"), &mut ids, violations));
    }
    models.into_iter().collect()
}

fn check_model<'a>(
    value: &'a Value,
    path: String,
    ids: &mut HashSet<&'a str>,
    violations: &mut Violations,
) -> Option<Model> {
    let mut fields = Fields::of(value, path, violations)?;
    let id =
        required(&mut fields, "id", violations, |fields, violations| fields.text("id", 1..=256, violations));
    if let Some(id) = id
        && !ids.insert(id)
    {
        violations.add(fields.path("id"), "another model of this provider has this id");
    }
    let upstream_id = fields.text("upstream_id", 1..=256, violations).or(id);
    let max_tokens = fields.number_u32("max_tokens", 1..=u32::MAX, violations);
    let context_window = fields.number_u32("context_window", 1..=u32::MAX, violations);
    let capabilities = match fields.object("capabilities", violations) {
        None => Capabilities::default(),
        Some(mut fields) => {
            let [chat, embeddings, reasoning, images] =
                ["chat", "embeddings", "reasoning", "images"].map(|name| fields.boolean(name, violations));
            fields.refuse_unknown(violations);
            Capabilities { chat, embeddings, reasoning, images }
        }
    };
    // JSON numbers are exact up to here in every language that may read a stored provider.
    let created = fields.number("created", 0..=(1 << 53), violations).unwrap_or(0);
    let owned_by = fields.text("owned_by", 1..=256, violations);
    fields.refuse_unknown(violations);
    Some(Model {
        id: id?.to_owned(),
        upstream_id: upstream_id?.to_owned(),
        max_tokens,
        context_window,
        capabilities,
        created,
        owned_by: owned_by.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests;
