//! Names of metrics: those that alerts and the dashboard ask for, and those that the code counts.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use super::{files, no_access};
use crate::{context::Context, process::Problem};

/// Where names are written out in full.
const GATEWAY: &str = "edge/gateway/src/metrics";
/// Where they are registered below a prefix.
const RUNNER: &str = "runner/server/src/metrics.rs";
const RUNNER_PREFIX: &str = "dyad_runner_";
/// What Prometheus makes of counters and histograms.
const SUFFIXES: [&str; 4] = ["_total", "_bucket", "_sum", "_count"];
/// The unit is a part of a name, which the gateway's code gives apart from it.
const UNIT: &str = "_seconds";

/// All queries of a dashboard, those of its variables too, with what Grafana puts into them.
pub(super) fn expressions(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut values = vec![dashboard];
    while let Some(value) = values.pop() {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(expression)) = members.get("expr") {
                    found.push(expression.replace("$__rate_interval", "5m"));
                }
                if let Some(Value::String(query)) = members.get("query") {
                    let metric = query.strip_prefix("label_values(").and_then(|rest| rest.split(',').next());
                    found.extend(metric.map(str::to_owned));
                }
                values.extend(members.values());
            }
            Value::Array(members) => values.extend(members),
            _ => {}
        }
    }
    found
}

/// A file of recording rules, so that promtool reads the expressions.
pub(super) fn as_rules(expressions: &[String]) -> String {
    let rule = |expression: &String| serde_json::json!({"record": "a:b:c", "expr": expression});
    // JSON is YAML. Rules of one name are told apart by a label.
    let rules: Vec<_> = expressions
        .iter()
        .enumerate()
        .map(|(at, expression)| {
            let mut rule = rule(expression);
            rule["labels"] = serde_json::json!({"at": at.to_string()});
            rule
        })
        .collect();
    serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()
}

/// The names in a text, of gateway's and runner's metrics, that the code does not count.
pub(super) fn unknown(context: &Context, text: &str) -> Result<Vec<String>, Problem> {
    let mut known = BTreeSet::new();
    for path in files(context, GATEWAY, &["rs"])? {
        let code = fs::read_to_string(&path).map_err(|error| no_access(&path, &error))?;
        known.extend(names(&code).map(str::to_owned));
    }
    let path = context.root.join(RUNNER);
    let code = fs::read_to_string(&path).map_err(|error| no_access(&path, &error))?;
    known.extend(registered(&code).map(|name| format!("{RUNNER_PREFIX}{name}")));
    let asked: BTreeSet<_> = names(text).collect();
    if known.is_empty() || asked.is_empty() {
        return Err(Problem("no metrics were found: are they counted elsewhere now?".into()));
    }
    Ok(asked.into_iter().filter(|name| !is_known(name, &known)).map(str::to_owned).collect())
}

fn is_known(name: &str, known: &BTreeSet<String>) -> bool {
    let base = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    known.contains(base) || base.strip_suffix(UNIT).is_some_and(|base| known.contains(base))
}

/// Everything in a text that could be the name of a metric of ours.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("dyad_gateway_") || word.starts_with(RUNNER_PREFIX))
}

/// The first argument of each `register(`.
fn registered(code: &str) -> impl Iterator<Item = &str> {
    code.split("register(").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_found_wherever_they_are() {
        let dashboard = serde_json::json!({
            "templating": {"list": [{"query": {"query": "label_values(dyad_gateway_ready, instance)"}}]},
            "panels": [{"panels": [{"targets": [{"expr": "rate(a[$__rate_interval])"}]}]}]});
        let mut found = expressions(&dashboard);
        found.sort();
        assert_eq!(found, ["dyad_gateway_ready", "rate(a[5m])"]);
        assert!(as_rules(&found).contains(r#""expr":"rate(a[5m])""#));
    }

    #[test]
    fn names_are_known_with_what_prometheus_adds() {
        let known = ["dyad_gateway_requests", "dyad_gateway_request_duration", "dyad_runner_wait_seconds"];
        let known = known.map(str::to_owned).into();
        for name in [
            "dyad_gateway_requests_total",
            "dyad_gateway_request_duration_seconds_bucket",
            "dyad_runner_wait_seconds_count",
        ] {
            assert!(is_known(name, &known), "{name}");
        }
        for name in ["dyad_gateway_request_total", "dyad_runner_wait_minutes", "dyad_gateway_"] {
            assert!(!is_known(name, &known), "{name}");
        }
    }

    #[test]
    fn names_are_read_from_queries_and_code() {
        let query =
            r#"sum by (le) (rate(dyad_gateway_requests_total{instance="a"}[5m])) / dyad_runner_slots"#;
        assert_eq!(names(query).collect::<Vec<_>>(), ["dyad_gateway_requests_total", "dyad_runner_slots"]);
        let code =
            "registry.register(\"runs\", \"x\", y);\nregistry.register(\n    \"wait_seconds\",\n    \"x\")";
        assert_eq!(registered(code).collect::<Vec<_>>(), ["runs", "wait_seconds"]);
    }
}
