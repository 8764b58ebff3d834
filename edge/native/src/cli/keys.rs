//! `dyad-gateway keys …`

mod arguments;
mod shown;

use catalog::ApiKeyId;
use clap::Subcommand;
use serde_json::{Value, json};

use super::api_client::{Api, ApiArgs, Call, MAX_LISTED, Needs};
use super::{CommonArgs, Failure, block_on};
use crate::output::Output;
use arguments::{CreateArgs, ListArgs, RotateArgs, UpdateArgs};
use shown::{fields, object, table};

const SERVED: &str = "A running gateway refuses it within ten seconds.";

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Create an API key and show it, this once
    #[command(
        after_help = "Examples:\n  dyad-gateway keys create --label \"build server\" --owner ci@example.com --expires-in 90d\n  dyad-gateway keys create --label demo --models llama3.2 --requests-per-minute 60"
    )]
    Create(CreateArgs),
    /// List the API keys (never their secrets)
    List(ListArgs),
    /// Show an API key (never its secret)
    Show {
        /// The id: what stands between dgw_ and the next underscore
        id: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Change what an API key may do; a running gateway goes by it within seconds
    #[command(
        after_help = "Examples:\n  dyad-gateway keys update ID --label \"the new build server\" --expires-in 30d\n  dyad-gateway keys update ID --requests-per-minute 10 --tokens-per-day none --all-models"
    )]
    Update(UpdateArgs),
    /// Give an API key another secret and show the key, this once; the former is taken for an hour, or as --grace says
    #[command(
        after_help = "Examples:\n  dyad-gateway keys rotate ID --grace 2d\n  dyad-gateway keys rotate ID --grace 0        # the former is refused within ten seconds"
    )]
    Rotate(RotateArgs),
    /// Revoke an API key; a running gateway refuses it within seconds
    Revoke {
        /// The id: what stands between dgw_ and the next underscore
        id: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

impl KeysCommand {
    fn api(&self) -> &ApiArgs {
        match self {
            Self::Create(args) => &args.api,
            Self::List(args) => &args.api,
            Self::Update(args) => &args.api,
            Self::Rotate(args) => &args.api,
            Self::Show { api, .. } | Self::Revoke { api, .. } => api,
        }
    }

    pub(crate) fn common(&self) -> &CommonArgs {
        &self.api().common
    }

    /// Whether it makes a secret, which is hashed.
    fn needs(&self) -> Needs {
        match self {
            Self::Create(_) | Self::Rotate(_) => Needs::KeySecret,
            Self::List(_) | Self::Show { .. } | Self::Update(_) | Self::Revoke { .. } => Needs::Store,
        }
    }
}

pub(crate) fn run(command: &KeysCommand) -> Result<(), Failure> {
    let output = Output::new(command.common().json);
    block_on(async {
        let api = Api::open(command.api(), command.needs()).await?;
        match command {
            KeysCommand::Create(args) => create(args, &api, output).await,
            KeysCommand::List(args) => list(args, &api, output).await,
            KeysCommand::Show { id, .. } => {
                let key = api.json(Call::get(&["keys", &parse(id)?])).await;
                let key = key.map_err(|error| error.say("not_found", || no_key(id)))?;
                output.object(&object(&key));
                output.table(&fields(&key));
                Ok(())
            }
            KeysCommand::Update(args) => {
                let id = parse(&args.id)?;
                let change = args.change().map_err(Failure::Usage)?;
                let key = api.json(Call::patch(&["keys", &id], change)).await;
                let key = key.map_err(|error| error.say("not_found", || no_key(&id)))?;
                output.object(&object(&key));
                output.table(&fields(&key));
                Ok(())
            }
            KeysCommand::Rotate(args) => {
                let id = parse(&args.id)?;
                let grace = json!({"graceSeconds": args.grace.as_secs()});
                let key = api.json(Call::post(&["keys", &id, "rotate"], grace)).await;
                let key = key.map_err(|error| error.say("not_found", || no_key(&id)))?;
                deliver(&key, output)
            }
            KeysCommand::Revoke { id, .. } => {
                let id = parse(id)?;
                let key = api.json(Call::delete(&["keys", &id])).await;
                let key = key.map_err(|error| error.say("not_found", || no_key(&id)))?;
                let mut shown = object(&key);
                shown["revoked"] = json!(true);
                output.object(&shown);
                output.say(format!("Revoked {id}. {SERVED}"));
                Ok(())
            }
        }
    })?
}

async fn create(args: &CreateArgs, api: &Api, output: Output) -> Result<(), Failure> {
    let new = args.body().map_err(Failure::Usage)?;
    deliver(&api.json(Call::post(&["keys"], new)).await?, output)
}

/// Shows a key with its secret: one that nobody saw is of no use to anybody.
fn deliver(key: &Value, output: Output) -> Result<(), Failure> {
    let (Some(id), Some(secret)) = (key["id"].as_str(), key["key"].as_str()) else {
        return Err(Failure::Failed("the answer has no key in it".to_owned()));
    };
    let mut shown = object(key);
    shown["api_key"] = json!(secret);
    output.deliver(secret, &shown).map_err(|error| {
        Failure::Failed(format!("the key could not be shown ({error}); revoke it: keys revoke {id}"))
    })?;
    output.remark("Keep it now: it is stored only as a hash and cannot be shown again.");
    Ok(())
}

async fn list(args: &ListArgs, api: &Api, output: Output) -> Result<(), Failure> {
    let call = Call::get(&["keys"]).query("state", args.state.clone()).query("owner", args.owner.clone());
    let keys = api.list(call, MAX_LISTED).await?;
    for key in &keys {
        output.object(&object(key));
    }
    match (keys.is_empty(), args.state.is_some() || args.owner.is_some()) {
        (true, false) => output.say("There are no API keys; 'dyad-gateway keys create' makes one."),
        (true, true) => output.say("There are no such API keys."),
        (false, _) => output.table(&table(&keys)),
    }
    Ok(())
}

/// An id. What else it may be is not repeated: somebody may give the whole key.
fn parse(id: &str) -> Result<String, Failure> {
    let wrong =
        |error| Failure::Usage(vec![format!("{error}: what stands between dgw_ and the next underscore")]);
    ApiKeyId::parse(id).map(|id| id.as_str().to_owned()).map_err(wrong)
}

fn no_key(id: &str) -> String {
    format!("there is no API key {id}; 'keys list' shows those there are")
}
