//! `dyad-gateway explain`

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::api_client::{Api, ApiArgs, Call, Needs};
use super::values::{plain, read_json};
use super::{Failure, block_on};
use crate::output::Output;

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  dyad-gateway explain --model llama3.2\n  dyad-gateway explain --key ID request.json\n  dyad-gateway explain --url https://gateway.example.com --model fast --key ID"
)]
pub(crate) struct ExplainArgs {
    /// A chat request as a client would send it, as JSON; - for standard input. Without it, a short one of --model
    #[arg(required_unless_present = "model")]
    file: Option<PathBuf>,
    /// The model that is asked for
    #[arg(long)]
    model: Option<String>,
    /// The id of the API key that it is sent with; without it, a key that may do everything
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let output = Output::new(args.api.common.json);
    let mut request = match &args.file {
        Some(file) => read_json(file)?,
        None => json!({"messages": [{"role": "user", "content": "Hello"}]}),
    };
    if let (Some(model), Value::Object(request)) = (&args.model, &mut request) {
        request.insert("model".to_owned(), json!(model));
    }
    let mut body = json!({"request": request});
    if let Some(key) = &args.key {
        body["keyId"] = json!(key);
    }
    block_on(async {
        let api = Api::open(&args.api, Needs::Gateway).await?;
        let explanation = api.json(Call::post(&["explain"], body)).await?;
        output.object(&explanation);
        for line in lines(&explanation) {
            output.say(line);
        }
        Ok(())
    })?
}

/// In the order in which it would be decided.
fn lines(explanation: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(plain).unwrap_or_default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    if let Some(model) = explanation["model"].as_str() {
        let stream = if explanation["stream"] == true { ", streamed" } else { "" };
        lines.push(format!("model        {}{stream}", plain(model)));
    }
    for limit in list(&explanation["limits"]) {
        let left = limit["remaining"].as_u64().map(|left| format!(", {left} left")).unwrap_or_default();
        lines.push(format!("limit        {}: {}{left}", text(&limit["name"]), limit["limit"]));
    }
    lines.push(format!(
        "set aside    {} tokens for the prompt, {} for the answer",
        explanation["estimatedPromptTokens"], explanation["estimatedCompletionTokens"]
    ));
    let refused = &explanation["refused"];
    if refused.is_object() {
        lines.push(format!(
            "refused      {} {}: {}",
            refused["status"],
            text(&refused["code"]),
            text(&refused["message"])
        ));
    }
    let targets = list(&explanation["targets"]);
    if targets.is_empty() && !refused.is_object() {
        lines.push("targets      none".to_owned());
    }
    for (index, target) in targets.iter().enumerate() {
        lines.push(format!(
            "{:<12} {} ({}) {} at {}",
            format!("target {}", index + 1),
            text(&target["provider"]),
            text(&target["type"]),
            text(&target["upstreamModel"]),
            text(&target["address"])
        ));
        let indented = |what: &str| format!("{:13}{what}", "");
        lines.extend(
            list(&target["rewritten"]).iter().map(|what| indented(&format!("changes {}", text(what)))),
        );
        lines.extend(
            target["passedOver"].as_str().map(|why| indented(&format!("passed over: {}", plain(why)))),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_told_in_its_order() {
        let explanation = json!({
            "model": "fast", "stream": true, "refused": null, "estimatedPromptTokens": 9, "estimatedCompletionTokens": 1024,
            "limits": [{"name": "requestsPerMinute", "limit": 60, "remaining": 59}],
            "targets": [
                {"provider": "a", "type": "proxy", "upstreamModel": "x", "address": "https://a.example/v1",
                 "rewritten": ["model: fast → x"], "passedOver": null},
                {"provider": "b", "type": "spawn-cli", "upstreamModel": "y", "address": "cli:b", "rewritten": [],
                 "passedOver": "no runner is up"},
            ],
        });
        assert_eq!(
            lines(&explanation),
            [
                "model        fast, streamed",
                "limit        requestsPerMinute: 60, 59 left",
                "set aside    9 tokens for the prompt, 1024 for the answer",
                "target 1     a (proxy) x at https://a.example/v1",
                "             changes model: fast → x",
                "target 2     b (spawn-cli) y at cli:b",
                "             passed over: no runner is up",
            ]
        );
    }
}
