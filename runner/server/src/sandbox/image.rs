//! What a CLI runs from: found, pulled, built, or assembled here.

use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::ProgressDetail;
use bollard::query_parameters::{BuildImageOptionsBuilder, CreateImageOptionsBuilder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};

use super::container::call;
use super::{HOME, SandboxError, UID, program};
use crate::config::model::Image;

/// How long a pull or a build may say nothing.
const SILENCE: Duration = Duration::from_secs(600);
const MAX_CONTEXT_BYTES: u64 = 256 * 1024 * 1024;
const ECHO_REPOSITORY: &str = "dyad-cli-echo";

/// A CLI's entry, made ready to be started.
#[derive(Clone, Debug)]
pub struct Prepared(pub(super) PreparedKind);

#[derive(Clone, Debug)]
pub(super) enum PreparedKind {
    Container {
        /// `sha256:…`: a tag that is moved later changes nothing.
        image: String,
        runtime: Option<String>,
    },
    Process,
}

impl Prepared {
    /// The image's id, for logs.
    pub fn image_id(&self) -> Option<&str> {
        match &self.0 {
            PreparedKind::Container { image, .. } => Some(image),
            PreparedKind::Process => None,
        }
    }
}

/// A line of a pull or a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub message: String,
    /// Bytes done, of how many.
    pub bytes: Option<(u64, u64)>,
}

/// Returns the image's id.
pub(super) async fn prepare(
    docker: &Docker,
    image: &Image,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<String, SandboxError> {
    let (name, id) = match image {
        Image::Digest(name) => (name.clone(), find_or_pull(docker, name, progress).await?),
        Image::Local(tag) => (tag.clone(), find(docker, tag).await?),
        Image::Build { context, tag } => (tag.clone(), find_or_build(docker, context, tag, progress).await?),
        Image::Echo => assemble_echo(docker, progress).await?,
    };
    id.ok_or_else(|| refused(&name, "is not on this host"))
}

fn refused(image: &str, reason: impl Into<String>) -> SandboxError {
    SandboxError::Image { image: image.to_owned(), reason: reason.into() }
}

/// None: Docker has no image of that name.
async fn find(docker: &Docker, name: &str) -> Result<Option<String>, SandboxError> {
    let inspected = match call("looking for an image", docker.inspect_image(name)).await {
        Ok(inspected) => inspected,
        Err(SandboxError::Docker {
            source: DockerError::DockerResponseServerError { status_code: 404, .. },
            ..
        }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let volumes = inspected.config.and_then(|config| config.volumes).unwrap_or_default();
    if !volumes.is_empty() {
        return Err(refused(name, "declares volumes, whose size nothing could limit"));
    }
    Ok(inspected.id)
}

async fn find_or_pull(
    docker: &Docker,
    name: &str,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Option<String>, SandboxError> {
    // A bare id is of an image that is here.
    let here = find(docker, name).await?;
    if here.is_some() || !name.contains('@') {
        return Ok(here);
    }
    let options = CreateImageOptionsBuilder::default().from_image(name).build();
    let lines = docker.create_image(Some(options), None, None).map_ok(|line| {
        let layer = line.id.map(|id| format!("{id}: ")).unwrap_or_default();
        told(&format!("{layer}{}", line.status.unwrap_or_default()), line.progress_detail)
    });
    follow(name, "pulling", lines, progress).await?;
    find(docker, name).await
}

async fn find_or_build(
    docker: &Docker,
    context: &Path,
    tag: &str,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Option<String>, SandboxError> {
    let here = find(docker, tag).await?;
    if here.is_some() {
        return Ok(here);
    }
    let packed = tokio::task::spawn_blocking({
        let context = context.to_owned();
        move || pack(&context)
    });
    let packed = packed.await.map_err(|error| refused(tag, format!("packing its context: {error}")))?;
    let packed = packed.map_err(SandboxError::io("packing the image's context"))?;
    let options = BuildImageOptionsBuilder::default().dockerfile("Dockerfile").t(tag).rm(true).forcerm(true);
    let body = bollard::body_full(packed.into());
    let lines = docker
        .build_image(options.build(), None, Some(body))
        .map_ok(|line| told(&line.stream.or(line.status).unwrap_or_default(), line.progress_detail));
    follow(tag, "building", lines, progress).await?;
    find(docker, tag).await
}

/// The folder as a tar. Links stay links; there is no .dockerignore.
fn pack(context: &Path) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Bounded { bytes: Vec::new() });
    builder.follow_symlinks(false);
    builder.append_dir_all(".", context)?;
    Ok(builder.into_inner()?.bytes)
}

struct Bounded {
    bytes: Vec<u8>,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > MAX_CONTEXT_BYTES {
            return Err(std::io::Error::other("the folder has more than 256 MiB"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An image with nothing but the user: `dyad-sandbox-init`, which is in every sandbox, is the CLI.
async fn assemble_echo(
    docker: &Docker,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(String, Option<String>), SandboxError> {
    let packed = echo_files().map_err(SandboxError::io("packing an image"))?;
    let tag = program::digest(&packed);
    let name = format!("{ECHO_REPOSITORY}:{tag}");
    let mut id = find(docker, &name).await?;
    if id.is_none() {
        let options = CreateImageOptionsBuilder::default().from_src("-").repo(ECHO_REPOSITORY).tag(&tag);
        let body = bollard::body_full(packed);
        let lines = docker.create_image(Some(options.build()), Some(body), None);
        let lines = lines.map_ok(|line| told(&line.status.unwrap_or_default(), line.progress_detail));
        follow(&name, "importing", lines, progress).await?;
        id = find(docker, &name).await?;
    }
    Ok((name, id))
}

/// The same bytes every time.
fn echo_files() -> std::io::Result<Bytes> {
    let mut builder = tar::Builder::new(Vec::new());
    let passwd = format!("cli:x:{UID}:{UID}:cli:{HOME}:/nonexistent\n");
    let group = format!("cli:x:{UID}:\n");
    for (path, text) in [("etc/passwd", passwd), ("etc/group", group)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, path, text.as_bytes())?;
    }
    Ok(builder.into_inner()?.into())
}

fn told(message: &str, detail: Option<ProgressDetail>) -> Progress {
    let bytes = detail
        .and_then(|detail| Some((u64::try_from(detail.current?).ok()?, u64::try_from(detail.total?).ok()?)));
    Progress { message: message.trim_end().to_owned(), bytes }
}

/// Passes the lines on until their end.
async fn follow(
    image: &str,
    doing: &str,
    lines: impl Stream<Item = Result<Progress, DockerError>>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), SandboxError> {
    let mut lines = std::pin::pin!(lines);
    loop {
        match tokio::time::timeout(SILENCE, lines.next()).await {
            Ok(Some(Ok(line))) if line.message.is_empty() => {}
            Ok(Some(Ok(line))) => progress(line),
            Ok(Some(Err(error))) => return Err(refused(image, format!("{doing}: {error}"))),
            Ok(None) => return Ok(()),
            Err(_) => return Err(refused(image, format!("{doing}: nothing was said for 10 minutes"))),
        }
    }
}
