//! `dyad-gateway admin …`: tokens for administrators.

use std::time::Duration;

use admin_api::{Role, TokenRules};
use catalog::{By, Secret};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::user::user;
use super::values::duration;
use super::{CommonArgs, Failure, StoreArgs};
use crate::admin::{self, AdminSection};
use crate::config;
use crate::data_dir::DataDir;
use crate::embedded::now_ms;
use crate::output::Output;
use crate::store_location::{StoreLocation, locate_for, variable};

/// Longest life of a token. There is no way to take one back but to make a new secret.
const MAX_LIFE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Print a token for the administration API and its console, signed with the data directory's secret
    #[command(
        after_help = "Examples:\n  dyad-gateway admin token\n  export DYAD_ADMIN_TOKEN=$(dyad-gateway admin token --role viewer --valid-for 1h)\n\nWhoever has the token has its role until it ends. To end all of them at once, remove admin-token.secret from the data directory and restart."
    )]
    Token(TokenArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TokenArgs {
    /// What its holder may do: everything, or only look
    #[arg(long, value_enum, default_value_t = RoleArg::Admin)]
    role: RoleArg,
    /// Life time, such as 12h or 30m
    #[arg(long, value_name = "DURATION", default_value = "12h", value_parser = duration)]
    valid_for: Duration,
    /// Who the audit log says it was [default: the user's name here]
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArg {
    Admin,
    Viewer,
}

impl AdminCommand {
    pub(crate) fn common(&self) -> &CommonArgs {
        match self {
            Self::Token(args) => &args.common,
        }
    }
}

pub(crate) fn run(command: &AdminCommand) -> Result<(), Failure> {
    match command {
        AdminCommand::Token(args) => token(args),
    }
}

fn token(args: &TokenArgs) -> Result<(), Failure> {
    if args.valid_for > MAX_LIFE {
        return Err(Failure::Usage(vec!["--valid-for: a token lives for a year at most".to_owned()]));
    }
    let actor = args.actor.clone().unwrap_or_else(user);
    if !(1..=By::MAX_ACTOR_CHARS).contains(&actor.chars().count())
        || actor.chars().any(char::is_control)
        || actor.starts_with("program:")
    {
        return Err(Failure::Usage(vec![format!(
            "--actor: must be 1 to {} characters without control characters, and must not begin with program:",
            By::MAX_ACTOR_CHARS
        )]));
    }
    let (secret, rules) = signing(args)?;
    let role = match args.role {
        RoleArg::Admin => Role::Admin,
        RoleArg::Viewer => Role::Viewer,
    };
    let token = rules.mint(&secret, &actor, role, now_ms(), args.valid_for);
    let token = token.map_err(|error| Failure::Usage(vec![error.to_string()]))?;
    let seconds = args.valid_for.as_secs();
    let shown = json!({
        "token": token.expose(), "actor": actor, "role": role.as_str(), "expires_in_seconds": seconds,
    });
    let output = Output::new(args.common.json);
    output.deliver(token.expose(), &shown).map_err(|error| Failure::failed("the token", &error))
}

/// The secret of the tokens that count, and what they must say.
fn signing(args: &TokenArgs) -> Result<(Secret, TokenRules), Failure> {
    let section = match &args.store.config {
        Some(path) => config::read_only(path, &["admin"]).map_err(Failure::Usage)?.admin,
        None => AdminSection::default(),
    };
    let config = admin::settle(&section, variable).map_err(Failure::Usage)?;
    if let Some(signing) = config.signing().map_err(|line| Failure::Usage(vec![line]))? {
        return Ok(signing);
    }
    match locate_for(&args.store, &args.common).map_err(Failure::Usage)? {
        StoreLocation::DataDir(directory) => {
            let data_dir = DataDir::locate(Some(&directory));
            let secret = data_dir.create().and_then(|()| data_dir.token_secret());
            let failed = |error| Failure::failed(&format!("{} cannot be used", directory.display()), &error);
            Ok((secret.map_err(failed)?, TokenRules::default()))
        }
        StoreLocation::DynamoDb { access, .. } => Err(Failure::Usage(vec![format!(
            "{access} has no secret for tokens: set DYAD_ADMIN_JWT_SECRET, here and where the administration is served"
        )])),
    }
}
