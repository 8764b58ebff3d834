//! One container: made, checked, attached, started; asked how it ended; removed.

use std::time::Duration;

use bollard::Docker;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error as DockerError;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
    RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::keeper::Started;
use super::{Exit, Limit, Output, SandboxError, Stdin, hardening};

/// Of each call. A loaded engine takes seconds to start a container.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);
const NOT_FOUND: u16 = 404;

pub(super) struct Container {
    docker: Docker,
    name: String,
    /// What is sent.
    body: ContainerCreateBody,
    /// What must have come of it.
    promised: ContainerCreateBody,
    /// Whether the engine may have it.
    may_exist: bool,
    #[cfg(feature = "test-hooks")]
    is_checked: bool,
}

impl Container {
    pub(super) fn new(docker: Docker, name: String, body: ContainerCreateBody) -> Self {
        Self {
            docker,
            name,
            promised: body.clone(),
            body,
            may_exist: false,
            #[cfg(feature = "test-hooks")]
            is_checked: true,
        }
    }

    #[cfg(feature = "test-hooks")]
    pub(super) fn tamper(&mut self, tampering: &hardening::Tampering) {
        (tampering.change)(&mut self.body);
        self.is_checked = tampering.is_checked;
    }

    pub(super) async fn start(&mut self) -> Result<Started, SandboxError> {
        let options = CreateContainerOptionsBuilder::default().name(&self.name).build();
        let create = self.docker.create_container(Some(options), self.body.clone());
        let created = call("creating the container", create).await;
        self.may_exist = !created.as_ref().is_err_and(is_unsent);
        created?;
        // Before the start: nothing that the CLI prints may be lost.
        let (AttachContainerResults { output, input }, ()) = tokio::try_join!(self.attach(), self.check())?;
        let start = self.docker.start_container(&self.name, None::<StartContainerOptions>);
        call("starting the container", start).await?;
        // The stream ends with the container, whose init holds both pipes open. A broken connection ends it too.
        let output = output.filter_map(async |piece| match piece.ok()? {
            LogOutput::StdOut { message } => Some(Output::Stdout(message)),
            LogOutput::StdErr { message } => Some(Output::Stderr(message)),
            // There is no terminal: "Console" is what bollard makes of a frame that broke off.
            LogOutput::StdIn { .. } | LogOutput::Console { .. } => None,
        });
        Ok(Started { stdin: Stdin::new(input), output: output.boxed() })
    }

    async fn attach(&self) -> Result<AttachContainerResults, SandboxError> {
        let options = AttachContainerOptionsBuilder::default()
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .stream(true)
            .build();
        call("attaching to the container", self.docker.attach_container(&self.name, Some(options))).await
    }

    async fn check(&self) -> Result<(), SandboxError> {
        #[cfg(feature = "test-hooks")]
        if !self.is_checked {
            return Ok(());
        }
        let inspected = self.inspect().await?;
        hardening::check(&self.promised, &inspected).map_err(|field| SandboxError::NotHardened { field })
    }

    async fn inspect(&self) -> Result<bollard::models::ContainerInspectResponse, SandboxError> {
        let inspect = self.docker.inspect_container(&self.name, None::<InspectContainerOptions>);
        call("inspecting the container", inspect).await
    }

    /// What is known after the output's end. Docker may have been lost, and with it what it knew.
    pub(super) async fn exit(&mut self) -> Exit {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut wait = self.docker.wait_container(&self.name, Some(options));
        let ended = tokio::time::timeout(TIMEOUT, wait.next()).await;
        let code = match ended {
            Ok(Some(Ok(response))) => Some(response.status_code),
            // That is how bollard tells of any code but 0.
            Ok(Some(Err(DockerError::DockerContainerWaitError { code, .. }))) => Some(code),
            Ok(Some(Err(_)) | None) | Err(_) => None,
        };
        let code = code.and_then(|code| i32::try_from(code).ok());
        let state = self.inspect().await.ok().and_then(|inspected| inspected.state);
        // Docker says so as well where a child of the CLI was killed, and the CLI lived on to end by itself.
        let out_of_memory = state.and_then(|state| state.oom_killed).unwrap_or(false);
        let limit = (out_of_memory && code != Some(0)).then_some(Limit::Memory);
        Exit { code, limit }
    }

    pub(super) async fn remove(&mut self) -> Result<(), SandboxError> {
        if !self.may_exist {
            return Ok(());
        }
        remove(&self.docker, &self.name).await
    }
}

/// Whether the engine was not there to hear of it.
fn is_unsent(error: &SandboxError) -> bool {
    matches!(error, SandboxError::Docker { source: DockerError::HyperLegacyError { err }, .. } if err.is_connect())
}

/// Kills and removes, with its anonymous volumes. Good if there is none by that name.
pub(super) async fn remove(docker: &Docker, name: &str) -> Result<(), SandboxError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match call("removing the container", docker.remove_container(name, Some(options))).await {
        Err(SandboxError::Docker {
            source: DockerError::DockerResponseServerError { status_code: NOT_FOUND, .. },
            ..
        }) => Ok(()),
        outcome => outcome,
    }
}

/// A call of the engine, bounded in time.
pub(super) async fn call<T>(
    doing: &'static str,
    call: impl Future<Output = Result<T, DockerError>>,
) -> Result<T, SandboxError> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(outcome) => outcome.map_err(|source| SandboxError::Docker { doing, source }),
        Err(_) => Err(SandboxError::TimedOut { doing }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_says_nothing_is_not_waited_for() {
        let never = std::future::pending::<Result<(), DockerError>>();
        let error = call("waiting", never).await.unwrap_err();
        assert_eq!(error.to_string(), "Docker took too long at waiting");
    }
}
