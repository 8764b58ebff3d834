//! `dyad-gateway providers …`

use clap::Subcommand;
use serde_json::json;

use super::{CommonArgs, Failure, ProviderArgs, block_on};
use crate::data_dir::DataDir;
use crate::discovery;
use crate::output::{Output, count};
use crate::providers::{gather, open_gateway, reason};

#[derive(Debug, Subcommand)]
pub(crate) enum ProvidersCommand {
    /// List the providers and their models
    List {
        #[command(flatten)]
        providers: ProviderArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Ask every provider for its models and say which answer
    Check {
        #[command(flatten)]
        providers: ProviderArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
}

impl ProvidersCommand {
    pub(crate) fn common(&self) -> &CommonArgs {
        match self {
            Self::List { common, .. } | Self::Check { common, .. } => common,
        }
    }
}

pub(crate) fn run(command: &ProvidersCommand) -> Result<(), Failure> {
    let (ProvidersCommand::List { providers, common } | ProvidersCommand::Check { providers, common }) =
        command;
    let output = Output::new(common.json);
    let given = gather(providers)?;
    block_on(async {
        let opened = open_gateway(&DataDir::locate(common.data_dir.as_deref()), given, None).await?;
        let gateway = opened.gateway();
        let checks = gateway.check_providers().await;
        let models = gateway.models();
        let mut rows = Vec::new();
        let mut failed = 0;
        for check in &checks {
            let slug = check.provider.slug.as_str();
            // What was only looked for, and is not there, is no provider.
            if check.models.is_err() && discovery::is_local_candidate(slug) {
                continue;
            }
            let served: Vec<&str> =
                models.iter().filter(|m| m.provider.as_str() == slug).map(|m| m.id.as_str()).collect();
            let (state, detail) = match (&check.models, reason(check)) {
                (Ok(models), _) => ("ok", count(*models, "model")),
                (Err(_), reason) => ("failed", reason.unwrap_or_default()),
            };
            failed += usize::from(check.models.is_err());
            output.object(&json!({
                "slug": slug, "name": check.provider.name, "type": check.provider.kind(),
                "base_url": check.provider.adapter.http().map(|config| &config.base_url),
                "enabled": check.provider.enabled, "state": state, "detail": detail, "models": served,
            }));
            let lists = matches!(command, ProvidersCommand::List { .. }) && check.models.is_ok();
            let last = if lists { served.join(", ") } else { detail };
            rows.push(vec![slug.to_owned(), state.to_owned(), check.provider.adapter.address(), last]);
        }
        if rows.is_empty() {
            output.say(
                "There are no providers. Set OPENAI_API_KEY, start Ollama, or give --upstream or --config.",
            );
        }
        output.table(&rows);
        if failed > 0 && matches!(command, ProvidersCommand::Check { .. }) {
            return Err(Failure::Failed(format!(
                "{failed} of {} cannot be used",
                count(rows.len(), "provider")
            )));
        }
        Ok(())
    })?
}
