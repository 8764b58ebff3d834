//! Which targets serve a model: the configuration, compiled for look-ups.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use catalog::{
    ApiKeyRecord, HttpAdapterConfig, Model, Provider, ProviderKind, ProviderSlug, Reach, Secret,
    SpawnCliConfig, UpstreamHosts,
};
use http::{HeaderName, HeaderValue, Uri};
use openai_wire::request::MaxTokensField;
use zeroize::Zeroizing;

use crate::credentials::{PreviousSecret, UpstreamCredentials};
use crate::host::Origin;
use crate::metrics::{Metrics, TargetSeries};

/// A provider, ready to be called.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub slug: ProviderSlug,
    pub kind: ProviderKind,
    pub adapter: Adapter,
    pub timeouts: Timeouts,
}

/// How it is called.
#[derive(Debug)]
pub(crate) enum Adapter {
    OpenAi(Box<OpenAiApi>),
    /// By whichever node runs the CLI.
    SpawnCli(SpawnCliConfig),
}

/// An API of OpenAI's form.
#[derive(Debug)]
pub(crate) struct OpenAiApi {
    pub chat: Uri,
    pub embeddings: Uri,
    pub models: Uri,
    /// Which addresses its host may have.
    pub reach: Reach,
    pub forward_headers: Vec<HeaderName>,
    credential: Option<Credential>,
    /// The one before it, while the two overlap.
    previous: Option<PreviousCredential>,
}

#[derive(Debug)]
struct Credential {
    /// As it is sent.
    header: HeaderValue,
    /// The same again, to keep it out of upstream texts that are passed on.
    secret: Secret,
}

#[derive(Debug)]
struct PreviousCredential {
    credential: Credential,
    /// From then on it is not used, in milliseconds since the Unix epoch by the store's clock.
    until_ms: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub connect: Duration,
    pub first_byte: Duration,
    pub idle: Duration,
    pub total: Duration,
}

/// A provider together with one of its models.
#[derive(Debug)]
pub(crate) struct Target {
    pub upstream: Arc<Upstream>,
    pub model: Model,
    pub learned: Learned,
    pub series: TargetSeries,
}

/// What an upstream turned out not to accept. Learned from its own refusal, so that the next request is right at
/// once; forgotten when its URL or the model behind the name changes.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    drop_reasoning_effort: AtomicBool,
    drop_stream_options: AtomicBool,
    max_tokens_field: AtomicU8,
    reports_usage: AtomicBool,
}

/// One of the things in [`Learned`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lesson {
    DropReasoningEffort,
    DropStreamOptions,
    MaxTokensField(MaxTokensField),
}

impl Target {
    pub(crate) fn is_cli(&self) -> bool {
        matches!(self.upstream.adapter, Adapter::SpawnCli(_))
    }

    fn is_same(&self, other: &Self) -> bool {
        let same_upstream = match (&self.upstream.adapter, &other.upstream.adapter) {
            (Adapter::OpenAi(one), Adapter::OpenAi(other)) => one.chat == other.chat,
            (Adapter::SpawnCli(one), Adapter::SpawnCli(other)) => one.cli == other.cli,
            (Adapter::OpenAi(_), Adapter::SpawnCli(_)) | (Adapter::SpawnCli(_), Adapter::OpenAi(_)) => false,
        };
        same_upstream
            && self.upstream.slug == other.upstream.slug
            && self.model.upstream_id == other.model.upstream_id
    }
}

impl Learned {
    fn take_over(&self, known: &Self) {
        for (own, known) in [
            (&self.drop_reasoning_effort, &known.drop_reasoning_effort),
            (&self.drop_stream_options, &known.drop_stream_options),
            (&self.reports_usage, &known.reports_usage),
        ] {
            own.store(known.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.max_tokens_field.store(known.max_tokens_field.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(crate) fn learn(&self, lesson: Lesson) {
        match lesson {
            Lesson::DropReasoningEffort => self.drop_reasoning_effort.store(true, Ordering::Relaxed),
            Lesson::DropStreamOptions => self.drop_stream_options.store(true, Ordering::Relaxed),
            Lesson::MaxTokensField(MaxTokensField::MaxTokens) => {
                self.max_tokens_field.store(1, Ordering::Relaxed);
            }
            Lesson::MaxTokensField(MaxTokensField::MaxCompletionTokens) => {
                self.max_tokens_field.store(2, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn drop_reasoning_effort(&self) -> bool {
        self.drop_reasoning_effort.load(Ordering::Relaxed)
    }

    pub(crate) fn drop_stream_options(&self) -> bool {
        self.drop_stream_options.load(Ordering::Relaxed)
    }

    /// Whether the last answer carried usage: if so, nothing is estimated ahead for the next.
    pub(crate) fn usage_reported(&self, reported: bool) {
        // Mostly nothing changes, and a write would be felt by all threads.
        if self.is_usage_reported() != reported {
            self.reports_usage.store(reported, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_usage_reported(&self) -> bool {
        self.reports_usage.load(Ordering::Relaxed)
    }

    pub(crate) fn max_tokens_field(&self) -> Option<MaxTokensField> {
        match self.max_tokens_field.load(Ordering::Relaxed) {
            1 => Some(MaxTokensField::MaxTokens),
            2 => Some(MaxTokensField::MaxCompletionTokens),
            _ => None,
        }
    }
}

/// All models of all enabled providers.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    by_name: HashMap<String, Vec<Arc<Target>>>,
    /// One entry per public name, in the order in which they are listed.
    listed: Vec<(String, Arc<Target>)>,
}

impl Routes {
    /// `providers` with the models that each has now (listed or discovered). A model is reachable by its own id, by
    /// all providers that have it in order of rank and slug, and as `<slug>/<id>` by that provider alone.
    pub(crate) fn build(
        mut providers: Vec<(Provider, Origin, Vec<Model>)>,
        upstream: impl Fn(&Provider, Origin) -> Result<Upstream, String>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        providers.retain(|(provider, ..)| provider.enabled);
        providers.sort_by(|(a, ..), (b, ..)| (a.rank, &a.slug).cmp(&(b.rank, &b.slug)));
        let mut routes = Self::default();
        let mut qualified = Vec::new();
        for (provider, origin, models) in providers {
            let upstream = match upstream(&provider, origin) {
                Ok(upstream) => Arc::new(upstream),
                Err(reason) => {
                    tracing::error!(provider = %provider.slug, reason, "the provider cannot be used and is left out");
                    continue;
                }
            };
            for model in models {
                let target = Arc::new(Target {
                    upstream: upstream.clone(),
                    model,
                    learned: Learned::default(),
                    series: TargetSeries::new(metrics.clone()),
                });
                let targets = routes.by_name.entry(target.model.id.clone()).or_default();
                if targets.is_empty() {
                    routes.listed.push((target.model.id.clone(), target.clone()));
                }
                targets.push(target.clone());
                qualified.push((format!("{}/{}", upstream.slug, target.model.id), target));
            }
        }
        // A real id wins over the qualified form of another.
        for (name, target) in qualified {
            routes.by_name.entry(name).or_insert_with(|| vec![target]);
        }
        routes
    }

    /// Ordered targets of a model that this key may use; `None` where there are none.
    pub(crate) fn resolve(&self, name: &str, key: &ApiKeyRecord) -> Option<&[Arc<Target>]> {
        let targets = self.by_name.get(name)?;
        allows(key, name, targets).then_some(targets)
    }

    /// All targets of a model, whoever asks.
    pub(crate) fn targets(&self, name: &str) -> &[Arc<Target>] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The models that a key may use, by the names that it may use for them.
    pub(crate) fn listed<'a>(&'a self, key: &'a ApiKeyRecord) -> impl Iterator<Item = (&'a str, &'a Target)> {
        let own = self.all().filter(|(name, _)| {
            key.allowed_models.as_ref().is_none_or(|allowed| allowed.iter().any(|a| a == name))
        });
        // A key may be limited to a model of one provider: that has a name only if it is qualified.
        let qualified = key.allowed_models.iter().flatten().filter_map(|name| {
            let is_own = self.listed.iter().any(|(own, _)| own == name);
            let targets = self.by_name.get(name).filter(|_| !is_own)?;
            Some((name.as_str(), &**targets.first()?))
        });
        own.chain(qualified)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Target)> {
        self.listed.iter().map(|(name, target)| (name.as_str(), &**target))
    }

    pub(crate) fn len(&self) -> usize {
        self.listed.len()
    }

    /// Carries over what was learned about targets that are still there.
    pub(crate) fn keep_lessons(&self, before: &Self) {
        for (name, targets) in &self.by_name {
            for target in targets {
                let known = before.by_name.get(name).into_iter().flatten().find(|t| target.is_same(t));
                if let Some(known) = known {
                    target.learned.take_over(&known.learned);
                }
            }
        }
    }
}

/// A key that is limited to models may use each under any of its names.
fn allows(key: &ApiKeyRecord, name: &str, targets: &[Arc<Target>]) -> bool {
    key.allowed_models
        .as_ref()
        .is_none_or(|allowed| allowed.iter().any(|a| a == name || targets.iter().all(|t| *a == t.model.id)))
}

impl Upstream {
    /// `Err` says why it cannot be used.
    pub(crate) fn build(
        provider: &Provider,
        origin: Origin,
        hosts: &UpstreamHosts,
        credentials: impl FnOnce() -> Result<UpstreamCredentials, String>,
    ) -> Result<Self, String> {
        let (adapter, timeouts) = match &provider.adapter {
            catalog::Adapter::Proxy(config) | catalog::Adapter::Local(config) => {
                // Before anything is sent there, and before its credential is read.
                let reach = match origin {
                    Origin::Given => hosts.of_given(provider)?,
                    Origin::Stored => hosts.of_stored(provider)?,
                };
                (Adapter::OpenAi(Box::new(OpenAiApi::build(config, reach, credentials)?)), config.timeouts)
            }
            catalog::Adapter::SpawnCli(config) => (Adapter::SpawnCli(config.clone()), config.timeouts),
        };
        let ms = |ms: u32| Duration::from_millis(ms.into());
        Ok(Self {
            slug: provider.slug.clone(),
            kind: provider.kind(),
            adapter,
            timeouts: Timeouts {
                connect: ms(timeouts.connect_ms),
                first_byte: ms(timeouts.first_byte_ms),
                idle: ms(timeouts.idle_ms),
                total: ms(timeouts.total_ms),
            },
        })
    }

    /// All that may be sent to it.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let api = match &self.adapter {
            Adapter::OpenAi(api) => Some(api),
            Adapter::SpawnCli(_) => None,
        };
        let all = api.map(|api| [api.credential.as_ref(), api.previous.as_ref().map(|p| &p.credential)]);
        all.into_iter().flatten().flatten().map(|credential| &credential.secret)
    }

    /// Whether there is a credential before the current one that may still be used at this time.
    pub(crate) fn has_previous_credential(&self, fleet_ms: u64) -> bool {
        match &self.adapter {
            Adapter::OpenAi(api) => {
                api.previous.as_ref().is_some_and(|previous| fleet_ms < previous.until_ms)
            }
            Adapter::SpawnCli(_) => false,
        }
    }
}

impl OpenAiApi {
    /// What it is called with; `previous`: with the credential before, where there is one.
    pub(crate) fn authorization(&self, previous: bool) -> Option<&HeaderValue> {
        let previous = self.previous.as_ref().filter(|_| previous).map(|previous| &previous.credential);
        previous.or(self.credential.as_ref()).map(|credential| &credential.header)
    }

    fn build(
        config: &HttpAdapterConfig,
        reach: Reach,
        credentials: impl FnOnce() -> Result<UpstreamCredentials, String>,
    ) -> Result<Self, String> {
        let base = &config.base_url;
        let uri = |path: &str| format!("{base}{path}").parse::<Uri>();
        let (Ok(chat), Ok(embeddings), Ok(models)) =
            (uri("/chat/completions"), uri("/embeddings"), uri("/models"))
        else {
            return Err("its base URL cannot be used".to_owned());
        };
        let UpstreamCredentials { current, previous } = credentials()?;
        let previous = previous.map(|PreviousSecret { secret, until_ms }| {
            Credential::new(secret).map(|credential| PreviousCredential { credential, until_ms })
        });
        Ok(Self {
            chat,
            embeddings,
            models,
            reach,
            credential: current.map(Credential::new).transpose()?,
            // Without it there is no overlap, and nothing else is wrong.
            previous: previous.and_then(Result::ok),
            forward_headers: config.forward_headers.iter().filter_map(|name| name.parse().ok()).collect(),
        })
    }
}

impl Credential {
    fn new(secret: Secret) -> Result<Self, String> {
        let unfit = || "its credential has characters that no header may hold".to_owned();
        if !secret.expose().is_ascii() {
            return Err(unfit());
        }
        // Zeroised with the last header that shares it.
        let text = Zeroizing::new(["Bearer ", secret.expose()].concat().into_bytes());
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).map_err(|_| unfit())?;
        header.set_sensitive(true);
        Ok(Self { header, secret })
    }
}
