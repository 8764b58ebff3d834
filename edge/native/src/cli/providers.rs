//! `dyad-gateway providers …`

mod add;
mod apply;
mod ask;
mod credential;
mod edit;
mod shown;
mod test;

use catalog::{ProviderId, ProviderSlug};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api_client::{Api, ApiArgs, Call, MAX_LISTED, Needs};
use super::{CommonArgs, Failure, ProviderArgs, block_on};
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum ProvidersCommand {
    /// List the providers and their models: those that a start would use, or those of the gateway at --url
    List {
        /// List what the store has, and ask no provider for its models
        #[arg(long, conflicts_with = "upstreams")]
        stored: bool,
        #[command(flatten)]
        args: GatheredArgs,
    },
    /// Show a provider: its models, how its credential stands, its health, and its last test
    Show(NamedArgs),
    /// Write a new provider into the store; running gateways serve it within seconds
    #[command(
        after_help = "Examples:\n  dyad-gateway providers add --name OpenAI --base-url https://api.openai.com/v1 \\\n      --credential-env OPENAI_API_KEY --test\n  pass openai | dyad-gateway providers add --name OpenAI \\\n      --base-url https://api.openai.com/v1 --credential-stdin --model fast=gpt-4.1-mini\n  dyad-gateway providers add --name Claude --cli claude --model claude=sonnet\n  dyad-gateway providers add provider.json --dry-run\n\nThe file is JSON, as 'providers show --json' prints it."
    )]
    Add(add::AddArgs),
    /// Change a provider: in an editor, member by member, or from a file
    #[command(
        after_help = "Examples:\n  dyad-gateway providers edit openai                     # in $VISUAL, $EDITOR or vi\n  dyad-gateway providers edit openai --set rank=5 --set adapterConfig.timeouts.totalMs=60000\n  dyad-gateway providers edit openai --set description=null\n  dyad-gateway providers edit openai openai.json         # as 'providers show --json' prints it\n\nA file that has a version is for that version only; without one it counts whatever was changed meanwhile."
    )]
    Edit(edit::EditArgs),
    /// Send a provider a tiny chat, which costs a few tokens, and say how long each stage took
    #[command(
        after_help = "Examples:\n  dyad-gateway providers test openai\n  dyad-gateway providers test openai --model fast --stream"
    )]
    Test(test::TestArgs),
    /// Give a provider another credential: tested, then in use, with the former kept for an hour or as --overlap says
    #[command(
        after_help = "Examples:\n  dyad-gateway providers rotate openai                    # asks for it, without showing it\n  pass openai | dyad-gateway providers rotate openai --credential-stdin --overlap 2h\n  dyad-gateway providers rotate openai --credential-env OPENAI_API_KEY_2"
    )]
    Rotate(credential::RotateArgs),
    /// Let a provider serve
    Enable(NamedArgs),
    /// Let a provider serve no more; requests under way finish
    Disable(NamedArgs),
    /// Ask every provider for its models and say which answer
    Check {
        #[command(flatten)]
        args: AskedArgs,
    },
    /// Write a configuration file's providers into the store, for all that use it; running gateways serve them within
    /// seconds
    #[command(
        after_help = "Examples:\n  dyad-gateway providers apply gateway.toml --dry-run\n  dyad-gateway providers apply gateway.toml --prune --table dyad --region eu-central-1\n\nA provider without a credential in the file keeps the sealed one that it has in the store."
    )]
    Apply(apply::ApplyArgs),
    /// Remove a provider from the store; requests under way finish
    Remove(NamedArgs),
}

/// Of commands that look at all providers that a start would use.
#[derive(Debug, Clone, Args)]
pub(crate) struct AskedArgs {
    #[command(flatten)]
    store: super::StoreArgs,
    #[command(flatten)]
    providers: ProviderArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// The same, or of the gateway at a URL.
#[derive(Debug, Clone, Args)]
pub(crate) struct GatheredArgs {
    #[command(flatten)]
    providers: ProviderArgs,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct NamedArgs {
    #[command(flatten)]
    name: NameArg,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Clone, Args)]
struct NameArg {
    /// Its slug, or its id
    #[arg(value_name = "SLUG")]
    slug: String,
}

impl NameArg {
    /// What the API's routes take.
    fn get(&self) -> Result<&str, Failure> {
        let slug = &self.slug;
        match ProviderSlug::parse(slug) {
            Err(_) if ProviderId::parse(slug).is_ok() => Ok(slug),
            Err(error) => Err(Failure::Usage(vec![format!("{slug}: {error}")])),
            Ok(_) => Ok(slug),
        }
    }

    /// The error of a request for this one.
    fn failure(&self, error: super::api_client::ApiError, api: &Api) -> Failure {
        error.say("not_found", || {
            format!(
                "there is no provider {} in {api}; 'providers list --stored' shows those there are",
                self.slug
            )
        })
    }
}

impl ProvidersCommand {
    pub(crate) fn common(&self) -> &CommonArgs {
        match self {
            Self::List { args, .. } => &args.api.common,
            Self::Check { args } => &args.common,
            Self::Add(args) => &args.api.common,
            Self::Edit(args) => &args.api.common,
            Self::Test(args) => &args.api.common,
            Self::Rotate(args) => &args.api.common,
            Self::Apply(args) => &args.api.common,
            Self::Show(args) | Self::Enable(args) | Self::Disable(args) | Self::Remove(args) => {
                &args.api.common
            }
        }
    }
}

pub(crate) fn run(command: &ProvidersCommand) -> Result<(), Failure> {
    match command {
        ProvidersCommand::List { stored, args } if *stored || args.api.is_remote() => list(args, *stored),
        ProvidersCommand::List { args, .. } => {
            ask::run(&args.providers, &args.api.store, &args.api.common, true)
        }
        ProvidersCommand::Check { args } => ask::run(&args.providers, &args.store, &args.common, false),
        ProvidersCommand::Show(args) => show(args),
        ProvidersCommand::Add(args) => add::run(args),
        ProvidersCommand::Edit(args) => edit::run(args),
        ProvidersCommand::Test(args) => test::run(args),
        ProvidersCommand::Rotate(args) => credential::rotate(args),
        ProvidersCommand::Enable(args) => enable(args, true),
        ProvidersCommand::Disable(args) => enable(args, false),
        ProvidersCommand::Apply(args) => apply::run(args),
        ProvidersCommand::Remove(args) => remove(args),
    }
}

/// What the store has, or all that the gateway has.
fn list(args: &GatheredArgs, stored: bool) -> Result<(), Failure> {
    let output = Output::new(args.api.common.json);
    block_on(async {
        let api = Api::open(&args.api, Needs::Store).await?;
        let call = Call::get(&["providers"]).query("origin", stored.then_some("store"));
        let providers = api.list(call, MAX_LISTED).await?;
        for provider in &providers {
            output.object(&shown::listed(provider));
        }
        if providers.is_empty() {
            output.say(format!(
                "There are no providers in {api}; 'dyad-gateway providers add' and 'dyad-gateway providers apply FILE' write them."
            ));
        } else {
            output.table(&shown::table(&providers));
        }
        Ok(())
    })?
}

fn show(args: &NamedArgs) -> Result<(), Failure> {
    let output = Output::new(args.api.common.json);
    let name = args.name.get()?;
    block_on(async {
        let api = Api::open(&args.api, Needs::Store).await?;
        let provider = api.json(Call::get(&["providers", name])).await;
        let provider = provider.map_err(|error| args.name.failure(error, &api))?;
        output.object(&provider);
        output.table(&shown::fields(&provider));
        Ok(())
    })?
}

fn enable(args: &NamedArgs, enabled: bool) -> Result<(), Failure> {
    let output = Output::new(args.api.common.json);
    let name = args.name.get()?;
    block_on(async {
        let api = Api::open(&args.api, Needs::UpstreamHosts).await?;
        let provider = api.json(Call::patch(&["providers", name], json!({"enabled": enabled}))).await;
        let provider = provider.map_err(|error| args.name.failure(error, &api))?;
        output.object(&provider);
        let word = if enabled { "Enabled" } else { "Disabled" };
        output.say(format!("{word} {name}. Running gateways go by it within ten seconds."));
        warn(&provider, output);
        Ok(())
    })?
}

fn remove(args: &NamedArgs) -> Result<(), Failure> {
    let output = Output::new(args.api.common.json);
    let name = args.name.get()?;
    block_on(async {
        let api = Api::open(&args.api, Needs::Store).await?;
        let removed = api.json(Call::delete(&["providers", name])).await;
        removed.map_err(|error| args.name.failure(error, &api))?;
        output.object(&json!({"slug": name, "action": "removed"}));
        output.say(format!("Removed {name}. Running gateways serve it no more within ten seconds."));
        Ok(())
    })?
}

/// What a change was made in spite of; programs find it in the object.
fn warn(answer: &Value, output: Output) {
    let warnings = answer["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    for warning in warnings.iter().filter_map(Value::as_str) {
        output.remark(&format!("warning: {}", super::values::plain(warning)));
    }
}
