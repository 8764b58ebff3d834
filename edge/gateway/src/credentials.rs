//! Upstream credentials of providers. What is sealed is opened when the configuration is read, never while a request
//! waits for it, and kept for as long as it is configured: a key management service costs time and money.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use catalog::{
    CredentialRef, LeftOut, MasterKeys, Provider, ProviderId, ProviderSlug, SealContext, SealError,
    SealedSecret, Secret, StoredProvider,
};
use futures_util::StreamExt as _;
use futures_util::future::select;
use futures_util::stream;

use crate::admit::Limits;
use crate::host::{Host, Origin};

/// How long opening may take, whatever has to be opened.
const OPEN_LIMIT: Duration = Duration::from_secs(2);
const OPENED_AT_ONCE: usize = 8;

/// What a provider is called with.
#[derive(Debug, Default)]
pub(crate) struct UpstreamCredentials {
    pub current: Option<Secret>,
    /// The one before, for an overlap after it was rotated.
    pub previous: Option<PreviousSecret>,
}

#[derive(Debug)]
pub(crate) struct PreviousSecret {
    pub secret: Secret,
    /// From then on it is not used, in milliseconds since the Unix epoch by the store's clock.
    pub until_ms: u64,
}

/// Where credentials are read and opened.
pub(crate) struct CredentialSource {
    host: Arc<dyn Host>,
    master_keys: Arc<dyn MasterKeys>,
    limits: Arc<Limits>,
}

/// What stored providers have sealed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct OpenedCredentials(Vec<Opened>);

#[derive(Debug, PartialEq)]
struct Opened {
    slug: ProviderSlug,
    provider: ProviderId,
    /// Of one provider, the same version is the same credential, however it is sealed.
    version: u32,
    sealed: SealedSecret,
    /// Where it was rotated out.
    until_ms: Option<u64>,
    /// There in spite of a failure, if it was opened before it was sealed anew.
    secret: Option<Secret>,
    failure: Option<SealError>,
}

impl CredentialSource {
    pub(crate) fn new(host: Arc<dyn Host>, master_keys: Arc<dyn MasterKeys>, limits: Arc<Limits>) -> Self {
        Self { host, master_keys, limits }
    }

    /// Opens what is sealed. What was opened before is not opened again.
    pub(crate) async fn open(
        &self,
        providers: &[StoredProvider],
        known: &OpenedCredentials,
    ) -> OpenedCredentials {
        let now_ms = self.limits.fleet_ms();
        let mut all: Vec<_> = providers.iter().flat_map(|stored| Opened::sealed_in(stored, now_ms)).collect();
        for one in &mut all {
            one.take_over(known);
        }
        for (index, outcome) in self.open_each(&all).await {
            match outcome {
                Ok(secret) => (all[index].secret, all[index].failure) = (Some(secret), None),
                Err(failure) => all[index].failure = Some(failure),
            }
        }
        for one in all.iter().filter(|one| known.0.iter().all(|known| known != *one)) {
            if let Some(failure) = &one.failure {
                tracing::warn!(provider = %one.slug, version = one.version, reason = %failure, "a sealed credential does not open");
            }
        }
        OpenedCredentials(all)
    }

    async fn open_each(&self, all: &[Opened]) -> Vec<(usize, Result<Secret, SealError>)> {
        let closed = all.iter().enumerate().filter(|(_, one)| one.failure.is_some());
        let each: Vec<_> =
            closed.map(|(index, one)| async move { (index, one.open(&*self.master_keys).await) }).collect();
        let mut outcomes = Vec::with_capacity(each.len());
        if each.is_empty() {
            return outcomes;
        }
        let opening = async {
            let mut opening = stream::iter(each).buffer_unordered(OPENED_AT_ONCE);
            while let Some(outcome) = opening.next().await {
                outcomes.push(outcome);
            }
        };
        select(pin!(opening), self.host.sleep(OPEN_LIMIT)).await;
        outcomes
    }

    /// Whether there is something to open again, or to forget.
    pub(crate) fn is_due(&self, opened: &OpenedCredentials) -> bool {
        let now_ms = self.limits.fleet_ms();
        opened.0.iter().any(|one| one.failure.is_some() || one.until_ms.is_some_and(|until| until <= now_ms))
    }

    /// What a provider is called with; `Err` says why that cannot be had. `stored` is its record, if it has one.
    pub(crate) fn of(
        &self,
        provider: &Provider,
        origin: Origin,
        stored: Option<&StoredProvider>,
        opened: &OpenedCredentials,
    ) -> Result<UpstreamCredentials, String> {
        let read = |reference: &CredentialRef| match reference {
            CredentialRef::Sealed(sealed) => opened.secret(stored, sealed).map(Some),
            other => self.host.credential(other, origin),
        };
        let now_ms = self.limits.fleet_ms();
        let former = stored.and_then(|stored| stored.history.previous.as_ref());
        let former = former.filter(|former| former.until_ms > now_ms);
        let previous = former.and_then(|former| {
            let secret = read(&former.credential).ok()??;
            Some(PreviousSecret { secret, until_ms: former.until_ms })
        });
        let is_sealed = |reference: &CredentialRef| matches!(reference, CredentialRef::Sealed(_));
        match (read(&provider.credential), previous) {
            (Ok(current), previous) => Ok(UpstreamCredentials { current, previous }),
            // As long as it is good, the one before is better than none. When it ends is looked after for sealed ones.
            (Err(_), Some(previous))
                if is_sealed(&provider.credential)
                    && former.is_some_and(|former| is_sealed(&former.credential)) =>
            {
                Ok(UpstreamCredentials { current: Some(previous.secret), previous: None })
            }
            (Err(reason), _) => Err(reason),
        }
    }
}

impl Opened {
    /// Not opened yet.
    fn sealed_in(stored: &StoredProvider, now_ms: u64) -> impl Iterator<Item = Self> {
        let history = &stored.history;
        let current = (&stored.provider.credential, history.credential_version, None);
        let previous = history.previous.as_ref().filter(|previous| previous.until_ms > now_ms);
        let previous =
            previous.map(|previous| (&previous.credential, previous.version, Some(previous.until_ms)));
        [Some(current), previous].into_iter().flatten().filter_map(|(credential, version, until_ms)| {
            let CredentialRef::Sealed(sealed) = credential else { return None };
            Some(Self {
                slug: stored.provider.slug.clone(),
                provider: stored.id.clone(),
                version,
                sealed: sealed.clone(),
                until_ms,
                secret: None,
                failure: Some(SealError::Unavailable(format!("no answer within {OPEN_LIMIT:?}"))),
            })
        })
    }

    fn take_over(&mut self, known: &OpenedCredentials) {
        let is_it = |known: &&Opened| known.provider == self.provider && known.version == self.version;
        let Some(known) = known.0.iter().find(is_it) else { return };
        self.secret.clone_from(&known.secret);
        if known.sealed == self.sealed && known.failure.is_none() {
            self.failure = None;
        }
    }

    async fn open(&self, master_keys: &dyn MasterKeys) -> Result<Secret, SealError> {
        let context = SealContext::credential(&self.provider, StoredProvider::CREDENTIAL_FIELD, self.version);
        self.sealed.open(&context, master_keys).await
    }
}

impl OpenedCredentials {
    /// What does not open, by where it is kept.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = LeftOut> {
        self.0.iter().filter_map(|one| {
            let failure = one.failure.as_ref()?;
            let reason = format!("version {} of its credential does not open: {failure}", one.version);
            Some(LeftOut::new(&format!("CONFIG/PROVIDER#{}", one.slug), &reason))
        })
    }

    /// What is sealed belongs to one record: in another it would not open either.
    fn secret(&self, stored: Option<&StoredProvider>, sealed: &SealedSecret) -> Result<Secret, String> {
        let is_it =
            |one: &&Opened| stored.is_some_and(|stored| one.provider == stored.id) && one.sealed == *sealed;
        let Some(one) = self.0.iter().find(is_it) else {
            return Err("its credential is sealed, and not for a record of this store".to_owned());
        };
        match (&one.secret, &one.failure) {
            (Some(secret), _) => Ok(secret.clone()),
            (None, Some(failure)) => Err(format!("its credential does not open: {failure}")),
            (None, None) => Err("its credential has not been opened yet".to_owned()),
        }
    }
}
