//! `dyad-gateway providers check`, and `list` of what a start would use.

use serde_json::json;

use crate::cli::{CommonArgs, Failure, ProviderArgs, StoreArgs, block_on};
use crate::discovery;
use crate::output::{Output, count};
use crate::providers::{gather, open_gateway};

/// Asks all providers for their models: to list those, or to say which providers fail.
pub(super) fn run(
    args: &ProviderArgs,
    store: &StoreArgs,
    common: &CommonArgs,
    lists: bool,
) -> Result<(), Failure> {
    let output = Output::new(common.json);
    let given = gather(args, store, common)?;
    block_on(async {
        let opened = open_gateway(given, None).await?;
        let gateway = opened.0.gateway();
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
            let (state, detail) = match &check.models {
                Ok(models) => ("ok", count(*models, "model")),
                Err(reason) => ("failed", reason.clone()),
            };
            failed += usize::from(check.models.is_err());
            output.object(&json!({
                "slug": slug, "name": check.provider.name, "type": check.provider.kind(),
                "base_url": check.provider.adapter.http().map(|config| &config.base_url),
                "enabled": check.provider.enabled, "state": state, "detail": detail, "models": served,
            }));
            let last = if lists && check.models.is_ok() { served.join(", ") } else { detail };
            rows.push(vec![slug.to_owned(), state.to_owned(), check.provider.adapter.address(), last]);
        }
        if rows.is_empty() {
            output.say(
                "There are no providers. Set OPENAI_API_KEY, start Ollama, or give --upstream or --config.",
            );
        }
        output.table(&rows);
        if failed > 0 && !lists {
            return Err(Failure::Failed(format!(
                "{failed} of {} cannot be used",
                count(rows.len(), "provider")
            )));
        }
        Ok(())
    })?
}
