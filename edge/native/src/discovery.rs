//! What is there already: vendors whose key is in the environment, and servers of local models.

use catalog::{CredentialRef, Provider, ProviderKind, RawProvider};

/// Vendors with an OpenAI-compatible API: environment variable, slug, name, base URL, variable that overrides it.
const VENDORS: [(&str, &str, &str, &str, Option<&str>); 10] = [
    ("OPENAI_API_KEY", "openai", "OpenAI", "https://api.openai.com/v1", Some("OPENAI_BASE_URL")),
    ("OPENROUTER_API_KEY", "openrouter", "OpenRouter", "https://openrouter.ai/api/v1", None),
    ("GEMINI_API_KEY", "gemini", "Gemini", "https://generativelanguage.googleapis.com/v1beta/openai", None),
    ("GROQ_API_KEY", "groq", "Groq", "https://api.groq.com/openai/v1", None),
    ("MISTRAL_API_KEY", "mistral", "Mistral", "https://api.mistral.ai/v1", None),
    ("DEEPSEEK_API_KEY", "deepseek", "DeepSeek", "https://api.deepseek.com/v1", None),
    ("XAI_API_KEY", "xai", "xAI", "https://api.x.ai/v1", None),
    ("TOGETHER_API_KEY", "together", "Together", "https://api.together.xyz/v1", None),
    ("FIREWORKS_API_KEY", "fireworks", "Fireworks", "https://api.fireworks.ai/inference/v1", None),
    ("CEREBRAS_API_KEY", "cerebras", "Cerebras", "https://api.cerebras.ai/v1", None),
];

/// Servers that are looked for on this machine: slug, name, base URL.
const LOCAL: [(&str, &str, &str); 2] = [
    ("ollama", "Ollama", "http://127.0.0.1:11434/v1"),
    ("lmstudio", "LM Studio", "http://127.0.0.1:1234/v1"),
];

/// Later than everything that was asked for by name.
const DISCOVERED_RANK: u32 = 1_000;

/// Providers for the vendors whose key is set.
pub(crate) fn vendors() -> Vec<Provider> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let found = VENDORS.iter().filter(|(variable, ..)| set(variable).is_some());
    found
        .filter_map(|(variable, slug, name, base_url, override_by)| {
            let base_url = override_by.and_then(set).unwrap_or_else(|| (*base_url).to_owned());
            provider(slug, name, ProviderKind::Proxy, &base_url, CredentialRef::Env((*variable).to_owned()))
                .inspect_err(|problem| {
                    tracing::warn!(
                        variable,
                        problem,
                        "a vendor's key is set, but its base URL cannot be used"
                    );
                })
                .ok()
        })
        .collect()
}

/// Candidates on this machine; whether they run shows when they are asked for their models.
pub(crate) fn local_servers() -> Vec<Provider> {
    LOCAL
        .iter()
        .filter_map(|(slug, name, url)| {
            provider(slug, name, ProviderKind::Local, url, CredentialRef::None).ok()
        })
        .collect()
}

pub(crate) fn is_local_candidate(slug: &str) -> bool {
    LOCAL.iter().any(|(candidate, ..)| *candidate == slug)
}

/// `--upstream URL[=KEY]`, the `index`-th of them.
pub(crate) fn upstream(argument: &str, index: usize) -> Result<Provider, String> {
    // A URL may hold '=' in itself only in a query, which a base URL does not have.
    let (url, key) = argument.split_once('=').map_or((argument, None), |(url, key)| (url, Some(key)));
    let credential = match key {
        None | Some("") => CredentialRef::None,
        Some(key) => CredentialRef::Inline(catalog::Secret::new(key)),
    };
    let kind = if is_private(url) { ProviderKind::Local } else { ProviderKind::Proxy };
    let slug = if index == 0 { "upstream".to_owned() } else { format!("upstream-{}", index + 1) };
    let mut provider = provider(&slug, &slug, kind, url, credential)?;
    provider.rank = u32::try_from(index).unwrap_or(DISCOVERED_RANK);
    Ok(provider)
}

/// Plain HTTP is for the local network; the catalog's rules decide in the end.
fn is_private(url: &str) -> bool {
    url.starts_with("http://")
}

fn provider(
    slug: &str,
    name: &str,
    kind: ProviderKind,
    base_url: &str,
    credential: CredentialRef,
) -> Result<Provider, String> {
    let kind = match kind {
        ProviderKind::Proxy => "proxy",
        ProviderKind::Local => "local",
    };
    let raw = RawProvider::from(serde_json::json!({
        "name": name, "slug": slug, "type": kind, "base_url": base_url, "discover_models": true, "rank": DISCOVERED_RANK,
    }));
    let mut provider = Provider::check(&raw).map_err(|violations| violations.to_string())?;
    provider.credential = credential;
    Ok(provider)
}
