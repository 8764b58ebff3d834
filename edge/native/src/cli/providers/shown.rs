//! Providers as they are printed.

use serde_json::{Value, json};

use super::test;
use crate::cli::values::{plain, shown_time};

/// Models named in one cell of a table.
const MODELS_SHOWN: usize = 8;

/// For programs, a line of a list; 'show' prints all of it.
pub(super) fn listed(provider: &Value) -> Value {
    json!({
        "slug": provider["slug"], "name": provider["name"], "type": provider["type"],
        "origin": provider["origin"], "version": provider["version"], "enabled": provider["enabled"],
        "health": provider["health"]["state"], "base_url": provider["adapterConfig"]["baseUrl"],
        "models": models(provider),
    })
}

pub(super) fn table(providers: &[Value]) -> Vec<Vec<String>> {
    let names = ["SLUG", "TYPE", "STATE", "HEALTH", "ADDRESS", "MODELS"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    rows.extend(providers.iter().map(|provider| {
        vec![
            text(&provider["slug"]),
            text(&provider["type"]),
            state(provider).to_owned(),
            text(&provider["health"]["state"]),
            address(provider),
            some_models(provider),
        ]
    }));
    rows
}

/// One provider: a row for each of its members.
pub(super) fn fields(provider: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![
        ("slug", text(&provider["slug"])),
        ("id", text(&provider["id"])),
        ("name", text(&provider["name"])),
        ("type", text(&provider["type"])),
        ("description", text(&provider["description"])),
        ("state", state(provider).to_owned()),
        ("rank", provider["rank"].to_string()),
        ("address", address(provider)),
        ("models", models(provider).join(", ")),
        ("credential", credential(provider)),
        ("origin", text(&provider["origin"])),
        ("changed", time(&provider["updatedAt"])),
        ("created", format!("{} by {}", time(&provider["createdAt"]), text(&provider["createdBy"]))),
        ("version", provider["version"].to_string()),
        ("health", health(&provider["health"])),
        ("last test", last_test(&provider["lastTest"])),
    ];
    if provider["origin"] == "given" {
        // Nobody wrote it into the store.
        rows.retain(|(name, _)| !["id", "changed", "created", "version"].contains(name));
    }
    let warnings = provider["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    rows.extend(warnings.iter().map(|warning| ("warning", text(warning))));
    rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
}

/// How its credential stands, without the credential.
pub(super) fn credential(provider: &Value) -> String {
    let credential = &provider["credentials"]["apiKey"];
    if credential["set"] != true {
        return "none".to_owned();
    }
    let reference = credential["reference"].as_str().map(plain);
    let parts = [
        Some(reference.unwrap_or_else(|| text(&credential["source"]))),
        credential["version"].as_u64().map(|version| format!("version {version}")),
        credential["fingerprint"].as_str().map(|fingerprint| format!("fingerprint {}", plain(fingerprint))),
        credential["setAt"].as_str().map(|at| format!("set {}", shown_time(at))),
        credential["previous"]["until"]
            .as_str()
            .map(|until| format!("the former is kept until {}", shown_time(until))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn models(provider: &Value) -> Vec<String> {
    let models = provider["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    models.iter().filter_map(|model| model["dyadModelId"].as_str()).map(plain).collect()
}

fn some_models(provider: &Value) -> String {
    let mut models = models(provider);
    if models.is_empty() {
        return "those that it has".to_owned();
    }
    let more = models.len().saturating_sub(MODELS_SHOWN);
    models.truncate(MODELS_SHOWN);
    let models = models.join(", ");
    if more == 0 { models } else { format!("{models}, and {more} more") }
}

fn address(provider: &Value) -> String {
    let config = &provider["adapterConfig"];
    let url = config["baseUrl"].as_str().map(plain);
    url.or_else(|| config["cli"].as_str().map(|cli| format!("cli:{}", plain(cli)))).unwrap_or_default()
}

fn state(provider: &Value) -> &'static str {
    if provider["enabled"] == true { "enabled" } else { "disabled" }
}

fn health(health: &Value) -> String {
    let since = health["since"].as_str().map(|since| format!(" since {}", shown_time(since)));
    let failure = health["failure"].is_object().then(|| format!(": {}", test::failure(&health["failure"])));
    let state = text(&health["state"]);
    format!("{state}{}{}", since.unwrap_or_default(), failure.unwrap_or_default())
}

fn last_test(report: &Value) -> String {
    if !report.is_object() {
        return "none".to_owned();
    }
    let at = time(&report["at"]);
    if report["ok"] == true {
        format!("{at}: ok, {} ms", report["timing"]["endMs"])
    } else {
        format!("{at}: {}", test::failure(&report["failure"]))
    }
}

fn text(value: &Value) -> String {
    value.as_str().filter(|text| !text.is_empty()).map_or_else(|| "-".to_owned(), plain)
}

fn time(value: &Value) -> String {
    value.as_str().map_or_else(|| "-".to_owned(), shown_time)
}
