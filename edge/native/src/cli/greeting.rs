//! What `up` says once it serves.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gateway::ServedModel;
use serde_json::json;

use crate::admin::ServedTo;
use crate::output::Output;

/// Models named per provider.
const MODELS_SHOWN: usize = 6;

pub(super) struct Greeting<'a> {
    pub base_url: String,
    /// Where Prometheus scrapes, if it may.
    pub metrics_url: Option<String>,
    pub administration: ServedTo,
    /// A key that was made by this start.
    pub first_key: Option<&'a str>,
    pub models: Vec<ServedModel>,
    /// Providers that serve nothing, and why: slug, reason.
    pub unusable: Vec<(String, String)>,
}

/// The URL for clients on this machine.
pub(super) fn base_url(address: SocketAddr, tls: bool) -> String {
    format!("{}/v1", origin(address, tls))
}

/// A listener as programs on this machine reach it.
pub(super) fn origin(address: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}", reachable(address))
}

/// The URL for Prometheus on this machine.
pub(super) fn metrics_url(address: SocketAddr) -> String {
    format!("http://{}/metrics", reachable(address))
}

/// Where a browser finds the console of a listener, by its origin or the base URL for clients.
pub(super) fn console_url(url: &str) -> String {
    format!("{}/console", url.strip_suffix("/v1").unwrap_or(url))
}

fn reachable(address: SocketAddr) -> SocketAddr {
    // Nobody can connect to "any address".
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl Greeting<'_> {
    /// Fails only where the new key could not be shown.
    pub(super) fn show(&self, output: Output) -> io::Result<()> {
        let models: Vec<_> =
            self.models.iter().map(|m| json!({"id": m.id, "provider": m.provider.as_str()})).collect();
        let unusable: Vec<_> =
            self.unusable.iter().map(|(slug, reason)| json!({"provider": slug, "reason": reason})).collect();
        let mut ready = json!({
            "event": "ready", "base_url": self.base_url, "models": models, "unusable_providers": unusable,
        });
        if let Some(url) = &self.metrics_url {
            ready["metrics_url"] = url.as_str().into();
        }
        if matches!(self.administration, ServedTo::OwnTokens | ServedTo::ConfiguredTokens) {
            ready["console_url"] = console_url(&self.base_url).into();
        }
        if let Some(key) = self.first_key {
            ready["api_key"] = key.into();
        }
        let shown = output.deliver(&self.text(), &ready);
        if self.first_key.is_some() { shown } else { Ok(()) }
    }

    fn text(&self) -> String {
        let mut lines = vec![
            format!("Dyad Gateway {} is serving.", env!("CARGO_PKG_VERSION")),
            String::new(),
            format!("  Base URL  {}", self.base_url),
        ];
        if let Some(url) = &self.metrics_url {
            lines.push(format!("  Metrics   {url}"));
        }
        if let Some(key) = self.first_key {
            lines.push(format!("  API key   {key}"));
            lines.push("            (shown this once; 'dyad-gateway keys create' makes more)".to_owned());
        } else {
            lines.push("  API key   one you have ('dyad-gateway keys create' makes another)".to_owned());
        }
        lines.extend(self.console_lines());
        lines.push(String::new());
        lines.extend(self.model_lines());
        lines.extend(self.unusable.iter().map(|(slug, reason)| format!("  {slug}: not served: {reason}")));
        lines.extend(self.next_lines());
        lines.join("\n")
    }

    fn console_lines(&self) -> Vec<String> {
        let token = match self.administration {
            ServedTo::Nobody => return Vec::new(),
            ServedTo::NobodyYet => {
                return vec![
                    "  Console   not served: set whose tokens count (DYAD_ADMIN_JWT_SECRET; see the README)"
                        .to_owned(),
                ];
            }
            ServedTo::OwnTokens => "sign in with what 'dyad-gateway admin token' prints",
            ServedTo::ConfiguredTokens => "sign in with a token of the kind that is configured",
        };
        vec![format!("  Console   {}", console_url(&self.base_url)), format!("            ({token})")]
    }

    /// A line per provider.
    fn model_lines(&self) -> Vec<String> {
        let mut slugs: Vec<_> = self.models.iter().map(|model| &model.provider).collect();
        let mut seen = Vec::new();
        slugs.retain(|slug| {
            !seen.contains(slug) && {
                seen.push(*slug);
                true
            }
        });
        let line = |slug| {
            let ids: Vec<&str> =
                self.models.iter().filter(|m| &m.provider == slug).map(|m| m.id.as_str()).collect();
            let more = ids.len().saturating_sub(MODELS_SHOWN);
            let tail = if more > 0 { format!(", and {more} more") } else { String::new() };
            format!("  {slug}: {}{tail}", ids[..ids.len().min(MODELS_SHOWN)].join(", "))
        };
        slugs.into_iter().map(line).collect()
    }

    fn next_lines(&self) -> Vec<String> {
        let Some(model) = self.models.first().map(|model| &model.id) else {
            return vec![
                "  No models yet. Start Ollama or LM Studio, set OPENAI_API_KEY, or give --upstream URL[=KEY];".to_owned(),
                "  'dyad-gateway doctor' says what was looked for.".to_owned(),
            ];
        };
        let (base_url, key) = (&self.base_url, self.first_key.unwrap_or("$DYAD_API_KEY"));
        vec![
            String::new(),
            "Next:".to_owned(),
            // In double quotes, so that a shell puts in the variable.
            format!("  1. curl {base_url}/chat/completions -H \"Authorization: Bearer {key}\" \\"),
            "       -H 'Content-Type: application/json' \\".to_owned(),
            format!("       -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"),
            "  2. In Dyad: Settings, AI providers, Add custom provider; paste the base URL and the API key, and add".to_owned(),
            "     one of the models above.".to_owned(),
            "  3. dyad-gateway doctor     says what works, what does not, and what to do".to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use catalog::ProviderSlug;

    use super::*;

    fn greeting(models: &[(&str, &str)], first_key: Option<&'static str>) -> Greeting<'static> {
        let served = |(provider, id): &(&str, &str)| ServedModel {
            id: (*id).to_owned(),
            provider: ProviderSlug::parse(provider).unwrap(),
        };
        Greeting {
            base_url: "http://127.0.0.1:4100/v1".to_owned(),
            metrics_url: None,
            administration: ServedTo::OwnTokens,
            first_key,
            models: models.iter().map(served).collect(),
            unusable: vec![("broken".to_owned(), "no key".to_owned())],
        }
    }

    #[test]
    fn clients_are_given_an_address_that_can_be_connected_to() {
        for (address, url) in [
            ("0.0.0.0:1", "http://127.0.0.1:1/v1"),
            ("[::]:1", "http://[::1]:1/v1"),
            ("192.0.2.1:1", "http://192.0.2.1:1/v1"),
        ] {
            assert_eq!(base_url(address.parse().unwrap(), false), url);
        }
        assert_eq!(base_url("127.0.0.1:1".parse().unwrap(), true), "https://127.0.0.1:1/v1");
    }

    #[test]
    fn models_are_listed_by_provider_and_the_first_one_is_tried() {
        let many: Vec<String> = (0..8).map(|n| format!("m{n}")).collect();
        let mut models: Vec<(&str, &str)> = many.iter().map(|id| ("a", id.as_str())).collect();
        models.insert(1, ("b", "x"));
        let text = greeting(&models, Some("dgw_key")).text();
        assert!(text.contains("\n  a: m0, m1, m2, m3, m4, m5, and 2 more\n  b: x\n"), "{text}");
        assert!(text.contains("\n  broken: not served: no key\n"), "{text}");
        assert!(text.contains("Bearer dgw_key\"") && text.contains("\"model\":\"m0\""), "{text}");
    }

    #[test]
    fn without_models_it_says_how_to_get_some() {
        let text = greeting(&[], None).text();
        assert!(text.contains("No models yet") && !text.contains("curl"), "{text}");
        assert!(!text.contains("Bearer"), "{text}");
    }
}
