//! `dyad-gateway clis …`

mod base;
mod entry;
mod image;
mod kit;
mod npm;
mod process;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use dyad_runner::config::DEFAULT_DOCKER_SOCKET;
use serde_json::json;

use super::{CommonArgs, Failure, block_on};
use crate::data_dir::DataDir;
use crate::error_chain::error_chain;
use crate::local_runner::{self, LocalRunnerError, NotLocal, docker_socket};
use crate::output::Output;
use entry::{Choices, EntryError, RunnerFile, Summary, fill, local_image};
use image::{ImageError, Images, Recipe};
use kit::{Kit, Known};

#[derive(Debug, Subcommand)]
pub(crate) enum ClisCommand {
    /// Build a CLI's image, if it is not there, and let the gateway run it in sandboxes
    #[command(
        after_help = "The key stays with the gateway: it never enters a sandbox. Whether a key may serve others is for its vendor's terms to say.\n\nExamples:\n  dyad-gateway clis add gemini --api-key-file ~/.keys/gemini\n  dyad-gateway clis add claude --api-key-env ANTHROPIC_API_KEY --model claude-sonnet-4-5"
    )]
    Add {
        cli: Known,
        /// The image to build on, with Node 22 and npm [default: Debian's Node 22, or one made of this machine's own programs]
        #[arg(long, value_name = "IMAGE", value_parser = reference)]
        base: Option<String>,
        /// Build the image and its base anew, even if they are there
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
            // First with the file as it is now: a build takes minutes.
            let put = |file: &mut RunnerFile| put(file, &kit, &entry, &data_dir);
            let socket = put(&mut file)?.socket;
            let recipe = Recipe { kit: &kit, base: base.as_deref() };
            let image = block_on(image(&recipe, *rebuild, &socket, output))??;
            data_dir.create().map_err(|error| Failure::failed("the data directory", &error))?;
            if RunnerFile::change(&path, put)?.is_replaced {
                output.remark(&format!("The entry of {} that was there is written anew.", kit.name));
            }
            output.object(&json!({
                "cli": kit.name, "image": image.tag, "image_id": image.id, "image_bytes": image.bytes,
                "built": image.is_new, "file": path,
            }));
            let megabytes = image.bytes / 1_000_000;
            let built = if image.is_new { "Built" } else { "Found" };
            output.say(format!("{built} {} ({megabytes} MB) and wrote {}.", image.tag, path.display()));
            output.say(match choices.credential.strip_prefix("env:") {
                Some(name) => format!(
                    "Start the gateway with {name} set, and it serves {}; or give --api-key-file PATH, and it need not be set.",
                    kit.title
                ),
                None => format!("The next start of the gateway serves {}.", kit.title),
            });
        }
        ClisCommand::List { .. } => list(&file.list(), output),
        ClisCommand::Remove { name, keep_image, .. } => {
            let unknown = || {
                let advice = "'dyad-gateway clis list' shows those there are";
                Failure::Failed(format!("there is no CLI {name}; {advice}"))
            };
            if !file.list().iter().any(|cli| cli.name == *name) {
                return Err(unknown());
            }
            let image = RunnerFile::change(&path, |file| {
                let image = file.list().into_iter().find(|cli| cli.name == *name).and_then(|cli| cli.image);
                let is_removed = file.remove(name);
                let is_shared = file.list().iter().any(|other| other.image == image);
                if is_removed { Ok(image.filter(|_| !is_shared)) } else { Err(unknown()) }
            })?;
            let image = image.filter(|_| !keep_image);
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

/// What came of [`put`].
struct Put {
    is_replaced: bool,
    /// Where the runner will look for the Docker engine.
    socket: PathBuf,
}

/// Adds a CLI's entry, if the runner would take it.
fn put(file: &mut RunnerFile, kit: &Kit, entry: &str, data_dir: &DataDir) -> Result<Put, Failure> {
    let is_replaced = file.put(kit.name, entry)?;
    let checked = local_runner::check(&file.text(), data_dir).map_err(|error| match error {
        LocalRunnerError::Engine(elsewhere) => elsewhere.into(),
        error => Failure::Failed(error_chain(&error)),
    })?;
    match checked.left_out.into_iter().find(|(name, _)| name == kit.name) {
        Some((name, why)) => Err(Failure::Usage(vec![format!("{name}: {why}")])),
        None => Ok(Put { is_replaced, socket: checked.config.engine.socket }),
    }
}

/// The image of a CLI.
struct BuiltImage {
    tag: String,
    id: String,
    bytes: u64,
    is_new: bool,
}

/// The image that is there, if it was made as `recipe` says and need not be built `anew`; else a new one.
async fn image(
    recipe: &Recipe<'_>,
    anew: bool,
    socket: &Path,
    output: Output,
) -> Result<BuiltImage, Failure> {
    let Kit { name, title, .. } = recipe.kit;
    let tag = local_image(recipe.kit.entry)
        .ok_or_else(|| Failure::Failed(format!("the entry of {name} names no image")))?;
    let images = Images::connect(socket).await?;
    let here = images.find(&tag).await?;
    if let Some(found) = &here
        && found.recipe.as_deref() == Some(recipe.digest().as_str())
        && !anew
    {
        return Ok(BuiltImage { tag, id: found.id.clone(), bytes: found.bytes, is_new: false });
    }
    if here.is_some() && !anew {
        output.remark(&format!("The {tag} that is here was made of something else."));
    }
    output.remark(&format!("Building {tag} with {title}"));
    let built = images.build(recipe, &tag, anew, &|line| output.remark(&format!("  {line}"))).await?;
    let found = built.ok_or_else(|| Failure::Failed(format!("{tag} was built, and is not there")))?;
    Ok(BuiltImage { tag, id: found.id, bytes: found.bytes, is_new: true })
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
    let said = docker_socket(std::env::var_os("DOCKER_HOST").as_deref())?;
    Ok(said.unwrap_or_else(|| DEFAULT_DOCKER_SOCKET.into()))
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

impl From<NotLocal> for Failure {
    fn from(error: NotLocal) -> Self {
        Self::Usage(vec![error.to_string()])
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
