//! The rules for CLIs that runners run.

use std::collections::BTreeMap;

use super::{check_timeouts, required};
use crate::Violations;
use crate::provider::SpawnCliConfig;
use crate::provider::fields::{Fields, kind};

const MAX_PARAMETERS: usize = 32;
const MAX_CLI_NAME_BYTES: usize = 63;
const MAX_PARAMETER_NAME_BYTES: usize = 32;
const MAX_VALUE_BYTES: usize = 256;
const DEFAULT_MODEL_PARAMETER: &str = "model";

/// `None` only if a violation was noted. Whether any runner has the CLI and its parameters is known only later.
pub(super) fn check(fields: &mut Fields<'_>, violations: &mut Violations) -> Option<SpawnCliConfig> {
    let cli = required(fields, "cli", violations, |fields, violations| {
        let cli = fields.string("cli", violations)?;
        if !is_cli_name(cli) {
            violations
                .add("cli", "must be at most 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first");
        }
        Some(cli.to_owned())
    });
    let model_parameter = match fields.string("model_parameter", violations) {
        None => Some(DEFAULT_MODEL_PARAMETER.to_owned()),
        Some("") => None,
        Some(name) => {
            if !is_parameter_name(name) {
                violations
                    .add("model_parameter", format!("{PARAMETER_NAME}, or \"\" for a CLI that has none"));
            }
            Some(name.to_owned())
        }
    };
    let parameters = check_parameters(fields, model_parameter.as_deref(), violations);
    let timeouts = check_timeouts(fields, violations);
    Some(SpawnCliConfig { cli: cli?, model_parameter, parameters, timeouts })
}

const PARAMETER_NAME: &str = "must be at most 32 of a-z, 0-9 and '_', a letter first";

fn check_parameters(
    fields: &mut Fields<'_>,
    model_parameter: Option<&str>,
    violations: &mut Violations,
) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    let Some(given) = fields.map("parameters", MAX_PARAMETERS, violations) else { return parameters };
    for (name, value) in given {
        let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
        let message = match value.as_str() {
            _ if !is_parameter_name(name) => format!("the name {PARAMETER_NAME}"),
            _ if Some(name.as_str()) == model_parameter => {
                "is the model_parameter: each model's upstream_id is its value".to_owned()
            }
            None => format!("must be a string, not {}", kind(value)),
            Some(value) if value.is_empty() || value.len() > MAX_VALUE_BYTES => {
                format!("must have 1 to {MAX_VALUE_BYTES} bytes")
            }
            Some(value) if value.starts_with('-') => {
                "must not begin with '-': a CLI would take it for an option".to_owned()
            }
            Some(value) if value.chars().any(char::is_control) => {
                "must not contain control characters".to_owned()
            }
            Some(value) => {
                parameters.insert(name.clone(), value.to_owned());
                continue;
            }
        };
        violations.add(format!("parameters.{shown}"), message);
    }
    parameters
}

/// As the runner's own file has it.
fn is_cli_name(name: &str) -> bool {
    name.len() <= MAX_CLI_NAME_BYTES
        && name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

fn is_parameter_name(name: &str) -> bool {
    name.len() <= MAX_PARAMETER_NAME_BYTES
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
