//! `[cli.parameters]`: what a request may choose, and where it goes.

use std::collections::BTreeMap;

use cli_dialect::Kind;
use toml::Value;

use crate::config::Fields;
use crate::config::fields::{shown, text};
use crate::config::model::{Allowed, Parameter, Piece, Template};
use crate::config::template::is_parameter_name;

const MAX_PARAMETERS: usize = 32;
const MAX_VALUES: usize = 256;
const MAX_VALUE_BYTES: usize = 256;

/// Programs that read an argument as a language: no parameter may be in it, whatever its values are.
const SHELLS: &[&str] = &["sh", "ash", "bash", "dash", "zsh", "ksh", "fish", "busybox", "env", "xargs"];

pub(super) fn parameters(fields: &mut Fields<'_>) -> Option<BTreeMap<String, Parameter>> {
    let names: Vec<_> = fields.names().collect();
    if names.len() > MAX_PARAMETERS {
        fields.violation("", format!("has {} parameters; at most {MAX_PARAMETERS} are allowed", names.len()));
        return None;
    }
    let mut parameters = BTreeMap::new();
    for name in names {
        let is_name = is_parameter_name(name);
        if !is_name {
            fields.violation(&shown(name), "must be at most 32 of a-z, 0-9 and '_', a letter first");
        }
        parameters.insert(name.clone(), fields.named_table(name, parameter).flatten().filter(|_| is_name));
    }
    // None is a parameter that is wrong: what it is used for need not be looked at.
    parameters.into_iter().map(|(name, parameter)| Some((name, parameter?))).collect()
}

fn parameter(fields: &mut Fields<'_>) -> Option<Parameter> {
    let values = fields.list("values", MAX_VALUES, allowed_value);
    let min = fields.parsed("min", integer);
    let max = fields.parsed("max", integer);
    let default = fields.parsed("default", |value| match value {
        Value::Integer(number) => Ok(number.to_string()),
        value => text(value).map(str::to_owned),
    });
    let has_range = fields.has("min") || fields.has("max");
    if fields.has("values") == has_range {
        fields.violation("", "must have either values = [\"…\"], or min and max for whole numbers");
        return None;
    }
    let allowed = if has_range {
        if !(fields.has("min") && fields.has("max")) {
            fields.violation("", "must have both min and max");
        }
        let (min, max) = min.zip(max)?;
        if min > max {
            fields.violation("max", format!("must be at least {min}, which is min"));
        }
        Allowed::Integer { min, max }
    } else {
        let values = values?;
        if values.is_empty() {
            fields.violation("values", "must have at least one value");
        }
        Allowed::OneOf(values)
    };
    if default.as_deref().is_some_and(|default| !allowed.contains(default)) {
        fields.violation("default", "must be one of the allowed values");
    }
    Some(Parameter { allowed, default })
}

impl Allowed {
    /// Whether a request may say this.
    pub fn contains(&self, value: &str) -> bool {
        match self {
            Self::OneOf(values) => values.iter().any(|allowed| allowed == value),
            // Written in one way only: no "+1", no "01".
            Self::Integer { min, max } => value
                .parse::<i64>()
                .is_ok_and(|number| (*min..=*max).contains(&number) && number.to_string() == value),
        }
    }
}

fn allowed_value(value: &Value) -> Result<String, String> {
    let value = text(value)?;
    if value.len() > MAX_VALUE_BYTES {
        Err(format!("must have at most {MAX_VALUE_BYTES} bytes"))
    } else if value.starts_with('-') {
        Err("must not begin with '-': a CLI would take it for an option".to_owned())
    } else {
        Ok(value.to_owned())
    }
}

fn integer(value: &Value) -> Result<i64, String> {
    value.as_integer().ok_or_else(|| "must be a whole number".to_owned())
}

/// Notes parameters in argv that are not declared, declared ones that are not used, and those where none may be.
pub(super) fn check_uses(
    fields: &mut Fields<'_>,
    argv: &[Template],
    parameters: &BTreeMap<String, Parameter>,
    dialect: Option<Kind>,
) {
    let is_shell = argv.first().is_some_and(|program| match program.0.as_slice() {
        [Piece::Literal(path)] => SHELLS.contains(&path.rsplit('/').next().unwrap_or(path)),
        _ => false,
    });
    for (index, template) in argv.iter().enumerate() {
        for name in template.parameters() {
            let path = format!("argv[{index}]");
            if index == 0 {
                fields.violation(&path, "must not have parameters: a request does not choose the program");
            } else if is_shell {
                fields.violation(
                    &path,
                    "must not have parameters: what a request chooses does not reach a shell",
                );
            } else if !parameters.contains_key(name) {
                fields.violation(
                    &path,
                    format!("has {{{name}}}, for which there is no [cli.parameters.{name}]"),
                );
            }
        }
    }
    let is_used = |name: &str| argv.iter().any(|template| template.parameters().any(|used| used == name));
    for name in parameters.keys().filter(|name| !is_used(name) && !protocol_takes(dialect, name)) {
        fields.violation(&format!("parameters.{name}"), format!("is used nowhere: write {{{name}}} in argv"));
    }
}

/// Parameters that the CLI gets by its protocol, not in argv.
fn protocol_takes(dialect: Option<Kind>, parameter: &str) -> bool {
    match dialect {
        Some(Kind::ClaudeStreamJson | Kind::CodexAppServer) => {
            matches!(parameter, "model" | "reasoning_effort")
        }
        Some(Kind::Acp) => parameter == "model",
        _ => false,
    }
}
