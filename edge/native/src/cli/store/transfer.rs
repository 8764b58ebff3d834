//! `dyad-gateway store export` and `store import`: all configuration and API keys, as lines of JSON.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};

use catalog::Action;
use clap::Args;
use serde_json::json;
use store::transfer::{Existing, TransferError, export, import};

use crate::cli::{CommonArgs, Failure, StoreArgs, block_on};
use crate::embedded::by;
use crate::file::{self, PRIVATE};
use crate::output::{Output, count};
use crate::store_location::{OpenedStore, locate_for};

/// Names in one message.
const MAX_NAMES: usize = 20;

#[derive(Debug, Clone, Args)]
pub(crate) struct ExportArgs {
    /// Where to write it, a file that must not be there yet; standard output if not given
    file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ImportArgs {
    /// What 'store export' wrote; - for standard input
    file: PathBuf,
    /// Replace what the store has otherwise than the file; without it nothing is written then
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

pub(super) fn run_export(args: &ExportArgs) -> Result<(), Failure> {
    let output = Output::new(args.common.json);
    let location = locate_for(&args.store, &args.common).map_err(Failure::Usage)?;
    // In memory first, so that a file is there whole or not at all.
    let mut lines = Vec::new();
    let exported = block_on(async {
        let opened = location.open().await?;
        let exported = export(&*opened.store, &mut lines).await;
        exported.map_err(|error| failure(error, &opened, "the export"))
    })??;
    let counts = format!("{} and {}", count(exported.providers, "provider"), count(exported.keys, "API key"));
    if let Some(path) = &args.file {
        write(path, &lines)?;
        output.object(&json!({"file": path, "providers": exported.providers, "keys": exported.keys}));
        output.say(format!("{counts} of {location} are in {}.", path.display()));
    } else {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(&lines).and_then(|()| stdout.flush());
        written.map_err(|error| Failure::failed("the export cannot be written", &error))?;
    }
    if exported.left_out.is_empty() {
        return Ok(());
    }
    let left_out = exported.left_out.iter().map(|item| format!("{}: {}", item.name, item.reason));
    Err(Failure::Failed(format!(
        "the export lacks what cannot be read, {}: {}",
        count(exported.left_out.len(), "item"),
        some(left_out.collect(), "; ")
    )))
}

pub(super) fn run_import(args: &ImportArgs) -> Result<(), Failure> {
    let output = Output::new(args.common.json);
    let location = locate_for(&args.store, &args.common).map_err(Failure::Usage)?;
    let shown = args.file.display().to_string();
    let mut file: Box<dyn BufRead + Send> = if args.file == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let file = File::open(&args.file).map_err(|error| Failure::Usage(vec![format!("{shown}: {error}")]));
        Box::new(BufReader::new(file?))
    };
    let existing = if args.replace { Existing::Replace } else { Existing::Refuse };
    block_on(async {
        let opened = location.open().await?;
        let imported = import(&*opened.store, &mut file, existing, &by(Action::Import)).await;
        let imported = imported.map_err(|error| failure(error, &opened, &shown))?;
        output.object(&json!({
            "created": imported.created, "replaced": imported.replaced, "unchanged": imported.unchanged,
            "kept_revoked": imported.kept_revoked, "kept_rotated": imported.kept_rotated,
        }));
        output.say(format!(
            "{location}: {} created, {} replaced, {} unchanged. Running gateways serve it within ten seconds.",
            imported.created, imported.replaced, imported.unchanged
        ));
        if imported.kept_revoked > 0 {
            let keys = count(imported.kept_revoked, "API key");
            output.say(format!("{keys} of the file, revoked since, stayed revoked."));
        }
        if imported.kept_rotated > 0 {
            let keys = count(imported.kept_rotated, "API key");
            output.say(format!("{keys} of the file had another secret: the store's stayed."));
        }
        Ok(())
    })?
}

fn write(path: &Path, lines: &[u8]) -> Result<(), Failure> {
    let text = std::str::from_utf8(lines).expect("JSON is UTF-8");
    file::write_new(path, text, PRIVATE).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::Failed(format!("{} is there already; name another file", path.display()))
        }
        _ => Failure::failed(&path.display().to_string(), &error),
    })
}

fn failure(error: TransferError, opened: &OpenedStore, file: &str) -> Failure {
    match error {
        TransferError::Store(error) => opened.error(error).into(),
        TransferError::Io(error) => Failure::failed(file, &error),
        TransferError::Line { .. } => Failure::Usage(vec![format!("{file}: {error}; nothing was written")]),
        TransferError::OtherKeySecret => Failure::Failed(format!(
            "{error}: none of {file}'s would be good here, and nothing was written; a table that has no API keys of its own goes over to the file's secret by 'store init --replace-key-secret', with that secret in DYAD_KEY_SECRET"
        )),
        TransferError::Differs(names) => Failure::Failed(format!(
            "the store has others than {file}: {}; nothing was written, --replace writes the file's",
            some(names, ", ")
        )),
    }
}

/// The first of them, and how many there are besides.
fn some(mut names: Vec<String>, separator: &str) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    names.truncate(MAX_NAMES);
    let names = names.join(separator);
    if more == 0 { names } else { format!("{names}{separator}and {more} more") }
}
