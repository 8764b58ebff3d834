//! `dyad-gateway providers apply`: a file's providers, written into the store.

use std::path::{Path, PathBuf};

use admin_api::provider_body;
use catalog::{CredentialRef, Provider};
use clap::Args;
use serde_json::{Value, json};

use crate::cli::api_client::{Api, ApiArgs, ApiError, Call, MAX_LISTED, Needs};
use crate::cli::{Failure, block_on};
use crate::config;
use crate::output::Output;

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
    pub(super) api: ApiArgs,
}

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
    let output = Output::new(args.api.common.json);
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
    let mut place = args.api.clone();
    if place.store.config.is_none() && !is_stdin {
        place.store.config = Some(args.file.clone());
    }
    block_on(async {
        let api = Api::open(&place, Needs::UpstreamHosts).await?;
        let stored = api.list(Call::get(&["providers"]).query("origin", Some("store")), MAX_LISTED).await?;
        let mut changes = 0;
        let mut say = |slug: &str, action: Action| {
            changes += usize::from(action != Action::Unchanged);
            output.object(&json!({"slug": slug, "action": action.word(), "dry_run": args.dry_run}));
            output.say(format!("{:<9}  {slug}", action.word()));
        };
        write_all(&api, &wanted, &stored, args.dry_run, &mut say).await?;
        let is_wanted = |slug: &str| wanted.iter().any(|provider| provider.slug.as_str() == slug);
        for slug in stored.iter().filter_map(|known| known["slug"].as_str()) {
            if args.prune && !is_wanted(slug) {
                remove(&api, slug, args.dry_run).await?;
                say(slug, Action::Removed);
            }
        }
        output.say(match (changes, args.dry_run) {
            (0, _) => format!("{api} has all of it already."),
            (_, true) => format!("Nothing was written to {api}."),
            (_, false) => "Running gateways serve it within ten seconds.".to_owned(),
        });
        Ok(())
    })?
}

/// Writes them in the order of the file. One that is refused may be right once another of the file is written, as where two
/// change places in the order of a model: it is tried again as long as that gets on.
async fn write_all(
    api: &Api,
    wanted: &[Provider],
    stored: &[Value],
    dry_run: bool,
    say: &mut impl FnMut(&str, Action),
) -> Result<(), Failure> {
    let mut left: Vec<&Provider> = wanted.iter().collect();
    loop {
        let mut refused = Vec::new();
        let mut reasons = Vec::new();
        let before = left.len();
        for provider in left {
            let slug = provider.slug.as_str();
            let known = stored.iter().find(|known| known["slug"] == slug);
            match write(api, provider, known, dry_run).await {
                Ok(action) => say(slug, action),
                Err(ApiError::Refused(refusal)) if !refusal.violations.is_empty() => {
                    let line =
                        |(pointer, message): &(String, String)| format!("{slug}: {pointer}: {message}");
                    reasons.extend(refusal.violations.iter().map(line));
                    refused.push(provider);
                }
                Err(error) => return Err(error.into()),
            }
        }
        match refused.len() {
            0 => return Ok(()),
            // Nothing is removed for the sake of a file that is wrong.
            left if left == before => return Err(Failure::Usage(reasons)),
            _ => left = refused,
        }
    }
}

/// Writes one provider, whatever others do to it meanwhile: this file is what is to be.
async fn write(
    api: &Api,
    provider: &Provider,
    known: Option<&Value>,
    dry_run: bool,
) -> Result<Action, ApiError> {
    let slug = provider.slug.as_str();
    let mut body = provider_body(provider);
    match known {
        Some(known) if is_as_wanted(known, &body, &provider.credential) => return Ok(Action::Unchanged),
        _ if dry_run => return Ok(if known.is_some() { Action::Changed } else { Action::Created }),
        _ => {}
    }
    if let Some(credentials) = credentials(known, &provider.credential) {
        body["credentials"] = credentials;
    }
    if known.is_some() {
        match api.json(Call::put(&["providers", slug], body.clone())).await {
            Err(ApiError::Refused(refusal)) if refusal.code == "not_found" => {}
            answer => return answer.map(|_| Action::Changed),
        }
    }
    match api.json(Call::post(&["providers"], body.clone())).await {
        Err(ApiError::Refused(refusal)) if refusal.code == "already_exists" => {
            api.json(Call::put(&["providers", slug], body)).await.map(|_| Action::Changed)
        }
        answer => answer.map(|_| Action::Created),
    }
}

/// Whether nothing is left to write.
fn is_as_wanted(known: &Value, wanted: &Value, credential: &CredentialRef) -> bool {
    // With their defaults on either side; members that are not there are null.
    let members = ["name", "type", "description", "enabled", "rank", "models", "adapterConfig"];
    members.iter().all(|name| known[name] == wanted[name]) && credentials(Some(known), credential).is_none()
}

/// What is to be written of the credential, if it is to be another one. A file has references alone: where it has none,
/// a sealed one stays.
fn credentials(known: Option<&Value>, wanted: &CredentialRef) -> Option<Value> {
    let known = known.map_or(&Value::Null, |known| &known["credentials"]["apiKey"]);
    let wanted = match wanted {
        CredentialRef::Env(name) => Some(format!("env:{name}")),
        CredentialRef::File(path) => Some(format!("file:{path}")),
        CredentialRef::None | CredentialRef::Sealed(_) | CredentialRef::Inline(_) => None,
    };
    let is_so = match &wanted {
        Some(reference) => known["reference"] == json!(reference),
        None => known["set"] != true || known["source"] == "sealed",
    };
    (!is_so).then(|| json!({"apiKey": wanted}))
}

async fn remove(api: &Api, slug: &str, dry_run: bool) -> Result<(), Failure> {
    if dry_run {
        return Ok(());
    }
    match api.json(Call::delete(&["providers", slug])).await {
        Ok(_) => Ok(()),
        // Gone is gone.
        Err(ApiError::Refused(refusal)) if refusal.code == "not_found" => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_credential_leaves_a_sealed_one() {
        let known = |credential: Value| json!({"credentials": {"apiKey": credential}});
        let sealed = known(json!({"set": true, "source": "sealed", "version": 2}));
        let from_env = known(json!({"set": true, "source": "env", "reference": "env:A"}));
        let none = json!({"credentials": {}});
        let env = |name: &str| CredentialRef::Env(name.to_owned());
        for (known, wanted, written) in [
            (Some(&sealed), CredentialRef::None, None),
            (Some(&sealed), env("A"), Some(json!("env:A"))),
            (Some(&from_env), env("A"), None),
            (Some(&from_env), env("B"), Some(json!("env:B"))),
            (Some(&from_env), CredentialRef::None, Some(Value::Null)),
            (Some(&none), CredentialRef::None, None),
            (None, CredentialRef::None, None),
            (None, CredentialRef::File("a".to_owned()), Some(json!("file:a"))),
        ] {
            let expected = written.map(|api_key| json!({"apiKey": api_key}));
            assert_eq!(credentials(known, &wanted), expected, "{known:?} {wanted:?}");
        }
    }
}
