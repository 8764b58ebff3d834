//! `dyad-gateway store …`

mod transfer;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::embedded::by;
use catalog::{Action, KeyStore as _, StoreError};
use clap::{Args, Subcommand};
use edge_host::variables;
use serde_json::json;
use store::{EMBEDDED_TABLE, Emulator, StoreAccess, TableState};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::serving::{Signals, listen_address};
use super::{CommonArgs, Failure, StoreArgs, block_on};
use crate::data_dir::DataDir;
use crate::file::{self, PRIVATE};
use crate::output::Output;
use crate::store_location::{OpenedStore, StoreLocation, locate_for};
use crate::{logging, random};

/// For a table to be made.
const MAKE_WITHIN: Duration = Duration::from_secs(120);
const SERVE_THREADS: usize = 4;
/// For requests under way when the emulator is to end.
const SERVE_GRACE: Duration = Duration::from_secs(3);

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Make the table where it is not AWS's, and say of one that is there whether it fits
    #[command(
        after_help = "Examples:\n  dyad-gateway store init --table dyad --region eu-central-1 --endpoint http://127.0.0.1:8000\n  dyad-gateway store init --table dyad --region eu-central-1 --create --new-key-secret key.secret"
    )]
    Init(InitArgs),
    /// Serve DynamoDB's API over the embedded store of the data directory, for development
    #[command(
        after_help = "Example:\n  dyad-gateway store serve &\n  export DYAD_TABLE=dyad-gateway AWS_REGION=local AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:8000\n  export AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any"
    )]
    Serve(ServeArgs),
    /// Write all providers and API keys, as hashes, into a file: to keep them, or to move to another store
    #[command(
        after_help = "Examples:\n  dyad-gateway store export backup.jsonl --table dyad --region eu-central-1\n  dyad-gateway store export | ssh host 'cat > backup.jsonl'\n\nWhat cannot be read is left out and named, and the exit code is 1. API keys are good only under the secret that hashed them: keep that too."
    )]
    Export(transfer::ExportArgs),
    /// Write a file's providers and API keys into the store; what the file does not have stays
    #[command(
        after_help = "Example:\n  dyad-gateway store import backup.jsonl --table dyad --region eu-central-1\n\nThe file is read as a whole first: if anything in it is wrong, nothing is written. An import that broke off can be repeated."
    )]
    Import(transfer::ImportArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct InitArgs {
    /// Make the table, and turn on its time to live, on AWS too, where Terraform does so otherwise
    #[arg(long)]
    create: bool,
    /// Write a new secret for hashing API keys into this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    new_key_secret: Option<PathBuf>,
    #[arg(
        long,
        help = "Go over to another secret, the new one or DYAD_KEY_SECRET's: no API key that was made before is good any more"
    )]
    replace_key_secret: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8000", value_parser = listen_address)]
    listen: SocketAddr,
    /// Allow an address that others on the network reach, and requests for any host: whoever reaches it reads and
    /// changes everything, web pages excepted
    #[arg(long)]
    allow_remote: bool,
    /// Keep nothing: serve an empty store in memory, without a table
    #[arg(long)]
    in_memory: bool,
    /// Which log lines to write: error, warn, info, debug, or a filter
    #[arg(long, value_name = "FILTER", default_value = "error", env = "RUST_LOG")]
    log: String,
    #[command(flatten)]
    common: CommonArgs,
}

impl StoreCommand {
    pub(crate) fn common(&self) -> &CommonArgs {
        match self {
            Self::Init(args) => &args.common,
            Self::Serve(args) => &args.common,
            Self::Export(args) => &args.common,
            Self::Import(args) => &args.common,
        }
    }
}

pub(crate) fn run(command: &StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Init(args) => init(args),
        StoreCommand::Serve(args) => serve(args),
        StoreCommand::Export(args) => transfer::run_export(args),
        StoreCommand::Import(args) => transfer::run_import(args),
    }
}

fn init(args: &InitArgs) -> Result<(), Failure> {
    let output = Output::new(args.common.json);
    let location = locate_for(&args.store, &args.common).map_err(Failure::Usage)?;
    block_on(async {
        let opened = location.open().await?;
        match &location {
            StoreLocation::DataDir(directory) => {
                if args.new_key_secret.is_some() || args.replace_key_secret {
                    return Err(Failure::Usage(vec![
                        "--new-key-secret and --replace-key-secret: the secret of a data directory is made in it; this is for a table, named by --table".to_owned(),
                    ]));
                }
                opened.hasher().await?;
                output.object(&json!({"data_dir": directory, "ready": true}));
                output.say(format!("{location} is ready."));
            }
            StoreLocation::DynamoDb { access, .. } => {
                let made = make_table(&opened, access, args.create).await?;
                let state = match opened.store.table_state().await.map_err(|error| opened.error(error))? {
                    Some(state) => fit(state, access)?,
                    None => {
                        return Err(Failure::Failed(format!("{access} was removed while it was looked at")));
                    }
                };
                if args.new_key_secret.is_some() || args.replace_key_secret {
                    set_key_secret(&opened, access, args).await?;
                }
                output.object(&json!({
                    "table": access.table, "region": access.region, "endpoint": access.endpoint_url, "created": made,
                    "items_expire": state.items_expire, "key_secret": args.new_key_secret, "ready": true,
                }));
                output.say(format!("{} {access}; it is ready.", if made { "Made" } else { "Found" }));
                if let Some(path) = &args.new_key_secret {
                    output.say(format!(
                        "The secret for hashing API keys is in {}: give it to every host of the table in {}, and keep a copy.",
                        path.display(),
                        variables::KEY_SECRET
                    ));
                }
            }
        }
        Ok(())
    })?
}

/// Makes the table, or what an existing one lacks, where that is for us to do. Whether there was none.
async fn make_table(opened: &OpenedStore, access: &StoreAccess, create: bool) -> Result<bool, Failure> {
    let found = opened.store.table_state().await.map_err(|error| opened.error(error))?;
    let is_ours_to_make = create || !access.is_aws();
    match &found {
        None if !is_ours_to_make => {
            return Err(Failure::Failed(format!(
                "{access} is not there: on AWS Terraform makes it (infra/terraform), or this command with --create"
            )));
        }
        Some(state) if !is_ours_to_make || !state.has_our_keys || state.items_expire => return Ok(false),
        None | Some(_) => {}
    }
    let began = Instant::now();
    loop {
        match opened.store.create_table().await {
            Ok(()) => return Ok(found.is_none()),
            // AWS takes longer than any other call; one that is begun again goes on where it was.
            Err(StoreError::Unavailable { .. }) if began.elapsed() < MAKE_WITHIN => {}
            Err(error) => return Err(opened.error(error).into()),
        }
    }
}

/// The state of a table that can serve.
fn fit(state: TableState, access: &StoreAccess) -> Result<TableState, Failure> {
    if !state.has_our_keys {
        return Err(Failure::Failed(format!(
            "{access} is another kind of table: its keys must be pk (string) and sk (string); name another"
        )));
    }
    if !state.is_active {
        return Err(Failure::Failed(format!(
            "{access} cannot be used now: it is being made, changed or deleted"
        )));
    }
    Ok(state)
}

/// Says in the table under which secret its API keys are hashed from now on.
async fn set_key_secret(opened: &OpenedStore, access: &StoreAccess, args: &InitArgs) -> Result<(), Failure> {
    let stored = opened.store.key_secret().await.map_err(|error| opened.error(error))?;
    if stored.is_some() && !args.replace_key_secret {
        return Err(Failure::Failed(format!(
            "the API keys of {access} have a secret already; with --replace-key-secret none of them would be good any more"
        )));
    }
    let hasher = match &args.new_key_secret {
        Some(path) => {
            let secret = new_key_secret(path)?;
            edge_host::key_hasher(&secret).map_err(|reason| Failure::Failed(reason.to_owned()))?
        }
        None => opened.given_hasher().await?,
    };
    let written = opened
        .store
        .put_key_secret(hasher.check(), stored.map(|stored| stored.version), &by(Action::Update))
        .await;
    written.map_err(|error| opened.error(error))?;
    Ok(())
}

fn new_key_secret(path: &Path) -> Result<String, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::failed(&path.display().to_string(), error);
    let secret = random::hex::<32>().map_err(|error| failed(&error))?;
    file::write_new(path, &secret, PRIVATE).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::Failed(format!(
            "{} is there already, and a secret is never overwritten: all API keys that were hashed under it would be lost",
            path.display()
        )),
        _ => failed(&error),
    })?;
    Ok(secret)
}

fn serve(args: &ServeArgs) -> Result<(), Failure> {
    if !args.listen.ip().is_loopback() && !args.allow_remote {
        return Err(Failure::Usage(vec![format!(
            "--listen: {} can be reached by others, who need no credentials here to read and change everything; listen on 127.0.0.1, or add --allow-remote",
            args.listen
        )]));
    }
    logging::start(&args.log, args.common.json)
        .map_err(|line| Failure::Usage(vec![format!("--log: {line}")]))?;
    let output = Output::new(args.common.json);
    // The engine works on the threads that serve.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SERVE_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("the runtime cannot start", &error))?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let cannot_listen = |error| {
            Failure::Failed(format!(
                "{} cannot be listened on: {error}; choose another with --listen",
                args.listen
            ))
        };
        let listener = TcpListener::bind(args.listen).await.map_err(cannot_listen)?;
        let endpoint = format!("http://{}", listener.local_addr().map_err(cannot_listen)?);
        let data_dir = DataDir::locate(args.common.data_dir.as_deref());
        let failed = |error| Failure::failed("the store cannot be served", &error);
        let (emulator, what) = if args.in_memory {
            (Emulator::in_memory().map_err(failed)?, "an empty store in memory".to_owned())
        } else {
            let shown = data_dir.path().display();
            data_dir.create().map_err(|error| Failure::failed(&shown.to_string(), &error))?;
            let emulator = Emulator::open(data_dir.store_file()).await.map_err(failed)?;
            (emulator, format!("the store in {shown}, table {EMBEDDED_TABLE}"))
        };
        let emulator = if args.allow_remote { emulator.with_any_host() } else { emulator };
        let table = (!args.in_memory).then_some(EMBEDDED_TABLE);
        output.object(&json!({"event": "ready", "endpoint": endpoint, "table": table}));
        output.say(format!(
            "Serving {what}, at {endpoint} as DynamoDB would, until Ctrl-C. Any credentials are taken."
        ));
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = emulator.serve(listener, async {
            let _ = stopped.await;
        });
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            () = &mut serving => {}
            _ = signals.next() => {
                drop(stop);
                // What has not ended by then is cut off.
                let _ = tokio::time::timeout(SERVE_GRACE, serving).await;
            }
        }
        Ok(())
    })
}
