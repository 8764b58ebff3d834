//! The rules for providers.

use std::collections::HashSet;

use http::HeaderName;
use serde_json::Value;
use url::{Host, Url};

use super::fields::{Fields, kind};
use super::{
    Capabilities, CredentialRef, HttpAdapterConfig, Model, Provider, ProviderKind, ProviderSlug, RawProvider,
    TimeoutsMs,
};
use crate::Violations;

const MAX_MODELS: usize = 5_000;
const MAX_FORWARD_HEADERS: usize = 32;
const MAX_URL_BYTES: usize = 2_048;
const DEFAULT_RANK: u32 = 100;
/// A day: longer than any call, short enough that sums of timeouts cannot overflow.
const MAX_TIMEOUT_MS: u32 = 86_400_000;
/// `DynamoDB` takes items up to 400 KB; this leaves room for what a store adds.
const MAX_STORED_BYTES: usize = 380_000;

/// Credentials (upstreams get the provider's own, never the client's), what belongs to one connection, and what the
/// gateway sets itself because it reads and changes bodies.
const NEVER_FORWARDED: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-amz-security-token",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "accept-encoding",
    "expect",
];

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
    let base_url = required(fields, "base_url", violations, |fields, violations| {
        let text = fields.string("base_url", violations)?;
        check_base_url(text, kind).map_err(|message| violations.add("base_url", message)).ok()
    });
    let credential = check_credential(fields, violations);
    let discover = fields.boolean("discover_models", violations);
    let forward_headers = check_forward_headers(fields, violations);
    let timeouts = check_timeouts(fields, violations);
    let models = check_models(fields, violations);
    if discover == Some(false) && models.as_ref().is_some_and(Vec::is_empty) {
        violations.add("models", "list at least one model, or set discover_models to true");
    }
    fields.refuse_unknown(violations);

    let models = models?;
    let provider = Provider {
        slug: slug?,
        name: name?.to_owned(),
        kind: kind?,
        description: description.to_owned(),
        enabled,
        rank,
        adapter: HttpAdapterConfig {
            base_url: base_url?,
            discover_models: discover.unwrap_or(models.is_empty()),
            forward_headers,
            timeouts,
        },
        models,
        credential,
    };
    let stored_bytes = provider.to_raw().map_or(0, |raw| raw.to_string().len());
    if stored_bytes > MAX_STORED_BYTES {
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
            "spawn-cli" | "http-sdk" => {
                "this version does not serve this type yet; it serves \"proxy\" and \"local\""
            }
            _ => "must be \"proxy\" or \"local\"",
        };
    violations.add("type", message);
    None
}

/// The URL in its canonical form, without what people paste along with it.
fn check_base_url(text: &str, kind: Option<ProviderKind>) -> Result<String, String> {
    if text.len() > MAX_URL_BYTES {
        return Err(format!("has {} bytes; at most {MAX_URL_BYTES} are allowed", text.len()));
    }
    let mut url = Url::parse(text.trim())
        .map_err(|error| format!("is not an absolute URL such as https://api.example.com/v1: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with https:// or http://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user or password; put the key into credential".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not contain ? or #".to_owned());
    }
    if url.scheme() == "http"
        && kind == Some(ProviderKind::Proxy)
        && !url.host().is_some_and(|host| is_private(&host))
    {
        return Err("must use https: the credential would cross the network in clear \
                    (http is for loopback and private addresses, or for type \"local\")"
            .to_owned());
    }
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/chat/completions").unwrap_or(path).trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Loopback, or reachable only from a private network. Names other than localhost may resolve to anything.
fn is_private(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback() || address.is_private(),
        Host::Ipv6(address) => match address.to_ipv4_mapped() {
            Some(address) => address.is_loopback() || address.is_private(),
            None => address.is_loopback() || address.is_unique_local(),
        },
    }
}

/// Never repeats what was written: it may be the credential itself.
fn check_credential(fields: &mut Fields<'_>, violations: &mut Violations) -> CredentialRef {
    let Some(text) = fields.string("credential", violations) else { return CredentialRef::None };
    let refused = match text.split_once(':') {
        Some(("env", name)) if is_variable_name(name) => return CredentialRef::Env(name.to_owned()),
        Some(("file", path)) if !path.is_empty() && !path.chars().any(char::is_control) => {
            return CredentialRef::File(path.to_owned());
        }
        Some(("env", _)) => {
            "must name an environment variable: letters, digits and _, not beginning with a digit"
        }
        Some(("file", _)) => "must name a file",
        _ => "must be \"env:NAME\" or \"file:PATH\"; a credential itself is not written here",
    };
    violations.add("credential", refused);
    CredentialRef::None
}

fn is_variable_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(allowed) && !name.starts_with(|first: char| first.is_ascii_digit())
}

fn check_forward_headers(fields: &mut Fields<'_>, violations: &mut Violations) -> Vec<String> {
    let mut headers = Vec::new();
    let listed = fields.list("forward_headers", MAX_FORWARD_HEADERS, violations).unwrap_or_default();
    for (index, value) in listed.iter().enumerate() {
        let message = match value.as_str() {
            None => format!("must be a string, not {}", kind(value)),
            Some(name) if HeaderName::from_lowercase(name.as_bytes()).is_err() => {
                "must be a header name in lower case".to_owned()
            }
            Some(name) if NEVER_FORWARDED.contains(&name) => {
                "is never passed on: it carries a credential, or belongs to the connection or the body"
                    .to_owned()
            }
            Some(name) if headers.iter().any(|other| other == name) => "is listed twice".to_owned(),
            Some(name) => {
                headers.push(name.to_owned());
                continue;
            }
        };
        violations.add(format!("forward_headers[{index}]"), message);
    }
    headers
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
