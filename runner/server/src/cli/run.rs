//! `dyad-runner run`: one CLI, here, the way that requests go but for the network.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use futures_util::StreamExt as _;
use runner_api::{ErrorClass, Message, Part, Refusal, RefusalCode, Role, RunEvent, RunRequest};
use tokio::time::Instant;

use super::serve::Signals;
use super::{ConfigArgs, Failure, LogArgs, block_on};
use crate::config::model::RunnerConfig;
use crate::output::Output;
use crate::runner::LocalRuns;
use crate::sandbox::Progress;
use crate::server::Runs;
use crate::state_lock::StateLock;

/// As long as the network's requests may be.
const MAX_PROMPT_BYTES: u64 = 32 << 20;

/// As shells have it for a command that SIGINT ended.
const INTERRUPTED: u8 = 130;

const HELP: &str = "\
The answer goes to standard output as it comes; what the CLI tells besides, and errors, to standard error. With --json
every run event is a line on standard output.

Exit codes: 0 answered, 1 the CLI crashed or broke its protocol or a limit, 2 wrong usage or configuration, 130 interrupted;
  10 auth             the vendor refused the credential
  11 rate_limited     12 quota_exhausted  13 overloaded  14 timeout
  15 invalid_request  16 not_found        17 content_filter
  18 unavailable      the vendor, the engine or the node
  19 cancelled

Examples:
  echo Hello | dyad-runner run cli-echo
  dyad-runner run claude --param model=claude-haiku-4-5 --system 'Be brief.' < prompt.txt";

#[derive(Debug, Clone, Args)]
#[command(after_help = HELP)]
pub(super) struct RunArgs {
    /// A name of the configuration
    cli: String,
    /// A value for a parameter of the CLI; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
    /// Instructions that stand above the prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, such as model=claude-haiku-4-5")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    let config = only(args.config.read()?, &args.cli)?;
    let missing = config.missing_credentials(None);
    if !missing.is_empty() {
        return Err(args.config.usage(&missing));
    }
    args.log.start("warn")?;
    let output = Output::new(args.config.json);
    if io::stdin().is_terminal() {
        output.remark("The prompt, please; Ctrl-D ends it.");
    }
    let request = request(args)?;
    let lock = StateLock::take(&config).map_err(|error| Failure::failed("no run", &error))?;
    let ended = block_on(async {
        let signals = Signals::new();
        let mut signals = signals.map_err(|error| Failure::failed("signals cannot be handled", &error))?;
        let mut progress = |_: &str, step: Progress| {
            if step.bytes.is_none() {
                output.remark(&step.message);
            }
        };
        let local = tokio::select! {
            started = LocalRuns::start(&config, lock, &mut progress) => {
                started.map_err(|error| Failure::Failed(error.lines()))?
            }
            _ = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
        };
        let ended = tokio::select! {
            ended = follow(local.runs.as_ref(), request, args.config.json) => ended,
            _ = signals.next() => Ok(ExitCode::from(INTERRUPTED)),
        };
        local.close().await.map_err(|left| Failure::failed("not everything was removed", &left))?;
        ended
    })?;
    if ended == ExitCode::SUCCESS { Ok(()) } else { Err(Failure::Told(ended)) }
}

/// The configuration as if it had this entry alone, and nothing waited for requests. Its sandboxes and sockets are not
/// those of a runner that is at work, which each of the two would take for orphans.
fn only(mut config: RunnerConfig, name: &str) -> Result<RunnerConfig, Failure> {
    let known: Vec<_> = config.clis.iter().map(|cli| cli.name.clone()).collect();
    config.clis.retain(|cli| cli.name == name);
    let Some(cli) = config.clis.first_mut() else {
        return Err(Failure::Usage(vec![format!(
            "there is no CLI {name:?}; there are {}",
            known.join(", ")
        )]));
    };
    Arc::make_mut(cli).pool.min = 0;
    config.node.id.push_str(".run");
    config.state_dir.push("run");
    Ok(config)
}

fn request(args: &RunArgs) -> Result<RunRequest, Failure> {
    let mut prompt = String::new();
    let read = io::stdin().lock().take(MAX_PROMPT_BYTES + 1).read_to_string(&mut prompt);
    read.map_err(|error| Failure::failed("the prompt cannot be read from standard input", &error))?;
    if prompt.len() as u64 > MAX_PROMPT_BYTES {
        return Err(Failure::Usage(vec![format!("the prompt is longer than {MAX_PROMPT_BYTES} bytes")]));
    }
    let parameters: BTreeMap<_, _> = args.parameters.iter().cloned().collect();
    let message = Message { role: Role::User, parts: vec![Part::Text { text: prompt }] };
    Ok(RunRequest {
        id: format!("run-{}", std::process::id()),
        cli: args.cli.clone(),
        parameters,
        caller: "command-line".to_owned(),
        timeout_ms: None,
        system: args.system.clone(),
        messages: vec![message],
    })
}

/// Shows a run from its beginning to its end.
async fn follow<R: Runs>(runs: &R, request: RunRequest, json: bool) -> Result<ExitCode, Failure> {
    let events = match runs.submit(request, Instant::now()).await {
        Ok(events) => events,
        Err(refusal) => return refused(refusal, json),
    };
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let shown = if json { show_json(&event) } else { show(&event) };
        // Nobody reads the answer any more.
        shown.map_err(|error| Failure::failed("the answer cannot be written", &error))?;
        match event {
            RunEvent::Finished { .. } => return Ok(ExitCode::SUCCESS),
            RunEvent::Error { class, .. } => return Ok(exit_code(class)),
            _ => {}
        }
    }
    Err(Failure::Failed(vec!["the run ended without saying how".to_owned()]))
}

/// A request that did not become a run: as wrong words, or as the run that it would have been.
fn refused(refusal: Refusal, json: bool) -> Result<ExitCode, Failure> {
    let place = refusal.param.map(|param| format!("{param}: ")).unwrap_or_default();
    let line = format!("{place}{}", refusal.message);
    let class = match refusal.code {
        RefusalCode::InvalidRequest | RefusalCode::NotFound => return Err(Failure::Usage(vec![line])),
        RefusalCode::Timeout => ErrorClass::Timeout,
        RefusalCode::Unavailable => ErrorClass::Unavailable,
        _ => ErrorClass::Internal,
    };
    Output::new(json).errors(class.as_str(), &[line]);
    Ok(exit_code(class))
}

fn show(event: &RunEvent) -> io::Result<()> {
    match event {
        RunEvent::Text { text } => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes())?;
            stdout.flush()
        }
        RunEvent::Notice { message } => writeln!(io::stderr(), "notice: {}", printable(message)),
        RunEvent::ToolCall { name, arguments, .. } => {
            writeln!(io::stderr(), "tool: {} {}", printable(name), printable(arguments))
        }
        RunEvent::Error { class, message, status, .. } => {
            let status = status.map(|status| format!(", HTTP {status}")).unwrap_or_default();
            writeln!(io::stderr(), "error: {} ({}{status})", printable(message), class.as_str())
        }
        _ => Ok(()),
    }
}

/// What a CLI wrote must not command the terminal. Its answer aside, which is data.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn show_json(event: &RunEvent) -> io::Result<()> {
    if *event == RunEvent::Unknown {
        return Ok(());
    }
    let mut line = Vec::new();
    runner_api::frame::encode(event, &mut line);
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

fn exit_code(class: ErrorClass) -> ExitCode {
    ExitCode::from(match class {
        ErrorClass::Internal => 1,
        ErrorClass::Auth => 10,
        ErrorClass::RateLimited => 11,
        ErrorClass::QuotaExhausted => 12,
        ErrorClass::Overloaded => 13,
        ErrorClass::Timeout => 14,
        ErrorClass::InvalidRequest => 15,
        ErrorClass::NotFound => 16,
        ErrorClass::ContentFilter => 17,
        ErrorClass::Unavailable => 18,
        ErrorClass::Cancelled => 19,
    })
}
