//! `dyad-gateway secrets …`: the master keys under which credentials are sealed.

use std::path::PathBuf;

use catalog::CredentialRef;
use clap::{Args, Subcommand};
use edge_host::variables;
use serde_json::json;

use super::{CommonArgs, Failure, StoreArgs};
use crate::data_dir::DataDir;
use crate::master_keys::add_key;
use crate::output::Output;
use crate::store_location::{MASTER_KEYS_FILE, StoreLocation, locate_for};

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Add a master key, which is the active one from then on; the others still open what they sealed
    #[command(
        after_help = "Examples:\n  dyad-gateway secrets new-key\n  dyad-gateway secrets new-key --file master.keys      # makes the file if it is not there\n\nA gateway that serves takes the key up at once. 'dyad-gateway secrets rewrap' moves what is sealed to it."
    )]
    NewKey(NewKeyArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct NewKeyArgs {
    /// The file of the master keys [default: that of the store]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    common: CommonArgs,
}

impl SecretsCommand {
    pub(crate) fn common(&self) -> &CommonArgs {
        match self {
            Self::NewKey(args) => &args.common,
        }
    }
}

pub(crate) fn run(command: &SecretsCommand) -> Result<(), Failure> {
    match command {
        SecretsCommand::NewKey(args) => new_key(args),
    }
}

fn new_key(args: &NewKeyArgs) -> Result<(), Failure> {
    let file = match &args.file {
        Some(file) => file.clone(),
        None => file_of_store(args)?,
    };
    let id = add_key(&file).map_err(Failure::Failed)?;
    let output = Output::new(args.common.json);
    output.object(&json!({"key_id": id.as_str(), "file": file}));
    output.say(format!("The master key {id} is the active one of {}.", file.display()));
    output.remark(
        "Next: wherever these master keys are used, bring the file; then 'dyad-gateway secrets rewrap'.",
    );
    Ok(())
}

fn file_of_store(args: &NewKeyArgs) -> Result<PathBuf, Failure> {
    let no_file = |reason: &str| Failure::Usage(vec![format!("{reason}; name a file with --file")]);
    match locate_for(&args.store, &args.common).map_err(Failure::Usage)? {
        StoreLocation::DataDir(directory) => {
            let data_dir = DataDir::locate(Some(&directory));
            let made = data_dir.create();
            made.map_err(|error| {
                Failure::failed(&format!("{} cannot be used", directory.display()), &error)
            })?;
            Ok(data_dir.master_keys_file())
        }
        StoreLocation::DynamoDb { master_keys: CredentialRef::File(path), .. } => Ok(path.into()),
        StoreLocation::DynamoDb { master_keys: CredentialRef::Env(name), .. } => Err(no_file(&format!(
            "the master keys are in the variable {name}, which cannot be changed from here"
        ))),
        StoreLocation::DynamoDb { .. } => Err(no_file(&format!(
            "neither {MASTER_KEYS_FILE} nor {} nor [store] master_keys says where the master keys are",
            variables::MASTER_KEYS
        ))),
    }
}
