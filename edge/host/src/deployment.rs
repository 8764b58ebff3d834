//! A deployment as variables describe it: a Worker's, a Spin component's, and the native host's environment.

use std::sync::Arc;
use std::time::Duration;

use catalog::{ApiKeyHasher, KeyRing, Secret, Violation, Violations};
use gateway::{Cors, Gateway, GatewayParts, Host, HostList, OnStoreFailure, Settings};
use http::HeaderValue;
use store::{AccessPart, DynamoOptions, DynamoStore, StoreAccess, Timing, sdk};

use crate::ports::store_ports;

/// The names of the variables. Those that are AWS's own mean what they mean everywhere.
pub mod variables {
    /// The table's name. Without it there is no `DynamoDB`.
    pub const TABLE: &str = "DYAD_TABLE";
    /// Secret: the key under which API keys are hashed; the same wherever the table is used. At least 32 bytes.
    pub const KEY_SECRET: &str = "DYAD_KEY_SECRET";
    /// Secret: the master keys that open sealed credentials, the same wherever the table is used: `ID:KEY` with commas
    /// between them, as [`KeyRing::parse`](catalog::KeyRing::parse) takes them.
    pub const MASTER_KEYS: &str = "DYAD_MASTER_KEYS";
    pub const REGION: &str = "AWS_REGION";
    /// Where `DynamoDB`'s API is, if it is not AWS's own endpoint of the region.
    pub const ENDPOINT: &str = "AWS_ENDPOINT_URL_DYNAMODB";
    pub const ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
    /// Secret.
    pub const SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
    /// Secret.
    pub const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";

    pub const KEEPALIVE_MS: &str = "DYAD_KEEPALIVE_MS";
    pub const MAX_BODY_BYTES: &str = "DYAD_MAX_BODY_BYTES";
    pub const MAX_RESPONSE_BYTES: &str = "DYAD_MAX_RESPONSE_BYTES";
    /// Where little memory is shared by all requests; the longest request body at least.
    pub const MAX_HELD_BYTES: &str = "DYAD_MAX_HELD_BYTES";
    pub const MAX_FRAME_BYTES: &str = "DYAD_MAX_FRAME_BYTES";
    pub const BODY_IDLE_TIMEOUT_MS: &str = "DYAD_BODY_IDLE_TIMEOUT_MS";
    pub const BODY_TOTAL_TIMEOUT_MS: &str = "DYAD_BODY_TOTAL_TIMEOUT_MS";
    pub const CONFIG_REFRESH_MS: &str = "DYAD_CONFIG_REFRESH_MS";
    pub const CONFIG_MAX_AGE_MS: &str = "DYAD_CONFIG_MAX_AGE_MS";
    pub const USAGE_FLUSH_MS: &str = "DYAD_USAGE_FLUSH_MS";
    /// `open` or `closed`: what becomes of requests of limited keys while the store does not answer.
    pub const LIMITS_ON_STORE_FAILURE: &str = "DYAD_LIMITS_ON_STORE_FAILURE";
    /// The hosts of runners' nodes, and of upstreams: lists in the form of [`gateway::HostList`]. Any, if not set.
    pub const RUNNER_HOSTS: &str = "DYAD_RUNNER_HOSTS";
    pub const UPSTREAM_HOSTS: &str = "DYAD_UPSTREAM_HOSTS";
    /// Those of upstreams in private networks that stored providers may lead to, likewise. None, if not set.
    pub const PRIVATE_UPSTREAM_HOSTS: &str = "DYAD_PRIVATE_UPSTREAM_HOSTS";
    /// On the native host alone: how often each provider is checked in the background, about.
    pub const HEALTH_INTERVAL_MS: &str = "DYAD_HEALTH_INTERVAL_MS";
    /// On the native host alone: the directory of the files that stored providers may name.
    pub const CREDENTIAL_DIR: &str = "DYAD_CREDENTIAL_DIR";
    /// `*`, nothing (no web page may call), or origins with commas between them.
    pub const CORS_ORIGINS: &str = "DYAD_CORS_ORIGINS";
}

const MIN_KEY_SECRET_BYTES: usize = 32;

/// The hasher of API keys under a secret, which must be the same wherever a table is used. White space around it, such
/// as the end of a file's line, is not part of it. `Err` says what is wrong with it.
pub fn key_hasher(secret: &str) -> Result<ApiKeyHasher, &'static str> {
    let secret = Secret::new(secret.trim());
    if secret.expose().len() < MIN_KEY_SECRET_BYTES {
        return Err("it has fewer than 32 bytes");
    }
    Ok(ApiKeyHasher::new(&secret))
}

/// The settings that the native host's variables say; those of `base` where they say nothing.
pub fn settings_from_variables(
    get: impl Fn(&str) -> Option<String>,
    base: Settings,
) -> Result<Settings, Violations> {
    let mut reader = Reader { get, violations: Vec::new() };
    let mut settings = reader.settings(base);
    if let Some(ms) = reader.number(variables::HEALTH_INTERVAL_MS, 10, 86_400_000) {
        settings.health_interval = Duration::from_millis(ms);
    }
    if reader.violations.is_empty() { Ok(settings) } else { Err(Violations(reader.violations)) }
}

/// What an edge serves with.
#[derive(Debug)]
pub struct Deployment {
    pub store: StoreAccess,
    pub hasher: ApiKeyHasher,
    pub master_keys: KeyRing,
    pub settings: Settings,
    credentials: sdk::Credentials,
}

impl Deployment {
    /// Reads everything, and reports everything that is wrong, each under its variable's name. Where variables say
    /// nothing, the settings are those of `base`.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>, base: Settings) -> Result<Self, Violations> {
        use variables as v;

        let mut reader = Reader { get, violations: Vec::new() };
        let table = reader.required(v::TABLE);
        let region = reader.required(v::REGION);
        let endpoint_url = reader.text(v::ENDPOINT);
        let store = StoreAccess { table, region, endpoint_url };
        for (part, message) in store.violations() {
            let name = match part {
                AccessPart::Table => v::TABLE,
                AccessPart::Region => v::REGION,
                AccessPart::Endpoint => v::ENDPOINT,
            };
            reader.violation(name, message);
        }
        let key_secret = reader.required(v::KEY_SECRET);
        let hasher = if key_secret.is_empty() { None } else { reader.hasher(&key_secret) };
        let master_keys = reader.master_keys();
        let access_key = reader.required(v::ACCESS_KEY_ID);
        let secret_key = reader.required(v::SECRET_ACCESS_KEY);
        let session_token = reader.text(v::SESSION_TOKEN);
        // Whoever has no key may not keep an edge busy with bodies: it pays for its time.
        let base = Settings { max_refused_body_bytes: base.max_refused_body_bytes.min(1 << 20), ..base };
        let settings = reader.settings(base);
        match hasher {
            Some(hasher) if reader.violations.is_empty() => Ok(Self {
                store,
                hasher,
                master_keys,
                settings,
                credentials: sdk::Credentials::from_keys(access_key, secret_key, session_token),
            }),
            _ => Err(Violations(reader.violations)),
        }
    }

    /// For an edge that reaches runners' nodes and cannot hold them to an authority of the operator's own: anybody's
    /// node would do if it were not said whose hosts they have.
    pub fn require_runner_hosts(self) -> Result<Self, Violations> {
        if self.settings.runner_hosts.is_some() {
            return Ok(self);
        }
        let message =
            "it is not set, and this edge has runners: list their hosts, such as *.runners.example.com"
                .to_owned();
        Err(Violations(vec![Violation { path: variables::RUNNER_HOSTS.to_owned(), message }]))
    }

    /// The gateway of one instance. Connects to nothing yet.
    pub fn into_gateway(self, host: Arc<dyn Host>) -> Gateway {
        let store = Arc::new(self.open_store(host.clone()));
        Gateway::new(GatewayParts {
            host,
            limits: store.clone(),
            runners: store.clone(),
            master_keys: Arc::new(self.master_keys),
            usage: store.clone(),
            store,
            hasher: self.hasher,
            settings: self.settings,
        })
    }

    /// Connects to nothing yet.
    pub fn open_store(&self, host: Arc<dyn Host>) -> DynamoStore {
        let credentials = sdk::SharedCredentialsProvider::new(self.credentials.clone());
        open_store(&self.store, credentials, host)
    }
}

fn open_store(
    access: &StoreAccess,
    credentials: sdk::SharedCredentialsProvider,
    host: Arc<dyn Host>,
) -> DynamoStore {
    let options = DynamoOptions {
        table: access.table.clone(),
        region: access.region.clone(),
        endpoint_url: access.endpoint_url.clone(),
        credentials,
        timing: Timing::default(),
    };
    DynamoStore::new(store_ports(host), options)
}

/// What is refreshed less often than it may be old would be older. The default yields to a greatest age that is less.
pub fn settle_refresh(settings: &mut Settings, is_refresh_given: bool) -> Result<(), String> {
    let (refresh, max_age) = (settings.config_refresh, settings.config_max_age);
    if refresh > max_age && is_refresh_given {
        return Err(format!("it is more than the greatest age, {} ms", max_age.as_millis()));
    }
    settings.config_refresh = refresh.min(max_age);
    Ok(())
}

struct Reader<G> {
    get: G,
    violations: Vec<Violation>,
}

impl<G: Fn(&str) -> Option<String>> Reader<G> {
    /// An empty variable counts as none.
    fn text(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|text| !text.is_empty())
    }

    fn required(&mut self, name: &str) -> String {
        self.text(name).unwrap_or_else(|| {
            self.violation(name, "it is not set");
            String::new()
        })
    }

    fn violation(&mut self, name: &str, message: impl Into<String>) {
        self.violations.push(Violation { path: name.to_owned(), message: message.into() });
    }

    fn number(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.violation(name, format!("it is no number from {min} to {max}"));
        }
        number
    }

    fn hosts(&mut self, name: &str) -> Option<HostList> {
        let hosts = HostList::parse(&self.text(name)?);
        let is_none = |entry| format!("{entry:?} is no host, such as api.example.com or *.example.com");
        hosts.map_err(|entry| self.violation(name, is_none(entry))).ok()
    }

    fn hasher(&mut self, key_secret: &str) -> Option<ApiKeyHasher> {
        let hasher = key_hasher(key_secret);
        hasher.map_err(|message| self.violation(variables::KEY_SECRET, message)).ok()
    }

    /// None where nothing is sealed.
    fn master_keys(&mut self) -> KeyRing {
        let text = self.text(variables::MASTER_KEYS).unwrap_or_default();
        KeyRing::parse(Secret::new(text).expose()).unwrap_or_else(|message| {
            self.violation(variables::MASTER_KEYS, message);
            KeyRing::default()
        })
    }

    fn settings(&mut self, mut settings: Settings) -> Settings {
        use variables as v;

        for (name, size) in [
            (v::MAX_BODY_BYTES, &mut settings.max_body_bytes),
            (v::MAX_RESPONSE_BYTES, &mut settings.max_response_bytes),
            (v::MAX_FRAME_BYTES, &mut settings.max_frame_bytes),
        ] {
            if let Some(bytes) = self.number(name, 1_024, 1 << 30) {
                *size = usize::try_from(bytes).unwrap_or(usize::MAX);
            }
        }
        if let Some(bytes) = self.number(v::MAX_HELD_BYTES, 1_024, 1 << 40) {
            settings.max_held_bytes = Some(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        if settings.max_held_bytes.is_some_and(|held| held < settings.max_body_bytes) {
            let message =
                format!("it is less than {}, and a body of that length would never fit", v::MAX_BODY_BYTES);
            self.violation(v::MAX_HELD_BYTES, message);
        }
        for (name, max_ms, duration) in [
            (v::KEEPALIVE_MS, 300_000, &mut settings.keepalive),
            (v::BODY_IDLE_TIMEOUT_MS, 3_600_000, &mut settings.body_idle_timeout),
            (v::BODY_TOTAL_TIMEOUT_MS, 86_400_000, &mut settings.body_total_timeout),
            (v::CONFIG_REFRESH_MS, 3_600_000, &mut settings.config_refresh),
            (v::CONFIG_MAX_AGE_MS, 3_600_000, &mut settings.config_max_age),
            // Beyond it a Worker would end before it has flushed.
            (v::USAGE_FLUSH_MS, 20_000, &mut settings.usage_flush),
        ] {
            if let Some(ms) = self.number(name, 10, max_ms) {
                *duration = Duration::from_millis(ms);
            }
        }
        if let Err(message) = settle_refresh(&mut settings, self.text(v::CONFIG_REFRESH_MS).is_some()) {
            self.violation(v::CONFIG_REFRESH_MS, message);
        }
        match self.text(v::LIMITS_ON_STORE_FAILURE).as_deref() {
            None => {}
            Some("open") => settings.limits_on_store_failure = OnStoreFailure::FailOpen,
            Some("closed") => settings.limits_on_store_failure = OnStoreFailure::FailClosed,
            Some(_) => self.violation(v::LIMITS_ON_STORE_FAILURE, "it is neither open nor closed"),
        }
        if let Some(hosts) = self.hosts(v::RUNNER_HOSTS) {
            settings.runner_hosts = Some(hosts);
        }
        if let Some(hosts) = self.hosts(v::UPSTREAM_HOSTS) {
            settings.upstream_hosts.only = Some(hosts);
        }
        if let Some(hosts) = self.hosts(v::PRIVATE_UPSTREAM_HOSTS) {
            settings.upstream_hosts.private = hosts;
        }
        // Here an empty one says something.
        if let Some(origins) = (self.get)(v::CORS_ORIGINS) {
            match cors(&origins) {
                Some(cors) => settings.cors = cors,
                None => self.violation(v::CORS_ORIGINS, "it is neither * nor a list of origins"),
            }
        }
        settings
    }
}

fn cors(text: &str) -> Option<Cors> {
    let origins: Vec<_> = text.split(',').map(str::trim).filter(|origin| !origin.is_empty()).collect();
    match &origins[..] {
        [] => Some(Cors::Off),
        ["*"] => Some(Cors::Any),
        origins => {
            let read = |origin: &&str| HeaderValue::from_str(origin).ok().filter(|_| origin.contains("://"));
            origins.iter().map(read).collect::<Option<_>>().map(Cors::Origins)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let get = |name: &str| {
            let known = variables.iter().find(|(known, _)| *known == name);
            known.map(|(_, value)| (*value).to_owned())
        };
        settings_from_variables(get, Settings::default()).map_err(|violations| violations.to_string())
    }

    #[test]
    fn lists_of_hosts_are_read_and_what_is_none_is_named() {
        let all = settings(&[]).unwrap();
        assert_eq!((all.runner_hosts, all.upstream_hosts), (None, gateway::UpstreamHosts::default()));
        let some =
            settings(&[("DYAD_RUNNER_HOSTS", "*.example.com"), ("DYAD_UPSTREAM_HOSTS", "a.b")]).unwrap();
        let private =
            settings(&[("DYAD_PRIVATE_UPSTREAM_HOSTS", "10.0.0.1")]).unwrap().upstream_hosts.private;
        assert!(private.allows(&"https://10.0.0.1".parse().unwrap()));
        assert!(some.runner_hosts.unwrap().allows(&"https://a.example.com".parse().unwrap()));
        assert!(!some.upstream_hosts.only.unwrap().allows(&"https://a.example.com".parse().unwrap()));
        let wrong = settings(&[("DYAD_UPSTREAM_HOSTS", "a.example.com, b/c")]).unwrap_err();
        assert!(wrong.contains("DYAD_UPSTREAM_HOSTS") && wrong.contains("b/c"), "{wrong}");
    }

    #[test]
    fn an_edge_with_runners_says_where_they_are() {
        let with = |hosts: &str| {
            let get = |name: &str| match name {
                "DYAD_KEY_SECRET" => Some("0123456789abcdef0123456789abcdef".to_owned()),
                "DYAD_TABLE" => Some("table".to_owned()),
                "AWS_REGION" => Some("eu-central-1".to_owned()),
                "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("x".to_owned()),
                "DYAD_RUNNER_HOSTS" => Some(hosts.to_owned()),
                _ => None,
            };
            let deployment = Deployment::from_variables(get, Settings::default());
            deployment.unwrap().require_runner_hosts()
        };
        assert!(with("*.runners.example.com").is_ok());
        assert!(with("").unwrap_err().to_string().contains("DYAD_RUNNER_HOSTS"));
    }

    #[test]
    fn nothing_is_refreshed_less_often_than_it_may_be_old() {
        let wrong = settings(&[("DYAD_CONFIG_REFRESH_MS", "300000")]).unwrap_err();
        assert!(wrong.contains("DYAD_CONFIG_REFRESH_MS") && wrong.contains("10000"), "{wrong}");
        let both = [("DYAD_CONFIG_REFRESH_MS", "300000"), ("DYAD_CONFIG_MAX_AGE_MS", "300000")];
        assert_eq!(settings(&both).unwrap().config_refresh, Duration::from_secs(300));
        let age_only = settings(&[("DYAD_CONFIG_MAX_AGE_MS", "1000")]).unwrap();
        assert_eq!(age_only.config_refresh, Duration::from_secs(1));
    }
}
