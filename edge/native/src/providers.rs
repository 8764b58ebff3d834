//! The providers that a start uses besides the stored ones: from the file, the command line and the surroundings.

use std::path::PathBuf;

use catalog::Provider;
use edge_host::variables;
use gateway::Settings;

use crate::admin::{self, Access};
use crate::cli::{CommonArgs, Failure, ProviderArgs, StoreArgs};
use crate::embedded::EmbeddedGateway;
use crate::runners::{RunnerNodes, Runners, RunnersConfig};
use crate::store_location::{self, StoreLocation, variable};
use crate::{config, credential, discovery};

pub(crate) struct Given {
    pub location: StoreLocation,
    pub settings: Settings,
    pub providers: Vec<Provider>,
    pub runners: Option<RunnersConfig>,
    pub credential_dir: Option<PathBuf>,
    pub access: Access,
}

/// Reads all of it and reports everything that is wrong at once.
pub(crate) fn gather(args: &ProviderArgs, store: &StoreArgs, common: &CommonArgs) -> Result<Given, Failure> {
    let mut problems = Vec::new();
    let file = match &store.config {
        None => config::FileConfig::default(),
        Some(path) => config::read(path).unwrap_or_else(|lines| {
            problems.extend(lines);
            config::FileConfig::default()
        }),
    };
    let location = store_location::locate(store, &file.store, common, variable);
    let location = location.map_err(|lines| problems.extend(lines)).ok();
    let settings = edge_host::settings_from_variables(variable, file.settings);
    let settings = settings.map_err(|wrong| problems.extend(wrong.0.iter().map(ToString::to_string))).ok();
    let access = admin::settle(&file.admin, variable);
    let access = access.and_then(|config| config.access().map_err(|line| vec![line]));
    let access = access.map_err(|lines| problems.extend(lines)).ok();
    if let (Some(StoreLocation::DataDir(_)), Some(RunnersConfig { nodes: RunnerNodes::InStore, .. })) =
        (&location, &file.runners)
    {
        problems.push(
            "[runners]: write each node as [[runners.node]] with its url, or name a table in which nodes announce themselves ([store] table)".to_owned(),
        );
    }
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
    let (Some(location), Some(settings), Some(access), true) =
        (location, settings, access, problems.is_empty())
    else {
        return Err(Failure::Usage(problems));
    };
    if !args.no_discovery {
        let found = discovery::vendors().into_iter().chain(discovery::local_servers());
        let new: Vec<_> = found
            .filter(|f| {
                providers.iter().all(|p| p.slug != f.slug && p.adapter.address() != f.adapter.address())
            })
            .collect();
        providers.extend(new);
    }
    let credential_dir = variable(variables::CREDENTIAL_DIR).map(PathBuf::from).or(file.credential_dir);
    Ok(Given { location, settings, providers, runners: file.runners, credential_dir, access })
}

/// A gateway on its store, and who may administer it. `local` is the runner of this machine, if there is one: those of the configuration are one
/// fleet or the other, never both.
pub(crate) async fn open_gateway(
    given: Given,
    local: Option<Runners>,
) -> Result<(EmbeddedGateway, Access), Failure> {
    let Given { location, settings, providers, runners, credential_dir, access } = given;
    let configured = runners.map(Runners::new).transpose();
    let configured = configured.map_err(|error| Failure::failed("the runners cannot be reached", &error))?;
    let runners = configured.or(local);
    let opened =
        EmbeddedGateway::open_with_runners(&location, settings, providers, runners, credential_dir).await?;
    Ok((opened, access))
}

/// Enabled ones of the given providers whose credential cannot be read, and why: slug, reason.
pub(crate) fn without_credential(providers: &[Provider]) -> Vec<(String, String)> {
    let enabled = providers.iter().filter(|provider| provider.enabled);
    enabled
        .filter_map(|provider| {
            let reason = credential::of_given(&provider.credential).err()?;
            Some((provider.slug.as_str().to_owned(), reason))
        })
        .collect()
}
