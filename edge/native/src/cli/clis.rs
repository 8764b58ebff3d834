//! `dyad-gateway clis …`

mod base;
mod entry;
mod image;
mod kit;
mod npm;
mod process;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::{CommonArgs, Failure, block_on};
use crate::data_dir::DataDir;
use crate::error_chain::error_chain;
use crate::output::Output;
use entry::{Choices, EntryError, RunnerFile, Summary, fill, local_image};
use image::{ImageError, Images};
use kit::{Kit, Known};

const USUAL_SOCKET: &str = "/var/run/docker.sock";

#[derive(Debug, Subcommand)]
pub(crate) enum ClisCommand {
    /// Build a CLI's image, if it is not there, and let the gateway run it in sandboxes
    #[command(
        after_help = "The key stays with the gateway: it never enters a sandbox. Whether a key may serve others is for its vendor's terms to say.\n\nExamples:\n  GEMINI_API_KEY=… dyad-gateway clis add gemini\n  dyad-gateway clis add claude --api-key-file ~/.keys/anthropic --model claude-sonnet-4-5"
    )]
    Add {
        cli: Known,
        /// The image to build on, with Node 22 and npm [default: Debian's Node 22, or one made of this machine's own programs]
        #[arg(long, value_name = "IMAGE", value_parser = reference)]
        base: Option<String>,
        /// Build the image anew, even if it is there
        #[arg(long)]
        rebuild: bool,
        /// Where the vendor's API is, as the CLI's own variable takes it; https, or http on this machine
        #[arg(long, value_name = "URL")]
        base_url: Option<String>,
        /// The environment variable of the gateway that holds the vendor's key [default: the vendor's own, if it is set]
        #[arg(long, value_name = "NAME", conflicts_with = "api_key_file", value_parser = variable)]
        api_key_env: Option<String>,
        /// The file that holds the vendor's key
        #[arg(long, value_name = "PATH")]
        api_key_file: Option<PathBuf>,
        /// A model that requests may choose; may be repeated, the first is the default
        #[arg(long = "model", value_name = "MODEL", value_parser = model)]
        models: Vec<String>,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// List the CLIs that run on this machine
    List {
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Run a CLI no more, and remove its image
    Remove {
        /// As 'clis list' shows it
        name: String,
        /// Leave the image where it is
        #[arg(long)]
        keep_image: bool,
        #[command(flatten)]
        common: CommonArgs,
    },
}

impl ClisCommand {
    pub(crate) fn common(&self) -> &CommonArgs {
        match self {
            Self::Add { common, .. } | Self::List { common } | Self::Remove { common, .. } => common,
        }
    }
}

pub(crate) fn run(command: &ClisCommand) -> Result<(), Failure> {
    let common = command.common();
    let output = Output::new(common.json);
    let data_dir = DataDir::locate(common.data_dir.as_deref());
    let path = data_dir.runner_file();
    let mut file = RunnerFile::read(&path)?;
    match command {
        ClisCommand::Add { cli, base, rebuild, base_url, api_key_env, api_key_file, models, .. } => {
            let kit = cli.kit();
            let credential = credential(&kit, api_key_env.as_deref(), api_key_file.as_deref(), output)?;
            let choices = Choices { base_url: base_url.clone(), credential, models: models.clone() };
            let entry = fill(kit.entry, &choices).map_err(|error| Failure::failed("the entry", &error))?;
            if file.put(kit.name, &entry)? {
                output.remark(&format!("The entry of {} that was there is written anew.", kit.name));
            }
            let build = Build { base: base.as_deref(), anew: *rebuild || base.is_some() };
            let image = block_on(build.image(&kit, &socket(&file)?, output))??;
            data_dir.create().map_err(|error| Failure::failed("the data directory", &error))?;
            file.write()?;
            output.object(&json!({
                "cli": kit.name, "image": image.tag, "image_id": image.id, "image_bytes": image.bytes,
                "built": image.is_new, "file": path,
            }));
            let megabytes = image.bytes / 1_000_000;
            let built = if image.is_new { "Built" } else { "Found" };
            output.say(format!("{built} {} ({megabytes} MB) and wrote {}.", image.tag, path.display()));
            output.say(format!("The next start of the gateway serves {}.", kit.title));
        }
        ClisCommand::List { .. } => list(&file.list(), output),
        ClisCommand::Remove { name, keep_image, .. } => {
            let image = file.list().into_iter().find(|cli| cli.name == *name).and_then(|cli| cli.image);
            if !file.remove(name) {
                return Err(Failure::Failed(format!(
                    "there is no CLI {name}; 'dyad-gateway clis list' shows those there are"
                )));
            }
            let is_shared = file.list().iter().any(|other| other.image == image);
            file.write()?;
            let image = image.filter(|_| !keep_image && !is_shared);
            let is_gone = match &image {
                Some(tag) => block_on(remove_image(tag, &socket(&file)?, output))?,
                None => false,
            };
            output.object(&json!({"cli": name, "removed": true, "image_removed": is_gone}));
            output.say(format!("Removed {name}; a running gateway serves it until it is started again."));
        }
    }
    Ok(())
}

/// What `clis add` is asked about the image.
struct Build<'a> {
    base: Option<&'a str>,
    /// Whether one that is there does not do.
    anew: bool,
}

/// The image of a CLI.
struct BuiltImage {
    tag: String,
    id: String,
    bytes: u64,
    is_new: bool,
}

impl Build<'_> {
    async fn image(&self, kit: &Kit, socket: &Path, output: Output) -> Result<BuiltImage, Failure> {
        let tag = local_image(kit.entry)
            .ok_or_else(|| Failure::Failed(format!("the entry of {} names no image", kit.name)))?;
        let images = Images::connect(socket).await?;
        let here = if self.anew { None } else { images.find(&tag).await? };
        if let Some(found) = here {
            return Ok(BuiltImage { tag, id: found.id, bytes: found.bytes, is_new: false });
        }
        output.remark(&format!("Building {tag} with {}", kit.title));
        let built = images.build(kit, &tag, self.base, &|line| output.remark(&format!("  {line}"))).await?;
        let found = built.ok_or_else(|| Failure::Failed(format!("{tag} was built, and is not there")))?;
        Ok(BuiltImage { tag, id: found.id, bytes: found.bytes, is_new: true })
    }
}

/// Whether it is gone. That it stays is no reason to fail: the CLI runs no more.
async fn remove_image(tag: &str, socket: &Path, output: Output) -> bool {
    let removed = match Images::connect(socket).await {
        Ok(images) => images.remove(tag).await,
        Err(error) => Err(error),
    };
    removed.unwrap_or_else(|error| {
        output.remark(&format!("The image {tag} stays: {}", error_chain(&error)));
        false
    })
}

fn list(clis: &[Summary], output: Output) {
    let header = ["CLI", "IMAGE", "MODELS", "VENDOR", "KEY"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for cli in clis {
        output.object(cli);
        rows.push(vec![
            cli.name.clone(),
            cli.image.clone().unwrap_or_default(),
            cli.models.join(","),
            cli.upstreams.join(","),
            cli.credentials.join(","),
        ]);
    }
    if clis.is_empty() {
        output.say("No CLI was added; 'dyad-gateway clis add gemini' (or claude, or codex) adds one.");
    } else {
        output.table(&rows);
    }
}

/// The reference to the key, which is looked at now so that a start does not fail for it.
fn credential(
    kit: &Kit,
    variable: Option<&str>,
    file: Option<&Path>,
    output: Output,
) -> Result<String, Failure> {
    let reference = match (variable, file) {
        (_, Some(file)) => {
            let absolute = file.canonicalize();
            let absolute = absolute.map_err(|error| {
                Failure::Usage(vec![format!("--api-key-file {}: {error}", file.display())])
            })?;
            let text = absolute.to_str().ok_or_else(|| {
                Failure::Usage(vec![format!("--api-key-file {}: its path is not UTF-8", file.display())])
            })?;
            return Ok(format!("file:{text}"));
        }
        (Some(name), None) => {
            if std::env::var_os(name).is_none() {
                output.remark(&format!("{name} is not set here; it must be where the gateway is started."));
            }
            name
        }
        (None, None) if std::env::var_os(kit.key_variable).is_some() => kit.key_variable,
        (None, None) => {
            return Err(Failure::Usage(vec![format!(
                "{} needs a key of its vendor: set {}, or give --api-key-env NAME or --api-key-file PATH",
                kit.title, kit.key_variable
            )]));
        }
    };
    Ok(format!("env:{reference}"))
}

/// Where the Docker engine listens: as the runner's file says, else as Docker's own programs find it.
fn socket(file: &RunnerFile) -> Result<PathBuf, Failure> {
    if let Some(socket) = file.engine_socket() {
        return Ok(socket);
    }
    match std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
        None => Ok(USUAL_SOCKET.into()),
        Some(host) => host.strip_prefix("unix://").map(PathBuf::from).ok_or_else(|| {
            Failure::Usage(vec![format!(
                "DOCKER_HOST is {host}, but sandboxes need an engine on this machine: unset it, or give unix://PATH"
            )])
        }),
    }
}

fn variable(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.starts_with(|first: char| first.is_ascii_digit());
    if is_name { Ok(text.to_owned()) } else { Err("write the name of a variable, not a key".to_owned()) }
}

fn model(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('-') || text.len() > 256 || text.contains(char::is_control) {
        Err("write a model's name of at most 256 bytes that does not begin with '-'".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn reference(text: &str) -> Result<String, String> {
    let is_reference = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte));
    if is_reference {
        Ok(text.to_owned())
    } else {
        Err("write an image, such as node:22-bookworm-slim".to_owned())
    }
}

impl From<EntryError> for Failure {
    fn from(error: EntryError) -> Self {
        Self::Failed(error_chain(&error))
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::Failed(error_chain(&error))
    }
}
