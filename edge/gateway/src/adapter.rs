//! The one interface to all that answers: a request and a target in, an answer or a classified failure out.

mod openai;
mod spawn_cli;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use openai_wire::Usage;
use openai_wire::request::{ChatScan, EmbeddingsScan};

use crate::body::{ReadError, ReadTimeouts, collect};
use crate::body_memory::BodyMemory;
use crate::encode::{self, Fold, Head};
use crate::error::{FailureClass, Scope, UpstreamFailure};
use crate::estimate;
use crate::host::{Body, BoxFuture, CallError, CallTrace, Host};
use crate::nodes::Nodes;
use crate::relay::{RelayError, Wanted};
use crate::routes::{Adapter, Lesson, Target};
use crate::settings::Settings;
use crate::stream::Live;
use crate::timer::LazyTimer;

pub(crate) use openai::{chat_body, list_models};
pub(crate) use spawn_cli::{Conversation, Parameters, nodes_for, read_conversation};

const MAX_ERROR_BODY_BYTES: usize = 64 * 1024;

/// One client request, ready to be sent to any of its targets.
pub(crate) struct Call {
    pub host: Arc<dyn Host>,
    pub settings: Arc<Settings>,
    pub memory: BodyMemory,
    pub headers: HeaderMap,
    pub request_id: HeaderValue,
    /// When it came, by the store's clock: for credentials that were rotated out. `None` where the current one is to be
    /// tested.
    pub overlap_at_ms: Option<u64>,
    /// The API key's id.
    pub caller: String,
    pub body: Bytes,
    /// Where somebody wants to know when its upstream was reached.
    pub trace: Option<Arc<CallTrace>>,
}

/// What is done otherwise than at first, because an upstream refused that.
#[derive(Debug, Default)]
pub(crate) struct Corrections {
    pub lessons: Vec<Lesson>,
    /// The credential before the current one is sent.
    pub previous_credential: bool,
}

pub(crate) struct ChatCall {
    pub call: Call,
    pub scan: ChatScan,
    pub wanted: Wanted,
    /// There whenever a target is a CLI.
    pub conversation: Option<Conversation>,
    /// Where CLIs run.
    pub nodes: Arc<Nodes>,
}

pub(crate) struct EmbeddingsCall {
    pub call: Call,
    pub scan: EmbeddingsScan,
}

/// An answer in one piece.
pub(crate) struct Completed {
    pub body: Bytes,
    pub usage: Usage,
    pub estimated: bool,
}

impl ChatCall {
    /// Opens a stream and reads it up to its first content.
    pub(crate) async fn stream(
        &self,
        target: &Arc<Target>,
        corrections: &Corrections,
    ) -> Result<Live, UpstreamFailure> {
        match &target.upstream.adapter {
            Adapter::OpenAi(api) => openai::stream(self, target, api, corrections).await,
            Adapter::SpawnCli(cli) => spawn_cli::stream(self, target, cli).await,
        }
    }

    pub(crate) async fn complete(
        &self,
        target: &Arc<Target>,
        corrections: &Corrections,
    ) -> Result<Completed, UpstreamFailure> {
        match &target.upstream.adapter {
            Adapter::OpenAi(api) => openai::complete(self, target, api, corrections).await,
            Adapter::SpawnCli(cli) => spawn_cli::complete(self, target, cli).await,
        }
    }

    /// Whether what goes to the target has what the lesson is about.
    pub(crate) fn is_changed_by(&self, target: &Target, lesson: Lesson) -> bool {
        match lesson {
            _ if target.is_cli() => false,
            Lesson::DropReasoningEffort => self.scan.reasoning_effort.is_some(),
            Lesson::DropStreamOptions => self.scan.stream,
            // Whichever name the client used: it may have been sent under the other one, as an earlier lesson said.
            Lesson::MaxTokensField(_) => {
                self.scan.max_tokens.is_some() || self.scan.max_completion_tokens.is_some()
            }
        }
    }

    /// Not computed for an upstream that is known to report usage itself.
    fn prompt_estimate(&self, target: &Target) -> u64 {
        if target.learned.is_usage_reported() {
            estimate::rough_prompt_tokens(&self.call.body)
        } else {
            estimate::prompt_tokens(&self.call.body)
        }
    }

    fn finish(&self, answer: Gathered, target: &Target) -> Result<Completed, UpstreamFailure> {
        let estimated = answer.usage.is_none();
        target.learned.usage_reported(!estimated);
        let usage =
            answer.usage.unwrap_or_else(|| Usage::new(self.prompt_estimate(target), answer.counter.tokens()));
        if !answer.output && usage.completion_tokens == 0 && !answer.filtered {
            return Err(RelayError::Empty.into_failure(&target.upstream));
        }
        let head = Head {
            id: answer.id.unwrap_or_else(|| format!("chatcmpl-{}", self.wanted.seed)),
            created: answer.created.unwrap_or(self.wanted.created),
            model: self.wanted.model.clone(),
        };
        match answer.fold.completion(&head, &encode::usage_json(&usage)) {
            Some(json) => Ok(Completed { body: json.into(), usage, estimated }),
            None => Err(RelayError::Unfinished.into_failure(&target.upstream)),
        }
    }
}

impl EmbeddingsCall {
    pub(crate) async fn embed(
        &self,
        target: &Arc<Target>,
        corrections: &Corrections,
    ) -> Result<Completed, UpstreamFailure> {
        match &target.upstream.adapter {
            Adapter::OpenAi(api) => openai::embed(self, target, api, corrections).await,
            Adapter::SpawnCli(_) => Err(UpstreamFailure::unavailable("A CLI makes no embeddings.")),
        }
    }
}

/// An answer under construction from events.
#[derive(Default)]
struct Gathered {
    fold: Fold,
    id: Option<String>,
    created: Option<u64>,
    usage: Option<Usage>,
    counter: estimate::TokenCounter,
    output: bool,
    filtered: bool,
}

impl Gathered {
    fn add(&mut self, event: crate::event::ChatEvent, choices: u64) {
        use crate::event::ChatEvent as E;
        match &event {
            E::Start { id, created } => {
                self.id.clone_from(id);
                self.created = *created;
            }
            E::Usage(usage) => self.usage = Some(*usage),
            E::Finish { choice, .. }
            | E::Text { choice, .. }
            | E::Reasoning { choice, .. }
            | E::ToolCallStart { choice, .. }
            | E::ToolCallArguments { choice, .. }
                if u64::from(*choice) >= choices =>
            {
                return;
            }
            E::Finish { reason, .. } => self.filtered |= *reason == openai_wire::FinishReason::ContentFilter,
            written => {
                self.output = true;
                self.counter.add_text(written.text().unwrap_or_default());
            }
        }
        self.fold.add(event);
    }
}

impl Call {
    /// Reads an answer in one piece. The clock has been running since `begun`.
    async fn read(
        &self,
        response: http::Response<Body>,
        target: &Target,
        begun: Duration,
    ) -> Result<Bytes, UpstreamFailure> {
        let timeouts = target.upstream.timeouts;
        let gone = self.host.monotonic().saturating_sub(begun);
        let timeouts = ReadTimeouts { idle: timeouts.idle, total: timeouts.total.saturating_sub(gone) };
        let mut body = response.into_body();
        collect(&mut body, self.settings.max_response_bytes, &self.memory, timeouts, &*self.host)
            .await
            .map_err(read_failure)
    }
}

/// What the future gives; `None` if the host's monotonic clock passes `deadline` before.
pub(crate) async fn until<T>(host: &dyn Host, deadline: Duration, mut future: BoxFuture<'_, T>) -> Option<T> {
    let mut timer = LazyTimer::default();
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => timer.poll(deadline, host.monotonic(), host, cx).map(|()| None),
    })
    .await
}

pub(crate) fn call_failure(error: CallError) -> UpstreamFailure {
    match error {
        CallError::ConnectTimeout => {
            UpstreamFailure::new(FailureClass::Timeout, "Connecting to the upstream took too long.")
        }
        CallError::Connect => UpstreamFailure::unavailable("The upstream cannot be reached."),
        CallError::Tls => {
            UpstreamFailure::unavailable("The upstream's TLS certificate or handshake was not accepted.")
        }
        CallError::Closed => UpstreamFailure::closed(),
        CallError::Refused => UpstreamFailure::new(
            FailureClass::Unusable,
            "The upstream's host leads to an address that this gateway does not call for it.",
        ),
        CallError::NoIdentity => {
            UpstreamFailure::unavailable("This gateway has no certificate by which runners would know it.")
        }
        CallError::Protocol => UpstreamFailure::unavailable("The upstream does not answer in HTTP."),
    }
}

fn read_failure(error: ReadError) -> UpstreamFailure {
    let failure = match error {
        ReadError::TooLong => UpstreamFailure::unavailable("The upstream's answer is longer than the limit."),
        // No other target's answer would have more of it.
        ReadError::NoRoom => UpstreamFailure::new(
            FailureClass::Overloaded,
            "This instance of the gateway has no memory left for the upstream's answer. Try again shortly.",
        )
        .of_scope(Scope::Request),
        ReadError::TimedOut => UpstreamFailure::new(
            FailureClass::Timeout,
            "The upstream stopped in the middle of its answer and was given up.",
        ),
        ReadError::Broken => {
            UpstreamFailure::unavailable("The upstream's connection broke before the answer was complete.")
        }
    };
    failure.after_work()
}
