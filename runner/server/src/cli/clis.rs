//! `dyad-runner clis`: what the file has.

use clap::Args;
use runner_api::Isolation;

use super::{ConfigArgs, Failure};
use crate::config::model::{Allowed, Cli, Mode, Parameter};
use crate::output::Output;
use crate::run::info;

#[derive(Debug, Clone, Args)]
pub(super) struct ClisArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

pub(super) fn run(args: &ClisArgs) -> Result<(), Failure> {
    let output = Output::new(args.config.json);
    for cli in &args.config.read()?.clis {
        output.object(&info(cli));
        output.say(describe(cli));
        for (name, parameter) in &cli.parameters {
            output.say(format!("  {name}: {}", values(parameter)));
        }
    }
    Ok(())
}

fn describe(cli: &Cli) -> String {
    let mode = match cli.mode {
        Mode::Parked => "parked",
        Mode::OneShot => "one-shot",
    };
    let upstreams = cli.egress.iter().flat_map(|egress| &egress.upstreams);
    let hosts: Vec<_> = upstreams.filter_map(|upstream| upstream.url.host_str()).collect();
    let connects = cli.egress.iter().flat_map(|egress| &egress.connect).map(|connect| connect.host.as_str());
    let hosts: Vec<_> = hosts.into_iter().chain(connects).collect();
    let reaches = if hosts.is_empty() { "nothing".to_owned() } else { hosts.join(", ") };
    let isolation = match info(cli).isolation {
        Isolation::Container => "container",
        Isolation::Gvisor => "container on gVisor",
        Isolation::Process => "process",
    };
    format!("{} ({mode}, {isolation}): reaches {reaches}", cli.name)
}

fn values(parameter: &Parameter) -> String {
    let values = match &parameter.allowed {
        Allowed::OneOf(values) => values.join(", "),
        Allowed::Integer { min, max } => format!("{min} to {max}"),
    };
    match &parameter.default {
        Some(default) => format!("{values} [default: {default}]"),
        None => format!("{values} (must be given)"),
    }
}
