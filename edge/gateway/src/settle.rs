//! The end of a request, whatever it was: the permit is given back and one log line is written. Exactly once, because
//! it happens when the settlement is dropped, and the response body owns it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use catalog::{ApiKeyId, UsageCounts};
use http::StatusCode;
use http_body::{Frame, SizeHint};
use openai_wire::Usage;

use crate::admit::Permit;
use crate::error::{ApiError, FailureClass, UpstreamFailure};
use crate::host::{BoxError, Host};
use crate::metrics::{Ended, Metrics};
use crate::routes::Target;
use crate::usage::UsageCounter;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    ChatCompletion,
    Embeddings,
}

impl Operation {
    /// For metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletion => "chat_completion",
            Self::Embeddings => "embeddings",
        }
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// The client left before the end of its answer.
    ClientGone,
    /// By us, with an error of this code.
    Refused(&'static str),
    Failed(FailureClass),
}

impl Outcome {
    pub(crate) const COUNT: usize = 3 + FailureClass::ALL.len();

    /// One of each class, in the order of [`index`](Self::index).
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let failed = FailureClass::ALL.into_iter().map(Self::Failed);
        [Self::Ok, Self::ClientGone, Self::Refused("")].into_iter().chain(failed)
    }

    /// Below [`COUNT`](Self::COUNT).
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::ClientGone => 1,
            Self::Refused(_) => 2,
            Self::Failed(class) => 3 + class as usize,
        }
    }

    /// For metrics.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientGone => "client_gone",
            Self::Refused(_) => "refused",
            Self::Failed(class) => class.as_str(),
        }
    }

    /// For logs.
    fn as_str(self) -> &'static str {
        match self {
            Self::Refused(code) => code,
            other => other.class(),
        }
    }
}

pub(crate) struct Settlement {
    host: Arc<dyn Host>,
    metrics: Arc<Metrics>,
    counter: Arc<UsageCounter>,
    request_id: Arc<str>,
    operation: Operation,
    key_id: ApiKeyId,
    begun: Duration,
    first_output: Option<Duration>,
    model: String,
    target: Option<Arc<Target>>,
    stream: bool,
    usage: Option<Usage>,
    estimated: bool,
    outcome: Outcome,
    /// None: the client left before it was answered.
    status: Option<StatusCode>,
    /// Tokens of the prompt, once it is on its way to an upstream.
    sent: Option<u64>,
    /// An upstream worked on it, and nothing came of that.
    worked_in_vain: bool,
    permit: Permit,
}

impl Settlement {
    pub(crate) fn new(
        host: Arc<dyn Host>,
        metrics: Arc<Metrics>,
        counter: Arc<UsageCounter>,
        request_id: Arc<str>,
        operation: Operation,
        key_id: ApiKeyId,
        permit: Permit,
    ) -> Self {
        let begun = host.monotonic();
        metrics.request_began();
        Self {
            host,
            metrics,
            counter,
            request_id,
            operation,
            key_id,
            begun,
            first_output: None,
            model: String::new(),
            target: None,
            stream: false,
            usage: None,
            estimated: false,
            // What is dropped before it has ended was left by the client.
            outcome: Outcome::ClientGone,
            status: None,
            sent: None,
            worked_in_vain: false,
            permit,
        }
    }

    pub(crate) fn permit(&mut self) -> &mut Permit {
        &mut self.permit
    }

    /// From here on, a client that leaves has cost something.
    pub(crate) fn sends(&mut self, prompt_tokens: u64) {
        self.sent = Some(prompt_tokens);
    }

    pub(crate) fn model(&mut self, model: &str, stream: bool) {
        model.clone_into(&mut self.model);
        self.stream = stream;
    }

    pub(crate) fn target(&mut self, target: Arc<Target>) {
        self.target = Some(target);
    }

    /// The first content is on its way to the client.
    pub(crate) fn first_output(&mut self) {
        if self.first_output.is_none() {
            self.first_output = Some(self.host.monotonic());
        }
    }

    pub(crate) fn usage(&mut self, usage: Usage, estimated: bool) {
        self.usage = Some(usage);
        self.estimated = estimated;
    }

    pub(crate) fn refused(&mut self, error: &ApiError) {
        self.outcome = Outcome::Refused(error.label());
        self.status = Some(error.status);
    }

    /// Tokens that were reserved and not used are free again.
    fn settle(&mut self) {
        if let Some(usage) = self.usage {
            return self.permit.settle(usage.total_tokens);
        }
        let has_left = self.outcome == Outcome::ClientGone;
        let Some(prompt) = self.sent.filter(|_| has_left || self.worked_in_vain) else {
            return self.permit.settle(0);
        };
        self.usage(Usage::new(prompt, 0), true);
        // How long an answer in one piece had become by then, nobody knows.
        let reserved = self.permit.reserved().tokens();
        self.permit.settle(if has_left && !self.stream { reserved.max(prompt) } else { prompt });
    }

    /// What an upstream was not asked for is nobody's usage.
    fn count(&self) {
        let Some(target) = self.target.as_ref().filter(|_| !matches!(self.outcome, Outcome::Refused(_)))
        else {
            return;
        };
        let used = self.usage.unwrap_or_default();
        let counts = UsageCounts {
            requests: 1,
            failed: u64::from(self.outcome != Outcome::Ok),
            prompt_tokens: used.prompt_tokens,
            completion_tokens: used.completion_tokens,
            estimated: u64::from(self.estimated),
        };
        let at_ms = self.permit.fleet_ms();
        self.counter.count(&self.key_id, &target.upstream.slug, &self.model, counts, at_ms);
    }

    /// The answer has begun; what comes of it is told later.
    pub(crate) fn begun_with(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Whatever was answered before: a stream has its status already.
    pub(crate) fn failed(&mut self, failure: &UpstreamFailure) {
        self.outcome = Outcome::Failed(failure.class);
        self.worked_in_vain = failure.may_have_worked;
    }

    /// All of the answer is on its way to the client.
    pub(crate) fn answered(&mut self) {
        self.outcome = Outcome::Ok;
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        self.settle();
        self.count();
        let duration = self.host.monotonic().saturating_sub(self.begun);
        let first_output = self.first_output.map(|at| at.saturating_sub(self.begun));
        self.metrics.request_ended(&Ended {
            operation: self.operation,
            streamed: self.stream,
            target: self.target.as_deref(),
            outcome: self.outcome,
            duration,
            first_output,
            usage: self.usage,
        });
        if !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let usage = self.usage.unwrap_or_default();
        tracing::info!(
            request_id = &*self.request_id,
            key_id = self.key_id.as_str(),
            model = self.model,
            provider = self.target.as_ref().map(|t| t.upstream.slug.as_str()),
            stream = self.stream,
            status = self.status.map(|status| status.as_u16()),
            outcome = self.outcome.as_str(),
            duration_ms = ms(duration),
            ttft_ms = first_output.map(ms),
            prompt_tokens = usage.prompt_tokens,
            completion_tokens = usage.completion_tokens,
            usage_estimated = self.estimated,
            "{}",
            self.operation.as_str(),
        );
    }
}

/// A body that is known in full, and that settles its request once it is taken or dropped.
pub(crate) struct Answer {
    bytes: Option<Bytes>,
    settlement: Settlement,
}

impl Answer {
    pub(crate) fn new(bytes: Bytes, settlement: Settlement) -> Self {
        Self { bytes: Some(bytes), settlement }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        self.settlement.answered();
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |b| b.len() as u64))
    }
}
