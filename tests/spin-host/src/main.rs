//! Runs a Spin application's HTTP component where the `spin` CLI cannot be had.
//!
//! It reads the same `spin.toml` and runtime configuration, and does with them what Spin does as far as the component can
//! tell: WASI 0.2 and 0.3 on Wasmtime, one instance for 128 requests and for 16 at once, instances that end after a
//! second without work, variables, `allowed_outbound_hosts`, a pooled HTTP client that negotiates HTTP/2, and client
//! certificates (`[[client_tls]]`). For development and tests: no routes but `/...`, no TLS of its own, no other providers
//! of variables than the environment (`SPIN_VARIABLE_NAME`) and `--variable`, and no Spin interfaces beyond variables.

mod manifest;
mod outbound;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use wasmtime::Result;
use wasmtime::error::Context as _;

use crate::manifest::{Application, RuntimeConfig};
use crate::outbound::Outbound;

/// Named as the options of `spin up`.
#[derive(Parser)]
struct Arguments {
    /// The application's manifest
    #[arg(long, short, default_value = "spin.toml")]
    from: PathBuf,
    /// Runs this component in place of the manifest's
    #[arg(long, value_name = "WASM")]
    component: Option<PathBuf>,
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    #[arg(long)]
    runtime_config_file: Option<PathBuf>,
    /// Runs the manifest's build command before
    #[arg(long)]
    build: bool,
    /// A variable of the application, or a TOML file of them (repeatable); others come from `SPIN_VARIABLE_NAME`
    #[arg(long = "variable", value_name = "NAME=VALUE or @FILE")]
    variables: Vec<String>,
    /// How long an instance without work is kept
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    idle_instance_timeout_ms: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let application = Application::read(&arguments.from, &arguments.variables)?;
    let runtime = match &arguments.runtime_config_file {
        Some(path) => RuntimeConfig::read(path)?,
        None => RuntimeConfig::default(),
    };
    let outbound = Outbound::new(&application, &runtime)?;
    if arguments.build {
        application.build()?;
    }
    let component = arguments.component.as_ref().unwrap_or(&application.source);
    let idle = Duration::from_millis(arguments.idle_instance_timeout_ms);
    let service = serve::Service::new(component, application.variables, outbound, idle)
        .with_context(|| format!("the component {}", component.display()))?;
    serve::serve(service, arguments.listen).await?;
    // At once, as Spin ends: what the runtime would still do is to complain about instances that did not finish.
    std::process::exit(0)
}
