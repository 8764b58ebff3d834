//! Which host of the gateway the suites drive, and what a host that keeps its configuration in a table is started with.

use std::collections::BTreeMap;

use crate::config::{Config, UPSTREAM_CREDENTIAL, UPSTREAM_CREDENTIAL_VARIABLE};

/// A host of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The native binary, with its configuration in a file and its keys in its own store.
    Native,
    /// The native binary, with its configuration and its keys in a `DynamoDB` table.
    Dynamo,
    /// The Cloudflare Worker in workerd, with its configuration and its keys in a `DynamoDB` table.
    Worker,
    /// The Spin component on Wasmtime, with its configuration and its keys in a `DynamoDB` table.
    Spin,
}

impl Host {
    /// The host that nextest's profile names (`.config/nextest.toml`, which also says what of the suites it runs);
    /// the native one under any other profile, and without nextest.
    pub fn under_test() -> Self {
        match std::env::var("NEXTEST_PROFILE").as_deref() {
            Ok("dynamo") => Self::Dynamo,
            Ok("worker") => Self::Worker,
            Ok("spin") => Self::Spin,
            _ => Self::Native,
        }
    }
}

/// The variables of a deployment, secrets included: a Worker's, a Spin component's, the native host's environment.
pub type Variables = BTreeMap<&'static str, String>;

/// What an edge needs to serve with the settings of `config` from `table`, which holds its providers.
pub fn variables(table: &Variables, config: &Config) -> Variables {
    let mut variables = table.clone();
    variables.insert(UPSTREAM_CREDENTIAL_VARIABLE, UPSTREAM_CREDENTIAL.to_owned());
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let settings = [
        ("DYAD_KEEPALIVE_MS", number(Some(config.keepalive_ms))),
        ("DYAD_MAX_BODY_BYTES", number(config.max_body_bytes)),
        ("DYAD_BODY_IDLE_TIMEOUT_MS", number(config.body_idle_timeout_ms)),
        ("DYAD_BODY_TOTAL_TIMEOUT_MS", number(config.body_total_timeout_ms)),
        ("DYAD_PRIVATE_UPSTREAM_HOSTS", Some(config.private_upstream_hosts.join(","))),
        ("DYAD_CORS_ORIGINS", config.cors_origins.as_ref().map(|origins| origins.join(","))),
    ];
    variables.extend(settings.into_iter().filter_map(|(name, value)| Some((name, value?))));
    variables
}
