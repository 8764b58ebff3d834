//! `dyad-gateway providers add`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::credential::CredentialArgs;
use super::{edit, test, warn};
use crate::cli::api_client::{Api, ApiArgs, Call, Needs};
use crate::cli::values::read_json;
use crate::cli::{Failure, block_on};
use crate::output::{Output, count};

#[derive(Debug, Clone, Args)]
pub(crate) struct AddArgs {
    /// A file that has the provider as JSON; - for standard input
    #[arg(required_unless_present = "name", conflicts_with_all = ["name", "slug", "kind", "description", "base_url", "cli", "models", "rank", "disabled"])]
    file: Option<PathBuf>,
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// Names it in URLs, logs and metrics; made from the name if not given
    #[arg(long)]
    slug: Option<String>,
    /// What it is; a proxy if not given, or spawn-cli with --cli
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
    /// For people
    #[arg(long)]
    description: Option<String>,
    /// Where its OpenAI-compatible API is, as a client would paste it
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// The CLI to run, as the file of the runners' operator calls it
    #[arg(long, value_name = "NAME", conflicts_with = "base_url")]
    cli: Option<String>,
    /// A model as clients call it, and after = what the upstream calls it; may be repeated. Without one the upstream is
    /// asked for its models
    #[arg(long = "model", value_name = "ID[=UPSTREAM_ID]")]
    models: Vec<String>,
    /// Where several providers have a model, lower comes first; 100 if not given
    #[arg(long, value_name = "N")]
    rank: Option<u32>,
    /// Do not let it serve yet
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    credential: CredentialArgs,
    /// Say whether it would do and can be reached, and write nothing
    #[arg(long, conflicts_with = "test")]
    dry_run: bool,
    /// Send it a tiny chat once it is there, which costs a few tokens
    #[arg(long)]
    test: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Proxy,
    Local,
    SpawnCli,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Local => "local",
            Self::SpawnCli => "spawn-cli",
        }
    }
}

impl AddArgs {
    /// The provider as the API takes it.
    fn body(&self) -> Result<Value, Failure> {
        let mut body = match &self.file {
            Some(file) if file == Path::new("-") && self.credential.is_stdin() => {
                return Err(Failure::Usage(vec![
                    "--credential-stdin: the provider is read from standard input already".to_owned(),
                ]));
            }
            Some(file) => edit::writable(read_json(file)?),
            None => self.provider_of_flags(),
        };
        if let (Some(credential), Value::Object(body)) = (self.credential.get()?, &mut body) {
            body.insert("credentials".to_owned(), json!({"apiKey": credential.expose()}));
        }
        Ok(body)
    }

    fn provider_of_flags(&self) -> Value {
        let kind = self.kind.unwrap_or(if self.cli.is_some() { Kind::SpawnCli } else { Kind::Proxy });
        let mut config = Map::new();
        let mut body = Map::new();
        body.insert("type".to_owned(), json!(kind.word()));
        for (name, value) in [("baseUrl", &self.base_url), ("cli", &self.cli)] {
            config.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
        }
        let models = self.models.iter().map(|model| match model.split_once('=') {
            Some((id, upstream)) => json!({"dyadModelId": id, "adapterModelId": upstream}),
            None => json!({"dyadModelId": model}),
        });
        let models: Vec<Value> = models.collect();
        for (name, value) in [
            ("name", self.name.as_ref().map(|name| json!(name))),
            ("slug", self.slug.as_ref().map(|slug| json!(slug))),
            ("description", self.description.as_ref().map(|text| json!(text))),
            ("rank", self.rank.map(|rank| json!(rank))),
            ("enabled", self.disabled.then_some(json!(false))),
            ("models", (!models.is_empty()).then(|| json!(models))),
        ] {
            body.extend(value.map(|value| (name.to_owned(), value)));
        }
        body.insert("adapterConfig".to_owned(), config.into());
        body.into()
    }
}

pub(super) fn run(args: &AddArgs) -> Result<(), Failure> {
    let output = Output::new(args.api.common.json);
    let body = args.body()?;
    block_on(async {
        let needs = if args.dry_run || args.test { Needs::Gateway } else { Needs::UpstreamHosts };
        let api = Api::open(&args.api, needs).await?;
        let call = Call::post(&["providers"], body);
        if args.dry_run {
            return show_dry_run(&api.json(call.query("dryRun", Some("true"))).await?, output);
        }
        let provider = api.json(call).await?;
        let slug = provider["slug"].as_str().unwrap_or_default();
        output.object(&provider);
        output.say(format!("Added {slug} to {api}. Running gateways serve it within ten seconds."));
        warn(&provider, output);
        if args.test { test_after(&api, slug, output).await } else { Ok(()) }
    })?
}

/// Tests what was just written.
pub(super) async fn test_after(api: &Api, slug: &str, output: Output) -> Result<(), Failure> {
    output.remark("A tiny chat …");
    let report = test::ask(api, slug, None, false).await?;
    test::show(&report, output);
    test::passed(&report).map_err(|failure| match failure {
        Failure::Failed(line) => Failure::Failed(format!("{line}; {slug} is stored all the same")),
        usage @ Failure::Usage(_) => usage,
    })
}

/// An error if it cannot be reached.
pub(super) fn show_dry_run(answer: &Value, output: Output) -> Result<(), Failure> {
    output.object(answer);
    warn(answer, output);
    let reachable = &answer["reachable"];
    if reachable["ok"] != true {
        return Err(Failure::Failed(format!(
            "it is valid, and cannot be used: {}; nothing was written",
            test::failure(&reachable["failure"])
        )));
    }
    let models = usize::try_from(reachable["models"].as_u64().unwrap_or_default()).unwrap_or(usize::MAX);
    output.say(format!(
        "It is valid, and answered in {} ms: {}. Nothing was written.",
        reachable["durationMs"],
        count(models, "model")
    ));
    Ok(())
}
