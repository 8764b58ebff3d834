//! Whether a request is one that its CLI's entry allows.

use std::collections::BTreeMap;

use cli_dialect::WorkspaceFile;
use runner_api::{Part, Refusal, RefusalCode, RunRequest};

use crate::config::model::{Allowed, Cli, Parameter};

/// Characters of an unknown parameter's name that are told back.
const MAX_NAME_CHARS: usize = 64;

/// What is asked for beyond [`RunRequest::check`]. The refusal names the member of the request that is at fault.
pub(super) fn check(request: &RunRequest, cli: &Cli) -> Result<(), Refusal> {
    for (at, message) in request.messages.iter().enumerate() {
        let image = message.parts.iter().position(|part| matches!(part, Part::Image { .. }));
        if let Some(part) = image.filter(|_| !cli.images) {
            return Err(invalid("this CLI takes no images").at(format!("messages[{at}].parts[{part}]")));
        }
    }
    Ok(())
}

/// The value of each parameter that the CLI has: the request's, or the default.
pub(super) fn parameters(request: &RunRequest, cli: &Cli) -> Result<BTreeMap<String, String>, Refusal> {
    let fault = |name: &str, message: String| Err(invalid(message).at(format!("parameters.{name}")));
    if let Some(name) = request.parameters.keys().find(|name| !cli.parameters.contains_key(*name)) {
        let name: String = name.chars().take(MAX_NAME_CHARS).collect();
        return fault(&name, "this CLI has no such parameter".to_owned());
    }
    let mut values = BTreeMap::new();
    for (name, parameter) in &cli.parameters {
        let value = match (request.parameters.get(name), &parameter.default) {
            (Some(value), _) if !parameter.allowed.contains(value) => {
                return fault(name, format!("must be {}", allowed(parameter)));
            }
            (Some(value), _) | (None, Some(value)) => value.clone(),
            (None, None) => return fault(name, format!("is required: {}", allowed(parameter))),
        };
        values.insert(name.clone(), value);
    }
    Ok(values)
}

/// Whether the sandbox has room for them.
pub(super) fn files(files: &[WorkspaceFile], cli: &Cli) -> Result<(), Refusal> {
    let sizes = || files.iter().map(|file| file.bytes.len() as u64);
    if sizes().sum::<u64>() > cli.limits.tmpfs_bytes || sizes().any(|size| size > cli.limits.file_bytes) {
        let message = "the files of this request do not fit into the sandbox";
        return Err(Refusal::new(RefusalCode::TooLarge, message).at("messages"));
    }
    Ok(())
}

fn allowed(parameter: &Parameter) -> String {
    match &parameter.allowed {
        Allowed::OneOf(values) => format!("one of {}", values.join(", ")),
        Allowed::Integer { min, max } => format!("an integer from {min} to {max}"),
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::InvalidRequest, message)
}
