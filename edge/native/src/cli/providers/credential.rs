//! Credentials of providers: where they are read from, and `dyad-gateway providers rotate`.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use catalog::{CredentialRef, Secret};
use clap::Args;
use serde_json::json;

use super::NameArg;
use crate::cli::api_client::{Api, ApiArgs, ApiError, Call, Needs};
use crate::cli::values::duration_or_none;
use crate::cli::{Failure, block_on};
use crate::output::Output;

/// Longest credential that the API takes, with room for the end of its line.
const MAX_BYTES: u64 = 8_192 + 2;

#[derive(Debug, Clone, Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    name: NameArg,
    #[command(flatten)]
    credential: CredentialArgs,
    /// How long the former credential is kept besides, up to 7d; 0 for no longer
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration_or_none)]
    overlap: Duration,
    /// Take it into use without a test, which would be a tiny chat
    #[arg(long)]
    no_test: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

/// Where a credential comes from: never from the command line itself.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
#[expect(clippy::struct_field_names, reason = "they name the options")]
pub(super) struct CredentialArgs {
    /// Read the credential from standard input; it is sealed before it is stored
    #[arg(long, visible_alias = "stdin")]
    credential_stdin: bool,
    /// The gateway finds the credential in this variable of its own environment
    #[arg(long, value_name = "NAME")]
    credential_env: Option<String>,
    /// The gateway finds the credential in this file, on its own machine
    #[arg(long, value_name = "PATH")]
    credential_file: Option<String>,
}

impl CredentialArgs {
    pub(super) fn is_stdin(&self) -> bool {
        self.credential_stdin
    }

    /// The credential, or where the gateway finds it; `None` if nothing is said of it.
    pub(super) fn get(&self) -> Result<Option<Secret>, Failure> {
        let (flag, text) = match (&self.credential_env, &self.credential_file) {
            (Some(name), _) => ("--credential-env", format!("env:{name}")),
            (None, Some(path)) => ("--credential-file", format!("file:{path}")),
            (None, None) if self.credential_stdin => return from_stdin().map(Some),
            (None, None) => return Ok(None),
        };
        match CredentialRef::parse(&text) {
            Ok(_) => Ok(Some(Secret::new(text))),
            Err(wrong) => Err(Failure::Usage(vec![format!("{flag}: {wrong}")])),
        }
    }
}

/// One line of standard input.
fn from_stdin() -> Result<Secret, Failure> {
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = std::io::stdin().take(MAX_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::failed("the credential cannot be read from standard input", &error))?;
    check(&text, "standard input")
}

fn from_prompt(name: &str) -> Result<Secret, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(vec![
            "the credential is asked for on a terminal, and this is none: add --credential-stdin, or --credential-env"
                .to_owned(),
        ]));
    }
    let text = rpassword::prompt_password(format!("Credential for {name} (not shown): "))
        .map_err(|error| Failure::failed("the credential cannot be asked for", &error))?;
    check(&zeroize::Zeroizing::new(text), "what was written")
}

/// What would be taken for something else than a credential is refused.
fn check(text: &str, source: &str) -> Result<Secret, Failure> {
    let wrong = |reason: String| Failure::Usage(vec![reason]);
    if text.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("{source} is longer than a credential may be")));
    }
    let secret = edge_host::credential_of(text, source).map_err(wrong)?;
    if ["env:", "file:"].iter().any(|start| secret.expose().starts_with(start)) {
        return Err(wrong(format!(
            "{source} is a reference, not a credential: give it with --credential-env or --credential-file"
        )));
    }
    Ok(secret)
}

pub(super) fn rotate(args: &RotateArgs) -> Result<(), Failure> {
    let output = Output::new(args.api.common.json);
    let name = args.name.get()?;
    block_on(async {
        let api = Api::open(&args.api, Needs::Gateway).await?;
        let secret = match args.credential.get()? {
            Some(secret) => secret,
            None => from_prompt(name)?,
        };
        if !args.no_test {
            output.remark("Testing it with a tiny chat …");
        }
        let body = json!({
            "apiKey": secret.expose(), "overlapSeconds": args.overlap.as_secs(), "test": !args.no_test,
        });
        let provider = match api.json(Call::post(&["providers", name, "credentials"], body)).await {
            Ok(provider) => provider,
            Err(ApiError::Refused(refusal)) if refusal.code == "test_failed" => {
                super::test::show(&refusal.body["test"], output);
                return Err(Failure::Failed(format!(
                    "the new credential did not pass its test, so the former is still in use: {}",
                    super::test::failure(&refusal.body["test"]["failure"])
                )));
            }
            Err(error) => return Err(args.name.failure(error, &api)),
        };
        output.object(&provider);
        output.say(format!(
            "{name} has another credential. Running gateways use it within ten seconds: {}",
            super::shown::credential(&provider)
        ));
        super::warn(&provider, output);
        Ok(())
    })?
}
