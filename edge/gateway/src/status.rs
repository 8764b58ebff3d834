//! How a gateway stands: what readiness, metrics and administrators are told.

use std::time::Duration;

use catalog::LeftOut;
use http::{HeaderValue, StatusCode, header};

use crate::Gateway;
use crate::host::Body;
use crate::pipeline::json_response;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether there is a configuration to serve, perhaps an old one.
    pub is_loaded: bool,
    /// How old the configuration is: the time since its last check that succeeded.
    pub config_age: Option<Duration>,
    /// The class of the store's last error ([`StoreError::code`](catalog::StoreError::code)); `None` while it answers.
    pub store_failure: Option<&'static str>,
    /// The class of the error of the runners' registry, likewise.
    pub registry_failure: Option<&'static str>,
    /// The class of an error of the last ten seconds with which the store did not count a key's limits; `None` while it
    /// counts all.
    pub limits_failure: Option<&'static str>,
    /// How many keys had one.
    pub limits_failing_keys: usize,
    /// The store's API keys were hashed under another secret than this gateway has: none is valid here.
    pub key_secret_differs: bool,
    /// Models that are served.
    pub models: usize,
    /// What the store keeps and this version cannot read: providers and nodes, API keys that were used, and the
    /// counters of their limits.
    pub left_out: Vec<LeftOut>,
}

impl Gateway {
    /// Asks nobody: it is what the last requests and checks found.
    pub fn status(&self) -> Status {
        let (config, nodes) = (&self.0.config, &self.0.nodes);
        let freshness = config.freshness();
        let mut left_out = config.left_out();
        left_out.extend(nodes.left_out());
        let limits = self.0.limits.troubles();
        left_out.extend(limits.unreadable);
        Status {
            is_loaded: freshness.is_loaded(),
            config_age: freshness.age(&*self.0.host),
            store_failure: freshness.failure(),
            registry_failure: nodes.freshness().failure(),
            limits_failure: limits.failure,
            limits_failing_keys: limits.keys,
            key_secret_differs: config.key_secret_differs(),
            models: config.routes().len(),
            left_out,
        }
    }

    /// Ready as long as there is a configuration to serve, even while the store is away or its API keys are not for
    /// this gateway's key secret; the body tells.
    pub(crate) fn ready(&self) -> http::Response<Body> {
        let status = self.status();
        let is_well =
            status.store_failure.is_none() && status.limits_failure.is_none() && !status.key_secret_differs;
        let (code, word) = match (status.is_loaded, is_well) {
            (true, true) => (StatusCode::OK, "ready"),
            (true, false) => (StatusCode::OK, "degraded"),
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        let mut response = json_response(
            code,
            &serde_json::json!({
                "status": word,
                "store": status.store_failure.unwrap_or("ok"),
                "limits": status.limits_failure.unwrap_or("ok"),
                "key_secret": if status.key_secret_differs { "mismatch" } else { "ok" },
                "models": status.models,
                "left_out": status.left_out.len(),
            }),
        );
        if !status.is_loaded {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}
