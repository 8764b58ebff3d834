//! `dyad-gateway runners …`

use clap::Subcommand;
use serde_json::{Value, json};

use super::api_client::{Api, ApiArgs, Call, MAX_LISTED, Needs};
use super::values::plain;
use super::{CommonArgs, Failure, block_on};
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum RunnersCommand {
    /// List the nodes that run CLIs, and how busy they are
    List {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Let a node finish its runs and take no more
    #[command(
        after_help = "Example:\n  dyad-gateway runners drain runner-1 --url https://gateway.example.com"
    )]
    Drain {
        /// As 'runners list' shows it
        id: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

impl RunnersCommand {
    fn api(&self) -> &ApiArgs {
        match self {
            Self::List { api } | Self::Drain { api, .. } => api,
        }
    }

    pub(crate) fn common(&self) -> &CommonArgs {
        &self.api().common
    }
}

pub(crate) fn run(command: &RunnersCommand) -> Result<(), Failure> {
    let output = Output::new(command.common().json);
    block_on(async {
        let api = Api::open(command.api(), Needs::Gateway).await?;
        match command {
            RunnersCommand::List { .. } => {
                let runners = api.list(Call::get(&["runners"]), MAX_LISTED).await?;
                for runner in &runners {
                    output.object(runner);
                }
                if runners.is_empty() {
                    output.say(format!(
                        "{api} knows no runner. One inside a gateway that serves is known there: name it with --url."
                    ));
                } else {
                    output.table(&table(&runners));
                }
            }
            RunnersCommand::Drain { id, .. } => {
                let drained = api.json(Call::post(&["runners", id, "drain"], json!({}))).await;
                drained.map_err(|error| {
                    error.say("not_found", || {
                        format!("there is no runner {}; 'runners list' shows those there are", plain(id))
                    })
                })?;
                output.object(&json!({"id": id, "draining": true}));
                output.say(format!("{} takes no more runs, and finishes those that it has.", plain(id)));
            }
        }
        Ok(())
    })?
}

fn table(runners: &[Value]) -> Vec<Vec<String>> {
    let names = ["ID", "STATE", "RUNNING", "SLOTS", "QUEUED", "READY", "VERSION", "CLIS", "URL"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    rows.extend(runners.iter().map(|runner| {
        let text = |name: &str| runner[name].as_str().map(plain).unwrap_or_default();
        let clis = runner["clis"].as_array().map(Vec::as_slice).unwrap_or_default();
        let clis: Vec<_> = clis.iter().filter_map(Value::as_str).map(plain).collect();
        let state = match (runner["up"] == true, runner["draining"] == true) {
            (false, _) => "down",
            (true, true) => "draining",
            (true, false) => "up",
        };
        vec![
            text("id"),
            state.to_owned(),
            runner["running"].to_string(),
            runner["slots"].to_string(),
            runner["queued"].to_string(),
            runner["parked"].to_string(),
            text("version"),
            clis.join(", "),
            text("url"),
        ]
    }));
    rows
}
