//! The providers that a start uses besides the stored ones: from the file, the command line and the surroundings.

use std::sync::Arc;

use catalog::Provider;
use gateway::{Gateway, GatewayParts, Settings, WholeWindow};

use crate::cli::{Failure, ProviderArgs};
use crate::data_dir::DataDir;
use crate::host::NativeHost;
use crate::{config, discovery};

pub(crate) struct Given {
    pub settings: Settings,
    pub providers: Vec<Provider>,
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
            Ok(provider) => providers.push(provider),
            Err(lines) => problems
                .extend(lines.lines().map(|line| format!("--upstream (number {}): {line}", index + 1))),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::Usage(problems));
    }
    if !args.no_discovery {
        let found = discovery::vendors().into_iter().chain(discovery::local_servers());
        let new: Vec<_> = found
            .filter(|f| {
                providers.iter().all(|p| p.slug != f.slug && p.adapter.base_url != f.adapter.base_url)
            })
            .collect();
        providers.extend(new);
    }
    Ok(Given { settings: file.settings, providers })
}

/// A gateway over the embedded store of the data directory.
pub(crate) async fn open_gateway(data_dir: &DataDir, given: Given) -> Result<Gateway, Failure> {
    let store = crate::cli::open_store(data_dir).await?;
    let hasher =
        data_dir.hasher().map_err(|error| Failure::failed("the secret for hashing API keys", error))?;
    let host =
        NativeHost::new().map_err(|error| Failure::failed("TLS for upstreams cannot be set up", error))?;
    let gateway = Gateway::new(GatewayParts {
        host: Arc::new(host),
        store: Arc::new(store),
        hasher,
        leases: Arc::new(WholeWindow),
        settings: given.settings,
    });
    gateway.set_providers(given.providers);
    gateway
        .load()
        .await
        .map_err(|error| Failure::failed("the configuration cannot be read from the store", error))?;
    Ok(gateway)
}
