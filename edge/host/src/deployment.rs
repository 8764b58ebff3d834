//! A deployment as variables describe it: a Worker's, a Spin component's, and the native host's environment.

use std::sync::Arc;
use std::time::Duration;

use catalog::{ApiKeyHasher, Secret, Violation, Violations};
use gateway::{Cors, Gateway, GatewayParts, Host, OnStoreFailure, Settings};
use http::HeaderValue;
use store::{AccessPart, DynamoOptions, DynamoStore, StoreAccess, Timing, sdk};

use crate::ports::store_ports;

/// The names of the variables. Those that are AWS's own mean what they mean everywhere.
pub mod variables {
    /// The table's name. Without it there is no `DynamoDB`.
    pub const TABLE: &str = "DYAD_TABLE";
    /// Secret: the key under which API keys are hashed; the same wherever the table is used. At least 32 bytes.
    pub const KEY_SECRET: &str = "DYAD_KEY_SECRET";
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
    /// `open` or `closed`: what becomes of requests of limited keys while the store does not answer.
    pub const LIMITS_ON_STORE_FAILURE: &str = "DYAD_LIMITS_ON_STORE_FAILURE";
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

/// The settings that variables say; those of `base` where they say nothing.
pub fn settings_from_variables(
    get: impl Fn(&str) -> Option<String>,
    base: Settings,
) -> Result<Settings, Violations> {
    let mut reader = Reader { get, violations: Vec::new() };
    let settings = reader.settings(base);
    if reader.violations.is_empty() { Ok(settings) } else { Err(Violations(reader.violations)) }
}

/// What an edge serves with.
#[derive(Debug)]
pub struct Deployment {
    pub store: StoreAccess,
    pub hasher: ApiKeyHasher,
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
        let access_key = reader.required(v::ACCESS_KEY_ID);
        let secret_key = reader.required(v::SECRET_ACCESS_KEY);
        let session_token = reader.text(v::SESSION_TOKEN);
        let settings = reader.settings(base);
        match hasher {
            Some(hasher) if reader.violations.is_empty() => Ok(Self {
                store,
                hasher,
                settings,
                credentials: sdk::Credentials::from_keys(access_key, secret_key, session_token),
            }),
            _ => Err(Violations(reader.violations)),
        }
    }

    /// The gateway of one instance. Connects to nothing yet.
    pub fn into_gateway(self, host: Arc<dyn Host>) -> Gateway {
        let store = Arc::new(self.open_store(host.clone()));
        Gateway::new(GatewayParts {
            host,
            limits: store.clone(),
            runners: store.clone(),
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

    fn hasher(&mut self, key_secret: &str) -> Option<ApiKeyHasher> {
        let hasher = key_hasher(key_secret);
        hasher.map_err(|message| self.violation(variables::KEY_SECRET, message)).ok()
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
        ] {
            if let Some(ms) = self.number(name, 10, max_ms) {
                *duration = Duration::from_millis(ms);
            }
        }
        match self.text(v::LIMITS_ON_STORE_FAILURE).as_deref() {
            None => {}
            Some("open") => settings.limits_on_store_failure = OnStoreFailure::FailOpen,
            Some("closed") => settings.limits_on_store_failure = OnStoreFailure::FailClosed,
            Some(_) => self.violation(v::LIMITS_ON_STORE_FAILURE, "it is neither open nor closed"),
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
