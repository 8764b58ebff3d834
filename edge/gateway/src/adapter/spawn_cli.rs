//! Calls to CLIs on the runners' nodes: the adapter `spawn-cli`.
//!
//! A run goes to one node. As long as nothing was delivered, another node takes over where that may help: for a node
//! that is full, draining, out of reach or breaks off; not for what the vendor said or this CLI cannot do, which is the
//! next target's chance; and a run that was cancelled on its node is begun nowhere again.
//! Dropping the answer's body closes the node's stream, and that ends the run.

mod conversation;
mod effort;
mod refusal;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catalog::SpawnCliConfig;
use http::{HeaderValue, Method, StatusCode, header};
use openai_wire::request::ChatScan;
use runner_api::frame::Decoder;
use runner_api::{CliInfo, NodeRecord, RUNS_PATH, RunRequest};

use super::{ChatCall, Completed, Gathered, MAX_ERROR_BODY_BYTES, call_failure, until};
use crate::body::{ReadTimeouts, collect};
use crate::body_memory::BodyMemory;
use crate::error::{ApiError, FailureClass, Scope, UpstreamFailure};
use crate::event::ChatEvent;
use crate::host::{Body, Host, REQUEST_ID};
use crate::nodes::Nodes;
use crate::reader::Reader;
use crate::relay::ChunkRelay;
use crate::routes::{Target, Timeouts};
use crate::run_events::{chat_event, frame_failure};
use crate::runners::{is_runner, runner_request};
use crate::stream::Live;

pub(crate) use conversation::Conversation;
use effort::REASONING_EFFORT;

/// Values of a CLI's parameters, by name.
pub(crate) type Parameters = BTreeMap<String, String>;

/// What CLIs among the targets are asked. They are left out where no CLI can do what the request wants, and the request
/// is refused where nobody else is there.
pub(crate) fn read_conversation(
    scan: &ChatScan,
    body: &Bytes,
    targets: &mut Vec<Arc<Target>>,
) -> Result<Option<Conversation>, ApiError> {
    if !targets.iter().any(|target| target.is_cli()) {
        return Ok(None);
    }
    match Conversation::read(scan, body) {
        Ok(conversation) => Ok(Some(conversation)),
        Err(error) => {
            targets.retain(|target| !target.is_cli());
            if targets.is_empty() { Err(error) } else { Ok(None) }
        }
    }
}

/// Opens a run and reads it up to its first content.
pub(super) async fn stream(
    chat: &ChatCall,
    target: &Arc<Target>,
    cli: &SpawnCliConfig,
) -> Result<Live, UpstreamFailure> {
    let mut runs = Runs::new(chat, target, cli).await?;
    loop {
        let Begun { response, run } = runs.begin().await?;
        let mut live = Live::new(
            response.into_body(),
            target.clone(),
            Reader::Run { decoder: Decoder::default(), run },
            ChunkRelay::new(chat.wanted.clone(), chat.prompt_estimate(target)),
            chat.call.settings.max_frame_bytes,
            runs.begun,
            chat.call.host.clone(),
        );
        match poll_fn(|cx| live.poll_commit(cx)).await {
            Ok(()) => return Ok(live),
            Err(failure) => runs.broke(failure)?,
        }
    }
}

pub(super) async fn complete(
    chat: &ChatCall,
    target: &Arc<Target>,
    cli: &SpawnCliConfig,
) -> Result<Completed, UpstreamFailure> {
    let mut runs = Runs::new(chat, target, cli).await?;
    loop {
        let Begun { response, run } = runs.begin().await?;
        let completed = match chat.call.read(response, target, runs.begun).await {
            Ok(body) => fold(chat, target, &body, &run),
            Err(failure) => Err(failure),
        };
        match completed {
            Ok(completed) => return Ok(completed),
            Err(failure) => runs.broke(failure)?,
        }
    }
}

fn fold(chat: &ChatCall, target: &Target, body: &[u8], run: &str) -> Result<Completed, UpstreamFailure> {
    let mut decoder = Decoder::default();
    decoder.push(body);
    let mut answer = Gathered::default();
    while let Some(event) = decoder.next_event().map_err(|error| frame_failure(&error))? {
        let Some(event) = chat_event(event, run)? else { continue };
        let finished = matches!(event, ChatEvent::Finish { .. });
        answer.add(event, chat.wanted.choices);
        if finished {
            return chat.finish(answer, target);
        }
    }
    Err(UpstreamFailure::unavailable("The runner's stream ended before the answer was complete."))
}

/// The runs of one request on one target: one at a time, each on another node.
struct Runs<'a> {
    chat: &'a ChatCall,
    conversation: &'a Conversation,
    cli: &'a SpawnCliConfig,
    timeouts: Timeouts,
    begun: Duration,
    /// Nodes that were not tried yet, with what the CLI's parameters are there.
    left: std::vec::IntoIter<(Arc<NodeRecord>, Parameters)>,
    current: Option<Arc<NodeRecord>>,
    /// What the client is told when no node is left.
    failure: Option<UpstreamFailure>,
}

impl<'a> Runs<'a> {
    async fn new(
        chat: &'a ChatCall,
        target: &'a Target,
        cli: &'a SpawnCliConfig,
    ) -> Result<Self, UpstreamFailure> {
        let begun = chat.call.host.monotonic();
        let conversation = chat.conversation.as_ref().ok_or_else(no_node)?;
        chat.nodes.ensure_fresh().await;
        let left = chat.nodes.in_order(nodes_for(&chat.nodes, cli, target, conversation)?).into_iter();
        let timeouts = target.upstream.timeouts;
        Ok(Self { chat, conversation, cli, timeouts, begun, left, current: None, failure: None })
    }

    /// The answer of the next node that takes the run.
    async fn begin(&mut self) -> Result<Begun, UpstreamFailure> {
        loop {
            let Some((node, mut parameters)) = self.left.next() else {
                let failure = self.failure.take();
                return Err(
                    failure.unwrap_or_else(|| UpstreamFailure::unavailable("No runner is left to try."))
                );
            };
            let mut result = self.post(&node, &parameters).await;
            if let Err(failure) = &result
                && failure.param.as_deref() == Some(REASONING_EFFORT)
                && !self.cli.parameters.contains_key(REASONING_EFFORT)
                && parameters.remove(REASONING_EFFORT).is_some()
            {
                // The node takes other values by now than it announced; its own will do.
                result = self.post(&node, &parameters).await;
            }
            self.current = Some(node);
            match result {
                Ok(begun) => return Ok(begun),
                Err(failure) => self.broke(failure)?,
            }
        }
    }

    /// The run that was tried last failed before anything was delivered. `Err` if another node would do no better.
    fn broke(&mut self, failure: UpstreamFailure) -> Result<(), UpstreamFailure> {
        // What else fails a run was said by the CLI or its vendor, or took all the time there was.
        if failure.scope != Scope::Upstream {
            return Err(failure);
        }
        if let Some(node) = self.current.take() {
            tracing::warn!(
                request_id = self.chat.call.request_id.to_str().unwrap_or_default(),
                node = node.id,
                cli = self.cli.cli,
                class = failure.class.as_str(),
                "a runner did not take a run to its answer: {}",
                failure.message
            );
            self.chat.nodes.avoid(&node);
        }
        // A client is helped most by knowing when to come back, which is when the first of them has room.
        let is_full = |failure: &UpstreamFailure| failure.class == FailureClass::Overloaded;
        match &mut self.failure {
            Some(known) if is_full(known) && is_full(&failure) => {
                known.retry_after = match (known.retry_after, failure.retry_after) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
            }
            Some(known) if is_full(known) => {}
            _ => self.failure = Some(failure),
        }
        Ok(())
    }

    async fn post(&self, node: &NodeRecord, parameters: &Parameters) -> Result<Begun, UpstreamFailure> {
        let host = &*self.chat.call.host;
        let left = (self.begun + self.timeouts.total).saturating_sub(host.monotonic());
        let request = self.request(host, parameters.clone(), left);
        let json = serde_json::to_vec(&request).expect("these types have string keys only");
        let Some(mut post) = runner_request(node, Method::POST, RUNS_PATH, json) else {
            return Err(UpstreamFailure::unavailable("A runner's address cannot be used."));
        };
        let headers = post.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static(runner_api::CONTENT_TYPE));
        headers.insert(REQUEST_ID, self.chat.call.request_id.clone());
        tracing::debug!(
            request_id = self.chat.call.request_id.to_str().unwrap_or_default(),
            run = request.id,
            node = node.id,
            cli = self.cli.cli,
            "a run goes to a node"
        );
        let deadline = self.begun + self.timeouts.first_byte;
        let response = match until(host, deadline, host.call_runner(post, self.timeouts.connect)).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(call_failure(error).of_scope(Scope::Upstream)),
            None => {
                // The time for the first byte is the same for all nodes together.
                let message = "The runner did not begin to answer in time.";
                return Err(UpstreamFailure::new(FailureClass::Timeout, message).after_work());
            }
        };
        if let Some(trace) = &self.chat.call.trace {
            trace.answered(host.monotonic());
        }
        if !is_runner(&response) {
            let message = "What answered is no runner, or one of another version than this gateway.";
            return Err(UpstreamFailure::unavailable(message));
        }
        if response.status() == StatusCode::OK {
            return Ok(Begun { response, run: request.id });
        }
        let timeouts = ReadTimeouts {
            idle: self.timeouts.idle.min(Duration::from_secs(5)),
            total: Duration::from_secs(10),
        };
        let (head, mut body) = response.into_parts();
        // A body that is too long or broken says nothing; the status still does.
        let body = collect(&mut body, MAX_ERROR_BODY_BYTES, &BodyMemory::UNCOUNTED, timeouts, host)
            .await
            .unwrap_or_default();
        Err(refusal::classify(head.status, &body, self.conversation, self.cli))
    }

    fn request(&self, host: &dyn Host, parameters: Parameters, left: Duration) -> RunRequest {
        let mut random = [0; 16];
        host.fill_random(&mut random);
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        RunRequest {
            id: format!("{:032x}", u128::from_le_bytes(random)),
            cli: self.cli.cli.clone(),
            parameters,
            caller: self.chat.call.caller.clone(),
            timeout_ms: Some(timeout_ms.max(1)),
            system: self.conversation.system.clone(),
            messages: self.conversation.messages.clone(),
        }
    }
}

fn no_node() -> UpstreamFailure {
    UpstreamFailure::unavailable("No runner that is up has the CLI of this model.")
}

/// The nodes that a run may go to, in no order, with what the CLI's parameters are there; never none.
pub(crate) fn nodes_for(
    nodes: &Nodes,
    cli: &SpawnCliConfig,
    target: &Target,
    conversation: &Conversation,
) -> Result<Vec<(Arc<NodeRecord>, Parameters)>, UpstreamFailure> {
    let (mut fitting, mut misfit) = (Vec::new(), None);
    for node in nodes.up() {
        let Some(info) = node.clis.iter().find(|info| info.name == cli.cli) else { continue };
        match parameters(info, cli, target, conversation) {
            Ok(parameters) => fitting.push((node, parameters)),
            Err(failure) => misfit = Some(failure),
        }
    }
    if fitting.is_empty() {
        return Err(misfit.unwrap_or_else(no_node));
    }
    Ok(fitting)
}

/// A run that goes on.
struct Begun {
    response: http::Response<Body>,
    /// Its id.
    run: String,
}

/// The values of a CLI's parameters on one node; a failure where it does not have the CLI in the way that is needed.
fn parameters(
    info: &CliInfo,
    cli: &SpawnCliConfig,
    target: &Target,
    conversation: &Conversation,
) -> Result<Parameters, UpstreamFailure> {
    let allows = |name: &str, value: &str| {
        let declared = info.parameters.get(name)?;
        Some(declared.values.is_empty() || declared.values.iter().any(|allowed| allowed == value))
    };
    let mut parameters = cli.parameters.clone();
    if parameters.iter().any(|(name, value)| allows(name, value) != Some(true)) {
        let message = "No runner takes the parameters that this model's provider is configured with.";
        return Err(UpstreamFailure::unavailable(message));
    }
    if let Some(name) = &cli.model_parameter {
        if allows(name, &target.model.upstream_id) != Some(true) {
            let message = "No runner that is up has this model.";
            return Err(UpstreamFailure::new(FailureClass::NotFound, message));
        }
        parameters.insert(name.clone(), target.model.upstream_id.clone());
    }
    if let Some(asked) = &conversation.reasoning_effort
        && target.model.capabilities.reasoning != Some(false)
        && !parameters.contains_key(REASONING_EFFORT)
        && let Some(declared) = info.parameters.get(REASONING_EFFORT)
        && let Some(effort) = effort::nearest(asked, &declared.values)
    {
        parameters.insert(REASONING_EFFORT.to_owned(), effort.to_owned());
    }
    if let Some(image) = &conversation.first_image
        && !info.images
    {
        let message = format!("This model's CLI does not take images, and {image} is one.");
        return Err(cannot_do(Some(image.clone()), "unsupported_content", message));
    }
    Ok(parameters)
}

/// What this CLI or its node does not do, and another target may.
fn cannot_do(param: Option<String>, code: &str, message: String) -> UpstreamFailure {
    UpstreamFailure {
        param,
        code: Some(code.to_owned()),
        ..UpstreamFailure::new(FailureClass::InvalidRequest, message).of_scope(Scope::Target)
    }
}
