//! `dyad-gateway keys …`

use std::time::Duration;

use catalog::{Action, ApiKeyId, ApiKeyLimits, KeyStore, StoreError};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{CommonArgs, Failure, StoreArgs, block_on};
use crate::embedded::{NewApiKey, by, create_key, now_ms};
use crate::output::Output;
use crate::store_location::{OpenedStore, locate_for};

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Create an API key and show it, this once
    Create {
        /// What the key is for
        #[arg(long, default_value = "unnamed")]
        label: String,
        /// Life time, such as 90d, 12h or 30m; without it the key does not expire
        #[arg(long, value_name = "DURATION", value_parser = life_time)]
        expires_in: Option<Duration>,
        /// Models that the key may use, separated by commas; all if not given
        #[arg(long, value_name = "MODEL", value_delimiter = ',')]
        models: Option<Vec<String>>,
        #[command(flatten)]
        limits: LimitArgs,
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// List the API keys (never their secrets)
    List {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Revoke an API key; a running gateway refuses it within seconds
    Revoke {
        /// The id: what stands between dgw_ and the next underscore
        id: String,
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
}

/// Any number if not given.
#[derive(Debug, Clone, Args)]
pub(crate) struct LimitArgs {
    /// Requests that the key may make in a minute
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,
    /// Requests of the key that may be under way at once
    #[arg(long, value_name = "N")]
    concurrent_requests: Option<u32>,
    /// Tokens, of prompts and completions together, that the key may use in a minute
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u64>,
    /// Tokens that the key may use in a day (UTC)
    #[arg(long, value_name = "N")]
    tokens_per_day: Option<u64>,
    /// Tokens that the key may use in a calendar month (UTC)
    #[arg(long, value_name = "N")]
    tokens_per_month: Option<u64>,
}

impl From<&LimitArgs> for ApiKeyLimits {
    fn from(args: &LimitArgs) -> Self {
        Self {
            requests_per_minute: args.requests_per_minute,
            concurrent_requests: args.concurrent_requests,
            tokens_per_minute: args.tokens_per_minute,
            tokens_per_day: args.tokens_per_day,
            tokens_per_month: args.tokens_per_month,
        }
    }
}

impl KeysCommand {
    pub(crate) fn common(&self) -> &CommonArgs {
        match self {
            Self::Create { common, .. } | Self::List { common, .. } | Self::Revoke { common, .. } => common,
        }
    }

    fn store(&self) -> &StoreArgs {
        match self {
            Self::Create { store, .. } | Self::List { store, .. } | Self::Revoke { store, .. } => store,
        }
    }
}

pub(crate) fn run(command: &KeysCommand) -> Result<(), Failure> {
    let common = command.common();
    let output = Output::new(common.json);
    let location = locate_for(command.store(), common).map_err(Failure::Usage)?;
    block_on(async {
        let opened = location.open().await?;
        let store = &*opened.store;
        match command {
            KeysCommand::Create { label, expires_in, models, limits, .. } => {
                let hasher = opened.hasher().await?;
                let new = NewApiKey {
                    label: label.clone(),
                    expires_in: *expires_in,
                    allowed_models: models.clone(),
                    limits: limits.into(),
                };
                let key = create_key(store, &hasher, new).await?;
                let id = key.id().as_str();
                let shown = json!({"id": id, "api_key": key.expose(), "label": label});
                // A key that nobody saw is of no use to anybody.
                output.deliver(key.expose(), &shown).map_err(|error| {
                    Failure::Failed(format!(
                        "the key could not be shown ({error}); revoke it: keys revoke {id}"
                    ))
                })?;
                output.remark("Keep it now: it is stored only as a hash and cannot be shown again.");
            }
            KeysCommand::List { .. } => list(&opened, output).await?,
            KeysCommand::Revoke { id, .. } => {
                let id =
                    ApiKeyId::parse(id).map_err(|error| Failure::Usage(vec![format!("{id}: {error}")]))?;
                revoke(&opened, &id).await?;
                output.object(&json!({"id": id.as_str(), "revoked": true}));
                output.say(format!(
                    "Revoked {}. A running gateway refuses it within ten seconds.",
                    id.as_str()
                ));
            }
        }
        Ok(())
    })?
}

async fn list(opened: &OpenedStore, output: Output) -> Result<(), Failure> {
    let list = opened.store.keys().await.map_err(|error| opened.error(error))?;
    let now = now_ms();
    let names = [
        "ID",
        "LABEL",
        "STATE",
        "MODELS",
        "REQUESTS/MIN",
        "CONCURRENT",
        "TOKENS/MIN",
        "TOKENS/DAY",
        "TOKENS/MONTH",
    ];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    for key in list.keys.iter().map(|key| &key.value) {
        let state = match (key.revoked_at_ms, key.expires_at_ms) {
            (Some(_), _) => "revoked",
            (None, Some(at)) if at <= now => "expired",
            (None, _) => "active",
        };
        let limits = &key.limits;
        let or_any = |limit: Option<u64>| limit.map_or_else(|| "any".to_owned(), |limit| limit.to_string());
        let models = key.allowed_models.as_ref().map_or_else(|| "all".to_owned(), |models| models.join(","));
        output.object(&json!({
            "id": key.id.as_str(), "label": key.label, "state": state, "created_at_ms": key.created_at_ms,
            "expires_at_ms": key.expires_at_ms, "revoked_at_ms": key.revoked_at_ms, "models": key.allowed_models,
            "requests_per_minute": limits.requests_per_minute, "concurrent_requests": limits.concurrent_requests,
            "tokens_per_minute": limits.tokens_per_minute, "tokens_per_day": limits.tokens_per_day,
            "tokens_per_month": limits.tokens_per_month,
        }));
        rows.push(vec![
            key.id.as_str().to_owned(),
            key.label.clone(),
            state.to_owned(),
            models,
            or_any(limits.requests_per_minute.map(u64::from)),
            or_any(limits.concurrent_requests.map(u64::from)),
            or_any(limits.tokens_per_minute),
            or_any(limits.tokens_per_day),
            or_any(limits.tokens_per_month),
        ]);
    }
    if list.keys.is_empty() {
        output.say("There are no API keys; 'dyad-gateway keys create' makes one.");
    } else {
        output.table(&rows);
    }
    Ok(())
}

async fn revoke(opened: &OpenedStore, id: &ApiKeyId) -> Result<(), Failure> {
    loop {
        let found = opened.store.find_key(id).await.map_err(|error| opened.error(error))?;
        let mut key = found.ok_or_else(|| {
            Failure::Failed(format!("there is no API key {}; 'keys list' shows those there are", id.as_str()))
        })?;
        key.value.revoked_at_ms.get_or_insert_with(now_ms);
        match opened.store.put_key(&key.value, Some(key.version), &by(Action::Revoke)).await {
            Ok(_) => return Ok(()),
            // Somebody changed it in between: look again.
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(opened.error(error).into()),
        }
    }
}

pub(super) fn life_time(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and a unit: 90d, 12h, 30m or 45s".to_owned();
    let unit_at = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at)).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(seconds) if (1..=100 * 366 * 86_400).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err("a life time is between a second and a hundred years".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_times() {
        assert_eq!(life_time("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(life_time("45s"), Ok(Duration::from_secs(45)));
        for wrong in
            ["", "d", "0d", "-1d", "1w", "1.5h", "99999999999999999999d", "18446744073709551615d", "1é"]
        {
            assert!(life_time(wrong).is_err(), "{wrong}");
        }
    }
}
