//! What a deployment may tune. Every field has a default that suits most.

use std::time::Duration;

use http::HeaderValue;

use crate::{HostList, UpstreamHosts};

#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest request body. 22 MiB: clients inline whole codebases and images (up to 20 MB must pass).
    pub max_body_bytes: usize,
    /// Longest upstream response that is not streamed, and longest upstream error body that is read is 64 KiB.
    pub max_response_bytes: usize,
    /// Room for the bodies of all requests together, and of answers that are not streamed, in an instance that has little
    /// memory; what does not fit is refused with 503 and `Retry-After`. At least `max_body_bytes`, or the longest never
    /// pass. `None`: as much as the permitted requests take.
    pub max_held_bytes: Option<usize>,
    /// Longest single SSE frame of an upstream.
    pub max_frame_bytes: usize,
    /// Silence after which a streaming client gets an SSE comment. Clients and load balancers give up on silence.
    pub keepalive: Duration,
    /// Longest pause within a request body.
    pub body_idle_timeout: Duration,
    /// Longest time for a whole request body.
    pub body_total_timeout: Duration,
    /// Age at which configuration is checked in the background.
    pub config_refresh: Duration,
    /// Age beyond which a request waits (briefly) for the check: the bound on how long a revoked key may live.
    pub config_max_age: Duration,
    /// How often what requests used is added to the store. An instance that vanishes loses what it counted since; some
    /// hosts end what outlives its request by half a minute, so less than that.
    pub usage_flush: Duration,
    /// The hosts of runners' nodes; `None` allows any. What a registry has beside them gets no runs: where nodes prove
    /// themselves by public authorities, this list alone says whose they are.
    pub runner_hosts: Option<HostList>,
    /// The hosts of upstreams. A provider elsewhere is left out, and its credential not read.
    pub upstream_hosts: UpstreamHosts,
    /// How often each provider is checked in the background, about; see
    /// [`check_health`](crate::Gateway::check_health).
    pub health_interval: Duration,
    /// What is read of the body of a request that is refused without a key, so that the client sees the answer. Beyond it
    /// the connection ends.
    pub max_refused_body_bytes: usize,
    pub cors: Cors,
    /// What becomes of requests of limited keys while the store does not answer.
    pub limits_on_store_failure: OnStoreFailure,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_body_bytes: 22 << 20,
            max_response_bytes: 64 << 20,
            max_held_bytes: None,
            max_frame_bytes: 4 << 20,
            keepalive: Duration::from_secs(15),
            body_idle_timeout: Duration::from_secs(30),
            body_total_timeout: Duration::from_secs(600),
            config_refresh: Duration::from_secs(2),
            config_max_age: Duration::from_secs(10),
            usage_flush: Duration::from_secs(15),
            runner_hosts: None,
            upstream_hosts: UpstreamHosts::default(),
            health_interval: Duration::from_secs(60),
            max_refused_body_bytes: 64 << 20,
            cors: Cors::Any,
            limits_on_store_failure: OnStoreFailure::FailOpen,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreFailure {
    /// Each instance holds keys to their limits on its own: at most the limit times the number of instances comes
    /// through. What was used is charged when the store is back.
    FailOpen,
    /// What was not granted before is refused with 503.
    FailClosed,
}

/// Which web pages may call the API. A key is needed all the same, and no cookie is ever used, so `Any` is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cors {
    Any,
    Origins(Vec<HeaderValue>),
    Off,
}
