//! `dyad-gateway doctor`: what works, what does not, what to do.

mod store;

use catalog::Adapter;
use clap::Args;
use dyad_runner::sandbox::SandboxError;
use serde_json::json;

use super::{CommonArgs, Failure, ProviderArgs, StoreArgs, block_on};
use crate::data_dir::DataDir;
use crate::discovery;
use crate::error_chain::error_chain;
use crate::local_runner::Plan;
use crate::output::{Output, count};
use crate::providers::{gather, open_gateway};
use crate::store_location::locate_for;

/// Descriptors below which a busy gateway runs out: two per stream.
const WANTED_DESCRIPTORS: u64 = 8_192;

#[derive(Debug, Clone, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    providers: ProviderArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Works,
    Hint,
    Fails,
}

struct Report {
    output: Output,
    failed: usize,
}

impl Report {
    /// `what` was found; `advice` says what to do about it.
    fn add(&mut self, verdict: Verdict, what: &str, advice: &str) {
        let (word, mark) = match verdict {
            Verdict::Works => ("works", "ok  "),
            Verdict::Hint => ("hint", "hint"),
            Verdict::Fails => ("fails", "FAIL"),
        };
        self.failed += usize::from(verdict == Verdict::Fails);
        self.output.object(&json!({"verdict": word, "what": what, "advice": advice}));
        self.output.say(format!("{mark}  {what}"));
        if !advice.is_empty() {
            self.output.say(format!("      {advice}"));
        }
    }
}

pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let mut report = Report { output: Output::new(args.common.json), failed: 0 };
    block_on(examine(args, &mut report))?;
    if report.failed == 0 {
        Ok(())
    } else {
        let problems = count(report.failed, "problem");
        Err(Failure::Failed(format!("{problems} to mend; see the lines marked FAIL")))
    }
}

async fn examine(args: &DoctorArgs, report: &mut Report) {
    let data_dir = DataDir::locate(args.common.data_dir.as_deref());
    let location = match locate_for(&args.store, &args.common) {
        Ok(location) => location,
        Err(lines) => return lines.iter().for_each(|line| report.add(Verdict::Fails, line, "")),
    };
    if !store::examine(&location, report).await {
        return;
    }
    match rlimit::Resource::NOFILE.get() {
        Ok((_, hard)) if hard < WANTED_DESCRIPTORS => report.add(
            Verdict::Hint,
            &format!("only {hard} open files are allowed; each stream takes two"),
            "Raise the limit (ulimit -Hn, LimitNOFILE in systemd) where many clients stream at once.",
        ),
        _ => report.add(Verdict::Works, "the limit of open files", ""),
    }
    let given = match gather(&args.providers, &args.store, &args.common) {
        Ok(given) => given,
        Err(Failure::Usage(lines)) => {
            return lines
                .iter()
                .for_each(|line| report.add(Verdict::Fails, line, "'up' refuses to start with it."));
        }
        Err(Failure::Failed(line)) => return report.add(Verdict::Fails, &line, ""),
    };
    let runs_clis =
        !args.providers.no_runner && given.runners.is_none() && examine_clis(&data_dir, report).await;
    let opened = match open_gateway(given, None).await {
        Ok((opened, _)) => opened,
        Err(Failure::Failed(line)) => return report.add(Verdict::Fails, &line, ""),
        Err(Failure::Usage(lines)) => return report.add(Verdict::Fails, &lines.join("; "), ""),
    };
    let gateway = opened.gateway();
    for check in gateway.check_providers().await {
        let (slug, url) = (check.provider.slug.as_str(), check.provider.adapter.address());
        match &check.models {
            Ok(models) => {
                let models = count(*models, "model");
                report.add(Verdict::Works, &format!("provider {slug}: {models} at {url}"), "");
            }
            Err(_) if discovery::is_local_candidate(slug) => {
                report.add(
                    Verdict::Hint,
                    &format!("{} does not run at {url}", check.provider.name),
                    "Start it, and its models are served within half a minute.",
                );
            }
            Err(reason) => {
                let advice = match check.provider.adapter {
                    Adapter::Proxy(_) | Adapter::Local(_) => "Check its base URL and its credential.",
                    Adapter::SpawnCli(_) => {
                        "Check that a runner serves it, and [runners] in the configuration."
                    }
                };
                report.add(Verdict::Fails, &format!("provider {slug} at {url}: {reason}"), advice);
            }
        }
    }
    if gateway.models().is_empty() && !runs_clis {
        report.add(
            Verdict::Fails,
            "no model is served",
            "Set OPENAI_API_KEY, start Ollama or LM Studio, or give --upstream URL[=KEY] or --config FILE.",
        );
    }
}

/// The runner that `up` would have; whether it would run anything.
async fn examine_clis(data_dir: &DataDir, report: &mut Report) -> bool {
    let plan = match Plan::make(data_dir) {
        Ok(plan) => plan,
        Err(error) => {
            report.add(Verdict::Fails, &error_chain(&error), "'up' serves no CLI until that is mended.");
            return false;
        }
    };
    if let Err(error) = plan.reach_engine().await {
        let advice = match error {
            SandboxError::Hangs { .. } => "Restart Docker, and CLIs are models too.",
            _ => "Install and start Docker (on Debian: apt-get install docker.io), and CLIs are models too.",
        };
        report.add(Verdict::Hint, &error_chain(&error), advice);
        return false;
    }
    report.add(Verdict::Works, &format!("the Docker engine, for the CLIs {}", plan.names().join(", ")), "");
    for (cli, reason) in plan.left_out() {
        let advice = "Set it, or add the CLI anew with 'dyad-gateway clis add'.";
        report.add(Verdict::Fails, &format!("CLI {cli}: {reason}"), advice);
    }
    for cli in plan.weakly_isolated() {
        report.add(
            Verdict::Hint,
            &format!(
                "CLI {cli} runs as a mere process, which keeps it from this machine less than a container"
            ),
            "For development only; leave 'isolation' out of its entry to run it in a container.",
        );
    }
    true
}
