//! `dyad-gateway providers apply`: a file's providers, written into the store.

use std::path::Path;

use catalog::{
    Action as Done, Provider, ProviderId, ProviderSlug, ProviderStore as _, Store as _, StoreError,
    StoredProvider, Versioned,
};
use serde_json::json;

use super::ApplyArgs;
use crate::cli::{Failure, StoreArgs, block_on};
use crate::config;
use crate::embedded::by;
use crate::output::Output;
use crate::store_location::{OpenedStore, locate_for};

/// How often a provider is looked at again that somebody else changes at the same time.
const TRIES: u32 = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Created,
    Changed,
    Unchanged,
    Removed,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
        }
    }
}

pub(super) fn run(args: &ApplyArgs) -> Result<(), Failure> {
    let output = Output::new(args.common.json);
    let is_stdin = args.file == Path::new("-");
    let wanted = if is_stdin {
        config::read_only_stdin(&["provider"])
    } else {
        config::read_only(&args.file, &["provider"])
    };
    let wanted = wanted.map_err(Failure::Usage)?.providers;
    if wanted.is_empty() && !args.prune {
        return Err(Failure::Usage(vec![format!("{}: there is no [[provider]] in it", args.file.display())]));
    }
    // A file that says where the store is means that store.
    let config = args.store.config.clone().or_else(|| (!is_stdin).then(|| args.file.clone()));
    let store = StoreArgs { config, ..args.store.clone() };
    let location = locate_for(&store, &args.common).map_err(Failure::Usage)?;
    block_on(async {
        let opened = location.open().await?;
        let stored = opened.store.config().await.map_err(|error| opened.error(error))?.providers;
        let say = |slug: &ProviderSlug, action: Action| {
            output.object(&json!({"slug": slug.as_str(), "action": action.word(), "dry_run": args.dry_run}));
            output.say(format!("{:<9}  {slug}", action.word()));
        };
        let mut changes = 0;
        for provider in &wanted {
            let known = stored.iter().find(|known| known.value.provider.slug == provider.slug).cloned();
            let action = write(&opened, provider, known, args.dry_run).await?;
            changes += usize::from(action != Action::Unchanged);
            say(&provider.slug, action);
        }
        let is_wanted = |slug: &ProviderSlug| wanted.iter().any(|provider| provider.slug == *slug);
        for known in stored.into_iter().filter(|known| args.prune && !is_wanted(&known.value.provider.slug)) {
            let slug = known.value.provider.slug.clone();
            remove(&opened, known, args.dry_run).await?;
            changes += 1;
            say(&slug, Action::Removed);
        }
        output.say(match (changes, args.dry_run) {
            (0, _) => format!("{location} has all of it already."),
            (_, true) => format!("Nothing was written to {location}."),
            (_, false) => "Running gateways serve it within ten seconds.".to_owned(),
        });
        Ok(())
    })?
}

/// Writes one provider, whatever others do to it meanwhile: this file is what is to be.
async fn write(
    opened: &OpenedStore,
    provider: &Provider,
    mut known: Option<Versioned<StoredProvider>>,
    dry_run: bool,
) -> Result<Action, Failure> {
    for _ in 0..TRIES {
        let action = match &known {
            Some(known) if known.value.provider == *provider => return Ok(Action::Unchanged),
            Some(_) => Action::Changed,
            None => Action::Created,
        };
        if dry_run {
            return Ok(action);
        }
        let version = known.as_ref().map(|known| known.version);
        let by = by(if known.is_some() { Done::Update } else { Done::Create });
        let record = match known {
            Some(known) => StoredProvider { provider: provider.clone(), ..known.value },
            None => StoredProvider::new(new_id()?, provider.clone(), &by),
        };
        match opened.store.put_provider(&record, version, &by).await {
            Ok(_) => return Ok(action),
            Err(StoreError::Conflict { .. }) => {
                known = opened.store.provider(&provider.slug).await.map_err(|error| opened.error(error))?;
            }
            Err(error) => return Err(opened.error(error).into()),
        }
    }
    Err(contended(&provider.slug))
}

async fn remove(
    opened: &OpenedStore,
    known: Versioned<StoredProvider>,
    dry_run: bool,
) -> Result<(), Failure> {
    let slug = known.value.provider.slug.clone();
    let mut known = Some(known);
    for _ in 0..TRIES {
        // Gone is gone.
        let Some(version) = known.as_ref().map(|known| known.version).filter(|_| !dry_run) else {
            return Ok(());
        };
        match opened.store.delete_provider(&slug, version, &by(Done::Delete)).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Conflict { .. }) => {
                known = opened.store.provider(&slug).await.map_err(|error| opened.error(error))?;
            }
            Err(error) => return Err(opened.error(error).into()),
        }
    }
    Err(contended(&slug))
}

fn new_id() -> Result<ProviderId, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed("the system has no randomness", &error))?;
    Ok(ProviderId::from_random(&bytes))
}

fn contended(slug: &ProviderSlug) -> Failure {
    Failure::Failed(format!("somebody else keeps changing the provider {slug}; nothing is lost, try again"))
}
