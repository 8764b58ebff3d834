//! What would become of a chat request, found out by the very functions that decide it. Nobody is called, and nothing is
//! reserved or counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use catalog::{
    ApiKeyRecord, ExplainedError, ExplainedTarget, Explanation, Model, Provider, ProviderKind, SpawnCliConfig,
};
use openai_wire::request::ChatScan;
use serde_json::value::RawValue;

use crate::Gateway;
use crate::adapter::{Conversation, Corrections, Parameters, chat_body, nodes_for, read_conversation};
use crate::admit;
use crate::authenticate::check_validity;
use crate::chat::{can_answer, estimate_chat};
use crate::error::ApiError;
use crate::routes::{Adapter, Target};

/// Longest value that is quoted.
const MAX_QUOTED_CHARS: usize = 80;

impl Gateway {
    /// What would become of a chat request (the body as a client sends it) of this key: each refusal on its way, of
    /// which the first is told, and every target with what it would be sent. The key need not be stored. What is left of
    /// its limits is what this instance knows.
    pub async fn explain(&self, body: &[u8], key: &ApiKeyRecord) -> Explanation {
        self.0.config.ensure_fresh().await;
        let mut told = Explanation::default();
        let refused = self.explain_into(Bytes::copy_from_slice(body), key, &mut told).await;
        refuse(&mut told, refused);
        told
    }

    /// The stages of the pipeline. Those that have something to say go on behind a refusal; without a model there is
    /// nothing to go on with.
    async fn explain_into(
        &self,
        body: Bytes,
        key: &ApiKeyRecord,
        told: &mut Explanation,
    ) -> Result<(), ApiError> {
        let inner = &self.0;
        refuse(told, check_validity(key, inner.limits.fleet_ms()));
        let usage = inner.config.known_usage(&key.id);
        let (limits, admitted) = admit::foresee(&key.limits, usage.as_deref(), &inner.limits);
        told.limits = limits;
        refuse(told, admitted);
        if body.len() > inner.settings.max_body_bytes {
            return Err(ApiError::body_too_large(inner.settings.max_body_bytes));
        }
        let scan = ChatScan::scan(&body)?;
        told.model = Some(scan.model.clone());
        told.stream = scan.stream;
        let routes = inner.config.routes();
        let all = routes.targets(&scan.model).to_vec();
        let allowed = routes.resolve(&scan.model, key).map(<[_]>::to_vec);
        drop(routes);
        // Why a CLI would not be asked this, if it would not.
        let conversation = Conversation::read(&scan, &body);
        inner.nodes.ensure_fresh().await;
        for target in &all {
            let mut explained = self.explain_target(&scan, &body, target, conversation.as_ref());
            if allowed.is_none() {
                explained.passed_over = Some("this API key may not use the model by this name".to_owned());
            }
            told.targets.push(explained);
        }
        let aside = inner.config.left_aside(&scan.model);
        told.targets
            .extend(aside.into_iter().map(|(provider, model, reason)| left_aside(&provider, model, reason)));
        let mut targets = allowed.ok_or_else(|| ApiError::model_not_found(&scan.model))?;
        refuse(told, can_answer(&scan, &targets));
        refuse(told, read_conversation(&scan, &body, &mut targets).map(drop));
        let estimate = estimate_chat(&scan, &body, &targets, &key.limits);
        let reserved = estimate.under(&key.limits);
        let shown = reserved.as_ref().copied().unwrap_or(estimate);
        told.estimated_prompt_tokens = shown.prompt;
        told.estimated_completion_tokens = shown.completion;
        reserved.map(drop)
    }

    fn explain_target(
        &self,
        scan: &ChatScan,
        body: &Bytes,
        target: &Arc<Target>,
        conversation: Result<&Conversation, &ApiError>,
    ) -> ExplainedTarget {
        let (address, rewritten, passed_over) = match &target.upstream.adapter {
            Adapter::OpenAi(api) => {
                let sent = chat_body(scan, target, &Corrections::default()).concat();
                (api.chat.to_string(), differences(body, &sent), None)
            }
            Adapter::SpawnCli(cli) => {
                let run = conversation.map_err(|error| error.message.to_string()).and_then(|conversation| {
                    let nodes = nodes_for(&self.0.nodes, cli, target, conversation);
                    let mut nodes = nodes.map_err(|failure| failure.message.to_string())?;
                    Ok(nodes.swap_remove(0).1)
                });
                let (parameters, passed_over) = match run {
                    Ok(parameters) => (parameters, None),
                    Err(reason) => (Parameters::new(), Some(reason)),
                };
                (format!("cli:{}", cli.cli), run_differences(scan, body, cli, &parameters), passed_over)
            }
        };
        ExplainedTarget {
            provider: target.upstream.slug.clone(),
            kind: kind(target.upstream.kind),
            upstream_model: target.model.upstream_id.clone(),
            address,
            rewritten,
            passed_over,
        }
    }
}

/// The first refusal is the one that the client would get.
fn refuse(told: &mut Explanation, stage: Result<(), ApiError>) {
    if let (None, Err(error)) = (&told.refused, stage) {
        told.refused = Some(ExplainedError {
            status: error.status.as_u16(),
            code: error.code.into_owned(),
            message: error.message.into_owned(),
        });
    }
}

fn left_aside(provider: &Provider, model: Model, reason: String) -> ExplainedTarget {
    ExplainedTarget {
        provider: provider.slug.clone(),
        kind: kind(provider.kind()),
        upstream_model: model.upstream_id,
        address: provider.adapter.address(),
        rewritten: Vec::new(),
        passed_over: Some(reason),
    }
}

fn kind(kind: ProviderKind) -> String {
    match kind {
        ProviderKind::Proxy => "proxy",
        ProviderKind::Local => "local",
        ProviderKind::SpawnCli => "spawn-cli",
    }
    .to_owned()
}

/// The members of a JSON object as they are written. Nothing for what is none, which a scan has refused before.
fn members(body: &[u8]) -> BTreeMap<String, &RawValue> {
    serde_json::from_slice(body).unwrap_or_default()
}

/// What is sent otherwise than it came, member by member.
fn differences(came: &[u8], sent: &[u8]) -> Vec<String> {
    let (came, sent) = (members(came), members(sent));
    let mut told = Vec::new();
    for (name, value) in &came {
        match sent.get(name) {
            None => told.push(format!("{name}: dropped")),
            Some(new) if new.get() == value.get() => {}
            Some(new) => match (quoted(value), quoted(new)) {
                (Some(value), Some(new)) => told.push(format!("{name}: {value} → {new}")),
                _ => told.push(format!("{name}: corrected")),
            },
        }
    }
    for (name, value) in sent.iter().filter(|(name, _)| !came.contains_key(*name)) {
        let value = quoted(value).map_or_else(String::new, |value| format!(": {value}"));
        told.push(format!("{name}: added{value}"));
    }
    told
}

/// A run has the messages, and parameters of its CLI.
fn run_differences(
    scan: &ChatScan,
    body: &[u8],
    cli: &SpawnCliConfig,
    parameters: &Parameters,
) -> Vec<String> {
    const EFFORT: &str = "reasoning_effort";
    let mut told = Vec::new();
    for name in members(body).keys() {
        match name.as_str() {
            "model" => match cli.model_parameter.as_ref().and_then(|name| parameters.get(name)) {
                Some(value) if *value == scan.model => {}
                Some(value) => told.push(format!("model: {} → {value}", scan.model)),
                None => told.push("model: dropped".to_owned()),
            },
            EFFORT => match (&scan.reasoning_effort, parameters.get(EFFORT)) {
                (Some(asked), Some(value)) if asked == value => {}
                (Some(asked), Some(value)) => told.push(format!("{EFFORT}: {asked} → {value}")),
                _ => told.push(format!("{EFFORT}: dropped")),
            },
            // They shape the answer, which is the gateway's to write.
            "messages" | "stream" | "stream_options" | "n" => {}
            other => told.push(format!("{other}: dropped")),
        }
    }
    let own = parameters.iter().filter(|(name, _)| {
        let is_models = cli.model_parameter.as_ref() == Some(*name);
        let is_clients = name.as_str() == EFFORT && scan.reasoning_effort.is_some();
        !is_models && !is_clients
    });
    told.extend(own.map(|(name, value)| format!("{name}: added: {value}")));
    told
}

/// A value as people read it; `None` for what is too long to be shown.
fn quoted(value: &RawValue) -> Option<String> {
    let text = serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
    (text.chars().count() <= MAX_QUOTED_CHARS).then_some(text)
}
