//! `dyad-gateway providers test`.

use clap::Args;
use serde_json::{Map, Value, json};

use super::NameArg;
use crate::cli::api_client::{Api, ApiArgs, Call, Needs};
use crate::cli::values::plain;
use crate::cli::{Failure, block_on};
use crate::output::Output;

#[derive(Debug, Clone, Args)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    name: NameArg,
    /// The model to ask, by the name that clients use; the first that can chat if not given
    #[arg(long)]
    model: Option<String>,
    /// Have the answer streamed
    #[arg(long)]
    stream: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

pub(super) fn run(args: &TestArgs) -> Result<(), Failure> {
    let output = Output::new(args.api.common.json);
    let name = args.name.get()?;
    block_on(async {
        let api = Api::open(&args.api, Needs::Gateway).await?;
        output.remark("A tiny chat …");
        let report = ask(&api, name, args.model.as_deref(), args.stream).await;
        let report = report.map_err(|error| args.name.failure(error, &api))?;
        show(&report, output);
        passed(&report)
    })?
}

/// Has the provider tested.
pub(super) async fn ask(
    api: &Api,
    name: &str,
    model: Option<&str>,
    stream: bool,
) -> Result<Value, crate::cli::api_client::ApiError> {
    let mut body = Map::new();
    body.insert("stream".to_owned(), json!(stream));
    if let Some(model) = model {
        body.insert("model".to_owned(), json!(model));
    }
    api.json(Call::post(&["providers", name, "test"], body.into())).await
}

/// An error if the test failed.
pub(super) fn passed(report: &Value) -> Result<(), Failure> {
    if report["ok"] == true {
        return Ok(());
    }
    Err(Failure::Failed(format!("the test failed: {}", failure(&report["failure"]))))
}

/// Why something failed, and what to do about it.
pub(super) fn failure(failure: &Value) -> String {
    let text = |name: &str| failure[name].as_str().map(plain).filter(|text| !text.is_empty());
    let class = text("class").unwrap_or_else(|| "unknown".to_owned());
    let message = text("message").unwrap_or_else(|| "no reason was given".to_owned());
    let advice = text("advice").map(|advice| format!(" ({advice})")).unwrap_or_default();
    format!("{class}: {message}{advice}")
}

pub(super) fn show(report: &Value, output: Output) {
    output.object(report);
    output.table(&rows(report));
}

fn rows(report: &Value) -> Vec<Vec<String>> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let ms = |stage: &str| report["timing"][stage].as_u64();
    let mut rows = vec![row("result", if report["ok"] == true { "ok" } else { "failed" }.to_owned())];
    if let Some(model) = report["model"].as_str().filter(|model| !model.is_empty()) {
        rows.push(row("model", plain(model)));
    }
    for (name, stage) in [
        ("resolved", "resolvedMs"),
        ("connected", "connectedMs"),
        ("first byte", "firstByteMs"),
        ("first token", "firstTokenMs"),
        ("end", "endMs"),
    ] {
        rows.extend(ms(stage).map(|ms| row(name, format!("{ms} ms"))));
    }
    let usage = &report["usage"];
    if let (Some(prompt), Some(completion)) =
        (usage["promptTokens"].as_u64(), usage["completionTokens"].as_u64())
    {
        let estimated = if usage["estimated"] == true { ", estimated" } else { "" };
        rows.push(row("tokens", format!("{prompt} of the prompt, {completion} of the answer{estimated}")));
    }
    if let Some(answer) = report["answer"].as_str() {
        rows.push(row("answer", plain(answer)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_that_were_not_reached_are_left_out() {
        let report = json!({
            "ok": false, "model": "m", "timing": {"resolvedMs": 1, "connectedMs": null, "endMs": 12},
            "usage": null, "answer": null, "failure": {"class": "auth", "message": "refused\u{1b}[2J", "advice": ""},
        });
        let shown = rows(&report).concat();
        assert_eq!(shown, ["result", "failed", "model", "m", "resolved", "1 ms", "end", "12 ms"]);
        let Err(Failure::Failed(line)) = passed(&report) else { panic!("it failed") };
        assert_eq!(line, "the test failed: auth: refused [2J");
    }
}
