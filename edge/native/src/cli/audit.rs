//! `dyad-gateway audit …`

use std::collections::BTreeSet;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::api_client::{Api, ApiArgs, Call, MAX_LISTED, Needs};
use super::values::{plain, shown_time, since, until};
use super::{CommonArgs, Failure, block_on};
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List who changed what and when, the latest first
    #[command(
        after_help = "Examples:\n  dyad-gateway audit list --from 7d\n  dyad-gateway audit list --object provider/openai --action rotate --json\n  dyad-gateway audit list --from 2026-11-01 --until 2026-11-30 --actor alice@example.com\n\n--json has each object as it was before and after, without its secrets."
    )]
    List(ListArgs),
    /// Check that no entry was altered or removed; the exit code is 1 if one was
    #[command(
        after_help = "Examples:\n  dyad-gateway audit verify\n  dyad-gateway audit verify --anchor 1234:5f0c…\n\nWhoever notes the head that it prints somewhere else, and gives it as --anchor later, also learns of a log that was written anew as a whole."
    )]
    Verify(VerifyArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Only entries from this time on: 2026-11-21T10:00:00Z, a day of UTC, or how long ago, such as 7d
    #[arg(long, value_name = "TIME", value_parser = since)]
    from: Option<String>,
    /// Only entries before this time; of a day, those of the day too
    #[arg(long, value_name = "TIME", value_parser = until)]
    until: Option<String>,
    /// Only what this one did: the subject of a token, cli:USER, or program:NAME
    #[arg(long)]
    actor: Option<String>,
    /// Only what was done to this one: provider/SLUG, key/ID or key-secret
    #[arg(long)]
    object: Option<String>,
    /// Only what was done like this
    #[arg(long)]
    action: Option<Action>,
    /// At most so many entries
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=MAX_LISTED as i64))]
    limit: u32,
    #[command(flatten)]
    api: ApiArgs,
}

/// Those of [`catalog::Action`].
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Action {
    Create,
    Update,
    Delete,
    Revoke,
    Rotate,
    Rewrap,
    Import,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyArgs {
    /// A head that was noted before: the log must still have it
    #[arg(long, value_name = "SEQ:HASH", value_parser = anchor)]
    anchor: Option<(u64, String)>,
    #[command(flatten)]
    api: ApiArgs,
}

impl AuditCommand {
    pub(crate) fn common(&self) -> &CommonArgs {
        match self {
            Self::List(args) => &args.api.common,
            Self::Verify(args) => &args.api.common,
        }
    }
}

pub(crate) fn run(command: &AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::List(args) => block_on(list(args))?,
        AuditCommand::Verify(args) => block_on(verify(args))?,
    }
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let output = Output::new(args.api.common.json);
    let api = Api::open(&args.api, Needs::Store).await?;
    let action = args.action.and_then(|action| action.to_possible_value());
    let call = Call::get(&["audit"])
        .query("from", args.from.clone())
        .query("until", args.until.clone())
        .query("actor", args.actor.clone())
        .query("object", args.object.clone())
        .query("action", action.as_ref().map(clap::builder::PossibleValue::get_name));
    let limit = usize::try_from(args.limit).unwrap_or(MAX_LISTED);
    let entries = api.list(call, limit).await?;
    for entry in &entries {
        output.object(entry);
    }
    if entries.is_empty() {
        output.say("There are no such entries.");
    } else {
        let names = ["SEQ", "TIME (UTC)", "ACTOR", "ACTION", "OBJECT", "CHANGED"];
        let mut rows = vec![names.map(str::to_owned).to_vec()];
        rows.extend(entries.iter().map(row));
        output.table(&rows);
    }
    if entries.len() == limit {
        output.remark(&format!("There may be more than these {limit}: see --limit."));
    }
    Ok(())
}

fn row(entry: &Value) -> Vec<String> {
    let text = |name: &str| entry[name].as_str().map(plain).unwrap_or_default();
    vec![
        entry["seq"].to_string(),
        entry["at"].as_str().map(shown_time).unwrap_or_default(),
        text("actor"),
        text("action"),
        text("object"),
        changed(&entry["before"], &entry["after"]),
    ]
}

/// Names of the members that are not as they were; nothing where there was none before or is none after.
fn changed(before: &Value, after: &Value) -> String {
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else { return String::new() };
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    changed.map(|name| plain(name)).collect::<Vec<_>>().join(", ")
}

async fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let output = Output::new(args.api.common.json);
    let api = Api::open(&args.api, Needs::Store).await?;
    output.remark("Reading the whole log …");
    let (seq, hash) = args.anchor.clone().unzip();
    let call = Call::get(&["audit", "verify"])
        .query("anchorSeq", seq.map(|seq| seq.to_string()))
        .query("anchorHash", hash);
    let verdict = api.json(call).await?;
    output.object(&verdict);
    if verdict["ok"] != true {
        let reason = verdict["reason"].as_str().map_or_else(|| "it is not whole".to_owned(), plain);
        return Err(Failure::Failed(format!(
            "the audit log is broken at entry {}: {reason}",
            verdict["seq"]
        )));
    }
    let head = &verdict["head"];
    let hash = head["hash"].as_str().map(plain).unwrap_or_default();
    output
        .say(format!("The audit log is whole: {} entries, head {}:{hash}.", verdict["entries"], head["seq"]));
    Ok(())
}

/// `SEQ:HASH`.
fn anchor(text: &str) -> Result<(u64, String), &'static str> {
    let wrong = "write a head as 'audit verify' prints it: a number, a colon, and 64 hexadecimal digits";
    let (seq, hash) = text.split_once(':').ok_or(wrong)?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    match seq.parse() {
        Ok(seq) if is_hash => Ok((seq, hash.to_ascii_lowercase())),
        _ => Err(wrong),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn actions_are_those_of_the_catalog() {
        let ours: Vec<String> = Action::value_variants()
            .iter()
            .map(|action| action.to_possible_value().unwrap().get_name().to_owned())
            .collect();
        let theirs: Vec<&str> = catalog::Action::ALL.iter().map(|action| action.as_str()).collect();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn what_changed_is_named() {
        let before = json!({"rank": 1, "name": "a", "gone": 1});
        assert_eq!(changed(&before, &json!({"rank": 2, "name": "a", "new": 1})), "gone, new, rank");
        assert_eq!(changed(&Value::Null, &before), "");
    }

    #[test]
    fn anchors() {
        let hash = "aB".repeat(32);
        assert_eq!(anchor(&format!("7:{hash}")), Ok((7, hash.to_ascii_lowercase())));
        for wrong in ["", "7", "7:", ":ab", "x:ab", &format!("-1:{hash}"), &format!("7:{hash}0")] {
            assert!(anchor(wrong).is_err(), "{wrong}");
        }
    }
}
