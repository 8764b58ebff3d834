//! The providers that a start uses besides the stored ones: from the file, the command line and the surroundings.

use catalog::Provider;
use gateway::{ProviderCheck, Settings};

use crate::cli::{Failure, ProviderArgs};
use crate::data_dir::DataDir;
use crate::embedded::EmbeddedGateway;
use crate::runners::{Runners, RunnersConfig};
use crate::{config, credential, discovery};

pub(crate) struct Given {
    pub settings: Settings,
    pub providers: Vec<Provider>,
    pub runners: Option<RunnersConfig>,
}

/// Reads all of it and reports everything that is wrong at once.
pub(crate) fn gather(args: &ProviderArgs) -> Result<Given, Failure> {
    let mut problems = Vec::new();
    let file = match &args.config {
        None => config::FileConfig::default(),
        Some(path) => config::read(path).unwrap_or_else(|lines| {
            problems.extend(lines);
            config::FileConfig::default()
        }),
    };
    let mut providers = file.providers;
    for (index, argument) in args.upstreams.iter().enumerate() {
        match discovery::upstream(argument, index) {
            Ok(provider) if providers.iter().any(|other| other.slug == provider.slug) => {
                problems.push(format!(
                    "--upstream (number {}): its slug '{}' is taken by a provider of the file; give that one another",
                    index + 1,
                    provider.slug
                ));
            }
            Ok(provider) => providers.push(provider),
            Err(reasons) => problems
                .extend(reasons.iter().map(|reason| format!("--upstream (number {}): {reason}", index + 1))),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::Usage(problems));
    }
    if !args.no_discovery {
        let found = discovery::vendors().into_iter().chain(discovery::local_servers());
        let new: Vec<_> = found
            .filter(|f| {
                providers.iter().all(|p| p.slug != f.slug && p.adapter.address() != f.adapter.address())
            })
            .collect();
        providers.extend(new);
    }
    Ok(Given { settings: file.settings, providers, runners: file.runners })
}

/// A gateway over the embedded store of the data directory. `runners` besides those of the configuration, which are
/// one fleet or the other, never both.
pub(crate) async fn open_gateway(
    data_dir: &DataDir,
    given: Given,
    local: Option<Runners>,
) -> Result<EmbeddedGateway, Failure> {
    let Given { settings, providers, runners } = given;
    let configured = runners.map(Runners::new).transpose();
    let configured = configured.map_err(|error| Failure::failed("the runners cannot be reached", &error))?;
    let runners = configured.or(local);
    Ok(EmbeddedGateway::open_with_runners(data_dir.path(), settings, providers, runners).await?)
}

/// Why a provider cannot be used, if its check failed: what is wrong with its credential, before all else.
pub(crate) fn reason(check: &ProviderCheck) -> Option<String> {
    let reason = check.models.as_ref().err()?;
    Some(credential::read(&check.provider.credential).err().unwrap_or_else(|| reason.clone()))
}

/// Enabled providers whose credential cannot be read, and why: slug, reason.
pub(crate) fn without_credential(providers: &[Provider]) -> Vec<(String, String)> {
    let enabled = providers.iter().filter(|provider| provider.enabled);
    enabled
        .filter_map(|provider| {
            let reason = credential::read(&provider.credential).err()?;
            Some((provider.slug.as_str().to_owned(), reason))
        })
        .collect()
}
