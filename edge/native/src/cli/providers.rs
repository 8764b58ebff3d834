//! `dyad-gateway providers …`

mod apply;

use std::path::PathBuf;

use catalog::{Action, ProviderSlug, ProviderStore as _, Store as _, StoreError};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{CommonArgs, Failure, ProviderArgs, StoreArgs, block_on};
use crate::discovery;
use crate::embedded::by;
use crate::output::{Output, count};
use crate::providers::{gather, open_gateway};
use crate::store_location::locate_for;

#[derive(Debug, Subcommand)]
pub(crate) enum ProvidersCommand {
    /// List the providers and their models
    List {
        /// List what the store has, and ask no provider for its models
        #[arg(long, conflicts_with = "upstreams")]
        stored: bool,
        #[command(flatten)]
        args: GatheredArgs,
    },
    /// Ask every provider for its models and say which answer
    Check {
        #[command(flatten)]
        args: GatheredArgs,
    },
    /// Write a configuration file's providers into the store, for all that use it; running gateways serve them within
    /// seconds
    #[command(
        after_help = "Examples:\n  dyad-gateway providers apply gateway.toml --dry-run\n  dyad-gateway providers apply gateway.toml --prune --table dyad --region eu-central-1"
    )]
    Apply(ApplyArgs),
    /// Remove a provider from the store
    Remove {
        slug: String,
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
}

/// Of commands that look at all providers that a start would use.
#[derive(Debug, Clone, Args)]
pub(crate) struct GatheredArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    providers: ProviderArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ApplyArgs {
    /// The configuration file with the providers, - for standard input; where the store is too, unless --config names
    /// another
    file: PathBuf,
    /// Remove the stored providers that the file does not have
    #[arg(long)]
    prune: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    common: CommonArgs,
}

impl ProvidersCommand {
    pub(crate) fn common(&self) -> &CommonArgs {
        match self {
            Self::List { args, .. } | Self::Check { args } => &args.common,
            Self::Apply(args) => &args.common,
            Self::Remove { common, .. } => common,
        }
    }
}

pub(crate) fn run(command: &ProvidersCommand) -> Result<(), Failure> {
    match command {
        ProvidersCommand::List { stored: true, args } => list_stored(args),
        ProvidersCommand::List { stored: false, args } => ask(args, true),
        ProvidersCommand::Check { args } => ask(args, false),
        ProvidersCommand::Apply(args) => apply::run(args),
        ProvidersCommand::Remove { slug, store, common } => remove(slug, store, common),
    }
}

/// Asks all providers for their models: to list those, or to say which providers fail.
fn ask(args: &GatheredArgs, lists: bool) -> Result<(), Failure> {
    let output = Output::new(args.common.json);
    let given = gather(&args.providers, &args.store, &args.common)?;
    block_on(async {
        let opened = open_gateway(given, None).await?;
        let gateway = opened.0.gateway();
        let checks = gateway.check_providers().await;
        let models = gateway.models();
        let mut rows = Vec::new();
        let mut failed = 0;
        for check in &checks {
            let slug = check.provider.slug.as_str();
            // What was only looked for, and is not there, is no provider.
            if check.models.is_err() && discovery::is_local_candidate(slug) {
                continue;
            }
            let served: Vec<&str> =
                models.iter().filter(|m| m.provider.as_str() == slug).map(|m| m.id.as_str()).collect();
            let (state, detail) = match &check.models {
                Ok(models) => ("ok", count(*models, "model")),
                Err(reason) => ("failed", reason.clone()),
            };
            failed += usize::from(check.models.is_err());
            output.object(&json!({
                "slug": slug, "name": check.provider.name, "type": check.provider.kind(),
                "base_url": check.provider.adapter.http().map(|config| &config.base_url),
                "enabled": check.provider.enabled, "state": state, "detail": detail, "models": served,
            }));
            let last = if lists && check.models.is_ok() { served.join(", ") } else { detail };
            rows.push(vec![slug.to_owned(), state.to_owned(), check.provider.adapter.address(), last]);
        }
        if rows.is_empty() {
            output.say(
                "There are no providers. Set OPENAI_API_KEY, start Ollama, or give --upstream or --config.",
            );
        }
        output.table(&rows);
        if failed > 0 && !lists {
            return Err(Failure::Failed(format!(
                "{failed} of {} cannot be used",
                count(rows.len(), "provider")
            )));
        }
        Ok(())
    })?
}

fn list_stored(args: &GatheredArgs) -> Result<(), Failure> {
    let output = Output::new(args.common.json);
    let location = locate_for(&args.store, &args.common).map_err(Failure::Usage)?;
    block_on(async {
        let opened = location.open().await?;
        let stored = opened.store.config().await.map_err(|error| opened.error(error))?.providers;
        let mut rows = Vec::new();
        for provider in &stored {
            let (version, provider) = (provider.version, &provider.value.provider);
            let models: Vec<&str> = provider.models.iter().map(|model| model.id.as_str()).collect();
            let shown = if models.is_empty() { "those that it has".to_owned() } else { models.join(", ") };
            let state = if provider.enabled { "enabled" } else { "disabled" };
            output.object(&json!({
                "slug": provider.slug.as_str(), "name": provider.name, "type": provider.kind(), "version": version,
                "base_url": provider.adapter.http().map(|config| &config.base_url), "enabled": provider.enabled,
                "models": models,
            }));
            rows.push(vec![
                provider.slug.as_str().to_owned(),
                state.to_owned(),
                provider.adapter.address(),
                shown,
            ]);
        }
        if rows.is_empty() {
            output.say(format!(
                "There are no providers in {location}; 'dyad-gateway providers apply FILE' writes them."
            ));
        }
        output.table(&rows);
        Ok(())
    })?
}

fn remove(slug: &str, store: &StoreArgs, common: &CommonArgs) -> Result<(), Failure> {
    let output = Output::new(common.json);
    let slug = ProviderSlug::parse(slug).map_err(|error| Failure::Usage(vec![format!("{slug}: {error}")]))?;
    let location = locate_for(store, common).map_err(Failure::Usage)?;
    block_on(async {
        let opened = location.open().await?;
        loop {
            let found = opened.store.provider(&slug).await.map_err(|error| opened.error(error))?;
            let Some(found) = found else {
                return Err(Failure::Failed(format!(
                    "there is no provider {slug} in {location}; 'providers list --stored' shows those there are"
                )));
            };
            match opened.store.delete_provider(&slug, found.version, &by(Action::Delete)).await {
                Ok(()) => break,
                // Somebody changed it in between: look again.
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(opened.error(error).into()),
            }
        }
        output.object(&json!({"slug": slug.as_str(), "action": "removed"}));
        output.say(format!("Removed {slug}. Running gateways serve it no more within ten seconds."));
        Ok(())
    })?
}
