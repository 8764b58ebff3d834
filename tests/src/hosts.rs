//! Which host of the gateway the suites drive, and what a host that keeps its configuration in a table is started with.

use std::collections::BTreeMap;

/// A host of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The native binary, with its configuration in a file and its keys in its own store.
    Native,
    /// The native binary, with its configuration and its keys in a `DynamoDB` table.
    Dynamo,
}

impl Host {
    /// The host that nextest's profile names (`.config/nextest.toml`, which also says what of the suites it runs);
    /// the native one under any other profile, and without nextest.
    pub fn under_test() -> Self {
        match std::env::var("NEXTEST_PROFILE").as_deref() {
            Ok("dynamo") => Self::Dynamo,
            _ => Self::Native,
        }
    }
}

/// The variables of a deployment, secrets included: a Worker's, a Spin component's, the native host's environment.
pub type Variables = BTreeMap<&'static str, String>;
