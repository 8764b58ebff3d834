//! `dyad-gateway secrets …`: the master keys under which credentials are sealed.

use std::path::PathBuf;

use catalog::CredentialRef;
use clap::{Args, Subcommand};
use edge_host::variables;
use serde_json::{Value, json};

use super::api_client::{Api, ApiArgs, Call, MAX_LISTED, Needs};
use super::values::{plain, shown_time};
use super::{CommonArgs, Failure, StoreArgs, block_on};
use crate::data_dir::DataDir;
use crate::master_keys::add_key;
use crate::output::{Output, count};
use crate::store_location::{MASTER_KEYS_FILE, StoreLocation, locate_for};

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Add a master key, which is the active one from then on; the others still open what they sealed
    #[command(
        after_help = "Examples:\n  dyad-gateway secrets new-key\n  dyad-gateway secrets new-key --file master.keys      # makes the file if it is not there\n\nA gateway that serves takes the key up at once. 'dyad-gateway secrets rewrap' moves what is sealed to it."
    )]
    NewKey(NewKeyArgs),
    /// List the credentials of the stored providers: where they come from, how old they are, and the master key that each is sealed under; never their values
    List {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Seal all credentials under the active master key, while gateways serve; the exit code is 1 if one stays behind
    #[command(
        after_help = "Examples:\n  dyad-gateway secrets new-key && dyad-gateway secrets rewrap\n  dyad-gateway secrets rewrap --url https://gateway.example.com\n\nOnce none stays behind, the former master keys may be removed; answers that are kept for requests sent again are under them for another day."
    )]
    Rewrap {
        #[command(flatten)]
        api: ApiArgs,
    },
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
            Self::List { api } | Self::Rewrap { api } => &api.common,
        }
    }
}

pub(crate) fn run(command: &SecretsCommand) -> Result<(), Failure> {
    match command {
        SecretsCommand::NewKey(args) => new_key(args),
        SecretsCommand::List { api } => block_on(list(api))?,
        SecretsCommand::Rewrap { api } => block_on(rewrap(api))?,
    }
}

async fn list(args: &ApiArgs) -> Result<(), Failure> {
    let output = Output::new(args.common.json);
    let api = Api::open(args, Needs::Store).await?;
    let providers = api.list(Call::get(&["providers"]).query("origin", Some("store")), MAX_LISTED).await?;
    let names = ["PROVIDER", "SOURCE", "VERSION", "FINGERPRINT", "MASTER KEY", "SET", "FORMER UNTIL"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    for provider in &providers {
        let credential = &provider["credentials"]["apiKey"];
        if credential["set"] != true {
            continue;
        }
        let mut shown = credential.clone();
        shown["provider"] = provider["slug"].clone();
        output.object(&shown);
        let text = |value: &Value| value.as_str().map_or_else(|| "-".to_owned(), plain);
        let time = |value: &Value| value.as_str().map_or_else(|| "-".to_owned(), shown_time);
        let is_reference = credential["reference"].is_string();
        rows.push(vec![
            text(&provider["slug"]),
            text(&credential[if is_reference { "reference" } else { "source" }]),
            credential["version"].as_u64().map_or_else(|| "-".to_owned(), |version| version.to_string()),
            text(&credential["fingerprint"]),
            text(&credential["sealedUnder"]),
            time(&credential["setAt"]),
            time(&credential["previous"]["until"]),
        ]);
    }
    if rows.len() == 1 {
        output.say(format!("No provider in {api} has a credential."));
    } else {
        output.table(&rows);
    }
    Ok(())
}

async fn rewrap(args: &ApiArgs) -> Result<(), Failure> {
    let output = Output::new(args.common.json);
    let api = Api::open(args, Needs::Store).await?;
    output.remark("Sealing everything under the active master key …");
    let done = api.json(Call::post(&["secrets", "rewrap"], json!({}))).await?;
    output.object(&done);
    output.say(format!(
        "Under the master key {}: {} moved there, {} were there already.",
        done["activeKeyId"].as_str().map(plain).unwrap_or_default(),
        done["rewrapped"],
        done["unchanged"]
    ));
    let failed = done["failed"].as_array().map(Vec::as_slice).unwrap_or_default();
    if failed.is_empty() {
        return Ok(());
    }
    let text = |value: &Value| value.as_str().map(plain).unwrap_or_default();
    for left in failed {
        output.remark(&format!("{}: {}", text(&left["provider"]), text(&left["reason"])));
    }
    Err(Failure::Failed(format!(
        "{} could not be moved; keep the former master keys",
        count(failed.len(), "credential")
    )))
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
