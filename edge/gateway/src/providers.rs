//! Asking providers what they have, outside of requests: their models, and whether they answer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use catalog::{Capabilities, Failure, Model, Provider, ProviderSlug};
use openai_wire::UpstreamModel;
use runner_api::NodeRecord;

use crate::Gateway;
use crate::adapter::list_models;
use crate::error::{FailureClass, UpstreamFailure};
use crate::host::Origin;
use crate::probe::{explained, unusable};
use crate::routes::{Adapter, Upstream};

/// Models taken from one provider's list.
const MAX_DISCOVERED_MODELS: usize = 5_000;
const MAX_MODEL_ID_BYTES: usize = 256;
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// What a provider's `GET /models` said.
#[derive(Debug)]
pub struct Discovered {
    pub slug: ProviderSlug,
    /// The number of models, or why there are none.
    pub models: Result<usize, String>,
}

/// Whether a provider answers: the number of its models, or what is wrong.
#[derive(Debug)]
pub struct ProviderCheck {
    pub provider: Provider,
    pub models: Result<usize, String>,
}

impl Gateway {
    /// Asks every provider that discovers its models for them. A provider that does not answer keeps those it had.
    pub async fn discover(&self) -> Vec<Discovered> {
        let asked = self.0.config.discovering().into_iter().map(|(provider, origin)| async move {
            let models = self.discover_one(&provider, origin).await;
            Discovered { slug: provider.slug, models }
        });
        futures_util::future::join_all(asked).await
    }

    async fn discover_one(&self, provider: &Provider, origin: Origin) -> Result<usize, String> {
        let upstream = self.upstream_in_haste(provider, origin)?;
        let models = self.list(&upstream).await.map_err(|failure| failure.message.into_owned())?;
        let count = models.len();
        self.0.config.set_discovered(provider.slug.clone(), models);
        Ok(count)
    }

    /// The models that an upstream lists.
    pub(crate) async fn list(&self, upstream: &Upstream) -> Result<Vec<Model>, UpstreamFailure> {
        let Adapter::OpenAi(api) = &upstream.adapter else {
            return Err(UpstreamFailure::unavailable("Runners are not asked for models."));
        };
        let listed = list_models(upstream, api, &*self.0.host).await?;
        let mut models: Vec<Model> =
            listed.data.into_iter().take(MAX_DISCOVERED_MODELS).filter_map(discovered_model).collect();
        let mut seen = HashSet::new();
        models.retain(|model| seen.insert(model.id.clone()));
        Ok(models)
    }

    /// Asks every provider for its models, whether it lists them or not: does it answer?
    pub async fn check_providers(&self) -> Vec<ProviderCheck> {
        let asked = self.0.config.enabled().into_iter().map(|(provider, origin)| async move {
            let models = if provider.adapter.discovers_models() {
                self.discover_one(&provider, origin).await
            } else {
                self.reach(&provider, origin).await.map_err(|failure| failure.message)
            };
            ProviderCheck { provider, models }
        });
        futures_util::future::join_all(asked).await
    }

    /// Whether an upstream answers and takes our credential: the number of its models. Not all that serve chats also list
    /// models.
    pub(crate) async fn reach(&self, provider: &Provider, origin: Origin) -> Result<usize, Failure> {
        let upstream = self.upstream_in_haste(provider, origin).map_err(|reason| unusable(&reason))?;
        let reached = match &upstream.adapter {
            Adapter::SpawnCli(config) => self.offered(&config.cli).await.map(|()| provider.models.len()),
            Adapter::OpenAi(_) => match self.list(&upstream).await {
                Ok(listed) if provider.adapter.discovers_models() => Ok(listed.len()),
                Ok(_) => Ok(provider.models.len()),
                Err(failure)
                    if matches!(failure.class, FailureClass::NotFound | FailureClass::InvalidRequest) =>
                {
                    Ok(provider.models.len())
                }
                Err(failure) => Err(failure),
            },
        };
        reached.map_err(|failure| explained(failure, provider.kind()))
    }

    /// Nobody waits minutes for a list.
    fn upstream_in_haste(&self, provider: &Provider, origin: Origin) -> Result<Upstream, String> {
        let mut upstream = self.0.config.upstream(provider, origin)?;
        upstream.timeouts.first_byte = upstream.timeouts.first_byte.min(LIST_TIMEOUT);
        upstream.timeouts.idle = upstream.timeouts.idle.min(LIST_TIMEOUT);
        Ok(upstream)
    }

    /// Whether a node that is up has the CLI.
    async fn offered(&self, cli: &str) -> Result<(), UpstreamFailure> {
        let failed = |message: String| UpstreamFailure::new(FailureClass::Unavailable, message);
        self.0
            .nodes
            .refresh()
            .await
            .map_err(|error| failed(format!("The runners are not known: {error}.")))?;
        let has_cli = |node: &Arc<NodeRecord>| node.clis.iter().any(|info| info.name == cli);
        if self.0.nodes.up().iter().any(has_cli) {
            Ok(())
        } else {
            Err(failed(format!("No runner that is up has the CLI '{cli}'.")))
        }
    }
}

fn discovered_model(listed: UpstreamModel) -> Option<Model> {
    let id = listed.id;
    let sane = !id.is_empty()
        && id.len() <= MAX_MODEL_ID_BYTES
        && !id.chars().any(char::is_control)
        && id.trim() == id;
    sane.then(|| Model {
        upstream_id: id.clone(),
        id,
        max_tokens: None,
        context_window: None,
        capabilities: Capabilities::default(),
        created: listed.created.unwrap_or(0),
        owned_by: listed.owned_by,
    })
}
