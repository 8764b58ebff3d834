//! `cargo xtask demo`: the gateway between a real client and a real server, on a machine that has neither.

mod edge;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{
    context::Context,
    edge::WORKER_NEEDS,
    process::{Problem, Step},
    provision::{self, Need},
    say,
    services::Services,
};

const LLAMA: &str = "llama";
const OPENAI_PYTHON: &str = "python3";

/// What the demonstration needs from the machine to show all that it can.
pub(crate) const ALL_NEEDS: &[Need] = &[
    Need::Docker,
    provision::C_COMPILER,
    provision::CPP_COMPILER,
    provision::CMAKE,
    provision::NINJA,
    provision::PYTHON,
    Need::Client(LLAMA),
    Need::Client(OPENAI_PYTHON),
];
/// The same but for Docker, which nobody gets unasked: without it there is less to see.
pub(crate) const NEEDS: &[Need] = ALL_NEEDS.split_at(1).1;

/// The gateway's own default. Another is taken where somebody listens there already.
const USUAL_PORT: u16 = 4100;
const MODEL: &str = "tiny-chat";
/// The gateway's own, where Docker answers.
const CLI_MODEL: &str = "cli-echo";
const CLI_PROMPT: &str = "Hello from a real process in a real sandbox.";
const CLI_HINT: &str =
    "Gemini CLI, Claude Code or Codex become models by `dyad-gateway clis add`: see the README.";
/// Python with its packages takes its time to load on a busy machine.
const SHORT: Duration = Duration::from_secs(120);

/// A host of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Host {
    /// The native binary on its own store
    Native,
    /// The Cloudflare Worker in `wrangler dev`, on a DynamoDB table
    Worker,
    /// The Spin component, on a DynamoDB table
    Spin,
}

/// The gateway as it was started.
struct Served {
    ready: Ready,
    /// Where there is a CLI, if there is.
    cli: Option<Ready>,
}

/// What a client needs to know, from the gateway's ready line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ready {
    base_url: String,
    api_key: String,
    models: Vec<String>,
}

/// What else it needs from the machine on a host.
pub(crate) fn needs_of(host: Host) -> &'static [Need] {
    match host {
        Host::Native | Host::Spin => &[],
        Host::Worker => WORKER_NEEDS,
    }
}

/// Shows one streamed chat completion, and another of a CLI. After it the gateway serves until Ctrl-C; with `once` all
/// ends there.
pub(crate) fn run(context: &Context, host: Host, once: bool) -> Result<(), Problem> {
    say("Building the gateway (dev profile: quick to build, slower to run than a release)");
    let gateway = context.gateway_binary()?;
    let directory = tempfile::Builder::new().prefix("dyad-demo-").tempdir();
    let directory = directory.map_err(|error| Problem(format!("no temporary directory: {error}")))?;
    // After the directory, so that they have ended when it is removed.
    let mut services = Services::new();

    say("Making a tiny model with random weights");
    let model = directory.path().join("tiny.gguf");
    let script = context.root.join("tests/llama/make_model.py");
    python(context, LLAMA).arg(script).arg(&model).quiet().succeed()?;

    say("Starting llama.cpp's server");
    let llama = llama_server(context, directory.path(), &model)?;
    let upstream = services.start("llama.cpp's server", llama, upstream_url)?;
    say(&format!("  {upstream}"));

    say("Starting the gateway in front of it");
    let port = if once { 0 } else { free_port(USUAL_PORT) };
    let served = match host {
        Host::Native => native(context, &mut services, port, (&gateway, &upstream), directory.path()),
        edge => edge::start(context, &mut services, (edge, port), (&gateway, &upstream), directory.path()),
    };
    let Served { ready, cli } = served?;
    let Ready { base_url, api_key, models } = &ready;
    if !models.iter().any(|model| model == MODEL) {
        return Err(Problem(format!("the gateway serves {models:?}, not {MODEL}")));
    }

    let program = program(&ready, MODEL, "Tell me a story.");
    say("\nopenai-python, with nothing but this base URL and key:\n");
    program.lines().for_each(|line| say(&format!("    {line}")));
    say("\nstreams this (gibberish: the model has random weights):\n");
    check(&stream(context, directory.path(), &program)?, MODEL)?;
    if let Some(cli) = cli {
        say(&format!(
            "\nand this, with the model {CLI_MODEL}, from a CLI in a Docker sandbox, reached over mTLS:\n"
        ));
        let program = self::program(&cli, CLI_MODEL, CLI_PROMPT);
        let answer = stream(context, directory.path(), &program)?;
        let text = check(&answer, CLI_MODEL)?;
        if text != CLI_PROMPT {
            return Err(Problem(format!("{CLI_MODEL} says {text:?}, not what it was told")));
        }
    } else if once {
        return Err(Problem(format!("the gateway serves {models:?}, not {CLI_MODEL}")));
    } else {
        say("\nNo Docker engine answers here: with one, CLIs are models too.");
    }
    if once {
        return Ok(());
    }
    say(&format!(
        "\nTry it, with curl or as a custom provider in Dyad:\n\n\
         \x20   Base URL  {base_url}\n\
         \x20   API key   {api_key}\n\
         \x20   Model     {MODEL}\n\n\
         \x20   curl {base_url}/chat/completions -H 'Authorization: Bearer {api_key}' \\\n\
         \x20     -H 'Content-Type: application/json' \\\n\
         \x20     -d '{{\"model\":\"{MODEL}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n\n\
         {CLI_HINT}\n\n\
         Ctrl-C stops."
    ));
    services.run_until_interrupted()?;
    say("\nstopping");
    Ok(())
}

/// The native host, which runs CLIs by itself where Docker answers.
fn native(
    context: &Context,
    services: &mut Services,
    port: u16,
    (gateway, upstream): (&Path, &str),
    directory: &Path,
) -> Result<Served, Problem> {
    let gateway = gateway_server(context, gateway, upstream, port, directory);
    let ready = services.start("The gateway", gateway, ready)?;
    say(&format!("  {}", ready.base_url));
    let cli = ready.models.iter().any(|model| model == CLI_MODEL).then(|| ready.clone());
    Ok(Served { ready, cli })
}

/// What the client runs. It ends with the line that [`check`] reads.
fn program(ready: &Ready, model: &str, prompt: &str) -> String {
    let Ready { base_url, api_key, .. } = ready;
    format!(
        r#"from openai import OpenAI
client = OpenAI(base_url="{base_url}", api_key="{api_key}")
for chunk in client.chat.completions.create(model="{model}", stream=True, max_tokens=40, messages=[{{"role": "user", "content": "{prompt}"}}]):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print(f"\n{{chunk.model}}: {{chunk.usage.completion_tokens}} tokens")"#
    )
}

/// Runs the program and shows what it prints.
fn stream(context: &Context, directory: &Path, program: &str) -> Result<String, Problem> {
    let path = write(directory, "hello.py", program)?;
    let answer = python(context, OPENAI_PYTHON).arg(path).quiet().succeed()?.stdout;
    answer.lines().for_each(|line| say(&format!("    {line}")));
    Ok(answer)
}

/// Whether text came, from the right model, and with usage; the text.
fn check<'a>(answer: &'a str, expected: &str) -> Result<&'a str, Problem> {
    let wrong = |what: &str| Problem(format!("{what}: {answer:?}"));
    let (text, end) = answer.rsplit_once('\n').ok_or_else(|| wrong("half an answer"))?;
    if text.trim().is_empty() {
        return Err(wrong("an answer without text"));
    }
    let (model, usage) = end.split_once(": ").ok_or_else(|| wrong("an answer without its model"))?;
    if model != expected {
        return Err(wrong(&format!("an answer that is not from {expected}")));
    }
    let tokens = usage.strip_suffix(" tokens").and_then(|tokens| tokens.parse::<u64>().ok());
    if tokens.is_none_or(|tokens| tokens == 0) {
        return Err(wrong("an answer without usage"));
    }
    Ok(text)
}

/// Configured like the one of the suite `real`.
fn llama_server(context: &Context, directory: &Path, model: &Path) -> Result<Step, Problem> {
    let config = json!({"host": "127.0.0.1", "port": 0, "interrupt_requests": false, "models": [
        {"model": model, "model_alias": MODEL, "n_ctx": 2048, "n_threads": 1, "seed": 1}]});
    let path = write(directory, "llama.json", &config.to_string())?;
    // These variables would overrule the file.
    let python = python(context, LLAMA).env_remove("HOST").env_remove("PORT");
    Ok(python.args(["-m", "llama_cpp.server", "--config_file"]).arg(path))
}

/// The base URL, from the line with which the server says that it listens.
fn upstream_url(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("Uvicorn running on ")?;
    Some(format!("{}/v1", rest.split(' ').next()?))
}

fn gateway_server(context: &Context, binary: &Path, upstream: &str, port: u16, directory: &Path) -> Step {
    let gateway =
        context.step(binary, SHORT).args(["up", "--json", "--no-discovery", "--drain-timeout", "2"]);
    let gateway = gateway.arg("--listen").arg(format!("127.0.0.1:{port}")).args(["--upstream", upstream]);
    // A configuration of the machine's own is none of the demonstration's business.
    gateway.arg("--data-dir").arg(directory.join("gateway")).env_remove("DYAD_GATEWAY_CONFIG")
}

/// What the gateway's ready line says.
fn ready(line: &str) -> Option<Ready> {
    let event: Value = serde_json::from_str(line).ok()?;
    if event["event"] != "ready" {
        return None;
    }
    let models = event["models"].as_array()?.iter().filter_map(|model| model["id"].as_str());
    Some(Ready {
        base_url: event["base_url"].as_str()?.to_owned(),
        api_key: event["api_key"].as_str()?.to_owned(),
        models: models.map(str::to_owned).collect(),
    })
}

/// Python with the packages of a directory of `tests/clients`.
fn python(context: &Context, client: &str) -> Step {
    let mut step = context.step(context.clients().join(client).join("bin/python"), SHORT);
    // Proxies of the machine do not lead to its own ports.
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        step = step.env_remove(name);
    }
    step
}

fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf, Problem> {
    let path = directory.join(name);
    match fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(error) => Err(Problem(format!("{}: {error}", path.display()))),
    }
}

/// This port of the loopback address, or 0 (any) where it is taken.
fn free_port(port: u16) -> u16 {
    if TcpListener::bind(("127.0.0.1", port)).is_ok() {
        return port;
    }
    say(&format!("  port {port} is taken; another is used"));
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_where_they_are() {
        let line = "INFO:     Uvicorn running on http://127.0.0.1:4242 (Press CTRL+C to quit)";
        assert_eq!(upstream_url(line).as_deref(), Some("http://127.0.0.1:4242/v1"));
        assert_eq!(upstream_url("INFO:     Application startup complete."), None);

        let line = r#"{"event":"ready","base_url":"http://127.0.0.1:1/v1","api_key":"k","models":[{"id":"m","provider":"p"}]}"#;
        let expected =
            Ready { base_url: "http://127.0.0.1:1/v1".into(), api_key: "k".into(), models: vec!["m".into()] };
        assert_eq!(ready(line), Some(expected));
        assert_eq!(ready(r#"{"event":"log","base_url":"x","api_key":"k","models":[]}"#), None);
        assert_eq!(ready("error: taken"), None);
    }

    #[test]
    fn an_answer_is_whole_or_wrong() {
        assert_eq!(check(" sea moon\nhouse\ntiny-chat: 3 tokens", MODEL).unwrap(), " sea moon\nhouse");
        for (answer, what) in [
            ("tiny-chat: 3 tokens", "half"),
            ("\ntiny-chat: 3 tokens", "without text"),
            (" \n\ntiny-chat: 3 tokens", "without text"),
            ("sea\nmoon", "without its model"),
            ("sea\nother: 3 tokens", "not from tiny-chat"),
            ("sea\ntiny-chat: 0 tokens", "without usage"),
            ("sea\ntiny-chat: None tokens", "without usage"),
        ] {
            let problem = check(answer, MODEL).unwrap_err().to_string();
            assert!(problem.contains(what), "{answer:?}: {problem}");
        }
    }

    #[test]
    fn a_taken_port_is_avoided() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(free_port(taken.local_addr().unwrap().port()), 0);
    }
}
