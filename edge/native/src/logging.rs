//! Log lines on standard error. Never in them: prompts, completions, credentials, bodies.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging, once per process; a second call changes nothing.
pub(crate) fn start(filter: &str, json: bool) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let _ = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    Ok(())
}
