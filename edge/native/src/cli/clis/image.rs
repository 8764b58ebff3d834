//! Images of CLIs, built by the Docker engine of this machine.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, CreateImageOptionsBuilder, PruneImagesOptionsBuilder, RemoveImageOptions,
};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};

use super::base::Base;
use super::kit::Kit;
use super::npm;
use crate::error_chain::error_chain;
use crate::random;

/// What the Dockerfiles begin from.
const BASE: &str = "docker.io/library/node:22-bookworm-slim";
/// What is made where that cannot be pulled.
const LOCAL_BASE: &str = "dyad-cli-base:local";
/// The engine answers a question within milliseconds, unless the machine is out of breath.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a pull or a build may say nothing.
const SILENCE: Duration = Duration::from_secs(300);
/// Layers of an image are removed one by one.
const REMOVAL: Duration = Duration::from_secs(120);
/// So much of a step is told: some are long commands.
const STEP_CHARS: usize = 96;
/// Lines of a build that are kept, to explain its failure.
const KEPT_LINES: usize = 12;

#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error(
        "no Docker engine answers at {} ({reason}); start it ('systemctl start docker'), or install one ('apt-get install docker.io')",
        socket.display()
    )]
    NoEngine { socket: PathBuf, reason: String },
    #[error("{doing}")]
    Engine { doing: String, source: DockerError },
    #[error("{doing}: nothing happened for {} s", limit.as_secs())]
    Silent { doing: String, limit: Duration },
    #[error("{doing} failed: {reason}\n{}", lines.join("\n"))]
    Build { doing: String, reason: String, lines: Vec<String> },
    #[error(
        "{BASE} cannot be pulled, and no base image can be made here: {0}; give one that has Node 22 and npm with --base, or 'docker pull' or 'docker load' that one"
    )]
    NoBase(String),
    #[error("npm's settings on this machine")]
    Npm(#[source] io::Error),
    #[error("no build can be named")]
    Randomness(#[source] io::Error),
}

/// By this label an image says what it was made of: [`Recipe::digest`].
const RECIPE_LABEL: &str = "dyad.recipe";

/// What an image is made of.
pub(super) struct Recipe<'a> {
    pub(super) kit: &'a Kit,
    /// What it is built on; None: what is there, or can be had.
    pub(super) base: Option<&'a str>,
}

impl Recipe<'_> {
    /// Another one where anything that counts is another: the CLI's version is in the Dockerfile.
    pub(super) fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let files = self.kit.files.iter().flat_map(|&(name, text)| [name, text]);
        for part in files.chain([self.base.unwrap_or_default()]) {
            // With its length: where one part ends is not for the texts to say.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        format!("{:x}", hasher.finalize())
    }
}

/// An image that is here.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) bytes: u64,
    /// [`Recipe::digest`], if it was built here.
    pub(super) recipe: Option<String>,
}

pub(super) struct Images {
    docker: Docker,
}

impl Images {
    pub(super) async fn connect(socket: &Path) -> Result<Self, ImageError> {
        let no_engine = |reason: String| ImageError::NoEngine { socket: socket.to_owned(), reason };
        let path = socket.to_str().ok_or_else(|| no_engine("its path is not UTF-8".to_owned()))?;
        let docker = Docker::connect_with_unix(path, SILENCE.as_secs(), bollard::API_DEFAULT_VERSION)
            .map_err(|error| no_engine(error_chain(&error)))?;
        match tokio::time::timeout(ANSWER, docker.negotiate_version()).await {
            Ok(Ok(docker)) => Ok(Self { docker }),
            Ok(Err(error)) => Err(no_engine(error_chain(&error))),
            Err(_) => Err(no_engine("it says nothing".to_owned())),
        }
    }

    pub(super) async fn find(&self, tag: &str) -> Result<Option<Found>, ImageError> {
        let doing = || format!("looking for the image {tag}");
        match tokio::time::timeout(ANSWER, self.docker.inspect_image(tag)).await {
            Ok(Ok(image)) => {
                let bytes = image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
                let recipe = image.config.and_then(|config| config.labels?.remove(RECIPE_LABEL));
                Ok(image.id.map(|id| Found { id, bytes, recipe }))
            }
            Ok(Err(DockerError::DockerResponseServerError { status_code: 404, .. })) => Ok(None),
            Ok(Err(source)) => Err(ImageError::Engine { doing: doing(), source }),
            Err(_) => Err(ImageError::Silent { doing: doing(), limit: ANSWER }),
        }
    }

    /// Builds a CLI's image; with `anew` the base too is had again, if it can be. `tell` gets a line per step.
    pub(super) async fn build(
        &self,
        recipe: &Recipe<'_>,
        tag: &str,
        anew: bool,
        tell: &dyn Fn(&str),
    ) -> Result<Option<Found>, ImageError> {
        let settings = npm::settings(tell).await.map_err(ImageError::Npm)?;
        let base = match recipe.base {
            Some(base) => base.to_owned(),
            None => self.base(anew, tell).await?,
        };
        let before = self.find(tag).await?;
        let build = random::hex::<8>().map_err(ImageError::Randomness)?;
        let mut arguments: HashMap<_, _> = npm::proxies(tell).collect();
        arguments.insert("BASE", base);
        arguments.insert("BUILD", build.clone());
        // The host's network: a proxy or a registry may be on this machine.
        let labels = HashMap::from([(RECIPE_LABEL, recipe.digest())]);
        let options = BuildImageOptionsBuilder::default().t(tag).networkmode("host").buildargs(&arguments);
        let options = options.labels(&labels);
        let own = recipe.kit.files.iter().map(|&(name, text)| (name, text));
        let files = own.chain(settings.iter().map(|(name, text)| (*name, text.as_str())));
        let doing = format!("building {tag}");
        let lines = self
            .docker
            .build_image(
                options.rm(true).forcerm(true).build(),
                None,
                Some(bollard::body_full(context(files).into())),
            )
            .map_ok(|line| line.stream.or(line.status).unwrap_or_default());
        let built = follow(&doing, lines, &mut |line| {
            if line.starts_with("Step ") {
                tell(&line.chars().take(STEP_CHARS).collect::<String>());
            }
        })
        .await;
        self.clean(&build, tell).await;
        built?;
        let after = self.find(tag).await?;
        if let (Some(before), Some(after)) = (before, &after)
            && before.id != after.id
        {
            // What the tag was on before. Sandboxes that still run keep it.
            let _ = self.remove(&before.id).await;
        }
        Ok(after)
    }

    /// Whether there was one. An image that is in use is an error, and stays.
    pub(super) async fn remove(&self, name: &str) -> Result<bool, ImageError> {
        let doing = || format!("removing the image {name}");
        let removal = self.docker.remove_image(name, None::<RemoveImageOptions>, None);
        match tokio::time::timeout(REMOVAL, removal).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(DockerError::DockerResponseServerError { status_code: 404, .. })) => Ok(false),
            Ok(Err(source)) => Err(ImageError::Engine { doing: doing(), source }),
            Err(_) => Err(ImageError::Silent { doing: doing(), limit: REMOVAL }),
        }
    }

    /// The base that is here, or can be pulled, or can be made here. With `anew` what is here is the last resort.
    async fn base(&self, anew: bool, tell: &dyn Fn(&str)) -> Result<String, ImageError> {
        let is_here = self.find(BASE).await?.is_some();
        if is_here && !anew {
            return Ok(BASE.to_owned());
        }
        tell(&format!("Pulling {BASE}"));
        let options = CreateImageOptionsBuilder::default().from_image(BASE).build();
        let lines = self.docker.create_image(Some(options), None, None);
        let lines = lines.map_ok(|line| line.status.unwrap_or_default());
        let Err(error) = follow("pulling it", lines, &mut |_| {}).await else { return Ok(BASE.to_owned()) };
        let why = match &error {
            ImageError::Build { reason, .. } => reason.clone(),
            error => error_chain(error),
        };
        if is_here {
            tell(&format!("It cannot be pulled ({why}); taking the one that is here"));
            return Ok(BASE.to_owned());
        }
        let before = self.find(LOCAL_BASE).await?;
        if before.is_some() && !anew {
            tell(&format!(
                "It cannot be pulled ({why}); taking {LOCAL_BASE}, which was made on this machine"
            ));
            return Ok(LOCAL_BASE.to_owned());
        }
        tell(&format!("It cannot be pulled ({why}); making {LOCAL_BASE} of this machine's own programs"));
        let base = Base::collect().await.map_err(|error| ImageError::NoBase(error.to_string()))?;
        let (repository, tag) = LOCAL_BASE.split_once(':').unwrap_or((LOCAL_BASE, "local"));
        let options = CreateImageOptionsBuilder::default().from_src("-").repo(repository).tag(tag).build();
        let mut pieces = base.pack();
        let pieces = futures_util::stream::poll_fn(move |context| pieces.poll_recv(context));
        let lines = self.docker.create_image(Some(options), Some(bollard::body_try_stream(pieces)), None);
        let lines = lines.map_ok(|line| line.status.unwrap_or_default());
        follow(&format!("making {LOCAL_BASE}"), lines, &mut |_| {}).await?;
        if let Some(before) = before {
            // Images that were built on it keep it until they are built anew.
            let _ = self.remove(&before.id).await;
        }
        Ok(LOCAL_BASE.to_owned())
    }

    /// Removes the layers in which the build installed: npm's settings are among them.
    async fn clean(&self, build: &str, tell: &dyn Fn(&str)) {
        let filters = HashMap::from([
            ("dangling", vec!["true".to_owned()]),
            ("label", vec![format!("dyad.build={build}")]),
        ]);
        let options = PruneImagesOptionsBuilder::default().filters(&filters).build();
        let removal = tokio::time::timeout(REMOVAL, self.docker.prune_images(Some(options))).await;
        let why = match removal {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error_chain(&error),
            Err(_) => "the engine says nothing".to_owned(),
        };
        tell(&format!(
            "The layers of the build stay ({why}); remove them: docker image prune --filter label=dyad.build={build}"
        ));
    }
}

/// The build context as a tar.
fn context<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, text.as_bytes())
            .expect("a vector takes everything, and the names are short");
    }
    archive.into_inner().expect("a vector takes everything")
}

/// What the engine says about its own doings.
fn is_noise(line: &str) -> bool {
    line.is_empty() || line.starts_with("--->") || line.starts_with("Removing intermediate container")
}

/// Reads what the engine says about a pull or a build to its end.
async fn follow(
    doing: &str,
    said: impl Stream<Item = Result<String, DockerError>>,
    tell: &mut dyn FnMut(&str),
) -> Result<(), ImageError> {
    let mut said = std::pin::pin!(said);
    let mut kept = std::collections::VecDeque::new();
    loop {
        match tokio::time::timeout(SILENCE, said.next()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(text))) => {
                for line in text.lines().map(str::trim).filter(|line| !is_noise(line)) {
                    tell(line);
                    if kept.len() == KEPT_LINES {
                        kept.pop_front();
                    }
                    kept.push_back(line.to_owned());
                }
            }
            Ok(Some(Err(error))) => {
                let reason = match error {
                    DockerError::DockerStreamError { error } => error,
                    error => error_chain(&error),
                };
                return Err(ImageError::Build { doing: doing.to_owned(), reason, lines: kept.into() });
            }
            Err(_) => return Err(ImageError::Silent { doing: doing.to_owned(), limit: SILENCE }),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::cli::block_on;

    fn says(lines: Vec<Result<&str, DockerError>>) -> (Vec<String>, Result<(), ImageError>) {
        let said = stream::iter(lines.into_iter().map(|line| line.map(str::to_owned)));
        let mut told = Vec::new();
        let result = block_on(follow("building it", said, &mut |line| told.push(line.to_owned()))).unwrap();
        (told, result)
    }

    #[test]
    fn a_build_that_fails_is_explained_by_its_last_lines() {
        let broken = DockerError::DockerStreamError { error: "it returned 1".to_owned() };
        let mut lines: Vec<_> = (0..50).map(|_| Ok("earlier\n")).collect();
        lines.extend([
            Ok(" ---> Running in 1\nnpm error E404\n\n"),
            Ok("Removing intermediate container 1\n"),
            Err(broken),
        ]);
        let (told, result) = says(lines);
        assert_eq!(told.len(), 51);
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with("building it failed: it returned 1\nearlier"), "{text}");
        assert!(text.ends_with("npm error E404"), "{text}");
        assert_eq!(text.lines().count(), 1 + KEPT_LINES);
        assert!(says(vec![Ok("Step 1/1 : FROM scratch\n")]).1.is_ok());
    }

    #[test]
    fn an_engine_that_says_nothing_is_not_waited_for_forever() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let result = runtime.block_on(follow("building it", stream::pending(), &mut |_| {}));
        assert!(matches!(result, Err(ImageError::Silent { limit: SILENCE, .. })));
    }

    #[test]
    fn a_missing_engine_is_named_with_what_to_do() {
        let error = block_on(Images::connect(Path::new("/no/such/docker.sock"))).unwrap().err().unwrap();
        let text = error.to_string();
        assert!(text.contains("/no/such/docker.sock") && text.contains("systemctl start docker"), "{text}");
    }

    #[test]
    fn a_recipe_is_known_by_all_that_counts() {
        let kit = |files| Kit { name: "a", title: "A", entry: "", files, key_variable: "A" };
        let digest = |files, base| Recipe { kit: &kit(files), base }.digest();
        let digests = [
            digest(&[("Dockerfile", "FROM a"), ("b", "")], None),
            digest(&[("Dockerfile", "FROM a"), ("b", "c")], None),
            digest(&[("Dockerfile", "FROM a"), ("bc", "")], None),
            digest(&[("Dockerfile", "FROM a"), ("b", "")], Some("node:22")),
            digest(&[("Dockerfile", "FROM a")], None),
            digest(&[("Dockerfile", "FROM ab")], None),
        ];
        assert_eq!(digests[0], digest(&[("Dockerfile", "FROM a"), ("b", "")], None));
        assert_eq!(digests.iter().collect::<std::collections::BTreeSet<_>>().len(), digests.len());
    }

    #[test]
    fn a_context_has_its_files() {
        let packed = context([("Dockerfile", "FROM scratch"), ("a", "")].into_iter());
        let mut archive = tar::Archive::new(packed.as_slice());
        let files: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                io::Read::read_to_string(&mut entry, &mut text).unwrap();
                (entry.path().unwrap().to_str().unwrap().to_owned(), text)
            })
            .collect();
        assert_eq!(
            files,
            [("Dockerfile".to_owned(), "FROM scratch".to_owned()), ("a".to_owned(), String::new())]
        );
    }
}
