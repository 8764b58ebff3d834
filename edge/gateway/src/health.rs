//! How providers stand: each is checked in the background in its own time, at no cost in tokens.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::{Adapter, CredentialRef, Failure, Health, HealthState, Provider, ProviderSlug};
use futures_util::StreamExt as _;
use futures_util::stream;

use crate::Gateway;
use crate::host::{Host, Origin};

/// Checks that run at once.
const MAX_CHECKS: usize = 4;
/// Failures in a row after which a provider is down.
const FAILURES_TO_BE_DOWN: u32 = 3;
/// The longest time between two checks of one that is down.
const MAX_INTERVAL: Duration = Duration::from_secs(300);
/// How often the configuration is looked at meanwhile: a new provider is checked within twice that.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// What the checks found, by provider.
#[derive(Default)]
pub(crate) struct HealthChecks(Mutex<BTreeMap<ProviderSlug, Watched>>);

struct Watched {
    /// What was checked: whoever has another one under the same slug knows nothing of it yet.
    adapter: Adapter,
    credential: CredentialRef,
    origin: Origin,
    health: Health,
    /// In a row.
    failures: u32,
    /// On the monotonic clock.
    due: Duration,
}

impl Gateway {
    /// Checks the enabled providers whose time has come, four at a time, each within 30 seconds: whether they can be
    /// reached and take their credential, or, for a CLI, whether a runner that is up has it. Gives how long to wait until
    /// the next call, which whoever hosts the gateway makes over and over.
    ///
    /// A provider's turn comes every [`Settings::health_interval`](crate::Settings::health_interval), give or take a
    /// fifth, so that no two keep step; one that is down is asked less and less often, at least every five minutes.
    pub async fn check_health(&self) -> Duration {
        // Nobody else may look after the configuration of a gateway that serves nobody.
        self.0.config.ensure_fresh().await;
        let due = self.0.health.take_due(self.0.config.enabled(), &*self.0.host);
        let checks = stream::iter(due).for_each_concurrent(MAX_CHECKS, |due| async move {
            let outcome = self.check_of(&due.0, due.1).await.outcome.map(|_| ());
            self.0.health.learn(&due, outcome, self.0.settings.health_interval, &*self.0.host);
        });
        checks.await;
        self.0.health.wait(self.0.host.monotonic())
    }

    /// What [`check_health`](Self::check_health) has found out about each enabled provider.
    pub fn health(&self) -> Vec<(ProviderSlug, Health)> {
        let watched = self.0.health.watched();
        watched.iter().map(|(slug, watched)| (slug.clone(), watched.health.clone())).collect()
    }
}

impl HealthChecks {
    fn watched(&self) -> MutexGuard<'_, BTreeMap<ProviderSlug, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those among the providers that are to be checked now. What is known of others is forgotten.
    fn take_due(&self, mut providers: Vec<(Provider, Origin)>, host: &dyn Host) -> Vec<(Provider, Origin)> {
        let now = host.monotonic();
        let mut watched = self.watched();
        let mut before = std::mem::take(&mut *watched);
        providers.retain(|(provider, origin)| {
            let known = before.remove(&provider.slug).filter(|known| known.is_of(provider, *origin));
            let known = known.unwrap_or_else(|| Watched::new(provider, *origin, now));
            let is_due = known.due <= now;
            watched.insert(provider.slug.clone(), known);
            is_due
        });
        providers
    }

    fn learn(
        &self,
        (provider, origin): &(Provider, Origin),
        outcome: Result<(), Failure>,
        interval: Duration,
        host: &dyn Host,
    ) {
        let mut random = [0];
        host.fill_random(&mut random);
        let mut watched = self.watched();
        let Some(known) = watched.get_mut(&provider.slug).filter(|known| known.is_of(provider, *origin))
        else {
            return;
        };
        let before = known.health.state;
        known.learn(outcome, host.unix_ms());
        known.due = host.monotonic() + known.interval(interval, random[0]);
        let health = &known.health;
        if health.state == before {
            return;
        }
        let (provider, state) = (provider.slug.as_str(), health.state.as_str());
        match &health.failure {
            None => tracing::info!(provider, state, "a provider answers its health checks"),
            Some(failure) => {
                tracing::warn!(provider, state, class = failure.class, "a provider failed its health check");
            }
        }
    }

    /// Until the next one is due, or the configuration may have changed.
    fn wait(&self, now: Duration) -> Duration {
        let next = self.watched().values().map(|watched| watched.due.saturating_sub(now)).min();
        next.unwrap_or(MAX_WAIT).min(MAX_WAIT)
    }
}

impl Watched {
    fn new(provider: &Provider, origin: Origin, now: Duration) -> Self {
        Self {
            adapter: provider.adapter.clone(),
            credential: provider.credential.clone(),
            origin,
            health: Health::default(),
            failures: 0,
            due: now,
        }
    }

    fn is_of(&self, provider: &Provider, origin: Origin) -> bool {
        self.origin == origin && self.adapter == provider.adapter && self.credential == provider.credential
    }

    fn learn(&mut self, outcome: Result<(), Failure>, now_ms: u64) {
        let failure = outcome.err();
        self.failures = if failure.is_some() { self.failures.saturating_add(1) } else { 0 };
        let state = match self.failures {
            0 => HealthState::Healthy,
            1..FAILURES_TO_BE_DOWN => HealthState::Degraded,
            FAILURES_TO_BE_DOWN.. => HealthState::Down,
        };
        if self.health.state != state {
            self.health.state = state;
            self.health.since_ms = Some(now_ms);
        }
        self.health.checked_at_ms = Some(now_ms);
        self.health.failure = failure;
    }

    /// Until the next check: twice as long with each further failure of one that is down, give or take a fifth.
    fn interval(&self, usual: Duration, random: u8) -> Duration {
        let doublings = (self.failures + 1).saturating_sub(FAILURES_TO_BE_DOWN).min(16);
        let interval = usual.saturating_mul(1 << doublings).min(MAX_INTERVAL.max(usual));
        interval * 4 / 5 + interval * 2 / 5 * u32::from(random) / 255
    }
}
