//! What is there already: vendors whose key is in the environment, and servers of local models.

use catalog::{CredentialRef, Provider, ProviderKind, RawProvider, Violation, Violations};

use crate::credential;

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
                        %problem,
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

/// `--upstream URL[=KEY]`, the `index`-th of them. The key may be `env:NAME` or `file:PATH`, as in the configuration
/// file: what is written on a command line can be seen by everybody on the machine.
pub(crate) fn upstream(argument: &str, index: usize) -> Result<Provider, Vec<String>> {
    // A URL may hold '=' in itself only in a query, which a base URL does not have.
    let (url, key) = argument.split_once('=').map_or((argument, ""), |(url, key)| (url, key.trim()));
    let credential = match key.split_once(':') {
        _ if key.is_empty() => CredentialRef::None,
        Some(("env", name)) => CredentialRef::Env(name.to_owned()),
        Some(("file", path)) => CredentialRef::File(path.to_owned()),
        _ => CredentialRef::Inline(catalog::Secret::new(key)),
    };
    // Plain HTTP is for the local network.
    let kind =
        if url.trim_start().starts_with("http://") { ProviderKind::Local } else { ProviderKind::Proxy };
    let slug = if index == 0 { "upstream".to_owned() } else { format!("upstream-{}", index + 1) };
    let mut provider = provider(&slug, &slug, kind, url, credential).map_err(|violations| {
        let url_only = |violation: &Violation| match violation.path.as_str() {
            "base_url" => format!("the URL {}", violation.message),
            _ => violation.to_string(),
        };
        violations.0.iter().map(url_only).collect::<Vec<_>>()
    })?;
    credential::of_given(&provider.credential).map_err(|reason| vec![reason])?;
    provider.rank = u32::try_from(index).unwrap_or(DISCOVERED_RANK);
    Ok(provider)
}

fn provider(
    slug: &str,
    name: &str,
    kind: ProviderKind,
    base_url: &str,
    credential: CredentialRef,
) -> Result<Provider, Violations> {
    let raw = RawProvider::from(serde_json::json!({
        "name": name, "slug": slug, "type": kind, "base_url": base_url, "discover_models": true, "rank": DISCOVERED_RANK,
    }));
    let mut provider = Provider::check(&raw)?;
    provider.credential = credential;
    Ok(provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base_url_and_key(argument: &str) -> (String, String) {
        let provider = upstream(argument, 0).unwrap();
        let key = match &provider.credential {
            CredentialRef::Inline(secret) => secret.expose().to_owned(),
            CredentialRef::None => String::new(),
            other => panic!("{other:?}"),
        };
        (provider.adapter.address(), key)
    }

    #[test]
    fn a_url_and_its_key_are_told_apart() {
        for (argument, url, key) in [
            ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1", ""),
            ("http://127.0.0.1:8080/v1=", "http://127.0.0.1:8080/v1", ""),
            ("https://api.example.com/v1/=sk-1", "https://api.example.com/v1", "sk-1"),
            ("https://api.example.com/v1=c2stMQ==", "https://api.example.com/v1", "c2stMQ=="),
            ("https://api.example.com/v1=a=b=c", "https://api.example.com/v1", "a=b=c"),
            (
                "https://api.example.com/v1=https://not.a.url/",
                "https://api.example.com/v1",
                "https://not.a.url/",
            ),
            ("http://[::1]:8080/v1=k", "http://[::1]:8080/v1", "k"),
            ("https://[2001:db8::1]/v1", "https://[2001:db8::1]/v1", ""),
            ("https://api.example.com=k", "https://api.example.com", "k"),
            ("https://api.example.com/v1/chat/completions=k", "https://api.example.com/v1", "k"),
        ] {
            assert_eq!(base_url_and_key(argument), (url.to_owned(), key.to_owned()), "{argument}");
        }
    }

    #[test]
    fn plain_http_makes_a_local_provider() {
        assert_eq!(upstream("http://10.0.0.1/v1=k", 0).unwrap().kind(), ProviderKind::Local);
        assert_eq!(upstream("https://10.0.0.1/v1=k", 0).unwrap().kind(), ProviderKind::Proxy);
    }

    #[test]
    fn several_upstreams_keep_their_order_and_have_slugs_of_their_own() {
        let [first, second] = [0, 1].map(|index| upstream("http://127.0.0.1:1/v1", index).unwrap());
        assert_eq!((first.slug.as_str(), second.slug.as_str()), ("upstream", "upstream-2"));
        assert!(first.rank < second.rank && second.rank < DISCOVERED_RANK);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_key() {
        for argument in [
            "",
            "=sk-1",
            "127.0.0.1:8080/v1=sk-1",
            "ftp://127.0.0.1/v1=sk-1",
            "https://user:sk-1@example.com/v1",
            "https://sk-1@example.com/v1=sk-1",
            "https://example.com/v1?key=sk-1",
            "https://example.com/v1#sk-1",
            "https://example.com:99999/v1=sk-1",
            "https://example.com/v1=sk-1\nsk-1",
            "https://example.com/v1=env:DYAD_GATEWAY_NO_SUCH_VARIABLE",
            "https://example.com/v1=file:/no/such/file",
        ] {
            let reasons = upstream(argument, 0).unwrap_err().join("\n");
            assert!(!reasons.is_empty() && !reasons.contains("sk-1"), "{argument:?}: {reasons}");
        }
    }

    #[test]
    fn every_built_in_provider_is_valid() {
        for (variable, slug, name, url, _) in VENDORS {
            let credential = CredentialRef::Env(variable.to_owned());
            assert!(provider(slug, name, ProviderKind::Proxy, url, credential).is_ok(), "{slug}");
        }
        assert_eq!(local_servers().len(), LOCAL.len());
    }
}
