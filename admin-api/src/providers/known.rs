//! All providers and what is known of them, read once for a request; and the rules that look at more than one of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use catalog::{
    Adapter, CredentialRef, Health, LeftOut, Provider, ProviderId, ProviderSlug, ProviderStatus,
    StoredProvider, Versioned,
};
use url::Url;

use super::parse::{Written, WrittenCredential};
use super::view::{Found, ProviderView};
use crate::engine::Engine;
use crate::error::{AdminError, Detail};
use crate::service::Admin;

/// Of models that are served elsewhere too, this many are named.
const NAMED_MODELS: usize = 5;

pub(crate) struct Known {
    /// By slug.
    pub(crate) stored: Vec<Versioned<StoredProvider>>,
    unreadable: Vec<LeftOut>,
    /// A stored one of the same slug hides one of these.
    given: Vec<Provider>,
    statuses: HashMap<ProviderId, ProviderStatus>,
    health: HashMap<ProviderSlug, Health>,
    /// What nodes that are up offer; `Err` says why it is not known.
    clis: Result<HashSet<String>, String>,
    engine: Arc<dyn Engine>,
    now_ms: u64,
}

/// A provider, wherever it comes from.
#[derive(Clone, Copy)]
pub(crate) enum OneOf<'a> {
    Stored(&'a Versioned<StoredProvider>),
    Given(&'a Provider),
}

impl OneOf<'_> {
    pub(crate) fn provider(&self) -> &Provider {
        match self {
            Self::Stored(stored) => &stored.value.provider,
            Self::Given(provider) => provider,
        }
    }
}

impl Known {
    pub(crate) async fn read(admin: &Admin) -> Result<Self, AdminError> {
        let engine = &admin.parts.engine;
        let snapshot = admin.parts.store.config().await?;
        for left_out in &snapshot.left_out {
            tracing::warn!(name = left_out.name, reason = left_out.reason, "a record cannot be read");
        }
        let statuses = admin.parts.store.statuses().await?.into_iter().collect();
        Ok(Self {
            stored: snapshot.providers,
            unreadable: snapshot.left_out,
            given: engine.given(),
            statuses,
            health: engine.health().into_iter().collect(),
            clis: offered_clis(admin).await,
            engine: engine.clone(),
            now_ms: admin.now_ms(),
        })
    }

    /// By id or slug.
    pub(crate) fn find(&self, name: &str) -> Result<OneOf<'_>, AdminError> {
        self.check_readable(name)?;
        let mut stored = self.stored.iter();
        let is_named = |other: &&Versioned<StoredProvider>| {
            other.value.id.as_str() == name || other.value.provider.slug.as_str() == name
        };
        if let Some(found) = stored.find(is_named) {
            return Ok(OneOf::Stored(found));
        }
        let given = self.given.iter().find(|provider| provider.slug.as_str() == name);
        given.map(OneOf::Given).ok_or_else(|| {
            // A name may be anything of any length.
            let name: String = name.chars().take(64).collect();
            AdminError::NotFound(format!("provider {name:?}"))
        })
    }

    /// A record that cannot be read is there all the same, and in nobody's way but its own.
    pub(crate) fn check_readable(&self, slug: &str) -> Result<(), AdminError> {
        let is_it =
            |left_out: &&LeftOut| left_out.name.rsplit_once('#').is_some_and(|(_, name)| name == slug);
        self.unreadable.iter().find(is_it).map_or(Ok(()), |left_out| {
            let reason = &left_out.reason;
            Err(AdminError::ReadOnly(format!(
                "the provider {slug} is in the store and cannot be read by this version: {reason}"
            )))
        })
    }

    /// One that can be changed here, by id or slug.
    pub(crate) fn find_stored(&self, name: &str) -> Result<&Versioned<StoredProvider>, AdminError> {
        match self.find(name)? {
            OneOf::Stored(stored) => Ok(stored),
            OneOf::Given(provider) => Err(AdminError::ReadOnly(format!(
                "the provider {} is not in the store: it was given on the command line, in a file or by the \
                 surroundings, and is changed there",
                provider.slug
            ))),
        }
    }

    /// All of them, by slug.
    pub(crate) fn all(&self) -> Vec<ProviderView> {
        let stored = self.stored.iter().map(|stored| self.show(OneOf::Stored(stored)));
        let given = self.given.iter().filter(|given| !self.has_stored(&given.slug));
        let given = given.map(|given| self.show(OneOf::Given(given)));
        let mut all: Vec<_> = stored.chain(given).collect();
        all.sort_by(|one, other| one.slug.cmp(&other.slug));
        all
    }

    pub(crate) fn has_stored(&self, slug: &ProviderSlug) -> bool {
        self.stored.iter().any(|stored| stored.value.provider.slug == *slug)
    }

    pub(crate) fn show(&self, one: OneOf<'_>) -> ProviderView {
        match one {
            OneOf::Stored(stored) => {
                let health = self.health.get(&stored.value.provider.slug).cloned();
                let status = self.status(&stored.value.id);
                let warnings = self.warnings(&stored.value.provider, Some(&stored.value.id));
                ProviderView::stored(stored, Found { health, status, warnings }, self.now_ms)
            }
            OneOf::Given(provider) => {
                let health = self.health.get(&provider.slug).cloned();
                let warnings = self.warnings(provider, None);
                let status = ProviderStatus::default();
                ProviderView::given(provider, Found { health, status, warnings })
            }
        }
    }

    /// What was found out since it was read.
    pub(crate) fn note_status(&mut self, id: &ProviderId, status: ProviderStatus) {
        self.statuses.insert(id.clone(), status);
    }

    pub(crate) fn status(&self, id: &ProviderId) -> ProviderStatus {
        self.statuses.get(id).cloned().unwrap_or_default()
    }

    /// What a provider must not be beside the others, and in this deployment. `before` is what it was.
    pub(crate) fn check(
        &self,
        admin: &Admin,
        written: &Written,
        before: Option<&StoredProvider>,
    ) -> Result<(), AdminError> {
        let provider = &written.provider;
        let mut details = Vec::new();
        if let Some(before) = before {
            if provider.slug != before.provider.slug {
                let message = format!("cannot be changed: it is {}", before.provider.slug);
                details.push(Detail::new("/slug", message));
            }
            if provider.kind() != before.provider.kind() {
                details.push(Detail::new("/type", "cannot be changed: delete the provider and make another"));
            }
            if written.credential == WrittenCredential::Unsaid
                && has_sealed_credential(before)
                && origin(provider) != origin(&before.provider)
            {
                // Or whoever may write here could send a key that they cannot read to a host of their own.
                let message = "give the credential again: it is not sent to another scheme, host or port than it was given for";
                details.push(Detail::new("/credentials", message));
            }
        }
        // One that leads where nothing may lead any more can still be taken out.
        let is_taken_out =
            !provider.enabled && before.is_some_and(|before| before.provider.adapter == provider.adapter);
        if !is_taken_out && let Err(refused) = admin.parts.upstream_hosts.of_stored(provider) {
            details.push(Detail::new("/adapterConfig/baseUrl", refused));
        }
        if let Some(message) = self.rank_conflict(provider, before.map(|before| &before.id)) {
            details.push(Detail::new("/rank", message));
        }
        if details.is_empty() { Ok(()) } else { Err(AdminError::Invalid(details)) }
    }

    /// Two that are enabled and have the same model need an order.
    fn rank_conflict(&self, provider: &Provider, id: Option<&ProviderId>) -> Option<String> {
        if !provider.enabled {
            return None;
        }
        let models: HashSet<&str> = provider.models.iter().map(|model| model.id.as_str()).collect();
        self.others(id).filter(|other| other.enabled && other.rank == provider.rank).find_map(|other| {
            let shared = other.models.iter().find(|model| models.contains(model.id.as_str()))?;
            Some(format!(
                "the enabled provider {} has the model {:?} at the same rank {}: give one of them a lower rank, which comes first",
                other.slug, shared.id, other.rank
            ))
        })
    }

    fn others(&self, id: Option<&ProviderId>) -> impl Iterator<Item = &Provider> {
        let others = self.stored.iter().filter(move |other| Some(&other.value.id) != id);
        others.map(|other| &other.value.provider)
    }

    /// What may not be meant so, of a provider that has this id if it is stored.
    pub(crate) fn warnings(&self, provider: &Provider, id: Option<&ProviderId>) -> Vec<String> {
        let mut warnings = Vec::new();
        // Of a given one that would be somebody else's business.
        if let Some(reason) = id.and_then(|_| self.engine.unreadable(&provider.credential)) {
            warnings.push(format!(
                "its credential cannot be read here: {reason}; where another host serves, it must be there"
            ));
        }
        if id.is_some() && self.given.iter().any(|given| given.slug == provider.slug) {
            warnings.push(
                "it takes the place of the provider of this slug that was given on the command line, in a file or by the surroundings"
                    .to_owned(),
            );
        }
        if let Adapter::SpawnCli(config) = &provider.adapter {
            match &self.clis {
                Ok(clis) if !clis.contains(&config.cli) => {
                    warnings.push(format!("no runner that is up now offers the CLI {}", config.cli));
                }
                Err(reason) => {
                    warnings.push(format!("it is not known whether a runner offers its CLI: {reason}"));
                }
                Ok(_) => {}
            }
        }
        if provider.enabled {
            let given = self.given.iter().filter(|given| !self.has_stored(&given.slug));
            let mut first: HashMap<&str, &Provider> = HashMap::new();
            for other in self.others(id).filter(|other| other.slug != provider.slug).chain(given) {
                if other.enabled && other.rank < provider.rank {
                    for model in &other.models {
                        first.entry(&model.id).or_insert(other);
                    }
                }
            }
            let behind =
                provider.models.iter().filter_map(|model| Some((&model.id, first.get(model.id.as_str())?)));
            for (model, other) in behind.take(NAMED_MODELS) {
                warnings.push(format!(
                    "the model {model:?} is asked of {} first, which has the lower rank {}",
                    other.slug, other.rank
                ));
            }
        }
        warnings
    }
}

/// What nodes that are up offer.
async fn offered_clis(admin: &Admin) -> Result<HashSet<String>, String> {
    let runners = admin.parts.engine.runners().await?;
    Ok(runners.into_iter().filter(|runner| runner.up).flat_map(|runner| runner.clis).collect())
}

fn has_sealed_credential(stored: &StoredProvider) -> bool {
    let previous = stored.history.previous.iter().map(|previous| &previous.credential);
    std::iter::once(&stored.provider.credential)
        .chain(previous)
        .any(|credential| matches!(credential, CredentialRef::Sealed(_)))
}

/// Scheme, host and port: what a credential is sent to.
fn origin(provider: &Provider) -> Option<url::Origin> {
    let config = provider.adapter.http()?;
    Url::parse(&config.base_url).ok().map(|url| url.origin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_read_is_not_taken_for_absent() {
        let known = Known {
            stored: Vec::new(),
            unreadable: vec![LeftOut::new("CONFIG/PROVIDER#vendor", "it has schema version 9")],
            given: Vec::new(),
            statuses: HashMap::new(),
            health: HashMap::new(),
            clis: Ok(HashSet::new()),
            engine: Arc::new(crate::testing::FakeEngine::default()),
            now_ms: 0,
        };
        for refused in [known.find("vendor").err(), known.check_readable("vendor").err()] {
            let Some(AdminError::ReadOnly(message)) = refused else { panic!("{refused:?}") };
            assert!(message.contains("schema version 9"), "{message}");
        }
        assert!(matches!(known.find("vend").err(), Some(AdminError::NotFound(_))));
        assert!(known.check_readable("vend").is_ok());
    }
}
