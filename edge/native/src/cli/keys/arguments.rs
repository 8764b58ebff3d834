//! What a key is to be, as the command line has it and as the API takes it.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::api_client::ApiArgs;
use crate::cli::values::{duration, duration_or_none, from_now, moment};

#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArgs {
    /// What the key is for
    #[arg(long, default_value = "unnamed")]
    label: String,
    /// Whom to ask about it
    #[arg(long)]
    owner: Option<String>,
    #[command(flatten)]
    expiry: ExpiryArgs,
    /// Models that the key may use, separated by commas; all if not given
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    models: Option<Vec<String>>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Only keys in this state
    #[arg(long, value_parser = ["active", "expired", "revoked"])]
    pub(super) state: Option<String>,
    /// Only keys of this owner
    #[arg(long)]
    pub(super) owner: Option<String>,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct UpdateArgs {
    /// The id: what stands between dgw_ and the next underscore
    pub(super) id: String,
    /// What the key is for
    #[arg(long)]
    label: Option<String>,
    /// Whom to ask about it
    #[arg(long)]
    owner: Option<String>,
    #[command(flatten)]
    expiry: ExpiryArgs,
    /// The key does not expire any more
    #[arg(long, conflicts_with_all = ["expires_in", "expires_at"])]
    no_expiry: bool,
    /// Models that the key may use, separated by commas
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    models: Option<Vec<String>>,
    /// The key may use every model
    #[arg(long, conflicts_with = "models")]
    all_models: bool,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RotateArgs {
    /// The id: what stands between dgw_ and the next underscore
    pub(super) id: String,
    /// How long the former secret is still taken, up to 7d; 0 for no longer
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration_or_none)]
    pub(super) grace: Duration,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

#[derive(Debug, Clone, Args)]
struct ExpiryArgs {
    /// Life time from now on, such as 90d, 12h or 30m; without it a new key does not expire
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires_in: Option<Duration>,
    /// When it expires, such as 2026-12-31T18:00:00Z, or a day, at whose start (UTC) it does
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "expires_in")]
    expires_at: Option<String>,
}

/// Any number if not given.
#[derive(Debug, Clone, Args)]
struct LimitArgs {
    /// Requests that the key may make in a minute, or none for any number, as with the others
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<Limit>,
    /// Requests of the key that may be under way at once
    #[arg(long, value_name = "N")]
    concurrent_requests: Option<Limit>,
    /// Tokens, of prompts and completions together, that the key may use in a minute
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<Limit>,
    /// Tokens that the key may use in a day (UTC)
    #[arg(long, value_name = "N")]
    tokens_per_day: Option<Limit>,
    /// Tokens that the key may use in a calendar month (UTC)
    #[arg(long, value_name = "N")]
    tokens_per_month: Option<Limit>,
}

/// A number, or `none`.
#[derive(Debug, Clone, Copy)]
struct Limit(Option<u64>);

impl FromStr for Limit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self(None)),
            number => number.parse().map(|number| Self(Some(number))).map_err(|_| "write a number, or none"),
        }
    }
}

impl CreateArgs {
    /// As the API takes it. The error has a line for each thing to mend.
    pub(super) fn body(&self) -> Result<Value, Vec<String>> {
        let mut body = Map::new();
        body.insert("label".to_owned(), json!(self.label));
        insert(&mut body, "owner", self.owner.as_ref().map(|owner| json!(owner)));
        insert(&mut body, "expiresAt", self.expiry.at()?.map(Value::from));
        insert(&mut body, "allowedModels", self.models.as_ref().map(|models| json!(models)));
        insert(&mut body, "limits", self.limits.change());
        Ok(body.into())
    }
}

impl UpdateArgs {
    /// As a merge patch: only what is to change.
    pub(super) fn change(&self) -> Result<Value, Vec<String>> {
        let mut change = Map::new();
        insert(&mut change, "label", self.label.as_ref().map(|label| json!(label)));
        insert(&mut change, "owner", self.owner.as_ref().map(|owner| json!(owner)));
        let expires_at = if self.no_expiry { Some(Value::Null) } else { self.expiry.at()?.map(Value::from) };
        insert(&mut change, "expiresAt", expires_at);
        let models = if self.all_models {
            Some(Value::Null)
        } else {
            self.models.as_ref().map(|models| json!(models))
        };
        insert(&mut change, "allowedModels", models);
        insert(&mut change, "limits", self.limits.change());
        if change.is_empty() {
            return Err(vec!["nothing is to change; 'keys update --help' says what can".to_owned()]);
        }
        Ok(change.into())
    }
}

impl ExpiryArgs {
    fn at(&self) -> Result<Option<String>, Vec<String>> {
        match self.expires_in {
            Some(life) => from_now(life).map(Some).map_err(|wrong| vec![format!("--expires-in: {wrong}")]),
            None => Ok(self.expires_at.clone()),
        }
    }
}

impl LimitArgs {
    /// The given ones; `None` if there are none.
    fn change(&self) -> Option<Value> {
        let mut limits = Map::new();
        for (name, limit) in [
            ("requestsPerMinute", self.requests_per_minute),
            ("concurrentRequests", self.concurrent_requests),
            ("tokensPerMinute", self.tokens_per_minute),
            ("tokensPerDay", self.tokens_per_day),
            ("tokensPerMonth", self.tokens_per_month),
        ] {
            insert(&mut limits, name, limit.map(|Limit(limit)| json!(limit)));
        }
        (!limits.is_empty()).then(|| limits.into())
    }
}

fn insert(object: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value);
    }
}
