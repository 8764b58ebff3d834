//! The configuration file: TOML, checked as a whole before anything starts.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use catalog::{Provider, RawProvider, Violation, Violations};
use gateway::{Cors, HostList, OnStoreFailure, Settings};
use http::HeaderValue;
use toml::{Table, Value};

use crate::admin::{self, AdminSection};
use crate::runners::{self, RunnersConfig};
use crate::store_location::{self, StoreSection};

/// Longest configuration file.
const MAX_FILE_BYTES: u64 = 16 << 20;

#[derive(Debug, Default)]
pub(crate) struct FileConfig {
    pub settings: Settings,
    pub providers: Vec<Provider>,
    pub runners: Option<RunnersConfig>,
    pub store: StoreSection,
    pub admin: AdminSection,
    /// Where the files are that stored providers may name as their credentials.
    pub credential_dir: Option<PathBuf>,
}

/// Reads and checks a file; every violation is a line of the error.
pub(crate) fn read(path: &Path) -> Result<FileConfig, Vec<String>> {
    read_table(path, |_| true)
}

/// The same of some of its keys: whatever else is wrong with it must not be in the way of who needs only these.
pub(crate) fn read_only(path: &Path, keys: &[&str]) -> Result<FileConfig, Vec<String>> {
    read_table(path, |key| keys.contains(&key))
}

/// The same from standard input.
pub(crate) fn read_only_stdin(keys: &[&str]) -> Result<FileConfig, Vec<String>> {
    parse(&"standard input", io::stdin(), |key| keys.contains(&key))
}

fn read_table(path: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<FileConfig, Vec<String>> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| vec![format!("{shown}: {error}")])?;
    parse(&shown, file, is_wanted)
}

fn parse(
    shown: &dyn Display,
    file: impl Read,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<FileConfig, Vec<String>> {
    let mut text = String::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| vec![format!("{shown}: {error}")])?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(vec![format!("{shown}: it is longer than {MAX_FILE_BYTES} bytes")]);
    }
    let mut table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| vec![format!("{shown}: {}", error.to_string().trim_end())])?;
    table.retain(|key, _| is_wanted(key));
    check(table)
        .map_err(|violations| violations.0.iter().map(|violation| format!("{shown}: {violation}")).collect())
}

fn check(table: Table) -> Result<FileConfig, Violations> {
    let mut config = FileConfig::default();
    let mut violations = Violations(Vec::new());
    let mut slugs: Vec<(String, usize)> = Vec::new();
    let is_refresh_given = table.contains_key("config_refresh_ms");
    for (key, value) in table {
        let result = match key.as_str() {
            "keepalive_ms" => {
                number(&value, 10, 300_000).map(|ms| config.settings.keepalive = Duration::from_millis(ms))
            }
            "max_body_bytes" => {
                number(&value, 1_024, 1 << 30).map(|bytes| config.settings.max_body_bytes = size(bytes))
            }
            "max_response_bytes" => {
                number(&value, 1_024, 1 << 30).map(|bytes| config.settings.max_response_bytes = size(bytes))
            }
            "max_frame_bytes" => {
                number(&value, 1_024, 1 << 30).map(|bytes| config.settings.max_frame_bytes = size(bytes))
            }
            "body_idle_timeout_ms" => number(&value, 10, 3_600_000)
                .map(|ms| config.settings.body_idle_timeout = Duration::from_millis(ms)),
            "body_total_timeout_ms" => number(&value, 10, 86_400_000)
                .map(|ms| config.settings.body_total_timeout = Duration::from_millis(ms)),
            "limits_on_store_failure" => on_store_failure(&value)
                .map(|on_failure| config.settings.limits_on_store_failure = on_failure),
            "config_refresh_ms" => number(&value, 10, 3_600_000)
                .map(|ms| config.settings.config_refresh = Duration::from_millis(ms)),
            "config_max_age_ms" => number(&value, 10, 3_600_000)
                .map(|ms| config.settings.config_max_age = Duration::from_millis(ms)),
            "usage_flush_ms" => {
                number(&value, 10, 20_000).map(|ms| config.settings.usage_flush = Duration::from_millis(ms))
            }
            "credential_dir" => match value.as_str() {
                Some(path) if !path.is_empty() => {
                    config.credential_dir = Some(path.into());
                    Ok(())
                }
                _ => Err("must be the path of a directory".to_owned()),
            },
            "upstream_hosts" => hosts(&value).map(|hosts| config.settings.upstream_hosts.only = Some(hosts)),
            "private_upstream_hosts" => {
                hosts(&value).map(|hosts| config.settings.upstream_hosts.private = hosts)
            }
            "health_interval_ms" => number(&value, 10, 86_400_000)
                .map(|ms| config.settings.health_interval = Duration::from_millis(ms)),
            "cors_origins" => origins(&value).map(|cors| config.settings.cors = cors),
            "provider" => {
                providers(value, &mut config.providers, &mut slugs, &mut violations);
                Ok(())
            }
            "runners" => {
                let mut value = value;
                if let Some(listed) = value.as_table_mut().and_then(|table| table.remove("hosts")) {
                    match hosts(&listed) {
                        Ok(hosts) => config.settings.runner_hosts = Some(hosts),
                        Err(message) => {
                            violations.0.push(Violation { path: "runners.hosts".to_owned(), message });
                        }
                    }
                }
                config.runners = runners::check(value, &mut violations);
                Ok(())
            }
            "admin" => {
                config.admin = admin::check(value, &mut violations);
                Ok(())
            }
            "store" => {
                config.store = store_location::check(value, &mut violations);
                Ok(())
            }
            _ => Err("is not a setting of this version; see the README for those there are".to_owned()),
        };
        if let Err(message) = result {
            violations.0.push(Violation { path: key, message });
        }
    }
    if let Err(message) = edge_host::settle_refresh(&mut config.settings, is_refresh_given) {
        violations.0.push(Violation { path: "config_refresh_ms".to_owned(), message });
    }
    if violations.0.is_empty() { Ok(config) } else { Err(violations) }
}

fn providers(
    value: Value,
    checked: &mut Vec<Provider>,
    slugs: &mut Vec<(String, usize)>,
    violations: &mut Violations,
) {
    let Value::Array(entries) = value else {
        let message = "must be a list: write each provider as [[provider]]".to_owned();
        return violations.0.push(Violation { path: "provider".to_owned(), message });
    };
    for (index, entry) in entries.into_iter().enumerate() {
        let path = format!("provider[{index}]");
        let json = serde_json::to_value(entry).expect("what TOML can say, JSON can");
        match Provider::check(&RawProvider::from(json)) {
            Ok(provider) => {
                if let Some((_, other)) = slugs.iter().find(|(slug, _)| slug == provider.slug.as_str()) {
                    let message = format!(
                        "'{}' is the slug of provider[{other}] too; give one of them another",
                        provider.slug
                    );
                    violations.0.push(Violation { path: format!("{path}.slug"), message });
                }
                slugs.push((provider.slug.as_str().to_owned(), index));
                checked.push(provider);
            }
            Err(found) => violations.0.extend(found.under(&path).0),
        }
    }
}

fn number(value: &Value, min: u64, max: u64) -> Result<u64, String> {
    let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("must be a whole number from {min} to {max}"))
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn on_store_failure(value: &Value) -> Result<OnStoreFailure, String> {
    match value.as_str() {
        Some("open") => Ok(OnStoreFailure::FailOpen),
        Some("closed") => Ok(OnStoreFailure::FailClosed),
        _ => Err("must be \"open\" or \"closed\"".to_owned()),
    }
}

/// A list of hosts; an empty one allows none.
fn hosts(value: &Value) -> Result<HostList, String> {
    let wrong = || "must be a list of hosts such as \"api.example.com\" or \"*.example.com\"".to_owned();
    let listed = value.as_array().ok_or_else(wrong)?;
    let listed: Option<Vec<_>> = listed.iter().map(Value::as_str).collect();
    HostList::parse(&listed.ok_or_else(wrong)?.join(",")).map_err(|_| wrong())
}

/// `"*"`, or a list of origins; an empty list allows none.
fn origins(value: &Value) -> Result<Cors, String> {
    let wrong = || "must be \"*\" or a list of origins such as \"https://app.example.com\"".to_owned();
    match value {
        Value::String(all) if all == "*" => Ok(Cors::Any),
        Value::Array(list) if list.is_empty() => Ok(Cors::Off),
        Value::Array(list) => {
            let origin = |value: &Value| {
                let text = value
                    .as_str()
                    .filter(|text| text.starts_with("http://") || text.starts_with("https://"))?;
                let host = text.split_once("://")?.1;
                if host.is_empty() || host.contains('/') { None } else { HeaderValue::from_str(text).ok() }
            };
            list.iter().map(origin).collect::<Option<Vec<_>>>().map(Cors::Origins).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(text: &str) -> Vec<String> {
        check(text.parse().unwrap()).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_violation_is_reported_at_once_with_its_path() {
        let found = violations(
            r#"
            keepalive_ms = "soon"
            max_body_byts = 1
            cors_origins = ["example.com"]
            [[provider]]
            name = "A"
            type = "proxy"
            base_url = "ftp://example.com"
            [[provider]]
            name = "B"
            type = "local"
            base_url = "http://127.0.0.1:1/v1"
            colour = "red"
            "#,
        );
        for path in
            ["keepalive_ms", "max_body_byts", "cors_origins", "provider[0].base_url", "provider[1].colour"]
        {
            assert!(found.iter().any(|line| line.starts_with(path)), "{path} is missing in {found:#?}");
        }
        assert_eq!(found.len(), 5, "{found:#?}");
    }

    #[test]
    fn two_providers_cannot_share_a_slug() {
        let found = violations(
            r#"
            provider = [
              { name = "Same", type = "local", base_url = "http://127.0.0.1:1/v1" },
              { name = "same", type = "local", base_url = "http://127.0.0.1:2/v1" },
            ]
            "#,
        );
        assert!(found[0].starts_with("provider[1].slug"), "{found:?}");
    }

    #[test]
    fn settings_are_taken() {
        let text = "keepalive_ms = 300\nmax_body_bytes = 2048\ncors_origins = [\"https://a.example\"]";
        let config = check(text.parse().unwrap()).unwrap();
        assert_eq!(config.settings.keepalive, Duration::from_millis(300));
        assert_eq!(config.settings.max_body_bytes, 2048);
        assert_eq!(config.settings.cors, Cors::Origins(vec![HeaderValue::from_static("https://a.example")]));
    }

    #[test]
    fn numbers_have_bounds_and_no_fractions() {
        for value in ["-1", "0", "9", "300001", "1.5", "nan", "true", "\"300\"", "[]", "1979-05-27"] {
            let found = violations(&format!("keepalive_ms = {value}"));
            assert_eq!(found, ["keepalive_ms: must be a whole number from 10 to 300000"], "{value}");
        }
    }

    #[test]
    fn origins_are_all_or_a_list() {
        let cors =
            |text: &str| check(format!("cors_origins = {text}").parse().unwrap()).map(|c| c.settings.cors);
        assert_eq!(cors("\"*\"").unwrap(), Cors::Any);
        assert_eq!(cors("[]").unwrap(), Cors::Off);
        for wrong in
            ["\"https://a.example\"", "[\"*\"]", "[\"https://a.example/\"]", "[\"https://\"]", "[1]", "true"]
        {
            assert!(cors(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_store_failure_opens_or_closes() {
        let on_failure = |text: &str| {
            let config = check(format!("limits_on_store_failure = {text}").parse().unwrap());
            config.map(|config| config.settings.limits_on_store_failure)
        };
        assert_eq!(on_failure("\"open\"").unwrap(), OnStoreFailure::FailOpen);
        assert_eq!(on_failure("\"closed\"").unwrap(), OnStoreFailure::FailClosed);
        for wrong in ["\"Open\"", "\"\"", "true", "[]"] {
            assert!(on_failure(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn providers_are_a_list_of_tables() {
        for (text, path) in [
            ("provider = \"x\"", "provider:"),
            ("[provider]\nname = \"x\"", "provider:"),
            ("provider = [1]", "provider[0]"),
            ("[[provider]]\nname = 1979-05-27T07:32:00Z", "provider[0].name"),
            ("[[provider]]\nname = nan\nrank = inf", "provider[0].name"),
        ] {
            let found = violations(text);
            assert!(found.iter().any(|line| line.starts_with(path)), "{text}: {found:?}");
        }
    }

    #[test]
    fn hosts_are_lists() {
        let config = check("upstream_hosts = [\"*.example.com\"]".parse().unwrap()).unwrap();
        assert!(!config.settings.upstream_hosts.only.unwrap().allows(&"https://a.net".parse().unwrap()));
        assert_eq!(config.settings.runner_hosts, None);
        for wrong in ["\"a.net\"", "[1]", "[\"a/b\"]"] {
            assert!(violations(&format!("upstream_hosts = {wrong}"))[0].starts_with("upstream_hosts:"));
            let found = violations(&format!("[runners]\nhosts = {wrong}"));
            assert!(found.iter().any(|line| line.starts_with("runners.hosts:")), "{found:?}");
        }
    }

    #[test]
    fn a_refresh_beyond_the_greatest_age_is_refused() {
        assert!(violations("config_refresh_ms = 300000")[0].starts_with("config_refresh_ms:"));
        assert!(check("config_refresh_ms = 20000\nconfig_max_age_ms = 20000".parse().unwrap()).is_ok());
    }

    #[test]
    fn an_empty_file_is_a_configuration() {
        let config = check(Table::new()).unwrap();
        assert!(config.providers.is_empty());
        assert_eq!(config.settings.keepalive, Settings::default().keepalive);
    }

    #[test]
    fn a_file_must_be_text_and_not_too_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, b"keepalive_ms = 300 # \xff").unwrap();
        assert!(read(&path).unwrap_err()[0].contains("UTF-8"));
        std::fs::File::create(&path).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(read(&path).unwrap_err()[0].contains("longer than"));
    }
}
