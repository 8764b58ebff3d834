//! `dyad-gateway providers edit`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::{Map, Value};

use super::add::{show_dry_run, test_after};
use super::{NameArg, warn};
use crate::cli::api_client::{Api, ApiArgs, Call, Needs};
use crate::cli::values::read_json;
use crate::cli::{Failure, block_on};
use crate::output::Output;

/// Members that the API shows and does not take.
const READ_ONLY: [&str; 9] =
    ["id", "origin", "createdBy", "createdAt", "updatedAt", "version", "health", "lastTest", "warnings"];

#[derive(Debug, Clone, Args)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    name: NameArg,
    /// A file that has the whole provider as JSON; - for standard input
    #[arg(conflicts_with = "set")]
    file: Option<PathBuf>,
    /// Set a member: its path with dots, and a value as JSON, or as text; null for what holds without it. May be repeated
    #[arg(long, value_name = "PATH=VALUE", value_parser = assignment)]
    set: Vec<(String, Value)>,
    /// Say whether it would do and can be reached, and write nothing
    #[arg(long, conflicts_with = "test")]
    dry_run: bool,
    /// Send it a tiny chat afterwards, which costs a few tokens
    #[arg(long)]
    test: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

pub(super) fn run(args: &EditArgs) -> Result<(), Failure> {
    let output = Output::new(args.api.common.json);
    let name = args.name.get()?;
    block_on(async {
        let needs = if args.dry_run || args.test { Needs::Gateway } else { Needs::UpstreamHosts };
        let api = Api::open(&args.api, needs).await?;
        let path = ["providers", name];
        let mut draft = None;
        let call = if !args.set.is_empty() {
            Call::patch(&path, merged(&args.set)?)
        } else if let Some(file) = &args.file {
            let provider = read_json(file)?;
            let etag = provider["version"].as_u64().map(|version| format!("\"{version}\""));
            Call::put(&path, writable(provider)).if_match(etag)
        } else {
            let known = api.versioned(Call::get(&path)).await;
            let (provider, etag) = known.map_err(|error| args.name.failure(error, &api))?;
            let draft = draft.insert(Draft::new(&writable_without_credentials(provider))?);
            let Some(edited) = draft.edit()? else {
                output.say("Nothing was changed.");
                return Ok(());
            };
            Call::put(&path, edited).if_match(etag)
        };
        let call = call.query("dryRun", args.dry_run.then_some("true"));
        let answer = api.json(call).await.map_err(|error| {
            let failure = args.name.failure(error, &api);
            match draft.take() {
                Some(draft) => draft.keep(failure),
                None => failure,
            }
        })?;
        if args.dry_run {
            return show_dry_run(&answer, output);
        }
        output.object(&answer);
        output.say(format!("Changed {name}. Running gateways go by it within ten seconds."));
        warn(&answer, output);
        if args.test { test_after(&api, name, output).await } else { Ok(()) }
    })?
}

/// What the API takes of what it shows, so that this can be edited and given back.
pub(super) fn writable(mut provider: Value) -> Value {
    if let Value::Object(members) = &mut provider {
        members.retain(|name, _| !READ_ONLY.contains(&name.as_str()));
        // How a credential stands is shown in the place where one is written.
        let is_shown = |credentials: &Value| {
            credentials.as_object().is_some_and(|members| members.values().all(Value::is_object))
        };
        if members.get("credentials").is_some_and(is_shown) {
            members.remove("credentials");
        }
    }
    provider
}

fn writable_without_credentials(provider: Value) -> Value {
    let mut provider = writable(provider);
    if let Value::Object(members) = &mut provider {
        members.remove("credentials");
    }
    provider
}

/// `PATH=VALUE`.
fn assignment(text: &str) -> Result<(String, Value), String> {
    let (path, value) = text.split_once('=').ok_or_else(|| "write PATH=VALUE, such as rank=5".to_owned())?;
    if path.is_empty() || path.split('.').any(str::is_empty) {
        return Err("write the path with a dot between its names, such as adapterConfig.baseUrl".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((path.to_owned(), value))
}

/// The assignments as one merge patch.
fn merged(assignments: &[(String, Value)]) -> Result<Value, Failure> {
    let wrong = |path: &str, reason: &str| Failure::Usage(vec![format!("--set {path}: {reason}")]);
    let mut patch = Map::new();
    for (path, value) in assignments {
        if path.split('.').next() == Some("credentials") {
            let reason =
                "others on this machine can see a command line; 'providers rotate' takes a credential";
            return Err(wrong(path, reason));
        }
        let (parents, last) =
            path.rsplit_once('.').map_or((None, path.as_str()), |(parents, last)| (Some(parents), last));
        let mut object = &mut patch;
        for name in parents.into_iter().flat_map(|parents| parents.split('.')) {
            let member = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
            object =
                member.as_object_mut().ok_or_else(|| wrong(path, "a part of it is set to something else"))?;
        }
        if object.insert(last.to_owned(), value.clone()).is_some() {
            return Err(wrong(path, "it is set twice"));
        }
    }
    Ok(patch.into())
}

/// A provider in a file, for an editor.
struct Draft {
    file: tempfile::NamedTempFile,
    text: String,
}

impl Draft {
    fn new(provider: &Value) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::failed("there is no place for a file to edit", &error);
        let text = format!("{provider:#}\n");
        // For its owner only, as tempfile makes it.
        let mut file =
            tempfile::Builder::new().prefix("provider-").suffix(".json").tempfile().map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(Self { file, text })
    }

    /// What it is after the editor has ended; `None` if it is as it was.
    fn edit(&mut self) -> Result<Option<Value>, Failure> {
        let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok());
        let editor = editor.filter(|editor| !editor.trim().is_empty());
        if editor.is_none() && !std::io::stdin().is_terminal() {
            return Err(Failure::Usage(vec![
                "there is no terminal for an editor: give --set PATH=VALUE or a file, or name a program in EDITOR".to_owned(),
            ]));
        }
        let editor = editor.unwrap_or_else(|| "vi".to_owned());
        // As git does: the variable may have arguments in it.
        let ended =
            Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(self.path()).status();
        match ended {
            Ok(status) if status.success() => {}
            Ok(status) => {
                return Err(Failure::Failed(format!("the editor ({editor}): {status}; nothing was changed")));
            }
            Err(error) => return Err(Failure::failed("the editor cannot be started", &error)),
        }
        match std::fs::read_to_string(self.path()) {
            Ok(text) if text == self.text => Ok(None),
            _ => read_json(self.path()).map(Some).map_err(|failure| self.kept(failure)),
        }
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    /// The failure, with where the edit is: it must not be lost.
    fn keep(mut self, failure: Failure) -> Failure {
        self.kept(failure)
    }

    fn kept(&mut self, failure: Failure) -> Failure {
        self.file.disable_cleanup(true);
        let kept = format!("the edit is kept in {}", self.path().display());
        match failure {
            Failure::Usage(mut lines) => {
                lines.push(kept);
                Failure::Usage(lines)
            }
            Failure::Failed(line) => Failure::Failed(format!("{line}; {kept}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patch(assignments: &[&str]) -> Result<Value, String> {
        let assignments: Vec<_> = assignments.iter().map(|text| assignment(text).unwrap()).collect();
        merged(&assignments).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn assignments_make_one_patch() {
        let made = patch(&[
            "rank=5",
            "name=Five = 5",
            "adapterConfig.timeouts.totalMs=60000",
            "adapterConfig.baseUrl=https://a.example/v1?",
            "description=null",
            "models=[{\"dyadModelId\":\"m\"}]",
            "enabled=false",
        ]);
        let wanted = json!({
            "rank": 5, "name": "Five = 5", "description": null, "enabled": false, "models": [{"dyadModelId": "m"}],
            "adapterConfig": {"timeouts": {"totalMs": 60000}, "baseUrl": "https://a.example/v1?"},
        });
        assert_eq!(made.unwrap(), wanted);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for wrong in [&["rank=1", "rank=2"][..], &["a=1", "a.b=2"], &["a.b=2", "a=1"]] {
            assert!(patch(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["rank", "=1", "a..b=1", ".a=1"] {
            assert!(assignment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_credential_is_no_argument() {
        let refused = patch(&["credentials.apiKey=hunter2"]).unwrap_err();
        assert!(refused.contains("rotate") && !refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn what_is_shown_can_be_given_back() {
        let shown =
            json!({"id": "prv_1", "version": 3, "name": "A", "credentials": {"apiKey": {"set": true}}});
        assert_eq!(writable(shown), json!({"name": "A"}));
        let written = json!({"name": "A", "credentials": {"apiKey": "env:A"}});
        assert_eq!(writable(written.clone()), written);
        let taken_away = json!({"credentials": {"apiKey": null}});
        assert_eq!(writable(taken_away.clone()), taken_away);
    }
}
